"""Distillation from the command line and from Python: what is judged is delivered, with labels and without them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import unalike as package
from tests.flow.conftest import draw_class
from tests.support.program import data_of, status_lines, unalike
from unalike.actions.distill import distill
from unalike.errors import DataError, ModelError, SpecError
from unalike.inference.loaded_model import load_model
from unalike.model.checkpoint import load_embedder, read_checkpoint
from unalike.training.distillation import pipeline, student
from unalike.training.distillation.pipeline import CLOSED_FORM, REFITTED, TRAINED


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``classes``: 12 class folders of eight; ``more``: 48 others without labels."""
    root = tmp_path_factory.mktemp("photos to distill")
    for number in range(12):
        draw_class(root / "classes" / f"class {number}", number, 8, 0)
        draw_class(root / "more" / f"{number}", number, 4, 7)
    return root


@pytest.fixture
def two_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The student trains for two epochs, however much time there is, and no cache is shared with other tests."""
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(student, "MAX_EPOCHS", 2)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "ml_model_best.pth")["model"]


def test_a_labeled_source_teaches_a_student_that_every_command_takes(
    photos: Path, trained: Path, images: Path, tmp_path: Path, two_epochs: None
) -> None:
    teacher = trained / "ml_model_best.pth"
    out = tmp_path / "small"
    call = ("distill", photos / "classes", "--labeled", "--teacher", teacher, "--student", teacher, "--further", photos / "more",
            "--workers", "1")  # fmt: skip
    process = unalike(*call, "-o", out, "--json")
    assert process.returncode == 0, process.stderr[-3000:]
    result = json.loads(process.stdout)
    record = json.loads((out / "distillation.json").read_text())
    assert [c["name"] for c in record["candidates"]] == [CLOSED_FORM, TRAINED, REFITTED] and record["epochs"] == 2
    assert record["fitted_to_images"] + record["held_out_images"] == 96 + 48
    scores = {c["name"]: np.mean([v["value"] for v in c["figures"]["known"].values()]) for c in record["candidates"]}
    assert scores[record["chosen"]] == max(scores.values())
    # The teacher's own network on its own trunk: the closed form is the teacher.
    assert record["candidates"][0]["figures"]["held-out images"]["cosine to the teacher"]["value"] > 0.98
    figures = result["figures"]
    assert {
        "held_out",
        "dim",
        "held-out images cosine to the teacher",
        "known classes R@1",
        "known classes R@1 teacher",
    } <= set(figures)
    network = load_model(teacher).network
    payload = read_checkpoint(result["path"])
    assert payload["facts"]["teachers"][0]["network"] == network == record["teachers"][0]["network"] != ""
    assert {"class 0", "class 0 ü"} <= set(payload["classes"])
    card = json.loads((out / "model_card.json").read_text())
    assert "may have been trained on them" in card["validation"]["note"]
    assert network in card["distillation"]["teachers"][0] and card["automatic"]["chosen"] == record["chosen"]
    assert "command" in json.loads((out / "run.json").read_text())
    assert status_lines(out)[-1]["status"] == "SUCCESS"
    again = unalike(*call, "-o", tmp_path / "again")
    assert again.returncode == 0 and "unalike quantize" in again.stderr and "unalike evaluate" in again.stderr
    first, second = weights(out), weights(tmp_path / "again")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    evaluated = unalike("evaluate", "-r", tmp_path / "e", *data_of(images), f"evaluate.checkpoint={out}", "--json")
    assert evaluated.returncode == 0 and json.loads(evaluated.stdout)["figures"]["test Precision at Rank 1"] > 0.5
    exported = unalike("export", result["path"], f"export.onnx_file={tmp_path / 'small.onnx'}", f"dataset.val_dataset.reference={images / 'reference'}")  # fmt: skip
    assert exported.returncode == 0, exported.stderr[-2000:]
    assert load_model(tmp_path / "small.onnx").network == load_model(result["path"]).network
    refused = unalike(*call, "-o", out)
    assert refused.returncode != 0 and "--overwrite" in refused.stderr


def test_two_teachers_and_no_labels_from_python(photos: Path, trained: Path, tmp_path: Path, two_epochs: None) -> None:
    teacher = trained / "ml_model_best.pth"
    result = package.distill(
        photos / "more", [teacher, teacher], tmp_path / "out", student=str(teacher), dim=12, minutes=1, workers=1,
        max_unreadable=0.1,
    )  # fmt: skip
    record = json.loads((tmp_path / "out" / "distillation.json").read_text())
    assert (record["joined_dim"], record["dim"], result.figures["dim"]) == (32, 12, 12) and len(record["teachers"]) == 2
    assert (
        record["judged_on"] == {"held-out images": record["held_out_images"]}
        and "known classes R@1" not in result.figures
    )
    best = max(record["candidates"], key=lambda c: c["figures"]["held-out images"]["cosine to the teacher"]["value"])
    assert record["chosen"] == best["name"] and load_embedder(result.path)[0].dim == 12


def test_without_time_the_closed_form_is_delivered_and_a_first_model_is_there_before_training(
    photos: Path, trained: Path, tmp_path: Path, two_epochs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = trained / "ml_model_best.pth"
    call = ("distill", photos / "classes", "-t", teacher, "--student", teacher, "--workers", "1")
    process = unalike(*call, "-o", tmp_path / "a", "--minutes", "0.001")
    assert process.returncode == 0 and "too short to train the student" in process.stderr, process.stderr[-3000:]
    record = json.loads((tmp_path / "a" / "distillation.json").read_text())
    assert record["chosen"] == CLOSED_FORM and record["epochs"] == 0 and record["gain_of_training"] is None

    def stop(*_: object, **__: object) -> None:
        assert load_embedder(tmp_path / "b" / "ml_model_best.pth")[0].dim == 16
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "tune", stop)
    assert unalike(*call, "-o", tmp_path / "b").returncode != 0
    assert load_embedder(tmp_path / "b" / "ml_model_best.pth")[0].dim == 16
    monkeypatch.undo()
    monkeypatch.setattr(student, "MAX_EPOCHS", 1)
    assert unalike(*call, "-o", tmp_path / "b", "--overwrite", "--minutes", "0.001").returncode == 0


def test_mistakes_say_what_to_do(photos: Path, trained: Path, tmp_path: Path, two_epochs: None) -> None:
    teacher, out = trained / "ml_model_best.pth", tmp_path / "out"
    with pytest.raises(ModelError, match=r"there is no model file .*none\.pth"):
        distill(photos / "classes", tmp_path / "none.pth", out)
    text = tmp_path / "text.pth"
    text.write_text("no checkpoint")
    with pytest.raises(Exception, match=r"text\.pth") as caught:
        distill(photos / "classes", text, out, student=str(teacher))
    assert isinstance(caught.value, package.UnalikeError)
    with pytest.raises(SpecError, match="--student pretrained:resnet18"):
        distill(photos / "classes", teacher, out, student="resnet18")
    with pytest.raises(SpecError, match="distill.dim is 17, more than the 16 of the teachers' vectors"):
        distill(photos / "classes", teacher, out, student=str(teacher), dim=17)
    few = tmp_path / "few"
    shutil.copytree(photos / "classes" / "class 0", few)
    with pytest.raises(DataError, match=r"8 readable images to learn from.*at least 32"):
        distill(few, teacher, out, student=str(teacher))
    for number in range(4):
        (few / f"broken {number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be read"):
        distill(few, teacher, out, student=str(teacher))
    process = unalike("distill", photos / "classes")
    assert process.returncode != 0 and "distill.teachers" in process.stderr and "-t FILE" in process.stderr
