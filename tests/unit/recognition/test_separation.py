"""Separation of a class: against a slow oracle that looks at every pair, for a file and for PostgreSQL; bounded parts."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.postgres import new_database
from unalike.errors import DataError
from unalike.recognition import separation
from unalike.recognition.backends.address import open_gallery, save_gallery
from unalike.recognition.gallery import Gallery
from unalike.recognition.separation import MOST_MEASURED, measure_separation, spread

DIM, TOLERANCE = 8, 1e-5


def oracle(vectors: np.ndarray, labels: list[str], label: str, measured: int) -> dict[str, Any]:
    """Every pair, one after the other."""
    units = [row / np.linalg.norm(row) for row in vectors.astype(np.float64)]
    rows = [number for number, own in enumerate(labels) if own == label]
    chosen = [rows[number] for number in spread(len(rows), measured)]
    own, other, of_class = [], [], defaultdict(list)
    for row in chosen:
        own.append(max((float(units[row] @ units[near]) for near in rows if near != row), default=None))
        foreign = [
            (float(units[row] @ units[near]), labels[near]) for near in range(len(labels)) if labels[near] != label
        ]
        if foreign:
            score, name = max(foreign)
            other.append(score)
            of_class[name].append(score)
    result: dict[str, Any] = {"own": None, "other": None, "margin": None, "closer": None}
    if len(rows) > 1:
        result["own"] = sum(own) / len(own)
    if other:
        result["other"] = sum(other) / len(other)
    if len(rows) > 1 and other:
        margins = [a - b for a, b in zip(own, other, strict=True)]
        result |= {"margin": sum(margins) / len(margins), "closer": sum(margin <= 0 for margin in margins)}
    result["look_alikes"] = sorted(
        ((name, len(scores), max(scores)) for name, scores in of_class.items()),
        key=lambda one: (-one[1], -one[2], one[0]),
    )
    return result


def galleries(kind: str, folder: Path, gallery: Gallery) -> Any:
    address = str(folder / "a.gallery") if kind == "file" else f"{new_database()}&gallery=separation"
    save_gallery(gallery, address)
    return open_gallery(address)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", ["file", "postgresql"])
def test_the_measurement_is_that_of_all_pairs(
    kind: str, half: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the parts are shorter than the class, and where some references alone are measured."""
    if kind == "postgresql":
        pytest.importorskip("psycopg")
    monkeypatch.setattr(separation, "PART", 4)
    monkeypatch.setattr(separation, "QUERIES", 3)
    rng = np.random.default_rng(7)
    labels = [f"class {number}" for number in rng.integers(5, size=60)] + ["alone"]
    vectors = rng.normal(size=(len(labels), DIM)) + 2 * np.eye(DIM)[[hash_of(label) for label in labels]]
    if half:
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors.astype(np.float16).astype(np.float64)
    gallery = Gallery(DIM, half=half)
    gallery.enrol(vectors, labels)
    opened = galleries(kind, tmp_path, gallery)
    with opened.view() as view:
        for label in sorted(set(labels)):
            for measured in (1, 5, MOST_MEASURED):
                result, expected = measure_separation(view, label, measured), oracle(vectors, labels, label, measured)
                tolerance = 2e-3 if half else TOLERANCE
                for name in ("own", "other", "margin"):
                    value = getattr(result, name)
                    assert (value is None) == (expected[name] is None)
                    assert value is None or value == pytest.approx(expected[name], abs=tolerance), (label, name)
                assert result.closer_to_others == expected["closer"]
                assert result.references == labels.count(label) and result.measured == min(
                    measured, labels.count(label)
                )
                found = [(one.label, one.references) for one in result.look_alikes]
                assert found == [one[:2] for one in expected["look_alikes"]]
    opened.close()


def hash_of(label: str) -> int:
    """A direction for each class, of which two are near one another."""
    return {"alone": 0}.get(label, int(label[-1]) % 4 if label != "alone" else 0)


def test_a_class_without_others_and_one_of_a_single_reference_have_no_margin() -> None:
    gallery = Gallery(DIM)
    gallery.enrol(np.eye(DIM)[:2], ["a", "a"])
    with gallery.view() as view:
        result = measure_separation(view, "a")
    assert (result.own, result.other, result.margin, result.closer_to_others, result.look_alikes) == (
        0.0,
        None,
        None,
        None,
        (),
    )
    gallery.enrol(np.eye(DIM)[2:3] + np.eye(DIM)[:1], ["b"])
    with gallery.view() as view:
        result = measure_separation(view, "b")
    assert (result.own, result.margin) == (None, None) and result.other == pytest.approx(2**-0.5)


def test_a_reference_that_was_enrolled_twice_is_its_own_neighbor_once() -> None:
    gallery = Gallery(DIM)
    gallery.enrol(np.eye(DIM)[[0, 0, 0, 1]], ["a", "a", "b", "c"])
    with gallery.view() as view:
        result = measure_separation(view, "a")
    assert (result.own, result.other, result.closer_to_others) == (1.0, 1.0, 2)
    assert [one.label for one in result.look_alikes] == ["b"]


def test_the_measurement_can_be_stopped_and_wrong_values_are_refused() -> None:
    gallery = Gallery(DIM)
    gallery.enrol(np.eye(DIM), list("aabbccdd"))

    def stop() -> None:
        raise TimeoutError

    with gallery.view() as view:
        with pytest.raises(TimeoutError):
            measure_separation(view, "a", check=stop)
        with pytest.raises(DataError, match="none"):
            measure_separation(view, "none")
        for measured in (0, MOST_MEASURED + 1):
            with pytest.raises(DataError):
                measure_separation(view, "a", measured)


def test_measured_references_are_evenly_spread() -> None:
    assert spread(3, 10) == [0, 1, 2] and spread(10, 4) == [0, 2, 5, 7] and spread(0, 4) == []


def test_no_more_than_a_part_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a class of any size, and of a gallery of any size."""
    monkeypatch.setattr(separation, "PART", 50)
    gallery, most = Gallery(DIM), 0
    gallery.enrol(np.random.default_rng(0).normal(size=(3000, DIM)), ["a"] * 2000 + ["b"] * 1000)
    with gallery.view() as view:
        read = view.vectors

        def vectors(ids: Any) -> np.ndarray:
            nonlocal most
            most = max(most, len(ids))
            return read(ids)

        monkeypatch.setattr(view, "vectors", vectors)
        measure_separation(view, "a", sample=40)
    assert most == 50
