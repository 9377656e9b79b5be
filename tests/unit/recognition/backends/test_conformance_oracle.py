"""The slow oracle of the laws, and what raises where a law is broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.recognition.backends.conformance_oracle import (
    DIM,
    PlainList,
    check_against,
    create,
    enrol,
    random_vectors,
    require_equal,
    require_error,
)


def test_a_plain_list_searches_by_cosine() -> None:
    oracle, axes = PlainList(), np.eye(3)
    oracle.enrol(axes[[0, 1, 0]] * 5, ["a", "b", "a"], ["1", "2", "3"])
    oracle.remove([1])
    oracle.relabel(["a"], "c")
    assert oracle.search(np.array([2.0, 2.0, 0.0]), 2) == [(pytest.approx(0.5**0.5), 0), (pytest.approx(0.5**0.5), 2)]
    assert [entry.label for entry in oracle.entries()] == ["c", "c"]


def test_a_gallery_that_differs_from_the_list_is_found(tmp_path: Path) -> None:
    gallery, oracle = create(str(tmp_path / "a.gallery")), PlainList()
    vectors = random_vectors(5)
    enrol(gallery, vectors, list("abcab"), list("12345"))
    oracle.enrol(vectors, list("abcab"), list("12345"))
    check_against(oracle, gallery, random_vectors(2, seed=1), 3, 1e-6)
    oracle.rows[2] = (*oracle.rows[2][:3], np.eye(DIM)[0])
    with pytest.raises(AssertionError, match="score"):
        check_against(oracle, gallery, np.eye(DIM)[:1], 3, 1e-6)


def test_requirements_raise() -> None:
    with pytest.raises(AssertionError, match="size: 1, not 2"):
        require_equal(1, 2, "size")
    with pytest.raises(AssertionError, match="no DataError"):
        require_error(DataError, lambda: None)
    with pytest.raises(AssertionError, match="the message has no 'x'"):
        require_error(DataError, lambda: (_ for _ in ()).throw(DataError("y")), "x")
