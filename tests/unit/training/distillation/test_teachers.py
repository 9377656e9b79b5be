"""Teachers: each image once, joined as numpy does, reduced by the directions that keep scalar products best."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unalike.data.imageset import ImageSet, load_images
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.errors import DataError, ModelError, SpecError
from unalike.inference.loaded_model import LoadedModel
from unalike.spec import load_spec
from unalike.spec.distill import Distill
from unalike.training.distillation import teachers
from unalike.training.distillation.teachers import (
    choose_width,
    compute_teacher_vectors,
    fit_projection,
    join_vectors,
    project,
    require_teachers,
)
from unalike.training.time_budget import TimeBudget


class MeanColor:
    """An engine whose vector is the mean color of an image, times a factor, and a constant."""

    name, precision, batch, input_size = "torch", "fp32", 4, (16, 16)

    def __init__(self, factor: float, dim: int) -> None:
        self.factor, self.dim, self.images = factor, dim, 0

    def describe(self) -> dict[str, Any]:
        return {"runtime": "stand-in"}

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        self.images += len(images_BHWC)
        mean_BC = images_BHWC.mean(axis=(1, 2)) * self.factor
        return np.hstack([mean_BC, np.full((len(mean_BC), self.dim - 3), 10.0)]).astype(np.float32)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(10):
        pixels = np.tile(rng.integers(0, 256, (1, 1, 3), dtype=np.uint8), (16, 16, 1))
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    return load_images(tmp_path / "photos", labeled=False)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> dict[str, MeanColor]:
    """The engines of the teachers a and b; loading one gives it a view of its own."""
    engines = {"a": MeanColor(1.0, 4), "b": MeanColor(-2.0, 5)}

    def load(file: str, **_: Any) -> LoadedModel:
        preprocessing = Preprocessing(View(16, 16), (0.5,) * 3, (0.5,) * 3)
        return LoadedModel(engines[file], preprocessing, (f"class {file}",), Path(file), "tiny", f"network {file}")

    monkeypatch.setattr(teachers, "load_model", load)
    return engines


def compute(files: list[str], images: ImageSet, budget: TimeBudget | None = None) -> teachers.TeacherVectors:
    section = Distill(source="photos", teachers=files)
    dataset = load_spec("train", None, {"dataset.workers": 1}).dataset
    order_N = np.random.default_rng(1).permutation(len(images))
    return compute_teacher_vectors(
        section, images, dataset, order_N, Notices(), budget or TimeBudget(5, 0.0, lambda: 0.0)
    )


def colors(images: ImageSet) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)).mean(axis=(0, 1)) for path in images.paths])


def test_two_teachers_are_joined_as_numpy_does(images: ImageSet, engines: dict[str, MeanColor]) -> None:
    result = compute(["a", "b"], images)
    color_NC = colors(images)
    a_ND = np.hstack([color_NC, np.full((10, 1), 10.0)])
    b_ND = np.hstack([-2 * color_NC, np.full((10, 2), 10.0)])
    units = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a_ND, b_ND)]
    np.testing.assert_allclose(result.vectors_NW, np.hstack(units) / np.sqrt(2), atol=1e-5)
    cosines = np.mean([u @ u.T for u in units], axis=0)  # that of a joined vector is the mean of the teachers'
    np.testing.assert_allclose(result.vectors_NW @ result.vectors_NW.T, cosines, atol=1e-5)
    assert result.kept_N.tolist() == list(range(10)) and result.classes == ("class a", "class b")
    assert [f["network"] for f in result.facts] == ["network a", "network b"]


def test_no_image_is_embedded_twice(images: ImageSet, engines: dict[str, MeanColor]) -> None:
    first = compute(["a"], images)
    again = compute(["a"], images)
    assert engines["a"].images == 10 and np.array_equal(first.vectors_NW, again.vectors_NW)
    engines["a"].precision = "int8"  # another network, although its key is the same
    compute(["a"], images)
    assert engines["a"].images == 20


def test_an_unreadable_image_is_left_out_for_all_teachers(images: ImageSet, engines: dict[str, MeanColor]) -> None:
    images.paths[3].write_bytes(b"no image")
    result = compute(["a", "b"], images)
    assert result.kept_N.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9] and len(result.vectors_NW) == 9
    images.paths[4].write_bytes(b"no image either")
    with pytest.raises(DataError, match="cannot be read"):
        compute(["a", "b"], images)


def test_a_time_that_does_not_suffice_leaves_the_last_images_of_the_order_out(
    images: ImageSet, engines: dict[str, MeanColor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "LEAST_IMAGES", 4)
    seconds = iter(range(0, 100_000, 20))
    result = compute(["a", "b"], images, TimeBudget(1, 0.0, lambda: float(next(seconds))))
    order_N = np.random.default_rng(1).permutation(10)
    assert len(result.kept_N) == 4 and result.kept_N.tolist() == sorted(order_N[:4].tolist())
    assert engines["b"].images == 4  # the second teacher sees what the first one saw


def test_the_projection_keeps_scalar_products_better_than_any_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors_NW = join_vectors([rng.normal(0.5, 1, (40, 6)) * [4, 2, 1, 1, 0.1, 0.1]])
    directions_WD = fit_projection(vectors_NW, 3)
    assert directions_WD is not None
    np.testing.assert_allclose(directions_WD.T @ directions_WD, np.eye(3), atol=1e-5)
    left, singular, _ = np.linalg.svd(vectors_NW, full_matrices=False)
    best_NN = left[:, :3] * singular[:3] ** 2 @ left[:, :3].T
    kept_ND = vectors_NW @ directions_WD
    np.testing.assert_allclose(kept_ND @ kept_ND.T, best_NN, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(project(vectors_NW, directions_WD), axis=1), 1, atol=1e-5)
    assert fit_projection(vectors_NW, 6) is None
    np.testing.assert_allclose(project(vectors_NW, None), vectors_NW, atol=1e-6)


def test_the_width_is_at_most_that_of_teachers_and_student() -> None:
    assert (
        choose_width(None, 40, 1280) == 40
        and choose_width(None, 2560, 1280) == 1280
        and choose_width(16, 40, 1280) == 16
    )
    with pytest.raises(SpecError, match="distill.dim is 64, more than the 40 of the teachers' vectors"):
        choose_width(64, 40, 1280)
    with pytest.raises(SpecError, match="more than the 32 features of the student's trunk"):
        choose_width(64, 256, 32)


def test_a_missing_teacher_is_named_before_anything_is_read(tmp_path: Path) -> None:
    require_teachers(SimpleNamespace(teachers=["pretrained:tf_efficientnet_lite0"]))
    with pytest.raises(ModelError, match=r"there is no model file .*none\.pth"):
        require_teachers(SimpleNamespace(teachers=["pretrained", str(tmp_path / "none.pth")]))
