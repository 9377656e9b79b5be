"""Splits: nothing on both sides that must not be, nothing lost, the same for the same seed, readable again."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unalike.data.imageset import ImageSet, load_images
from unalike.data.splits import split_images, split_reference_query, write_manifest
from unalike.errors import DataError, SpecError


def made_up(counts: list[int], groups: list[str] | None = None) -> ImageSet:
    labels = np.repeat(np.arange(len(counts)), counts)
    paths = tuple(Path(f"c{label}/{i}.png") for i, label in enumerate(labels))
    return ImageSet(
        paths, labels, tuple(f"c{i:03d}" for i in range(len(counts))), None if groups is None else tuple(groups)
    )


def together(a: ImageSet, b: ImageSet, whole: ImageSet) -> None:
    """Oracle of every split: a partition, with each image's label and name kept."""
    assert sorted(a.paths + b.paths) == sorted(whole.paths) and not set(a.paths) & set(b.paths)
    name_of = dict(zip(whole.paths, whole.label_names(), strict=True))
    for side in (a, b):
        assert len(side) and side.classes == whole.classes
        assert all(name_of[path] == name for path, name in zip(side.paths, side.label_names(), strict=True))


def many(seed: int) -> ImageSet:
    draw = np.random.default_rng(seed)
    counts = draw.integers(1, 12, draw.integers(4, 30)).tolist()
    counts[:4] = [5, 2, 3, 4]
    groups = [f"g{draw.integers(40)}" if draw.random() < 0.9 else "" for _ in range(sum(counts))]
    return made_up(counts, groups)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5, 0.9])
def test_laws_by_class(seed: int, fraction: float) -> None:
    whole = many(seed)
    train, held = split_images(whole, "class", fraction, seed)
    together(train, held, whole)
    assert not set(train.label_names()) & set(held.label_names())
    teaching, left = (whole.counts() > 1).sum(), (train.counts() > 1).sum()
    assert teaching - left == min(max(2, round(fraction * teaching)), teaching - 2) >= 2 and left >= 2
    assert (held.counts() == 1).sum() == round(fraction * (whole.counts() == 1).sum())


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5, 0.9])
def test_laws_by_image(seed: int, fraction: float) -> None:
    whole = many(seed)
    train, held = split_images(whole, "image", fraction, seed)
    together(train, held, whole)
    assert (train.counts() >= 1).all()
    share = whole.counts() * fraction
    assert (np.abs(held.counts() - share) < 1 + 1e-9)[share <= whole.counts() - 1].all()


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_laws_by_group(seed: int, fraction: float) -> None:
    whole = many(seed)
    train, held = split_images(whole, "group", fraction, seed)
    together(train, held, whole)
    assert train.groups is not None and held.groups is not None
    assert not (set(train.groups) - {""}) & (set(held.groups) - {""})
    assert (train.counts() >= 1).all()
    assert len(held) <= fraction * len(whole) * 1.5 + max(whole.groups.count(g) for g in set(whole.groups or ()))


@pytest.mark.parametrize("by", ["class", "image", "group"])
def test_seeded(by: str) -> None:
    whole = many(3)
    first, again, other = (split_images(whole, by, 0.3, seed)[1].paths for seed in (1, 1, 2))
    assert first == again and first != other


def test_the_total_is_right_for_tiny_classes() -> None:
    train, held = split_images(made_up([2] * 100), "image", 0.2, 0)
    assert abs(len(held) - 40) <= 1 and (train.counts() >= 1).all()
    train, held = split_images(made_up([1] * 90 + [20]), "image", 0.2, 0)
    assert len(held) in (4, 5)  # what classes of one cannot give is not taken from the others
    train, held = split_images(made_up([2, 2]), "image", 0.01, 0)
    assert len(held) == 1


@pytest.mark.parametrize(
    "counts", [[1] * 16 + [6] * 4, [1] * 800 + [10] * 200, [1] * 90 + [8] * 30, [1] * 1500 + [2] * 30]
)
def test_a_long_tail_keeps_the_classes_that_can_teach(counts: list[int]) -> None:
    for seed in range(5):
        train, held = split_images(made_up(counts), "class", 0.2, seed)
        teaching = sum(c > 1 for c in counts)
        assert (train.counts() > 1).sum() >= teaching / 2 and (held.counts() > 1).sum() >= 2
        assert len(held) <= 0.4 * sum(counts)


