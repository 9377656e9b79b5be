"""Comparer on images: defects are found, lighting, noise and edges are not; unusual inputs get an answer or one line."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unalike
from tests.support.drawings import as_jpeg, board, shapes
from unalike import progress
from unalike.comparison.comparer import Comparer
from unalike.errors import DataError, NotComparable, SpecError, UnreadableImage

cv2 = pytest.importorskip("cv2")


def jittered(pixels: np.ndarray, seed: int) -> np.ndarray:
    """A board as a scanner sees it: shifted, slightly bent, its edges rough and of varying thickness."""
    height, width = pixels.shape
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    rough = [cv2.GaussianBlur(draws.normal(0, 1, pixels.shape).astype(np.float32), (0, 0), 2) * 3 for _ in range(2)]
    bend = 1.5 * np.sin(y / 130 + seed)
    seen = cv2.remap(
        pixels, x + 1.4 + bend + rough[0], y - 0.8 + rough[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return ((cv2.GaussianBlur(seen, (0, 0), 1) > draws.integers(90, 165)) * 255).astype(np.uint8)


def with_defects(pixels: np.ndarray, seed: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The board with a hole in copper, a spot of copper and a bitten edge; and their centers (x, y)."""
    draws = np.random.default_rng(seed)
    out, centers = pixels.copy(), []
    inner = cv2.erode((pixels == 0).astype(np.uint8), np.ones((9, 9)))
    bare = cv2.erode((pixels == 255).astype(np.uint8), np.ones((31, 31)))
    edge = cv2.morphologyEx((pixels == 0).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3)))
    for mask, value, radius in ((inner, 255, 4), (bare, 0, 5), (edge, 255, 7)):
        mask[:30] = mask[-30:] = mask[:, :30] = mask[:, -30:] = 0
        for x, y in centers:
            cv2.circle(mask, (x, y), 45, 0, -1)
        y, x = draws.permutation(np.argwhere(mask))[0].tolist()
        cv2.circle(out, (x, y), radius, value, -1)
        centers.append((x, y))
    return out, centers


def test_defects_of_a_board_are_found_and_rough_edges_are_not() -> None:
    comparer, hit_count, false_count = Comparer(), 0, 0
    for seed in range(6):
        reference = board(seed, 420, 420)
        defective, centers = with_defects(reference, seed)
        result = comparer.compare(reference, jittered(defective, seed))
        hits = [sum(r.box[0] <= x < r.box[2] and r.box[1] <= y < r.box[3] for r in result.regions) for x, y in centers]
        hit_count += sum(hit > 0 for hit in hits)
        false_count += len(result.regions) - sum(hits)
        assert comparer.compare(reference, jittered(reference, seed)).same, seed
    assert hit_count >= 17 and false_count == 0


def test_a_photograph_of_an_altered_image() -> None:
    """Rotated, smaller, unevenly lit, noisy, JPEG; a disk added and a bar painted over. Boxes are in its own pixels."""
    reference = shapes(3, 360, 480)
    altered = reference.copy()
    cv2.circle(altered, (250, 90), 12, (20, 20, 20), -1)
    altered[250:275, 90:140] = (228, 222, 214)
    motion = cv2.getRotationMatrix2D((240, 180), 6, 0.9)
    seen = cv2.warpAffine(altered, motion, (480, 360), borderMode=cv2.BORDER_REFLECT)
    lit = seen * (0.7 + 0.4 * np.arange(480) / 480)[None, :, None] + np.random.default_rng(0).normal(0, 4, seen.shape)
    photograph = as_jpeg(np.clip(lit, 0, 255).astype(np.uint8), 70)
    result = Comparer().compare(reference, photograph)
    assert result.registration.quality > 0.8 and not result.same
    for x, y in ((250, 90), (115, 262)):
        u, v = motion @ (x, y, 1)
        hits = [r for r in result.regions if r.box[0] <= u < r.box[2] and r.box[1] <= v < r.box[3]]
        covered = reference[y, x].astype(int) - altered[y, x]
        assert hits or np.abs(covered).max() < 40, (x, y)
    assert len(result.regions) <= 3
    assert Comparer().compare(reference, as_jpeg(reference, 40)).same


def test_identical_images_do_not_differ(tmp_path: Path) -> None:
    Image.fromarray(shapes()).save(tmp_path / "a.png")
    Image.fromarray(shapes()).save(tmp_path / "b.png")
    result = Comparer().compare(tmp_path / "a.png", tmp_path / "b.png")
    assert result.same and not result.regions and result.registration.quality == 1 and result.heat_hw.max() == 0
    assert "equal" in result.notes[0] and result.heat_map().size == result.picture().size == (320, 240)


