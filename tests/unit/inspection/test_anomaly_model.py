"""The arrays behind an inspection, each beside a slow and obvious way: coreset, memory, grids, regions, threshold."""

from __future__ import annotations

import itertools
import math
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unalike.data.tiling import Sight, settle_fit, settle_scale
from unalike.errors import DataError, SpecError, UnalikeError
from unalike.inspection.anomaly_model import RIM, Judge, Recipe, spread, typical_distance, whitening
from unalike.inspection.coreset import greedy_coreset
from unalike.inspection.memory_bank import PatchMemory
from unalike.inspection.normal_images import folded, parts_shown, places
from unalike.inspection.result import find_spots
from unalike.metrics.false_alarm import Alarm, images_needed, set_alarm
from unalike.metrics.localization import pixel_auroc, region_overlap
from unalike.metrics.maps import components, local_mean, resized, smoothed

RNG = np.random.default_rng(7)


# ---- coreset and memory ----


def slow_coreset(vectors, count, first):
    chosen = [first]
    while len(chosen) < count:
        nearest = [min(np.sum((v - vectors[c]) ** 2) for c in chosen) for v in vectors]
        chosen.append(int(np.argmax(nearest)))
    return chosen


def test_the_coreset_is_the_greedy_one():
    vectors = RNG.normal(size=(60, 5)) * [1, 2, 3, 1, 1]
    found = greedy_coreset(vectors, 20, seed=3)
    assert found.tolist() == slow_coreset(vectors, 20, int(found[0]))
    assert greedy_coreset(vectors, 99).tolist() == list(range(60))


def test_a_projected_coreset_covers_nearly_as_well_as_the_true_one():
    vectors = RNG.normal(size=(400, 200))

    def radius(chosen):
        return np.linalg.norm(vectors[:, None] - vectors[chosen][None], axis=2).min(1).max()

    found = greedy_coreset(vectors, 40, projected=64)
    assert len(set(found.tolist())) == 40
    assert radius(found) <= 1.1 * radius(greedy_coreset(vectors, 40, projected=200))


def test_equal_vectors_are_never_taken_twice():
    assert sorted(greedy_coreset(np.ones((9, 3)), 5).tolist()) == sorted(
        set(greedy_coreset(np.ones((9, 3)), 5).tolist())
    )


@pytest.mark.parametrize("k", [1, 3, 50])
def test_the_nearest_are_exact_whatever_the_chunks(k, monkeypatch):
    memory, queries = RNG.normal(size=(37, 6)).astype(np.float32), RNG.normal(size=(23, 6)).astype(np.float32)
    table = np.linalg.norm(queries[:, None].astype(float) - memory[None], axis=2)
    for chunk, rows in ((4 * 10 * 5, 10), (32 * 2**20, 1024)):
        monkeypatch.setattr("unalike.inspection.memory_bank.CHUNK_BYTES", chunk)
        monkeypatch.setattr("unalike.inspection.memory_bank.QUERY_ROWS", rows)
        distance, index = PatchMemory(memory).nearest(queries, k)
        assert np.array_equal(index, np.argsort(table, axis=1, kind="stable")[:, :k])
        assert np.allclose(distance, np.sort(table, axis=1)[:, :k], atol=1e-5)


def test_equal_distances_go_to_the_lower_index():
    memory = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    assert PatchMemory(memory).nearest(np.eye(4, dtype=np.float32))[1].ravel().tolist() == [0, 3, 6, 9]


def test_ann_finds_nearly_all_and_small_memories_are_exact():
    pytest.importorskip("faiss")
    memory = RNG.normal(size=(3000, 8)).astype(np.float32)
    queries = RNG.normal(size=(200, 8)).astype(np.float32)
    exact, found = PatchMemory(memory).nearest(queries)[0], PatchMemory(memory, "ann").nearest(queries)[0]
    assert (found >= exact - 1e-4).all() and np.mean(np.isclose(found, exact, atol=1e-4)) >= 0.98
    assert np.array_equal(
        PatchMemory(memory[:50], "ann").nearest(queries)[1], PatchMemory(memory[:50]).nearest(queries)[1]
    )


def test_memories_refuse_what_they_cannot_hold():
    with pytest.raises(DataError, match="NaN"):
        PatchMemory(np.array([[np.nan]], np.float32))
    with pytest.raises(DataError, match="at least one"):
        PatchMemory(np.empty((0, 3), np.float32))
    with pytest.raises(DataError, match="any, 3"):
        PatchMemory(np.ones((2, 3), np.float32)).nearest(np.ones((1, 4)))
    with pytest.raises(SpecError, match="exact or ann"):
        PatchMemory(np.ones((2, 3)), "fast")


