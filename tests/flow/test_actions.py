"""Train, evaluate, inference, export and embed through the command line, a few of them in a process of their own."""

import csv
import json
import shutil
from ast import literal_eval

import numpy as np
import pytest
import yaml

from tests.support import networks
from tests.support.program import PLAINLY, TINY, data_of, process, status_lines, unalike


def test_training_leaves_what_the_contract_names(trained):
    names = {p.name for p in trained.iterdir()}
    assert {"ml_model_latest.pth", "ml_model_best.pth", "experiment.yaml", "run.json", "model_card.json",
            "model_card.md", "status.json", "report.html", "suspected_labels.csv", "near_duplicates.csv"} <= names  # fmt: skip
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "training loss" in page and "Embedding map" in page and "<script" not in page
    assert min(n for n in names if n.startswith("model_epoch_")).startswith("model_epoch_000_step_")
    assert any(n.startswith("events.out.tfevents") for n in names)
    lines = status_lines(trained)
    assert [lines[0]["status"], lines[-1]["status"]] == ["STARTED", "SUCCESS"]
    kpis = {name for line in lines for name in line.get("kpi", {})}
    assert {"train_loss", "trunk_base_lr", "embedder_base_lr", "val_AMI", "val_NMI", "val Mean Average Precision",
            "val Mean Reciprocal Rank", "val r-Precision", "val Precision at Rank 1"} <= kpis  # fmt: skip
    steps = [line for line in lines if "max_step" in line]
    assert steps and all({"epoch", "step", "max_epoch", "time_per_epoch", "eta"} <= line.keys() for line in steps)
    assert yaml.safe_load((trained / "experiment.yaml").read_text())["model"]["backbone"] == "test_efficientnet"
    card = json.loads((trained / "model_card.json").read_text())
    assert card["data"]["classes"] == 6 and card["validation"]["metrics"]["micro"]["precision_at_1"]["low"] is not None


def test_repeating_the_resolved_spec_in_another_process_gives_the_same_weights_bit_for_bit(trained, tmp_path):
    import torch

    spec = yaml.safe_load((trained / "experiment.yaml").read_text())
    spec["results_dir"] = str(tmp_path)
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(spec))
    done = process("train", "-e", tmp_path / "again.yaml")
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = (
        torch.load(p / "ml_model_latest.pth", weights_only=True)["model"] for p in (trained, tmp_path / "train")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)


def evaluate(trained, images, out, *more, run=unalike):
    return run("evaluate", "-r", out, *data_of(images), f"evaluate.checkpoint={trained / 'ml_model_best.pth'}", *more)


def test_d22_evaluate_leaves_metrics_tables_and_predictions(trained, images, tmp_path):
    done = evaluate(trained, images, tmp_path, "evaluate.topk=2", "evaluate.batch_size=7", "--json", run=process)
    assert done.returncode == 0, done.stderr[-4000:]
    out = tmp_path / "evaluate"
    assert json.loads(done.stdout)["path"] == str(out / "metrics.json")
    assert "engine: torch" in done.stderr, "36 images are embedded before a network is traced"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["queries"] == 18 and metrics["references"] == 18
    assert {"precision_at_1", "mean_average_precision_at_r", "recall_at_2"} <= metrics["micro"].keys()
    assert {"micro", "macro", "verification", "identification"} <= metrics.keys()
    assert 0 <= metrics["verification"]["auroc"] <= 1 and metrics["verification"]["genuine_pairs"] == 18 * 3
    card = json.loads((out / "model_card.json").read_text())
    assert card["evaluation"]["identification"] == metrics["identification"] and "trunk" in card
    with (out / "per_class.csv").open(encoding="utf-8") as lines:
        assert [row["class"] for row in csv.DictReader(lines)] == [f"class {n} ü" for n in range(6)]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "18 queries against 18 references of 6 classes" in page and "Misses" in page
    assert (out / "predictions.parquet").exists() or (out / "predictions.csv").exists()
    assert status_lines(out)[-1]["kpi"]["test Precision at Rank 1"] == metrics["micro"]["precision_at_1"]["value"]


