"""The student: its spec from a name or a checkpoint, its head as arrays, its checkpoint, and the plan of its training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unalike.data.imageset import ImageSet
from unalike.errors import ModelError, SpecError
from unalike.model.checkpoint import load_embedder, read_checkpoint, write_checkpoint
from unalike.model.embedder import build_embedder
from unalike.spec import load_spec
from unalike.spec.distill import Distill
from unalike.training.automatic.throughput import TuningPlan
from unalike.training.distillation import student
from unalike.training.distillation.student import (
    Student,
    _epochs_that_fit,
    _plan_spec,
    as_instances,
    head_of,
    save_student,
    student_spec,
    student_view,
)
from unalike.training.heads.discriminant import FittedHead
from unalike.training.setup import checkpoint_facts

TINY = {
    "model.backbone": "test_efficientnet",
    "model.pretrained": "false",
    "model.input_height": 64,
    "model.input_width": 64,
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of a tiny network with a rooted head."""
    torch.manual_seed(0)
    spec = load_spec("train", None, {**TINY, "model.head": "rooted", "model.feat_dim": 8})
    embedder = build_embedder(spec)
    payload = {"model": embedder.state_dict(), "spec": spec.to_dict(), "classes": ["a"], "epoch": 0, "step": 0,
               "facts": checkpoint_facts(spec, embedder.trunk.facts, "none")}  # fmt: skip
    return write_checkpoint(tmp_path / "given.pth", payload)


def section(**fields: object) -> Distill:
    return Distill(source="photos", teachers=["a.pth"], **fields)


def test_a_student_by_name_starts_from_pretrained_weights_or_not_at_all() -> None:
    spec = student_spec(section(student="pretrained:tf_efficientnet_lite0", seed=5, workers=1, max_unreadable=0.2))
    assert (spec.model.backbone, spec.model.pretrained, spec.train.recipe) == (
        "tf_efficientnet_lite0",
        "true",
        "unalike",
    )
    assert (spec.train.seed, spec.dataset.workers, spec.dataset.max_unreadable) == (5, 1, 0.2)
    assert spec.dataset.train_dataset == "photos" and (student_view(spec).height, student_view(spec).width) == (
        224,
        224,
    )


def test_a_student_by_checkpoint_starts_from_its_trunk_at_its_size(checkpoint: Path) -> None:
    spec = student_spec(section(student=str(checkpoint)))
    assert (spec.model.backbone, spec.model.input_height, spec.model.head) == ("test_efficientnet", 64, "auto")
    assert spec.model.pretrained_trunk_path == str(checkpoint) and spec.model.pretrained_model_path is None


def test_what_is_no_student_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="--student pretrained:tf_efficientnet_lite0"):
        student_spec(section(student="tf_efficientnet_lite0"))
    with pytest.raises(ModelError, match="there is no model file"):
        student_spec(section(student=str(tmp_path / "none.pth")))
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(SpecError, match="cannot be trained"):
        student_spec(section(student=str(tmp_path / "model.onnx")))


def test_each_image_is_a_class_of_its_own() -> None:
    images = ImageSet(tuple(Path(f"{number}.png") for number in range(12)), np.zeros(12), ("one",))
    instances = as_instances(images)
    assert instances.labels_N.tolist() == list(range(12)) and sorted(instances.classes) == list(instances.classes)
    assert instances.paths == images.paths


@pytest.mark.parametrize("kind", ["linear", "rooted"])
def test_a_head_as_arrays_gives_the_vectors_of_the_network(kind: str) -> None:
    torch.manual_seed(0)
    embedder = build_embedder(load_spec("train", None, {**TINY, "model.head": kind, "model.feat_dim": 8})).eval()
    with torch.no_grad():
        embedder.head.get_parameter("linear.bias").normal_()
        images_BCHW = torch.rand(3, 3, 64, 64)
        features_BF, vectors_BD = embedder.trunk(images_BCHW), embedder(images_BCHW)
    np.testing.assert_allclose(head_of(embedder)(features_BF.numpy()), vectors_BD.numpy(), atol=1e-5)


def test_the_checkpoint_is_the_network_that_was_judged_and_names_its_teachers(checkpoint: Path, tmp_path: Path) -> None:
    spec = student_spec(section(student=str(checkpoint)))
    trunk = load_embedder(checkpoint)[0].trunk
    rng = np.random.default_rng(0)
    head = FittedHead(rng.normal(size=(trunk.width, 5)).astype(np.float32), rng.normal(size=5).astype(np.float32), True)
    run = SimpleNamespace(dir=tmp_path)
    teachers = [{"file": "a.pth", "network": "weights 1", "trunk": "big", "dim": 9}]
    path, own_spec = save_student(Student("trained", trunk, head), spec, run, trunk.facts, ["a", "b"], teachers)
    assert (own_spec.model.feat_dim, own_spec.model.head) == (5, "rooted") and spec.model.head == "auto"
    embedder, payload = load_embedder(path)
    assert payload["facts"]["teachers"] == [{"file": "a.pth", "network": "weights 1", "trunk": "big"}]
    assert payload["classes"] == ["a", "b"] and payload["facts"]["validation"] == "distilled: trained"
    with torch.no_grad():
        images_BCHW = torch.rand(2, 3, 64, 64)
        expected_BD = head(embedder.trunk(images_BCHW).numpy())
        np.testing.assert_allclose(embedder(images_BCHW).numpy(), expected_BD, atol=1e-4)
    assert read_checkpoint(path)["spec"]["dataset"]["train_dataset"] == "photos"


@pytest.mark.parametrize(
    ("rate", "epochs", "epoch_images"),
    [(100.0, 53, None), (8.0, 6, 357), (1e5, student.MAX_EPOCHS, None), (0.1, None, None)],
)
def test_the_plan_fills_the_time(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, rate: float, epochs: int | None, epoch_images: int | None
) -> None:
    """300 seconds for 500 images: many epochs, short ones where not six of all images fit, or none."""

    def plan(*_: object, images: int, seconds: float, max_epochs: int, **__: object) -> TuningPlan:
        return TuningPlan((48, 48), 0, min(max_epochs, int(seconds * rate / images / (1 + student.OVERHEAD))), rate)

    monkeypatch.setattr(student, "plan_tuning", plan)
    spec = student_spec(section(student=str(checkpoint)))
    images = ImageSet(tuple(Path(f"{number}.png") for number in range(500)), np.full(500, -1))
    width = load_embedder(checkpoint)[0].trunk.width
    head = FittedHead(np.ones((width, 4), np.float32), np.zeros(4, np.float32), False)
    planned = _plan_spec(spec, images, head, 300.0, 100.0)
    if epochs is None:
        assert planned is None
        return
    assert planned is not None
    assert (planned.train.num_epochs, planned.train.epoch_images) == (epochs, epoch_images)
    assert planned.dataset.num_instance == 1 and planned.train.loss.name == "DistillationLoss"
    assert (planned.model.head, planned.model.feat_dim, planned.train.head_epochs) == ("linear", 4, 0)


def test_epochs_are_planned_again_by_the_time_that_is_left() -> None:
    assert _epochs_that_fit(lambda: 10.5, 3, 1.0) == 13
    assert _epochs_that_fit(lambda: -5.0, 3, 1.0) == 3
    assert _epochs_that_fit(lambda: 1e6, 3, 1.0) == student.MAX_EPOCHS
