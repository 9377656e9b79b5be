"""The example specs that NVIDIA publishes for ml_recog run unchanged apart from paths; what cannot be carried over is a line.

Keys and values are those of tao_tutorials, tao_pytorch_backend and tao_deploy as seen on 2026-11-26, the ones that TAO
itself no longer reads included.
"""

from __future__ import annotations

import csv
import io
import json
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from unalike import progress
from unalike.cli import run_command
from unalike.errors import SpecError
from unalike.spec import load_spec
from unalike.spec.fields import declared_fields
from unalike.spec.tao import RENAMED_KEYS, UNUSED_KEYS

OPEN = "???"
MEAN, STD = [0.485, 0.456, 0.406], [0.226, 0.226, 0.226]
RATES = {"bias_lr_factor": 1, "weight_decay": 0.0001, "weight_decay_bias": 0.0005, "momentum": 0.9}
OPTIM = {
    "name": "Adam", "steps": [40, 70], "gamma": 0.1, "embedder": {**RATES, "base_lr": 0.000001},
    "trunk": {**RATES, "base_lr": 0.00001}, "warmup_factor": 0.01, "warmup_iters": 10, "warmup_method": "linear",
    "triplet_loss_margin": 0.3, "miner_function_margin": 0.1,
}  # fmt: skip
MODEL_101 = {"backbone": "resnet_101", "input_width": 224, "input_height": 224, "feat_dim": 2048}
SETS = {"reference": OPEN, "query": OPEN}


def notebook() -> dict[str, Any]:
    """The training spec of the launcher's notebook."""
    return {
        "results_dir": OPEN,
        "model": {**MODEL_101, "pretrained_model_path": None, "pretrained_trunk_path": None,
                  "pretrained_embedder_path": None},
        "train": {"optim": OPTIM, "num_epochs": 150, "num_gpus": 1, "resume_training_checkpoint_path": None,
                  "checkpoint_interval": 1, "validation_interval": 1, "smooth_loss": False, "batch_size": 16,
                  "val_batch_size": 16, "train_trunk": True, "train_embedder": True},
        "dataset": {"train_dataset": OPEN, "val_dataset": dict(SETS), "workers": 12, "pixel_mean": MEAN, "pixel_std": STD,
                    "prob": 0.5, "re_prob": 0.5, "num_instance": 4, "color_augmentation": {"enabled": True},
                    "gaussian_blur": {"enabled": True}},
    }  # fmt: skip


def older() -> dict[str, Any]:
    """The training spec beside TAO's code: older spellings, a backbone's former choice of weights."""
    spec = notebook()
    spec["model"] = {"backbone": "resnet_50", "pretrain_choice": "imagenet", "pretrained_model_path": OPEN,
                     "input_width": 224, "input_height": 224, "feat_dim": 256}  # fmt: skip
    spec["train"] |= {"num_epochs": 140, "smooth_loss": True, "results_dir": OPEN}
    spec["dataset"]["color_augmentation"] = {"enable": True, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4,
                                             "hue": 0.1}  # fmt: skip
    spec["dataset"]["gaussian_blur"] = {"enable": True, "kernel": [15, 15], "sigma": [0.3, 0.7]}
    return spec


def calibration(**more: Any) -> dict[str, Any]:
    return {"cal_cache_file": OPEN, "cal_batch_size": 16, **more}


SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "train, notebook": ("train", notebook()),
    "train, older": ("train", older()),
    "evaluate": ("evaluate", {"results_dir": OPEN, "model": MODEL_101, "dataset": {"workers": 8, "val_dataset": SETS},
                              "evaluate": {"batch_size": 16, "results_dir": OPEN}}),
    "inference": ("inference", {"results_dir": OPEN, "model": MODEL_101,
                                "dataset": {"workers": 8, "val_dataset": {"reference": OPEN, "query": ""}},
                                "inference": {"inference_input_type": "classification_folder", "input_path": OPEN,
                                              "batch_size": 16}}),
    "inference, older": ("inference", {
        "results_dir": OPEN, "model": {"backbone": "resnet_50", "input_width": 224, "input_height": 224, "feat_dim": 256},
        "dataset": {"workers": 8, "train_dataset": OPEN, "test_dataset": "/data/reference", "query_dataset": "/data/test"},
        "inference": {"checkpoint": OPEN, "results_dir": OPEN, "batch_size": 128, "inference_input_type": "image_folder"}}),
    "export": ("export", {"results_dir": OPEN, "model": {**MODEL_101, "pretrain_choice": ""},
                          "export": {"batch_size": -1, "onnx_file": OPEN, "checkpoint": OPEN}}),
    "export, older": ("export", {"results_dir": OPEN, "model": MODEL_101,
                                 "export": {"checkpoint": OPEN, "onnx_file": OPEN, "results_dir": OPEN, "batch_size": -1,
                                            "on_cpu": False, "verbose": True}}),
    "gen_trt_engine, notebook": ("gen_trt_engine", {"results_dir": OPEN, "gen_trt_engine": {
        "onnx_file": OPEN, "trt_engine": OPEN, "batch_size": -1, "verbose": True,
        "tensorrt": {"data_type": "fp32", "workspace_size": 10240, "min_batch_size": 1, "opt_batch_size": 16,
                     "max_batch_size": 16, "calibration": calibration(cal_batches=20, cal_image_dir=OPEN)}}}),
    "gen_trt_engine, deploy": ("gen_trt_engine", {
        "results_dir": OPEN, "dataset": {"val_dataset": SETS, "pixel_mean": MEAN, "pixel_std": STD},
        "gen_trt_engine": {"gpu_id": 0, "onnx_file": OPEN, "trt_engine": OPEN, "tensorrt": {
            "data_type": "int8", "workspace_size": 1024, "min_batch_size": 1, "opt_batch_size": 10, "max_batch_size": 10,
            "calibration": calibration(cal_batches=100, cal_image_dir=[OPEN])}}}),
    "evaluate, deploy": ("evaluate", {"results_dir": OPEN, "evaluate": {"trt_engine": OPEN, "batch_size": 8, "topk": 5},
                                      "dataset": {"val_dataset": SETS}}),
    "inference, deploy": ("inference", {
        "results_dir": OPEN, "model": {"input_channels": 3, "input_width": 224, "input_height": 224},
        "inference": {"trt_engine": OPEN, "batch_size": 10, "inference_input_type": "classification_folder", "topk": 10},
        "dataset": {"val_dataset": SETS}}),
}  # fmt: skip


def loaded(action: str, spec: Any, overrides: Any = ()) -> tuple[Any, list[str]]:
    """The spec, and what was said while it was read."""
    progress._said.clear()
    said = io.StringIO()
    with redirect_stderr(said):
        found = load_spec(action, spec, overrides)
    return found, said.getvalue().splitlines()


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, dict)
        found |= leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def at(tree: dict[str, Any], path: str) -> Any:
    for part in path.split("."):
        tree = tree[part]
    return tree


@pytest.mark.parametrize("name", SPECS)
def test_an_example_spec_loads_and_every_key_arrives_or_is_said(name: str) -> None:
    action, spec = SPECS[name]
    found, said = loaded(action, spec)
    resolved = found.to_dict()
    lines = 0
    for path, value in leaves(spec).items():
        if value in (OPEN, [OPEN]) and path in declared_fields():
            assert not found.is_set(path)
        elif path in RENAMED_KEYS:
            assert at(resolved, RENAMED_KEYS[path]) == value and f"{path} is read as {RENAMED_KEYS[path]}" in said
            lines += 1
        elif path in UNUSED_KEYS:
            assert sum(line.startswith(f"{path}: ") and line.endswith(UNUSED_KEYS[path]) for line in said) == 1
            lines += 1
        elif path.endswith("data_type"):
            assert at(resolved, path) == value.upper()
        else:
            assert at(resolved, path) == (None if value in ("", OPEN, [OPEN]) else value), path
    assert len(said) == lines  # a line each, and nothing else


def test_the_notebooks_overrides_are_taken_as_they_are() -> None:
    action, spec = SPECS["gen_trt_engine, notebook"]
    prefix = "gen_trt_engine.tensorrt."
    found, _ = loaded(action, spec, [
        "gen_trt_engine.onnx_file=/r/m.onnx", "gen_trt_engine.trt_engine=/r/m.engine", "results_dir=/r",
        f"{prefix}data_type=int8", f"{prefix}calibration.cal_image_dir=[/data/known_classes/test]",
        f"{prefix}calibration.cal_cache_file=/r/cal.bin",
    ])  # fmt: skip
    trt = found.gen_trt_engine.tensorrt
    assert (trt.data_type, trt.opt_batch_size, trt.calibration.cal_image_dir) == (
        "INT8",
        16,
        ["/data/known_classes/test"],
    )
    one, _ = loaded(action, spec, [f"{prefix}calibration.cal_image_dir=/data/test"])
    assert one.gen_trt_engine.tensorrt.calibration.cal_image_dir == ["/data/test"]
    both, said = loaded("train", notebook(), ["train.gpu_ids=[0,1]"])  # beside num_gpus: 1, as the notebook has it
    assert (both.train.num_gpus, both.train.gpu_ids) == (2, [0, 1])
    assert said == ["train.num_gpus is set to 2, the number of train.gpu_ids"]
    many, said = loaded("train", {"train": {"num_gpus": 3, "gpu_ids": [0]}})
    assert (many.train.num_gpus, many.train.gpu_ids, said) == (3, [0, 1, 2], [])
    sgd, _ = loaded("train", notebook(), ["train.optim.name=SGD"])
    assert sgd.train.optim.name == "SGD"