def same_figures(folder, expected):
    found = json.loads((folder / "evaluate/metrics.json").read_text())["micro"]
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name]["value"] == pytest.approx(expected[name]["value"], abs=1e-3), name


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_every_engine_gives_the_same_figures(trained, images, tmp_path, figures_of_torch, runtime):
    done = evaluate(trained, images, tmp_path, f"evaluate.runtime={runtime}", "evaluate.precision=fp32", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads((tmp_path / "evaluate/metrics.json").read_text())["model"]["engine"]["runtime"] == runtime
    same_figures(tmp_path, figures_of_torch)


def test_query_equal_to_reference_leaves_the_image_itself_out(trained, images, tmp_path):
    done = unalike("evaluate", "-r", tmp_path, f"dataset.val_dataset.reference={images / 'query'}",
                   f"dataset.val_dataset.query={images / 'query'}",
                   f"evaluate.checkpoint={trained / 'ml_model_best.pth'}")  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads((tmp_path / "evaluate/metrics.json").read_text())["query_in_reference"] is True


def infer(trained, images, out, path, kind, *more):
    return unalike(
        "inference", "-r", out, f"dataset.val_dataset.reference={images / 'reference'}", f"inference.input_path={path}",
        f"inference.inference_input_type={kind}", f"inference.checkpoint={trained / 'ml_model_best.pth'}", *more,
    )  # fmt: skip


@pytest.mark.parametrize("kind, count", [("classification_folder", 18), ("image_folder", 3), ("image", 1)])
def test_d28_inference_takes_its_three_input_types_and_d32_drops_no_image(trained, images, tmp_path, kind, count):
    path = images / "query"
    path = {"image_folder": path / "class 1 ü", "image": path / "class 1 ü" / "00.png"}.get(kind, path)
    done = infer(trained, images, tmp_path, path, kind, "inference.topk=3", "inference.batch_size=5")
    assert done.returncode == 0, done.stderr[-4000:]
    with (tmp_path / "inference/result.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))
    assert len(rows) == count
    for path_text, labels, distances in rows:
        labels, distances = literal_eval(labels), literal_eval(distances)
        assert path_text.endswith(".png") and len(labels) == len(distances) == 3
        assert distances == sorted(distances) and all(0 <= d <= 4 for d in distances)
    lines = [json.loads(line) for line in (tmp_path / "inference/result.jsonl").read_text().splitlines()]
    assert len(lines) == count and lines[0]["neighbours"][0]["label"] == lines[0]["label"]


@pytest.mark.parametrize("preprocessing", ["none", "embedded"])
def test_export_then_evaluate_the_file_gives_the_checkpoint_s_figures(
    trained, images, tmp_path, figures_of_torch, preprocessing
):
    done = unalike("export", "-r", tmp_path, f"export.checkpoint={trained / 'ml_model_best.pth'}",
                   f"export.preprocessing={preprocessing}", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout)
    assert result["path"].endswith("export/ml_model_best.onnx") and result["figures"]["worst_cosine"] >= 0.99999
    done = unalike("evaluate", "-r", tmp_path, *data_of(images), f"evaluate.onnx_file={result['path']}",
                   "evaluate.precision=fp32")  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    same_figures(tmp_path, figures_of_torch)


def test_embed_writes_vectors_with_paths_and_labels(trained, images, tmp_path):
    for name in ("v.npz", "v.parquet"):
        done = unalike("embed", images / "query", "-o", tmp_path / name, "-m", trained / "ml_model_best.pth")
        assert done.returncode == 0, done.stderr[-4000:]
    held = np.load(tmp_path / "v.npz")
    assert held["vectors"].shape == (18, 16) and len(held["path"]) == 18
    done = unalike(
        "embed", images / "query", "-m", trained / "ml_model_best.pth", "--labelled", f"results_dir={tmp_path}"
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert {path.name for path in (tmp_path / "embed").iterdir()} >= {
        "vectors.npz",
        "run.json",
        "status.json",
        "experiment.yaml",
    }
    vectors = np.load(tmp_path / "embed/vectors.npz")
    np.testing.assert_array_equal(vectors["vectors"], held["vectors"])
    assert len(set(vectors["label"])) == 6


def test_auto_split_holds_classes_out_and_writes_it_down(images, tmp_path):
    done = unalike("train", images / "train", "-r", tmp_path, "train.num_epochs=1", "train.batch_size=8",
                   "dataset.validation.fraction=0.4", *TINY, PLAINLY)  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    with (tmp_path / "train/split.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    classes = {split: {r["label"] for r in rows if r["split"] == split} for split in ("train", "val", "reference")}
    assert classes["val"] and not classes["val"] & classes["train"] and classes["val"] == classes["reference"]


def test_check_says_what_is_there_without_training(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = unalike("check", images / "train", *TINY)
    assert done.returncode == 0, done.stderr[-4000:]
    assert not list(tmp_path.iterdir())


def test_check_decodes_the_images(images, tmp_path, monkeypatch):
    """As many as a training would skip are named; more are a fault, since a training would end with it."""
    shop = shutil.copytree(images / "train", tmp_path / "shop")
    files = sorted(shop.rglob("*.png"))
    files[0].write_bytes(b"")
    done = unalike("check", shop, *TINY)
    assert done.returncode == 0 and f"1 image unreadable: {files[0]}" in done.stderr, done.stderr[-4000:]
    files[1].write_bytes(files[1].read_bytes()[:-30])
    done = unalike("check", shop, *TINY, "dataset.max_unreadable=0.01")
    assert done.returncode == 1 and f"2 of {len(files)} images cannot be decoded; expected at most 1" in done.stdout
    monkeypatch.setattr("unalike.actions.check.READ_S", -1.0)
    done = unalike("check", shop, *TINY)
    assert done.returncode == 0 and "; 0 of them, drawn at random, were decoded" in done.stdout


@pytest.mark.parametrize("action", ["quantize", "engine", "export"])
def test_overwrite_removes_what_a_killed_run_had_written(trained, images, tmp_path, monkeypatch, action):
    """The network is written before it is compared; whoever is killed in between registers nothing any more."""
    from unalike.deploy import engine_build
    from unalike.deploy.quantization import pipeline

    def kill(*unused, **options):
        raise RuntimeError("killed")

    if action == "export":
        words = [
            "export",
            trained / "ml_model_best.pth",
            "-r",
            tmp_path / "out",
            f"dataset.train_dataset={images / 'train'}",
        ]
        monkeypatch.setattr("unalike.runs.run.Run.write_experiment", _kill_after(tmp_path / "out", kill))
    else:
        model = networks.write_model(tmp_path)
        section = {"quantize": "quantize", "engine": "gen_engine"}[action]
        words = [action, model, "-r", tmp_path / "out", f"{section}.calibration.cal_image_dir=[{images / 'train'}]",
                 f"{section}.goal.worst_cosine=-1"]  # fmt: skip
        monkeypatch.setattr({"quantize": pipeline, "engine": engine_build}[action], "write_comparison", kill)
    first = unalike(*words)
    left = [path.name for path in (tmp_path / "out").rglob("*") if path.suffix in (".onnx", ".xml", ".bin")]
    assert first.returncode != 0 and left, first.stderr
    monkeypatch.undo()
    again = unalike(*words, "--overwrite")
    assert again.returncode == 0, again.stderr


def _kill_after(folder, kill):
    """``Run.write_experiment`` that ends the run once its network is there."""
    from unalike.runs.run import Run

    real = Run.write_experiment

    def write_experiment(self, experiment):
        if any(folder.rglob("*.onnx")):
            kill()
        real(self, experiment)

    return write_experiment
