"""Discovered groups as labels: images are ordered by content, and images in no group are classes of their own.

``find_groups`` and its file for --resume are tested in tests/unit/runs/test_stage.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.discovery.clustering import group_images
from unalike.training.automatic.groups import label_by_group, order_by_content


def image_set(paths: list[Path]) -> ImageSet:
    return ImageSet(tuple(paths), np.full(len(paths), -1))


def test_names_have_no_effect_on_the_order_and_copies_are_dropped(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"one"), ("d", b"three")):
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in "abcd"]
    ordered = order_by_content(image_set(paths))
    contents = [path.read_bytes() for path in ordered.paths]
    assert sorted(contents) == [b"one", b"three", b"two"]
    assert [path.read_bytes() for path in order_by_content(image_set(paths[::-1])).paths] == contents
    missing = order_by_content(image_set([tmp_path / "missing", *paths]))
    assert missing.paths[-1].name == "missing" and len(missing) == 4


def test_images_in_no_group_are_classes_of_their_own() -> None:
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(0, 1, (12, 8)), 6, axis=0) + rng.normal(0, 0.05, (72, 8))
    vectors = np.concatenate([vectors, 5 * np.eye(8)[:1] - vectors.mean(axis=0)]).astype(np.float32)
    grouping = group_images(vectors)
    images = label_by_group(image_set([Path(f"{i}.png") for i in range(73)]), grouping)
    alone = int((grouping.group_N < 0).sum())
    assert len(images.classes) == grouping.count + alone
    assert np.array_equal(images.labels_N[grouping.group_N >= 0], grouping.group_N[grouping.group_N >= 0])
    assert (np.bincount(images.labels_N)[grouping.count :] == 1).all()