# ---- the space of patches ----


def test_whitening_undoes_the_covariance_or_leaves_it():
    vectors = (RNG.normal(size=(4000, 4)) * [1, 5, 0.2, 3]) @ RNG.normal(size=(4, 4)) + 7
    mean, mix = whitening(vectors, 1.0)
    kept = np.linalg.eigvalsh(np.cov(vectors.T))
    kept = kept / (kept + 0.01 * kept.mean())
    spread = np.linalg.eigvalsh(np.cov(((vectors - mean) @ mix).T))
    assert np.allclose(np.sort(spread), np.sort(kept / kept.sum()), rtol=1e-3)
    mean, mix = whitening(vectors, 0.0)
    seen = (vectors - mean) @ mix
    ratio = np.linalg.norm(seen[1:] - seen[:-1], axis=1) / np.linalg.norm(vectors[1:] - vectors[:-1], axis=1)
    assert ratio.max() / ratio.min() == pytest.approx(1, rel=1e-3)  # angles and ratios of distances stay


def test_the_spread_is_that_of_other_images_usual_patches():
    memory, usual = RNG.normal(size=(30, 4)).astype(np.float32), RNG.normal(size=(200, 4)).astype(np.float32)
    owner, owners = RNG.integers(0, 5, 30), RNG.integers(0, 5, 200)
    expected = []
    for vector, image in zip(memory, owner, strict=True):
        near = np.sort(np.linalg.norm(usual - vector, axis=1))[:32]
        ranks = np.argsort(np.linalg.norm(usual - vector, axis=1))[:32]
        others = near[owners[ranks] != image][:8]
        expected.append(others.mean())
    expected = np.array(expected) + 0.3 * np.median(expected)
    assert np.allclose(spread(memory, owner, usual, owners), expected / np.median(expected), rtol=1e-4)
    alone = spread(memory[:3], np.zeros(3), memory[:3], np.zeros(3))  # all of one image: still finite
    assert np.isfinite(alone).all() and (alone > 0).all()


def test_whitening_of_constant_patches_stays_finite():
    mean, mix = whitening(np.ones((10, 3), np.float32), 1.0)
    assert np.isfinite(mix).all() and np.allclose(mean, 1)


def test_places_count_only_with_a_fixture():
    vectors, spots = RNG.normal(size=(500, 4)).astype(np.float32), RNG.random((500, 2)).astype(np.float32)
    free = Judge.learn(vectors, spots, Recipe(patches=500, memory=500))
    held = Judge.learn(vectors, spots, Recipe(patches=500, memory=500, fixture=0.02))
    there, moved = spots.reshape(20, 25, 2), (spots + 0.5).reshape(20, 25, 2)
    grid = vectors.reshape(20, 25, 4)
    assert np.array_equal(free.heat(grid, there), free.heat(grid, moved))
    assert held.heat(grid, there).max() < 0.05 < held.heat(grid, moved).min()


def test_where_a_patch_lies_is_told_by_the_loop():
    found = places(2, 3, (3, 4), (9, 12), 16)
    for y, x in itertools.product(range(3), range(4)):
        row, column = y + 2.5, x + 3.5
        expected = [row / 12, column / 12, 16 * row, 16 * (9 - row), 16 * column, 16 * (12 - column)]
        assert np.allclose(found[y, x], expected)


def test_what_lies_at_a_border_is_compared_with_what_lay_there():
    """Good patches that were all inside: at the left border they are RIM typical distances off, further inside nothing."""
    vectors = RNG.normal(size=(200, 4)).astype(np.float32)
    inside, left = (np.full((200, 6), 300.0, np.float32) for _ in range(2))
    left[:, 4] = 0
    usually = typical_distance((vectors - vectors.mean(0)) @ whitening(vectors, 0.0)[1], 0)
    for border, expected in ((0.0, 0.0), (48.0, RIM * usually)):
        judge = Judge.learn(vectors, inside, Recipe(patches=200, memory=200, border=border, local=0.0))
        grid, moved = vectors.reshape(10, 20, 4), left.reshape(10, 20, 6)
        assert np.allclose(judge.heat(grid, moved), expected, atol=2e-3)
        assert np.allclose(judge.heat(grid, (inside + 40).reshape(10, 20, 6)), 0, atol=2e-3)
        moved[..., 4] = 24  # half way, half as far
        assert np.allclose(judge.heat(grid, moved), expected / 2, atol=2e-3)
        moved[..., 4] = 0