def test_too_small_to_divide() -> None:
    for counts in ([5, 5, 5], [5, 5, 5] + [1] * 20):
        with pytest.raises(DataError, match="3 classes.*by=image"):
            split_images(made_up(counts), "class")
    with pytest.raises(DataError, match="every class has one image"):
        split_images(made_up([1, 1, 1, 1]), "image")
    with pytest.raises(DataError, match="group column"):
        split_images(made_up([5, 5]), "group")
    with pytest.raises(DataError, match="no group can be held out"):
        split_images(made_up([2, 2], ["a", "a", "b", "b"]), "group")
    with pytest.raises(DataError, match="without a class"):
        split_images(ImageSet((Path("a"),), np.array([-1])), "image")
    with pytest.raises(SpecError, match="did you mean 'class'"):
        split_images(made_up([5, 5]), "clas")
    with pytest.raises(SpecError, match="fraction"):
        split_images(made_up([5, 5]), "image", 1.0)


@pytest.mark.parametrize("seed", range(10))
def test_reference_and_query(seed: int) -> None:
    whole = replace(many(seed), groups=None)
    reference, query = split_reference_query(whole, seed)
    together(reference, query, whole)
    counts = whole.counts()
    assert (reference.counts() >= 1).all() and (query.counts()[counts >= 2] >= 1).all()
    assert (query.counts() == counts // 2).all()
    assert split_reference_query(whole, seed)[1].paths == query.paths


@pytest.mark.parametrize("seed", range(10))
def test_no_group_of_a_class_is_reference_and_query(seed: int) -> None:
    whole = many(seed)
    reference, query = split_reference_query(whole, seed)
    together(reference, query, whole)
    sides = [set(zip(side.groups or (), side.labels_N.tolist(), strict=True)) for side in (reference, query)]
    assert not {(group, label) for group, label in sides[0] & sides[1] if group}
    for label, count in enumerate(whole.counts().tolist()):
        names = [name or str(i) for i, name in enumerate(whole.groups or ()) if whole.labels_N[i] == label]
        asked = int(query.counts()[label])
        smallest = min(map(names.count, names))
        assert asked <= max(count // 2, smallest) and (asked > 0) == (len(set(names)) > 1)


def test_where_every_class_lies_in_one_group_images_are_divided() -> None:
    assert split_reference_query(made_up([3, 2], ["a"] * 3 + ["b"] * 2))[1].counts().tolist() == [1, 1]


def test_reference_and_query_of_classes_with_gaps() -> None:
    whole = made_up([3, 2, 4]).select([0, 1, 2, 5, 6, 7, 8])  # the middle class has no image left
    reference, query = split_reference_query(whole)
    assert reference.counts().tolist() == [2, 0, 2] and query.counts().tolist() == [1, 0, 2]
    with pytest.raises(DataError, match="every class has one image"):
        split_reference_query(made_up([1, 1]))


@pytest.fixture
def folder(tmp_path: Path) -> ImageSet:
    for i in range(40):
        path = tmp_path / "data" / f"Klasse, {'äöüßé'[i % 5]}" / f'bild "{i}" x.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return load_images(tmp_path / "data")


@pytest.mark.parametrize("by", ["class", "image", "group"])
@pytest.mark.parametrize("place", ["data/split.csv", "elsewhere/deep/split.csv"])
def test_manifest_reads_back_identically(tmp_path: Path, folder: ImageSet, by: str, place: str) -> None:
    groups = tuple(f"g{i % 7}" for i in range(len(folder))) if by == "group" else None
    whole = ImageSet(folder.paths, folder.labels_N, folder.classes, groups)
    parts = dict(zip(("train", "val"), split_images(whole, by, 0.4, 1), strict=True))
    path = write_manifest(tmp_path / place, parts)
    for name, part in parts.items():
        back = load_images(path, split=name)
        assert back.classes == part.classes and back.labels_N.tolist() == part.labels_N.tolist()
        assert [p.resolve() for p in back.paths] == [p.resolve() for p in part.paths]
        assert back.groups == part.groups and back.fingerprint() == part.fingerprint()
        assert back.splits == (name,) * len(part)
    assert [entry.name for entry in path.parent.iterdir() if entry.name.startswith(".")] == []


def test_manifest_moves_with_its_folder(tmp_path: Path, folder: ImageSet) -> None:
    write_manifest(tmp_path / "data" / "m.csv", {"train": folder})
    (tmp_path / "data").rename(tmp_path / "moved")
    assert len(load_images(tmp_path / "moved" / "m.csv")) == 40
    with (tmp_path / "moved" / "m.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "label", "split"] and not any(Path(row[0]).is_absolute() for row in rows[1:])
