"""A spec as TAO's notebooks have it, through all four actions: every field in it is read by what acts on it.

Images come as an archive, a folder and a manifest; Weights & Biases is a stand-in that notes what it was told.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import importlib.util
import io
import json
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import unalike
from unalike import cli, progress
from unalike.spec import load_spec, settle
from unalike.spec.declare import Section
from unalike.spec.fields import declared_fields
from unalike.training.recipe import settle_training

ROWS = list(csv.DictReader((Path(__file__).parent / "tao_spec.tsv").open(), delimiter="\t", quoting=csv.QUOTE_NONE))
LEAVES = [row["path"] for row in ROWS if row["type"] != "collection" and not row["path"].startswith("gen_trt_engine.")]
# Nothing is encrypted here, which loading a spec says in one line.
CANNOT_ACT = {"encryption_key"}
RATES = {"bias_lr_factor": 1, "base_lr": 0.00035, "momentum": 0.9, "weight_decay": 0.0005, "weight_decay_bias": 0.0005}


def draw(folder: Path, count: int, seed: int) -> Path:
    """Four classes of ``count`` images: a colour each, noise upon it."""
    rng = np.random.default_rng(seed)
    for number, colour in enumerate([(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)]):
        (folder / f"c{number}").mkdir(parents=True)
        for i in range(count):
            pixels = np.array(colour) + rng.normal(0, 25, (48, 48, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"c{number}" / f"{i}.png")
    return folder


def notebook_spec(root: Path) -> dict[str, Any]:
    out = root / "results"
    best = str(out / "train" / "ml_model_best.pth")
    return {
        "results_dir": str(out), "model_name": "retail", "encryption_key": "tlt_encode",
        "wandb": {"enable": True, "project": "p", "entity": "e", "group": "g", "tags": ["t"], "reinit": True,
                  "sync_tensorboard": True, "save_code": True, "name": "n", "run_id": "r"},
        "model": {"backbone": "test_efficientnet", "pretrained": "false", "input_width": 64, "input_height": 64,
                  "input_channels": 3, "feat_dim": 32},
        "train": {
            "num_gpus": 1, "gpu_ids": [0], "num_nodes": 1, "seed": -1, "cudnn": {"benchmark": False, "deterministic": True},
            "optim": {"name": "Adam", "steps": [40, 70], "gamma": 0.1, "warmup_factor": 0.01, "warmup_iters": 10,
                      "warmup_method": "linear", "triplet_loss_margin": 0.3, "miner_function_margin": 0.1,
                      "embedder": dict(RATES), "trunk": dict(RATES)},
            "num_epochs": 2, "checkpoint_interval": 1, "validation_interval": 1, "clip_grad_norm": 1.0,
            "resume_training_checkpoint_path": None, "report_accuracy_per_class": True, "smooth_loss": False,
            "batch_size": 8, "val_batch_size": 8, "checkpointer": {"enable_topk": True},
        },
        "dataset": {
            "train_dataset": str(root / "train.tar.gz"),
            "val_dataset": {"reference": str(root / "reference"), "query": str(root / "query.csv")},
            "workers": 2, "class_map": str(root / "class_map.yaml"), "pixel_mean": [0.485, 0.456, 0.406],
            "pixel_std": [0.226, 0.226, 0.226], "prob": 0.5, "re_prob": 0.5, "num_instance": 4, "random_rotation": True,
            "gaussian_blur": {"enabled": True, "kernel": [15, 15], "sigma": [0.3, 0.7]},
            "color_augmentation": {"enabled": True, "brightness": 0.5, "contrast": 0.3, "saturation": 0.1, "hue": 0.1},
        },
        # the last key of each is ours: torch needs no tracing, which takes longest here
        "evaluate": {"checkpoint": best, "batch_size": 5, "topk": 2, "report_accuracy_per_class": True, "runtime": "torch"},
        "inference": {"checkpoint": best, "batch_size": 5, "topk": 3, "input_path": str(root / "query"),
                      "inference_input_type": "classification_folder", "runtime": "torch"},
        "export": {"checkpoint": best, "on_cpu": True, "verbose": True, "batch_size": -1, "opset_version": 18},
    }  # fmt: skip


def watch(patch: pytest.MonkeyPatch, read: set[tuple[str, str]]) -> None:
    """Note every field that code of ours outside the spec's room reads, as (section class, field)."""
    plain = Section.__getattribute__

    def watched(self: Section, name: str) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith("unalike.") and not caller.startswith(("unalike.spec", "unalike.actions.check")):
            read.add((type(self).__name__, name))
        return plain(self, name)

    patch.setattr(Section, "__getattribute__", watched)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a TAO user's")
    with tarfile.open(root / "train.tar.gz", "w:gz") as archive:
        archive.add(draw(root / "train", 6, 0), "train")
    draw(root / "reference", 2, 1)
    rows = [(p.relative_to(root), p.parent.name) for p in sorted(draw(root / "query", 3, 2).rglob("*.png"))]
    with (root / "query.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("path", "label"), *rows])
    (root / "class_map.yaml").write_text("c0: red ü\nc1: green\nc2: blue\nc3: yellow\n", encoding="utf-8")
    (root / "spec.yaml").write_text(yaml.safe_dump(notebook_spec(root)))
    return root


@pytest.fixture(scope="module")
def runs(data: Path) -> SimpleNamespace:
    """All four actions by the one spec: what was read, what was said, what W&B was told."""
    read: set[tuple[str, str]] = set()
    told: dict[str, Any] = {}
    board = SimpleNamespace(log=lambda *a, **k: None, finish=lambda: None)
    wandb = SimpleNamespace(init=lambda **settings: told.update(settings) or board)
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setitem(sys.modules, "wandb", wandb)
        patch.setattr(progress, "_verbosity", 1)
        progress._said.clear()
        watch(patch, read)
        results = [act(data / "spec.yaml") for act in (unalike.train, unalike.evaluate, unalike.infer, unalike.export)]
    return SimpleNamespace(read=read, told=told, said=said.getvalue(), results=results, out=data / "results")


@pytest.mark.parametrize("path", LEAVES)
def test_every_field_is_read_by_what_acts(runs: SimpleNamespace, path: str) -> None:
    parent, _, name = path.rpartition(".")
    section = declared_fields()[parent].section if parent else None
    holder = section.__name__ if section else "Experiment"
    assert ((holder, name) in runs.read) != (path in CANNOT_ACT), f"nothing reads {path}"


def test_what_cannot_act_is_said_once(runs: SimpleNamespace) -> None:
    assert runs.said.count("encryption_key is not used here") == 1


def test_wandb_gets_what_the_user_wrote(runs: SimpleNamespace, data: Path) -> None:
    wrote = notebook_spec(data)["wandb"]
    names = ("project", "entity", "group", "tags", "reinit", "sync_tensorboard", "save_code", "name")
    assert {name: runs.told[name] for name in names} == {name: wrote[name] for name in names}
    assert runs.told["id"] == "r"


def test_training_leaves_name_seed_and_classes(runs: SimpleNamespace) -> None:
    folder = runs.out / "train"
    card = json.loads((folder / "model_card.json").read_text())
    seed = yaml.safe_load((folder / "experiment.yaml").read_text())["train"]["seed"]
    assert seed >= 0 and seed == card["training"]["seed"] == json.loads((folder / "run.json").read_text())["seed"]
    assert f"seed: {seed} (drawn" in runs.said
    assert card["name"] == "retail" and "# Recogniser retail" in (folder / "model_card.md").read_text()
    with (folder / "per_class.csv").open(encoding="utf-8") as table:
        assert [row["class"] for row in csv.DictReader(table)] == ["blue", "green", "red ü", "yellow"]
    assert list(folder.glob("model_best_*.pth")) and (folder / "ml_model_latest.pth").exists()


def test_evaluation_and_inference_use_the_map_s_names(runs: SimpleNamespace) -> None:
    metrics = json.loads((runs.out / "evaluate" / "metrics.json").read_text())
    assert metrics["queries"] == 12 and metrics["model"]["name"] == "retail"
    with (runs.out / "inference" / "result.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.reader(table))
    assert len(rows) == 12
    for _, labels, distances in rows:
        assert len(ast.literal_eval(labels)) == len(ast.literal_eval(distances)) == 3
        assert set(ast.literal_eval(labels)) <= {"red ü", "green", "blue", "yellow"}


def test_d15_two_copies_of_the_network_give_what_one_gives(
    runs: SimpleNamespace, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is needed to see that the files are shared and merged: each "device" here is the CPU."""
    monkeypatch.setattr("unalike.training.devices.check_devices", lambda *a, **k: [0, 1])
    spec = notebook_spec(data) | {"results_dir": str(tmp_path)}
    spec["evaluate"] |= {"num_gpus": 2, "gpu_ids": [0, 1], "batch_size": 3}
    unalike.evaluate(spec)
    one, two = (json.loads((folder / "evaluate/metrics.json").read_text()) for folder in (runs.out, tmp_path))
    assert (one["model"]["copies"], two["model"]["copies"]) == (1, 2)
    assert two["queries"] == one["queries"] == 12
    for name, figure in one["micro"].items():
        assert two["micro"][name]["value"] == pytest.approx(figure["value"], abs=1e-6), name


def test_export_tells_the_graph_and_carries_the_name(runs: SimpleNamespace) -> None:
    onnx = pytest.importorskip("onnx")
    path = runs.results[3].path
    assert path == runs.out / "export" / "ml_model_best.onnx"
    assert "graph: input batch x 3 x 64 x 64 -> fc_pred batch x 32; " in runs.said and " Conv" in runs.said
    assert "retail" in " ".join(held.value for held in onnx.load(path, load_external_data=False).metadata_props)


def test_settled_fields_are_one_short_line_and_on_request_all_of_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = SimpleNamespace(mean=(0.5,) * 3, std=(0.5,) * 3, pretrained=True)
    for level, lines in ((1, 1), (2, 30)):
        monkeypatch.setattr(progress, "_verbosity", level)
        spec = load_spec("train", None)
        for _ in range(2):
            settle(spec, "model.backbone", "test_efficientnet", "the best trunk here")
        settle_training(spec, facts=facts, stages=5, classes=9, images=99, cuda=False)
        said = capsys.readouterr().err.splitlines()
        assert len(said) >= lines and len(said[0]) < 320
        assert sum(" model.backbone = " in line for line in said) == level - 1
    assert spec.train.num_epochs == 13


# ---- check ----


def test_check_of_a_good_spec_finds_all_there(
    data: Path, runs: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = notebook_spec(data)
    spec["wandb"]["enable"] = False
    spec["export"]["onnx_file"] = str(data / "fresh.onnx")
    found = unalike.check(spec)
    assert found.ok, found.faults
    assert found.figures["dataset.train_dataset"] == "24 images of 4 classes"
    assert found.figures["evaluate.checkpoint"].startswith("test_efficientnet, 32 dimensions")
    spec["results_dir"] = str(data / "elsewhere")  # before training, what it will make is no fault
    for action in ("evaluate", "inference", "export"):
        spec[action]["checkpoint"] = str(data / "elsewhere/train/ml_model_best.pth")
    assert unalike.check(spec).figures["export.checkpoint"] == "ml_model_best.pth: written by training"


@pytest.mark.parametrize("action", ["evaluate", "inference", "export"])
def test_check_needs_no_training_data(data: Path, runs: SimpleNamespace, action: str) -> None:
    whole = notebook_spec(data)
    parts = {"dataset": {"val_dataset": whole["dataset"]["val_dataset"]}, action: whole[action]}
    found = unalike.check(parts)
    assert found.ok, found.faults
    assert f"{action}.checkpoint" in found.figures and "dataset.train_dataset" not in found.figures


def test_check_of_a_spec_for_nothing_says_so() -> None:
    (fault,) = unalike.check({"dataset": {"train_dataset": "???"}}).faults
    assert "neither images nor a model" in fault


def test_check_gathers_every_fault(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    spec = notebook_spec(data)
    spec["train"] |= {"num_gpus": 99, "gpu_ids": list(range(99)), "num_epoch": 3, "loss": {"name": "TripletLoss"}}
    spec["model"]["pretrained_trunk_path"] = "nowhere.pth"
    spec["dataset"]["val_dataset"]["reference"] = str(data / "missing")
    spec["evaluate"]["checkpoint"] = str(data / "none.pth")
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(spec))
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else there(name, *a))
    assert cli.run_command(["check", str(tmp_path / "bad.yaml")]) == 1
    seen = capsys.readouterr()
    faults = [line for line in seen.out.splitlines() if line.startswith("fault: ")]
    assert "training goes on without it" in seen.out  # without wandb
    for words in ("train.num_epoch: unknown key", "dataset.val_dataset.reference: ",
                  "num_gpus", "model.pretrained_trunk_path: there is no file nowhere.pth", "none.pth"):  # fmt: skip
        assert sum(words in line for line in faults) == 1, (words, faults)
    assert f"error: {len(faults)} faults" in seen.err
