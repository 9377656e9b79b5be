"""Comparing by features: distances by a slow oracle, a threshold of the pair's own, windows without seams, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.drawings import as_jpeg, shapes
from tests.unit.inspection.test_inspector import network
from unalike.cli import run_command
from unalike.comparison.comparer import Comparer
from unalike.comparison.feature_difference import (
    FeatureDifference,
    compute_distances,
    compute_threshold,
    find_feature_regions,
)
from unalike.errors import ModelError, SpecError

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "maps.onnx"
    path.write_bytes(network()[0])
    return path


@pytest.fixture(scope="module")
def comparer(model: Path) -> Comparer:
    return Comparer(level="both", model=model, runtime="onnxruntime", threads=1)


def slow_distance(a_Chw: np.ndarray, b_Chw: np.ndarray, y: int, x: int) -> float:
    """1 - cosine of the summed 3 x 3 neighbourhoods, the edge repeated."""
    height, width = a_Chw.shape[1:]
    sums = []
    for found in (a_Chw, b_Chw):
        total = np.zeros(len(found))
        for j in (y - 1, y, y + 1):
            for i in (x - 1, x, x + 1):
                total += found[:, min(max(j, 0), height - 1), min(max(i, 0), width - 1)]
        sums.append(total)
    return 1 - float(sums[0] @ sums[1] / np.linalg.norm(sums[0]) / np.linalg.norm(sums[1]))


def test_distances_are_those_of_neighbourhoods() -> None:
    draws = np.random.default_rng(0)
    a, b = (draws.normal(0, 1, (5, 6, 9)).astype(np.float32) for _ in range(2))
    found, _ = compute_distances([a], [b], (6, 9))
    for y, x in ((0, 0), (5, 8), (2, 4), (3, 0)):
        assert found[y, x] == pytest.approx(slow_distance(a, b, y, x), abs=1e-5)
    coarse = [draws.normal(0, 1, (3, 3, 9)).astype(np.float32) for _ in range(2)]
    both, _ = compute_distances([a, coarse[0]], [b, coarse[1]], (6, 9))
    # A coarse map's row centres lie between two fine ones: a quarter of the way at rows 1 and 2.
    low, high = (slow_distance(*coarse, row, 4) for row in (0, 1))
    assert both[1, 4] == pytest.approx((found[1, 4] + 0.75 * low + 0.25 * high) / 2, abs=1e-5)
    silent = np.zeros_like(a)
    assert not compute_distances([silent], [silent], (6, 9))[0].any()
    assert np.isnan(compute_distances([a * np.nan], [b], (6, 9))[0]).all()


def test_unrelated_places_lie_half_the_picture_away() -> None:
    draws = np.random.default_rng(0)
    two = draws.normal(0, 1, (2, 40)).astype(np.float32)
    a = np.repeat(np.repeat(two.T[:, None, :], 12, axis=1), 32, axis=2)  # (40, 12, 64): a left and a right half
    heat, unrelated = compute_distances([a], [a], (12, 64))
    cosine = float(two[0] @ two[1] / np.linalg.norm(two[0]) / np.linalg.norm(two[1]))
    assert heat.max() < 1e-5 and unrelated == pytest.approx(1 - cosine, abs=1e-5)


def test_what_counts_is_set_by_the_pair() -> None:
    heat = np.abs(np.random.default_rng(0).normal(0.3, 0.05, (40, 40))).astype(np.float32)
    known = np.ones(heat.shape, bool)
    assert compute_threshold(heat, known, 0.5, deviations=6) == pytest.approx(0.6, abs=0.03)
    assert compute_threshold(heat, known, 1.5, share=0.6) == pytest.approx(0.9)
    assert (
        compute_threshold(heat, known, 0.1, floor=0.7) == 0.7 and compute_threshold(heat, ~known, 0.1, floor=0.3) == 0.3
    )
    known[:20] = False
    heat[:20] = 2
    assert compute_threshold(heat, known, 0.1, deviations=6) == pytest.approx(0.6, abs=0.05)


def test_places_that_touch_are_one_region_if_one_of_them_reaches_the_threshold() -> None:
    heat = np.zeros((20, 30), np.float32)
    heat[4:6, 10:14], heat[5, 11] = 0.32, 0.5  # with a peak
    heat[12, 20] = 0.39  # below
    heat[19, 29] = 0.8
    found = FeatureDifference(heat, heat >= 0, (8.0, 8.0), 0.4)
    first, second = find_feature_regions(found, (157, 240), margin=3)
    assert first.extent == (232, 152, 240, 157) and first.box == (229, 149, 240, 157) and first.score == 2.0
    assert second.extent == (80, 32, 112, 48) and second.area == 8 * 64 and second.contrast == 0.5
    assert first.level == second.level == "features"


def test_a_change_is_found_where_it_is_whatever_the_window(comparer: Comparer) -> None:
    reference = shapes(3, 200, 230)
    assert comparer.features is not None and len(comparer.features.windows((200, 230))) == 20
    for y, x in ((20, 20), (58, 60), (90, 100), (150, 180)):
        image = reference.copy()
        image[y : y + 24, x : x + 24] = np.random.default_rng(1).integers(0, 2, (24, 24, 1)) * 255
        found = comparer.compare(reference, image)
        assert found.features is not None and found.heat_hw is not None and found.level == "both"
        peak = np.unravel_index(found.features.heat_hw.argmax(), found.features.heat_hw.shape)
        assert y - 4 <= peak[0] * 4 + 2 <= y + 28 and x - 4 <= peak[1] * 4 + 2 <= x + 28
        far = found.features.heat_hw.copy()
        far[(y - 28) // 4 if y > 28 else 0 : (y + 52) // 4, (x - 28) // 4 if x > 28 else 0 : (x + 52) // 4] = 0
        assert far.max() < 1e-3, "a window's border shows"


def test_levels_have_their_own_answers(comparer: Comparer, model: Path) -> None:
    same = comparer.compare(shapes(1), shapes(1))
    assert same.same and same.features is not None and not same.features.heat_hw.any()
    assert same.heat_map("features").size == same.heat_map("pixels").size == (320, 240)
    assert Comparer(level="features", model=model).compare(shapes(1), as_jpeg(shapes(1), 60)).same
    alone = Comparer().compare(shapes(1), as_jpeg(shapes(1)))
    assert alone.level == "pixels" and alone.to_dict()["features"] is None
    with pytest.raises(SpecError, match="level='both'"):
        alone.heat_map("features")
    grey = Comparer(level="features", model=model).compare(shapes(1)[..., 0], as_jpeg(shapes(1)[..., 0]))
    assert grey.level == "features" and grey.heat_hw is None and grey.to_dict()["threshold"] is None
    with pytest.raises(SpecError, match="leave the model out"):
        Comparer(model=model)
    with pytest.raises(SpecError, match="features"):
        Comparer(level="feature")


def test_what_lies_beyond_the_reference_is_not_compared(comparer: Comparer) -> None:
    reference = shapes(10, 240, 320)
    found = comparer.compare(np.ascontiguousarray(reference[30:210, 40:280]), reference)
    assert found.features is not None and 0.4 < found.features.known_hw.mean() < 0.6
    assert not found.features.heat_hw[~found.features.known_hw].any()


def test_the_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference, image = tmp_path / "a.png", tmp_path / "b.png"
    pixels = shapes(3)
    Image.fromarray(pixels).save(reference)
    pixels[100:140, 150:190] = np.random.default_rng(1).integers(0, 2, (40, 40, 1)) * 255
    Image.fromarray(pixels).save(image)
    words = ["compare", str(reference), str(image), "-m", str(model), "--json", "-o", str(tmp_path / "out")]
    assert run_command([*words, "--level", "both"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["pairs"]
    assert entry["level"] == "both" and entry["features"]["network"] == "edges" and entry["features"]["highest"] > 0.1
    assert set(entry["pictures"]) == {"reference", "boxes", "overlay", "heat", "heat_features"}
    assert Image.open(entry["pictures"]["heat_features"]).size == (320, 240)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "heat: pixels" in page and "heat: features" in page
    for wrong, said in (
        (["--level", "feature"], "did you mean 'features'"),
        (["--level", "pixels"], "leave the model out"),
    ):
        assert run_command([*words, "--overwrite", *wrong]) == 2
        assert said in capsys.readouterr().err


def test_a_network_without_maps_is_refused(tmp_path: Path) -> None:
    from tests.support.networks import write_model

    with pytest.raises(ModelError, match="export-maps"):
        Comparer(level="features", model=write_model(tmp_path))
