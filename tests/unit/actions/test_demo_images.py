"""The demo's pictures: the same seed draws the same images, of marks that differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("simpleicons")
pytest.importorskip("resvg_py")

from unalike.actions import demo_images as brands
from unalike.actions.demo import compare, describe_gains
from unalike.errors import RunError


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.jpg")}


def test_same_seed_draws_the_same_images(tmp_path: Path) -> None:
    first = brands.render_brands(tmp_path / "a", brands=3, unseen=2, seed=5)
    brands.render_brands(tmp_path / "b", brands=3, unseen=2, seed=5)
    brands.render_brands(tmp_path / "c", brands=3, unseen=2, seed=6)
    drawn = contents(tmp_path / "a")
    assert drawn == contents(tmp_path / "b") != contents(tmp_path / "c")
    assert len(drawn) == 3 * brands.TRAIN_IMAGES + 2 * (brands.REFERENCE_IMAGES + brands.QUERY_IMAGES)
    assert len(set(drawn.values())) == len(drawn)
    assert not set(first.train_brands) & set(first.unseen_brands)
    assert {path.name for path in first.query.iterdir()} == {path.name for path in first.reference.iterdir()}
    with Image.open(next(first.train.rglob("*.jpg"))) as image:
        assert (image.size, image.mode) == ((brands.IMAGE_SIZE, brands.IMAGE_SIZE), "RGB")
    with pytest.raises(RunError, match="is not empty; expected a new or an empty folder"):
        brands.render_brands(tmp_path / "a", brands=3, unseen=2)


def test_kept_images_are_opened_again_and_replaced_only_on_request(tmp_path: Path) -> None:
    settings = {"brands": 2, "unseen": 1}
    first = brands.keep_brands(tmp_path / "a", **settings, seed=5, overwrite=False)
    times = {path: path.stat().st_mtime_ns for path in first.root.rglob("*.jpg")}
    again = brands.keep_brands(tmp_path / "a", **settings, seed=5, overwrite=True)
    assert again == first and times == {path: path.stat().st_mtime_ns for path in again.root.rglob("*.jpg")}
    with pytest.raises(RunError, match="is not empty"):
        brands.keep_brands(tmp_path / "a", **settings, seed=6, overwrite=False)
    drawn = contents(tmp_path / "a")
    brands.keep_brands(tmp_path / "a", **settings, seed=6, overwrite=True)
    assert drawn != contents(tmp_path / "a") and len(drawn) == len(contents(tmp_path / "a"))


def test_an_interrupted_rendering_begins_again_and_foreign_files_stay(tmp_path: Path) -> None:
    brands.keep_brands(tmp_path / "a", brands=2, unseen=1, seed=5, overwrite=False)
    record = tmp_path / "a" / brands.SETTINGS_FILE
    record.write_text(record.read_text().replace("true", "false"))
    next((tmp_path / "a").rglob("*.jpg")).unlink()
    brands.keep_brands(tmp_path / "a", brands=2, unseen=1, seed=5, overwrite=False)
    assert len(contents(tmp_path / "a")) == 2 * brands.TRAIN_IMAGES + brands.REFERENCE_IMAGES + brands.QUERY_IMAGES
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty"):
        brands.keep_brands(tmp_path / "mine", brands=2, unseen=1, seed=5, overwrite=True)
    assert (tmp_path / "mine" / "a.txt").read_text() == "mine"


def test_marks_differ_to_the_eye() -> None:
    marks = brands.pick_marks(20, seed=1)
    assert len(marks) == 20
    small = []
    for mark in marks.values():
        assert 0.05 < mark.mask_MM.mean() / 255 < 0.75
        thumbnail = Image.fromarray(mark.mask_MM).resize((16, 16), Image.Resampling.BOX)
        small.append(np.asarray(thumbnail, np.float32).ravel())
    alike = np.corrcoef(small) - np.eye(20)
    assert alike.max() <= brands.SAME_MARK + 1e-6


def test_perspective_maps_corners_onto_corners() -> None:
    corners = np.array([[10.0, 20.0], [90.0, 15.0], [100.0, 95.0], [5.0, 80.0]])
    a, b, c, d, e, f, g, h = brands._perspective(corners, 192)
    for (x, y), wanted in zip(corners, ((0, 0), (192, 0), (192, 192), (0, 192)), strict=True):
        below = g * x + h * y + 1
        assert np.allclose(((a * x + b * y + c) / below, (d * x + e * y + f) / below), wanted, atol=1e-6)


def rows(right: list[bool]) -> list[dict[str, object]]:
    return [
        {
            "path": f"{i}.jpg",
            "class": f"brand{i // 4}",
            "precision_at_1": float(r),
            "mean_average_precision_at_r": r / 2,
        }
        for i, r in enumerate(right)
    ]


def test_comparison_says_whether_they_are_apart() -> None:
    before = [i % 2 == 0 for i in range(80)]
    better = compare(rows(before), rows([True] * 80))
    assert better[0][0] == "R@1" and better[0][3].low > 0
    assert "apart: training helped" in describe_gains(better)[0] and "gain +50.0" in describe_gains(better)[0]
    assert "NOT apart" in describe_gains(compare(rows(before), rows(before)))[0]
    assert "HARMED" in describe_gains(compare(rows(before), rows([False] * 80)))[0]