def test_a_lesson_makes_its_direction_count_more():
    draws = np.random.default_rng(3)
    good = draws.normal(size=(1800, 16)).astype(np.float32)
    spots = np.zeros((1800, 2), np.float32)
    judge = Judge.learn(good[:900], spots[:900], Recipe(patches=900, memory=200, local=0.0))
    shift = np.zeros(16, np.float32)
    shift[2] = 4
    moments = judge.leftover(good[900:], spots[900:]), judge.leftover(good[:200] + shift, spots[:200])
    taught = judge.weighted(*moments, 5000)

    def far(one, moved):
        base, bad = (one.heat(x.reshape(30, 30, 16), np.zeros((30, 30, 2))) for x in (good[900:], good[900:] + moved))
        return float((bad.mean() - base.mean()) / base.std())

    assert far(taught, shift) > 1.3 * far(judge, shift)
    other = np.roll(shift, 5)
    assert far(taught, shift) / far(judge, shift) > 1.2 * far(taught, other) / far(judge, other)
    hardly = judge.weighted(*moments, 1)  # one patch is no lesson
    assert far(hardly, shift) == pytest.approx(far(judge, shift), rel=0.05)


# ---- good images of the same part ----


def test_images_of_one_part_are_in_one_fold():
    parts = [int(n) for n in RNG.integers(0, 17, 90)]
    found = folded(parts, 4, 3)
    assert all(len({f for f, part in zip(found, parts, strict=True) if part == one}) == 1 for one in set(parts))
    sizes = np.bincount(found, minlength=4)
    assert len(sizes) == 4 and sizes.max() - sizes.min() <= max(parts.count(one) for one in set(parts))
    assert sorted(np.bincount(folded(range(11), 4, 3)).tolist()) == [2, 3, 3, 3]
    assert sorted(np.bincount(folded("aaabbbb", 4, 0)).tolist()) == [3, 4]
    assert not np.array_equal(folded(range(50), 4, 0), folded(range(50), 4, 1))


def test_the_part_is_told_by_a_list_or_in_the_path():
    paths = ["x/part_07_1.png", "x/part_07_2.png", Path("x/part_8_1.png")]
    assert parts_shown(paths, r"part_(\d+)") == [("07",), ("07",), ("8",)]
    assert parts_shown(paths, r"part_\d+") == ["part_07", "part_07", "part_8"]
    assert parts_shown(paths, None) == [0, 1, 2]
    assert parts_shown(paths, ["a", "a", "b"]) == ["a", "a", "b"]
    for wrong, word in (
        ("part_(", "regular expression"),
        ("part_0", "1 of 3 images do not match 'part_0', such as x/part_8_1.png"),
        (["a", "b"], "parts of 2 images"),
        (["a", "a", "a"], "one part"),
    ):
        with pytest.raises(UnalikeError, match=word):
            parts_shown(paths, wrong)
    with pytest.raises(DataError, match="without a name"):
        parts_shown([np.zeros((4, 4), np.uint8)] * 2, "a")


def test_images_of_the_same_parts_widen_the_interval_and_move_nothing_else():
    scores = RNG.normal(size=199)
    alone, shared = set_alarm(scores, 0.05), set_alarm(scores, 0.05, parts=40)
    assert (alone.threshold, alone.expected) == (shared.threshold, shared.expected)
    assert shared.low < alone.low and alone.high < shared.high and "199 good images of 40 parts" in str(shared)
    assert set_alarm(scores, 0.05, parts=199).high == pytest.approx(alone.high) and "parts" not in str(alone)
    assert Alarm.from_dict(shared.to_dict()).parts == 40


# ---- maps ----


