"""Vectors, labels and numbers of neighbors that callers give are checked at every door; rules of ranking: test_gallery_calibration.py."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_calibration import calibrate
from unalike.recognition.ranking import check_vectors

MASKED = np.ma.masked_array(np.ones((1, 4)), mask=[[0, 1, 0, 0]])
NO_VECTORS = {
    "complex": np.ones((1, 4)) * 1j, "texts": [["1", "2", "3", "4"]], "masked": MASKED, "truth values": np.ones((1, 4), bool),
    "objects": np.array([[1, 2, 3, None]], object), "nothing": None, "ragged": [[1, 2], [1, 2, 3, 4]], "bytes": b"abcd",
    "dates": np.array([["2020-01-01"] * 4], "M8[D]"), "a mapping": {"a": 1}, "records": np.zeros(4, [("a", "f4")]),
    "a generator": (number for number in [1, 2, 3, 4]), "width": np.ones((1, 5)), "three axes": np.ones((1, 1, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_VECTORS)
def test_what_is_no_vector_is_refused_at_every_door(name: str) -> None:
    gallery = Gallery(4)
    gallery.enrol(np.eye(4), list("abcd"))
    vectors = NO_VECTORS[name]
    with gallery.view() as view:
        doors = (
            lambda: check_vectors(vectors, 4), lambda: gallery.enrol(vectors, ["e"]), lambda: gallery.search(vectors, 1),
            lambda: view.search(vectors, 1), lambda: view.rank(vectors), lambda: view.search_others(vectors, "a"),
            lambda: calibrate(gallery, 0.1, images=(vectors, ["z"])),
        )  # fmt: skip
        for door in doors:
            with pytest.raises(DataError, match="vectors"):
                door()
    assert len(gallery) == 4


def test_numbers_of_any_real_type_are_vectors() -> None:
    for vectors in (
        [[1, 2, 3, 4]],
        np.ones((1, 4), np.uint8),
        np.ones(4, np.float16),
        np.ma.masked_array(np.ones((1, 4)), mask=False),
    ):
        assert check_vectors(vectors, 4).shape == (1, 4)


@pytest.mark.parametrize("k", [1.5, "3", None, -1, 0, True, [1], float("nan")])
def test_what_is_no_number_of_neighbors_is_refused_at_every_door(k: object) -> None:
    gallery = Gallery(4)
    gallery.enrol(np.eye(4), list("abcd"))
    query = np.ones((1, 4))
    with gallery.view() as view:
        doors = (
            lambda: gallery.search(query, k), lambda: view.search(query, k), lambda: view.rank(query, k=k),
            lambda: view.rank(query, "prototype", k=k), lambda: view.rank(query, "vote", k), lambda: view.entries(limit=k),
            lambda: calibrate(gallery, 0.1, rule="vote", k=k), lambda: calibrate(gallery, 0.1, max_trials=k), lambda: Gallery(k),
        )  # fmt: skip
        for door in doors:
            with pytest.raises(DataError, match="expected a whole number, 1 or more"):
                door()


@pytest.mark.parametrize("label", [None, float("nan"), b"a", ["a"], 1.5, True, " ", "\u200b", ""], ids=repr)
def test_what_is_no_class_name_is_refused_at_every_door(label: object) -> None:
    gallery = Gallery(4)
    gallery.enrol(np.eye(4), list("abcd"))
    doors = (
        lambda: gallery.enrol(np.ones((1, 4)), [label]), lambda: gallery.rename("a", label), lambda: gallery.merge(["a"], label),
        lambda: gallery.remove([label]), lambda: gallery.rename(label, "e"),
        lambda: calibrate(gallery, 0.1, images=(np.ones((1, 4)), [label])),
    )  # fmt: skip
    for door in doors:
        with pytest.raises(DataError, match=r"class|label"):
            door()
    assert gallery.classes == list("abcd")


def test_one_text_in_place_of_a_list_is_refused() -> None:
    gallery = Gallery(4)
    gallery.enrol(np.eye(4), list("abcd"), list("1234"))
    doors = (
        lambda: gallery.enrol(np.eye(4)[:3], "xyz"), lambda: gallery.enrol(np.eye(4)[:1], ["x"], "n"),
        lambda: gallery.remove("ab"), lambda: gallery.remove(names="12"), lambda: gallery.merge("ab", "c"),
        lambda: gallery.remove(None), lambda: gallery.remove(ids=1), lambda: gallery.remove(ids=["1"]),
        lambda: gallery.enrol(np.eye(4)[:1], ["x"], [b"n"]), lambda: gallery.enrol(np.eye(4)[:1], ["x"], [["n"]]),
    )  # fmt: skip
    for door in doors:
        with pytest.raises(DataError):
            door()
    assert len(gallery) == 4 and gallery.remove(ids=np.array([0])) == 1