def test_blank_images() -> None:
    blank, other = np.full((100, 120, 3), 255, np.uint8), np.full((100, 120, 3), 250, np.uint8)
    for one, two in ((shapes(), blank), (blank, shapes()), (blank, board(1))):
        result = Comparer().compare(one, two)
        assert (
            result.answer == "different"
            and result.regions
            and any("without alignment" in note for note in result.notes)
        )
    result = Comparer().compare(blank, other)
    assert result.same and "compared as they lie" in result.notes[0]
    assert len(result.notes) == 1
    half = Comparer().compare(blank, blank // 2)
    assert half.same and "128 gray levels apart" in half.notes[1]
    assert not Comparer().compare(blank, blank - 255).same  # no lighting makes white black
    assert not Comparer(lighting="none").compare(blank, blank - 255).same
    for align in ("none", "auto"):
        with pytest.raises(NotComparable, match="5 x 6 pixels"):
            Comparer(align=align).compare(shapes(), shapes()[:6, :5])
    spot = other.copy()
    spot[40:50, 60:75] = 0
    assert Comparer(align="none").compare(blank, spot).regions[0].extent == (60, 40, 75, 50)


def test_a_blank_image_without_alignment_differs_everywhere() -> None:
    result = Comparer(align="none").compare(shapes(), np.full((240, 320, 3), 255, np.uint8))
    assert not result.same and sum(r.area for r in result.regions) > 5000


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.6, 3.0])
def test_different_sizes(factor: float) -> None:
    reference = shapes(7, 360, 480)
    size = (round(480 * factor), round(360 * factor))
    image = cv2.resize(reference, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    assert Comparer().compare(reference, image).same
    x, y = round(200 * factor), round(150 * factor)
    image[y : y + round(20 * factor), x : x + round(24 * factor)] = (255, 0, 255)
    result = Comparer().compare(reference, image)
    want = np.array([200, 150, 224, 170]) * factor
    assert np.abs(np.subtract(result.regions[0].extent, want)).max() <= 6 * max(1, factor)
    assert result.size == (size[1], size[0]) and len(result.regions) == 1


def test_rotated_and_mirrored_copies() -> None:
    reference = shapes(8)
    for turns in (1, 2, 3):
        turned = np.ascontiguousarray(np.rot90(reference, turns))
        assert "rotated by" in Comparer().compare(reference, turned).reasons[0]
        result = Comparer(any_pose=True).compare(reference, turned)
        assert result.same and result.registration.quality > 0.9, turns
        assert abs(abs(result.registration.to_dict()["rotation"]) - (180 if turns == 2 else 90)) < 0.5
    mirrored = np.ascontiguousarray(reference[:, ::-1])
    with pytest.raises(NotComparable, match="mirrored copy of the reference.*--mirror"):
        Comparer().compare(reference, mirrored)
    assert Comparer(mirror=True).compare(reference, mirrored).same


@pytest.mark.parametrize("tilt", [4.5, 10.0])
def test_a_camera_that_looks_aslant_is_no_difference(tilt: float) -> None:
    reference = shapes(4, 300, 400)
    corners = np.array([[0, 0], [399, 0], [399, 299], [0, 299]], np.float32)
    moved = corners + np.array([[-1, -0.8], [1, -0.6], [-1, 0.7], [1, 0.8]], np.float32) * tilt
    matrix = cv2.getPerspectiveTransform(corners, moved)
    image = cv2.warpPerspective(reference, matrix, (400, 300), borderMode=cv2.BORDER_REPLICATE)
    result = Comparer(min_compared=0.9).compare(reference, image)
    assert result.same and result.registration.largest_bend < 1, result.reasons


def test_one_channel_against_three(tmp_path: Path) -> None:
    reference = shapes(9)
    gray = cv2.cvtColor(reference, cv2.COLOR_RGB2GRAY)
    for a, b in ((reference, gray), (gray, reference), (gray[..., None], reference)):
        result = Comparer().compare(a, b)
        assert result.answer == "different" and "compare gray copies" in result.notes[0]
    tinted = np.stack([gray, gray, (gray * 0.9).astype(np.uint8)], axis=2)  # a color camera's picture of a gray print
    assert Comparer().compare(gray, tinted).same
    # A gray image in an RGB file is gray.
    Image.fromarray(gray).convert("RGB").save(tmp_path / "gray.png")
    Image.fromarray(gray).save(tmp_path / "one.png")
    assert "equal" in Comparer().compare(tmp_path / "gray.png", tmp_path / "one.png").notes[0]


def test_a_crop_is_compared_where_it_overlaps() -> None:
    reference = shapes(10, 360, 480)
    crop = np.ascontiguousarray(reference[60:300, 100:420])
    result = Comparer(min_compared=0.4).compare(reference, crop)
    assert result.same and result.registration.overlap > 0.97
    result = Comparer(min_compared=0.4).compare(crop, reference)
    assert result.same and 0.3 < result.compared < 0.5 and "lie on the reference" in result.notes[-1]


def test_notes_of_small_images_and_of_coarser_ones() -> None:
    reference = shapes(7, 360, 480)
    small = cv2.resize(reference, (48, 36), interpolation=cv2.INTER_AREA)
    assert not any("narrower" in note for note in Comparer().compare(reference, small).notes)
    result = Comparer(tolerance=3).compare(reference, small)
    assert any("10.00 times finer than the image" in note for note in result.notes)
    assert any("narrower than 7 pixels, 19% of the image" in note for note in result.notes)


def test_a_poor_alignment_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = shapes(5), as_jpeg(shapes(5), 60)
    assert not Comparer().compare(one, other).notes
    y, x = np.mgrid[0:240, 0:320].astype(np.float32)
    waves = [6 * np.sin(y / 7 + x / 9), 6 * np.cos(x / 8 - y / 6)]
    wavy = cv2.remap(one, x + waves[0], y + waves[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    result = Comparer().compare(one, wavy)
    assert result.registration.quality < 0.75 and "the alignment is poor" in result.notes[0]


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="no such file"):
        Comparer().compare(tmp_path / "none.png", shapes())
    for bad in (shapes().astype(float), np.zeros((4, 5, 2), np.uint8), np.zeros((0, 5), np.uint8)):
        with pytest.raises(DataError, match="uint8"):
            Comparer().compare(bad, shapes())
    for setting in ({"tolerance": 40}, {"contrast": 0}, {"min_area": 0}, {"margin": -1}):
        with pytest.raises(SpecError):
            Comparer(**setting)  # type: ignore[arg-type]
    for setting, close in (({"align": "rigit"}, "rigid"), ({"lighting": "lokal"}, "local")):
        with pytest.raises(SpecError, match=close):
            Comparer(**setting)  # type: ignore[arg-type]
    answers = list(Comparer().compare_many([(shapes(0), board(3, 240, 320)), (shapes(0), as_jpeg(shapes(0)))]))
    assert isinstance(answers[0], NotComparable) and answers[1].same  # type: ignore[union-attr]


def test_threads_give_what_one_gives() -> None:
    reference = board(3)
    images = [jittered(with_defects(reference, seed)[0], seed) for seed in range(4)]
    comparer = unalike.Comparer()
    alone = [comparer.compare(reference, image).regions for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: comparer.compare(reference, image).regions, images))
    assert alone == together


def test_it_can_be_pickled() -> None:
    assert isinstance(pickle.loads(pickle.dumps(Comparer())), Comparer)


def test_the_result_says_which_changes_it_did_not_look_for() -> None:
    reference = np.full((240, 240, 3), 255, np.uint8)
    reference[60:180, 100:104] = 0
    displaced, added = np.roll(reference, 3, axis=1), reference.copy()
    added[60:180, 160:161] = 0  # one pixel wide, on a plain ground: found at any tolerance
    result = Comparer(align="none", tolerance=3, min_area=12).compare(reference, displaced)
    assert result.same and result.tolerated == (3, 12)
    assert result.not_looked_for == (
        "edges displaced by up to 3 px, details that close to alike ones, and changes below 12 px in area; "
        "--tolerance 2 looks for finer ones"
    )
    facts = result.to_dict()
    assert (facts["tolerated_displacement"], facts["smallest_area"]) == (3, 12)
    assert facts["not_looked_for"] == result.not_looked_for
    assert not Comparer(align="none", tolerance=2).compare(reference, displaced).same
    assert not Comparer(align="none", tolerance=3).compare(reference, added).same
    exact = Comparer(align="none", tolerance=0, min_area=12).compare(reference, displaced)
    assert exact.not_looked_for == "changes below 12 px in area"
    assert Comparer().compare(reference, reference).not_looked_for == ""


@pytest.mark.parametrize("option", [{"runtime": "openvino"}, {"precision": "fp32"}, {"threads": 2}])
def test_options_of_a_network_that_does_not_run_are_said_to_be_unused(
    option: dict[str, object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_said", set())
    Comparer(**option)  # type: ignore[arg-type]
    assert f"not used: {next(iter(option))}; pixels are compared without a network" in capsys.readouterr().err