@pytest.mark.parametrize("shape,side", [((2, 7, 5), 3), ((1, 1, 4), 3), ((3, 6, 6), 5), ((1, 3, 3), 1)])
def test_local_mean_is_the_loop(shape, side):
    values = RNG.normal(size=shape)
    expected = np.empty(shape)
    _, height, width = shape
    for y in range(height):
        for x in range(width):
            rows = np.clip(np.arange(y - side // 2, y + side // 2 + 1), 0, height - 1)
            columns = np.clip(np.arange(x - side // 2, x + side // 2 + 1), 0, width - 1)
            expected[:, y, x] = values[:, rows][:, :, columns].mean((1, 2))
    assert np.allclose(local_mean(values, side), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(10, 14), (3, 4), (5, 7), (1, 1)])
def test_resizing_is_pillows_where_it_enlarges_and_interpolates_between(size):
    values = RNG.random((5, 7)).astype(np.float32)
    found = resized(values, size)
    assert found.shape == size
    if size[0] >= 5:  # smaller, Pillow widens its filter
        expected = np.asarray(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        assert np.allclose(found, expected, atol=1e-5)
    assert values.min() - 1e-6 <= found.min() and found.max() <= values.max() + 1e-6


def test_smoothing_is_the_weighted_mean_and_keeps_a_constant():
    values = RNG.random((6, 9))
    expected = np.empty((6, 9))
    for y in range(6):
        for x in range(9):
            ys, xs = np.mgrid[0:6, 0:9]
            weight = np.exp(-0.5 * ((ys - y) ** 2 + (xs - x) ** 2)) * (abs(ys - y) <= 3) * (abs(xs - x) <= 3)
            expected[y, x] = (weight * values).sum() / weight.sum()
    assert np.allclose(smoothed(values, 1.0), expected, atol=1e-5)
    assert np.allclose(smoothed(np.full((3, 2), 4.0), 5.0), 4) and np.allclose(smoothed(values, 0), values)


def flooded(mask):
    """The oracle: breadth-first from every cell in reading order."""
    labels, count = np.zeros(mask.shape, int), 0
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        count += 1
        labels[start] = count
        queue = deque([start])
        while queue:
            y, x = queue.popleft()
            for a in range(max(0, y - 1), min(mask.shape[0], y + 2)):
                for b in range(max(0, x - 1), min(mask.shape[1], x + 2)):
                    if mask[a, b] and not labels[a, b]:
                        labels[a, b] = count
                        queue.append((a, b))
    return labels, count


@pytest.mark.parametrize("density", [0.0, 0.2, 0.4, 0.6, 1.0])
def test_components_are_those_of_a_flood(density):
    for shape in ((1, 1), (1, 12), (12, 1), (17, 23)):
        mask = RNG.random(shape) < density
        labels, count = components(mask)
        expected, known = flooded(mask)
        assert count == known and np.array_equal(labels, expected)


# ---- where heat meets masks ----


def slow_pro(heats, masks, limit):
    values = np.unique(np.concatenate([heat.ravel() for heat in heats]))[::-1]
    regions = [(heat, flooded(mask)) for heat, mask in zip(heats, masks, strict=True)]
    cold = np.concatenate([heat[~mask] for heat, mask in zip(heats, masks, strict=True)])
    points = [(0.0, 0.0)]
    for value in values:
        shares = [np.mean(heat[labels == r] >= value) for heat, (labels, n) in regions for r in range(1, n + 1)]
        points.append((float(np.mean(cold >= value)), float(np.mean(shares))))
    total = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        total += (x1 - x0) * (y0 + y1) / 2
    return total / limit


@pytest.mark.parametrize("seed", range(4))
def test_pro_and_pixel_auroc_equal_the_slow_ways(seed):
    draws = np.random.default_rng(seed)
    masks = [draws.random((12, 10)) < 0.15 for _ in range(3)] + [np.zeros((12, 10), bool)]
    heats = [np.round(draws.random((12, 10)) + 0.5 * mask, 1) for mask in masks]  # with ties
    assert region_overlap(heats, masks) == pytest.approx(slow_pro(heats, masks, 0.3))
    assert region_overlap(heats, masks, 1.0) == pytest.approx(slow_pro(heats, masks, 1.0))
    sklearn = pytest.importorskip("sklearn.metrics")
    known = sklearn.roc_auc_score(
        np.concatenate([m.ravel() for m in masks]), np.concatenate([h.ravel() for h in heats])
    )
    assert pixel_auroc(heats, masks) == pytest.approx(known)


def test_pro_of_the_perfect_the_useless_and_the_empty():
    mask = np.zeros((8, 8), bool)
    mask[1:3, 1:3] = mask[5, 5] = True
    assert region_overlap([mask.astype(float)], [mask]) == pytest.approx(1)
    assert region_overlap([np.zeros((8, 8))], [mask]) == pytest.approx(0.15)  # one straight line
    assert math.isnan(region_overlap([mask * 1.0], [~mask | True])) and math.isnan(pixel_auroc([], []))
    with pytest.raises(UnalikeError, match="one size"):
        pixel_auroc([np.zeros((2, 2))], [mask])


def test_spots_are_where_heat_is_above_the_threshold():
    heat = np.zeros((4, 6), np.float32)
    heat[1, 1:3], heat[3, 5] = [2, 3], 9
    hottest, other = find_spots(heat, 1.5, (40, 60))
    assert hottest.box == (50, 30, 60, 40) and hottest.score == 9 and hottest.area == 100
    assert other.box == (10, 10, 30, 20) and other.area == 200
    assert find_spots(heat, 9.0, (40, 60)) == () and find_spots(heat, math.nan, (40, 60)) == ()
    (cut,) = find_spots(heat, 5.0, (38, 57), (40 / 38, 60 / 57))  # the last patches reach beyond the image
    assert cut.box == (50, 30, 57, 38)


# ---- the threshold ----


def test_the_stated_rate_is_kept_on_average_and_inside_its_interval():
    draws, true, inside = np.random.default_rng(1), [], 0
    for _ in range(1000):
        alarm = set_alarm(draws.random(120), 0.05)
        true.append(1 - alarm.threshold)  # of uniform scores the true rate is known
        inside += alarm.low <= true[-1] <= alarm.high
    assert alarm.expected == pytest.approx(6 / 121)
    assert np.mean(true) == pytest.approx(alarm.expected, abs=0.002)
    assert 0.935 <= inside / 1000 <= 0.965


def test_a_rate_that_the_data_cannot_support_is_refused():
    assert images_needed(0.01) == 99 and images_needed(0.5) == 1
    scores = np.arange(98.0)
    with pytest.raises(DataError, match="98 good images cannot support 0.01.*at least 99"):
        set_alarm(scores, 0.01)
    assert set_alarm(np.arange(99.0), 0.01).threshold == 98.0
    with pytest.raises(DataError, match="between 0 and 1"):
        set_alarm(scores, 1.5)


def test_defects_tell_what_is_found_and_change_nothing_else():
    good = np.arange(99.0)
    plain, told = set_alarm(good, 0.1), set_alarm(good, 0.1, defects_M=np.array([1.0, 95.0, 200.0, 90.0]))
    assert plain.threshold == told.threshold == 89.0 and told.found == 0.75 and math.isnan(plain.found)
    assert Alarm.from_dict(told.to_dict()) == told and plain.to_dict()["found"] is None
    assert "75.0% of 4" in str(told)


# ---- how images are shown ----


@pytest.mark.parametrize("size", [(96, 64), (97, 130), (300, 50), (20, 10), (64, 65)])
@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_tiles_cover_every_pixel_on_one_grid(size, scale):
    pixels = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    sight = Sight(64, 48, "scale", scale)
    seen = np.asarray(sight.scaled(Image.fromarray(pixels)))
    assert seen.shape[:2] == sight.scaled_size(size)
    covered = np.zeros(seen.shape[:2], int)
    for tile in sight.tiles(Image.fromarray(pixels)):
        assert tile.pixels_HWC.shape == (64, 48, 3) and tile.top % 8 == tile.left % 8 == 0
        window = np.s_[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        assert np.array_equal(tile.pixels_HWC[: tile.height, : tile.width], seen[window])
        covered[window] += 1
    assert covered.min() >= 1
    if scale == 1.0:
        assert np.array_equal(seen, pixels)


def test_even_light_brings_a_darker_picture_back():
    pixels = RNG.integers(80, 160, (64, 64, 3), dtype=np.uint8)
    sight = Sight(64, 64, "whole", 1.0, "even")
    bright, dark = (np.asarray(sight.scaled(Image.fromarray((pixels * f).astype(np.uint8))), float) for f in (1.0, 0.6))
    assert np.abs(bright - dark).max() <= 2 and abs(np.median(bright) - 100) <= 2


def test_the_fit_is_settled_by_the_images_sizes():
    assert settle_fit([(300, 310), (600, 622)], (224, 224)) == "whole"
    assert settle_fit([(300, 300), (600, 900)], (224, 224)) == "scale"
    assert settle_fit([(100, 900)] * 3, (224, 224)) == "scale"  # one aspect, yet far from the network's
    assert settle_scale([(50, 90), (60, 60)], (224, 224)) == 1.0
    assert settle_scale([(448, 448), (900, 900), (20, 20)], (224, 224)) == 0.5
    for wrong in ({"fit": "tile"}, {"light": "dim"}, {"scale": 0.0}):
        with pytest.raises(SpecError):
            Sight(64, 64, **wrong)