def test_every_key_of_the_tables_is_foreign_and_leads_somewhere() -> None:
    fields = declared_fields()
    assert not [path for path in (*RENAMED_KEYS, *UNUSED_KEYS) if path in fields]
    assert all(path in fields for path in RENAMED_KEYS.values())


def test_both_spellings_at_once_and_other_unknown_keys_are_errors() -> None:
    with pytest.raises(SpecError, match=r"given twice, as dataset.gaussian_blur.enable and as"):
        load_spec("train", {"dataset": {"gaussian_blur": {"enable": True, "enabled": False}}})
    load_spec("train", {"dataset": {"gaussian_blur": {"enable": True, "enabled": True}}})
    with pytest.raises(SpecError, match=r"train.grad_clp: unknown key"):
        load_spec("train", {"train": {"grad_clp": 1.0}, "model": {"pretrain_choice": "imagenet"}})
    with pytest.raises(SpecError, match=r"train.clip_grad_norm: found 'x'"):
        load_spec("train", {"train": {"grad_clip": "x"}})
    with pytest.raises(SpecError, match=r"dataset: found 3"):
        load_spec("train", {"dataset": 3, "train": {"grad_clip": 1.0}})


# ---- run for real ----


def draw(folder: Path, count: int, seed: int) -> Path:
    """Four classes of ``count`` images, a colour each, noise upon it."""
    rng = np.random.default_rng(seed)
    for number, colour in enumerate([(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)]):
        (folder / f"c{number}").mkdir(parents=True)
        for i in range(count):
            pixels = np.array(colour) + rng.normal(0, 25, (40, 40, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"c{number}" / f"{i}.png")
    return folder


@pytest.mark.slow
def test_the_notebook_from_training_to_inference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet-101 and all else as published; the paths, and two of its 150 epochs at 64 pixels, so that it ends."""
    monkeypatch.chdir(tmp_path)
    known, unknown, results = tmp_path / "known", tmp_path / "unknown", tmp_path / "results"
    for folder, count, seed in ((known / "train", 5, 0), (known / "reference", 2, 1), (known / "val", 2, 2),
                                (unknown / "reference", 2, 3), (unknown / "test", 3, 4)):  # fmt: skip
        draw(folder, count, seed)
    for name in ("train, notebook", "evaluate", "inference", "export"):
        Path(f"{name.partition(',')[0]}.yaml").write_text(yaml.safe_dump(SPECS[name][1]))
    small = ["model.input_width=64", "model.input_height=64"]
    model = results / "train" / "ml_model_latest.pth"
    steps = [
        ["train", "-e", "train.yaml", f"results_dir={results}", f"dataset.train_dataset={known / 'train'}",
         f"dataset.val_dataset.reference={known / 'reference'}", f"dataset.val_dataset.query={known / 'val'}",
         "train.num_epochs=2", *small],
        ["evaluate", "-e", "evaluate.yaml", f"evaluate.results_dir={results / 'evaluate'}", f"evaluate.checkpoint={model}",
         f"dataset.val_dataset.reference={unknown / 'reference'}", f"dataset.val_dataset.query={unknown / 'test'}", *small],
        ["inference", "-e", "inference.yaml", f"inference.results_dir={results / 'inference_unknown'}",
         f"inference.checkpoint={model}", f"dataset.val_dataset.reference={unknown / 'reference'}",
         f"inference.input_path={unknown / 'test'}", *small],
        ["export", "-e", "export.yaml", f"export.results_dir={results / 'export'}", f"export.checkpoint={model}",
         f"export.onnx_file={results / 'export' / 'resnet101_model.onnx'}", *small],
    ]  # fmt: skip
    for words in steps:
        assert run_command(words) == 0, words
    assert (results / "export" / "resnet101_model.onnx").stat().st_size > 100e6
    assert json.loads((results / "evaluate" / "metrics.json").read_text())["queries"] == 12
    with (results / "inference_unknown" / "result.csv").open(newline="") as table:
        assert len(list(csv.reader(table))) == 12
    for epoch in (0, 1):
        assert list((results / "train").glob(f"model_epoch_{epoch:03d}_step_*.pth"))
