"""Validation counts every image once, whatever the number of ranks (TAO D15, D32), and decodes each once."""

import numpy as np
import pytest
from PIL import Image

from unalike.data.imageset import align_labels, load_images
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.training.validation import Validator


class Engine:
    """Vectors from pixels: the mean colour of the four quarters."""

    dim, batch, input_size = 12, 4, (16, 16)
    name, precision = "stand-in", "fp32"

    def __init__(self):
        self.seen = 0

    def __call__(self, images_BHWC):
        self.seen += len(images_BHWC)
        x = images_BHWC.astype(np.float32)
        quarters = [x[:, a : a + 8, b : b + 8].mean((1, 2)) for a in (0, 8) for b in (0, 8)]
        return np.concatenate(quarters, axis=1)


@pytest.fixture
def sets(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("reference", 3), ("query", 5)):
        for c in range(4):
            folder = tmp_path / part / f"c{c}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng(c).integers(0, 255, (20, 20, 3)) + rng.normal(0, 60, (20, 20, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return align_labels(load_images(tmp_path / "reference"), load_images(tmp_path / "query"))


def validator(sets, **options):
    return Validator(
        *sets, View(16, 16), batch_size=4, workers=1, max_unreadable=0.05, max_pixels=10**6, notices=Notices(), seed=0,
        **options,
    )  # fmt: skip


def test_d15_ranks_share_the_images_and_merge_to_what_one_process_measures(sets):
    alone, ranking = validator(sets).measure(Engine())
    parts = {}

    def keep(rank, others):
        def merge(part):
            parts[rank] = part
            return [*others(), part]

        return merge

    engines = [Engine(), Engine(), Engine()]
    for rank in (2, 1, 0):
        collected = dict(parts)
        shared = validator(
            sets, rank=rank, world_size=3, merge=keep(rank, lambda collected=collected: list(collected.values()))
        )
        if rank:  # only the last call sees every part; the others only give theirs
            with np.errstate(all="ignore"):
                parts[rank] = shared._embed(engines[rank])
        else:
            kpis, merged = shared.measure(engines[0])
    assert sum(e.seen for e in engines) == 32
    assert kpis == pytest.approx(alone)
    assert np.array_equal(merged.predicted, ranking.predicted) and len(merged.labels) == 20


def test_views_are_made_once_and_the_engine_sees_the_new_weights_each_time(sets, monkeypatch):
    calls = []
    original = View.__call__
    monkeypatch.setattr(View, "__call__", lambda self, *a, **k: (calls.append(1), original(self, *a, **k))[1])
    validation = validator(sets)
    engine = Engine()
    first, _ = validation.measure(engine)
    second, _ = validation.measure(engine)
    assert len(calls) == 32 and engine.seen == 64 and first == pytest.approx(second)


def test_a_set_that_is_its_own_reference_is_embedded_once(sets):
    engine = Engine()
    kpis, ranking = validator((sets[1], sets[1])).measure(engine)
    assert engine.seen == 20 and ranking.same and 0 <= kpis["val Precision at Rank 1"] <= 1
