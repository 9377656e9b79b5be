"""Laws of the attributes of references and of searches that they filter: ``FILTER_LAWS``, as ``conformance.LAWS``.

An address with ``.copy`` behind it is another address.

Shape letters: N enrolled vectors, Q queries, K neighbors, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.recognition.attributes import Where
from unalike.recognition.backends.address import copy_gallery, open_gallery
from unalike.recognition.backends.conformance import Law, calibration_for
from unalike.recognition.backends.conformance_oracle import (
    DIM,
    SCORE_TOLERANCE,
    PlainList,
    check_against,
    create,
    enrol,
    listed,
    random_vectors,
    require,
    require_equal,
    require_error,
)
from unalike.recognition.backends.protocol import Entry, GalleryBackend
from unalike.recognition.gallery import Gallery

FILTER_LAWS: list[Law] = []
SITES, SEASONS = ("berlin", "köln", "lyon"), ("fw26", "ss26")
# Names together narrow a filter, values of one name widen it; nothing has the value of the last one.
FILTERS: tuple[Where, ...] = (
    {"site": "berlin"},
    {"site": ["berlin", "lyon"]},
    {"season": "ss26", "site": "köln"},
    {"season": ("ss26", "fw26"), "site": {"lyon", "nowhere"}},
    {"site": "nowhere"},
)


def filter_law(function: Law) -> Law:
    """Add a law to ``FILTER_LAWS``."""
    FILTER_LAWS.append(function)
    return function


class AttributeList(PlainList):
    """The slow oracle, whose references have attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: dict[int, Mapping[str, str]] = {}

    def enrol_with(
        self,
        vectors_ND: np.ndarray,
        labels: Sequence[str],
        names: Sequence[str],
        attributes: Sequence[Mapping[str, str]],
    ) -> None:
        """Add references with their attributes."""
        self.attributes.update(enumerate(attributes, self.next_id))
        self.enrol(vectors_ND, labels, names)

    def entries(self) -> list[Entry]:
        """All references."""
        return [Entry(*row[:3], self.attributes[row[0]]) for row in self.rows]

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of references by name and value."""
        counts: dict[str, dict[str, int]] = {}
        for id, *_ in self.rows:
            for name, value in self.attributes[id].items():
                counts.setdefault(name, {}).setdefault(value, 0)
                counts[name][value] += 1
        return counts

    def passing(self, where: Where) -> AttributeList:
        """The references that a filter lets pass, one by one."""
        part = AttributeList()
        part.attributes = self.attributes
        for row in self.rows:
            own = self.attributes[row[0]]
            if all(
                own.get(name) in ([values] if isinstance(values, str) else values) for name, values in where.items()
            ):
                part.rows.append(row)
        return part


def random_attributes(count: int, seed: int) -> list[dict[str, str]]:
    """Attributes of references: some have one, some two, some none."""
    rng = np.random.default_rng(seed)
    sets = [{"site": site} for site in SITES] + [
        {"season": season, "site": site} for site in SITES for season in SEASONS
    ]
    return [[{}, *sets][number] for number in rng.integers(0, len(sets) + 1, count).tolist()]


def check_filters(oracle: AttributeList, gallery: GalleryBackend, queries_QD: np.ndarray, k: int) -> None:
    """Compare lists, counts and searches under each filter with the oracle."""
    require_equal(gallery.attributes(), oracle.counts(), "references by attribute")
    for where in FILTERS:
        part = oracle.passing(where)
        with gallery.view() as view:
            require_equal(view.entries(where=where, limit=1000), part.entries(), f"references where {where}")
            result = view.search(queries_QD, k, where=where)
        for q, query_D in enumerate(queries_QD):
            reference = part.search(query_D, k)
            ids = result.ids_QK[q][result.ids_QK[q] >= 0].tolist()
            require_equal(ids, [id for _, id in reference], f"neighbors where {where}")
            by_id = {entry.id: entry for entry in part.entries()}
            require_equal(result.entries_QK[q], tuple(by_id[id] for id in ids), f"entries where {where}")
            scores = [score for score, _ in reference]
            require(
                np.allclose(result.scores_QK[q][: len(ids)], scores, atol=SCORE_TOLERANCE, rtol=0),
                f"scores where {where}",
            )


@filter_law
def filtered_searches_equal_a_plain_list(address: str) -> None:
    """After random changes, lists and searches under a filter are those of a slow oracle, from the object and a new one."""
    gallery, oracle = create(address), AttributeList()
    rng, queries_QD = np.random.default_rng(5), random_vectors(3, seed=9)
    for step in range(8):
        count = int(rng.integers(2, 7))
        vectors, labels = random_vectors(count, seed=step), [f"class {rng.integers(4)}" for _ in range(count)]
        names, attributes = [f"{step}/{row}.jpg" for row in range(count)], random_attributes(count, step)
        with gallery.change() as change:
            if step % 3 == 0:  # without any
                attributes = [{}] * count
                change.enrol(vectors, labels, names)
            else:
                change.enrol(vectors, labels, names, attributes)
            oracle.enrol_with(vectors, labels, names, attributes)
            if step % 2:
                ids = sorted(rng.choice([row[0] for row in oracle.rows], 2, replace=False).tolist())
                change.remove(ids=ids)
                oracle.remove(ids)
                old, new = oracle.rows[0][1], oracle.rows[-1][1]
                if old != new:
                    change.merge([old], new)
                    oracle.relabel([old], new)
        if step == 4:
            check_filters(oracle, gallery, queries_QD, 3)
    for each in (gallery, open_gallery(address)):
        check_against(oracle, each, queries_QD, 4, SCORE_TOLERANCE)
        check_filters(oracle, each, queries_QD, 2)
        check_filters(oracle, each, queries_QD[:1], 1000)


@filter_law
def references_are_listed_by_class_page_and_filter(address: str) -> None:
    """A page holds those of a class that pass the filter, by ascending id."""
    gallery = create(address)
    enrol(
        gallery, random_vectors(8), list("abababab"), None, [{"site": "x" if row % 4 < 2 else "y"} for row in range(8)]
    )
    with gallery.view() as view:
        for label, after, limit, where, ids in (
            (None, -1, 2, {"site": "x"}, [0, 1]),
            (None, 1, 9, {"site": "x"}, [4, 5]),
            ("a", -1, 9, {"site": "y"}, [2, 6]),
            ("a", 2, 9, {"site": ["x", "y"]}, [4, 6]),
            ("b", -1, 1, {"site": "y"}, [3]),
            ("b", 5, 9, {"site": "x"}, []),
            (None, -1, 9, {}, list(range(8))),
        ):
            require_equal(
                [entry.id for entry in view.entries(label, after, limit, where)], ids, f"{label} where {where}"
            )
        require_error(DataError, lambda: view.entries("c", where={"site": "x"}), "'c'")


@filter_law
def filtered_classes_are_ranked_as_in_a_gallery_of_them_alone(address: str) -> None:
    """Every rule gives the classes, scores, margins and neighbors of a gallery that holds nothing else."""
    backend, centers = create(address), random_vectors(6, seed=1)
    labels = [f"class {row % 6}" for row in range(90)]
    vectors = centers[np.arange(90) % 6] + 0.4 * random_vectors(90, seed=2)
    vectors[:50:2] = centers[0] + 0.01 * random_vectors(
        25, seed=3
    )  # under a filter too all of the nearest are of one class
    labels[:50:2] = ["class 0"] * 25
    attributes, names = random_attributes(90, 6), [f"{row}.jpg" for row in range(90)]
    attributes[:50:2] = [{"site": "berlin"}] * 25
    enrol(backend, vectors, labels, names, attributes)
    queries_QD, oracle = np.concatenate([centers, random_vectors(2, seed=5)]), AttributeList()
    oracle.enrol_with(vectors, labels, names, attributes)
    for where in FILTERS[:4]:
        alone, rows = Gallery(DIM), [row[0] for row in oracle.passing(where).rows]
        alone.enrol(vectors[rows], [labels[row] for row in rows], [names[row] for row in rows])
        for rule in ("nearest", "prototype", "vote"):
            for second in (True, False):
                with backend.view() as view:
                    result = view.rank(queries_QD, rule, 7, k=3, second=second, where=where)
                reference = alone.view().rank(queries_QD, rule, 7, k=3, second=second)
                what = f"by {rule} where {where}"
                require_equal(result.label_Q, reference.label_Q, f"classes {what}")
                require_equal(result.second_Q, reference.second_Q, f"second classes {what}")
                for name in ("score_Q", "margin_Q"):
                    same = np.allclose(
                        getattr(result, name), getattr(reference, name), atol=10 * SCORE_TOLERANCE, rtol=0
                    )
                    require(same, f"{name} {what}")
                require_equal(
                    _names(result.nearest.entries_QK), _names(reference.nearest.entries_QK), f"neighbors {what}"
                )


def _names(entries_QK: tuple[tuple[Entry, ...], ...]) -> list[list[str]]:
    return [[entry.name for entry in entries] for entries in entries_QK]


@filter_law
def a_filter_that_nothing_passes_gives_no_class(address: str) -> None:
    """A value that no reference has gives no neighbors and no class; a name that no reference has is an error."""
    gallery, queries_QD = create(address), random_vectors(2, seed=7)
    with gallery.view() as view:
        require_error(DataError, lambda: view.search(queries_QD, where={"site": "x"}), "empty")
        require_equal(view.attributes(), {}, "attributes of an empty gallery")
    ids = enrol(gallery, random_vectors(4), list("aabb"))
    with gallery.view() as view:
        for call in (view.search, view.rank):
            require_error(DataError, lambda call=call: call(queries_QD, where={"site": "x"}), "'site'", "attributes")  # type: ignore[misc]
    ids += enrol(gallery, random_vectors(2, seed=1), ["a", "b"], None, {"site": "x", "line": "1"})
    with gallery.view() as view:
        nearest = view.search(queries_QD, 3, where={"site": "z", "line": "1"})
        require_equal((nearest.entries_QK, (nearest.ids_QK >= 0).any()), (((), ()), False), "neighbors of no reference")
        for rule in ("nearest", "prototype", "vote"):
            ranking = view.rank(queries_QD, rule, where={"site": ["z"]})
            require_equal((ranking.label_Q, ranking.second_Q), (("", ""), (None, None)), f"classes by {rule}")
            require_equal(ranking.score_Q.tolist(), [-1.0, -1.0], f"scores by {rule}")
        wrong: Any
        for wrong in ({"sitte": "x"}, {"site": "z", "sitte": "x"}):
            words = ("'sitte'", "line, site", "did you mean 'site'")
            require_error(DataError, lambda w=wrong: view.entries(where=w), *words)  # type: ignore[misc]
            require_error(DataError, lambda w=wrong: view.search(queries_QD, where=w), *words)  # type: ignore[misc]
        for wrong in ({"site": []}, {"site": 1}, {"site": [1]}, {1: "x"}, "site=x", [("site", "x")]):
            require_error(DataError, lambda w=wrong: view.search(queries_QD, where=w))  # type: ignore[misc]
    with gallery.change() as change:
        change.remove(ids=ids[4:])
    with gallery.view() as view:
        require_error(DataError, lambda: view.search(queries_QD, where={"site": "x"}), "'site'")
        require_equal(view.attributes(), {}, "attributes after their references were removed")


@filter_law
def attributes_of_another_form_are_refused(address: str) -> None:
    """Names, values and numbers that do not fit change nothing; values are texts in one form."""
    gallery = create(address)
    enrol(gallery, random_vectors(1), ["a"], None, [{"line": "Gru\u0308n "}])
    revision = gallery.revision
    wrong: Any
    for wrong, word in (
        ({"Site": "x"}, "'Site'"),
        ({"1": "x"}, "'1'"),
        ({"a" * 65: "x"}, "lower case"),
        ({7: "x"}, "name 7"),
        ({"site": ""}, "site is empty"),
        ({"site": " "}, "site is empty"),
        ({"site": 3}, "site is 3"),
        ({"site": "x\x00"}, "control"),
        ({"site": "\udcff"}, "control"),
        ({"site": "x" * 201}, "201"),
        ({f"n{number}": "x" for number in range(17)}, "17"),
        ([{"site": "x"}], "of 1 references for 2"),
        ("site=x", "site=x"),
        (["site", "x"], "'site'"),
    ):
        with gallery.change() as change:
            require_error(DataError, lambda w=wrong, c=change: c.enrol(random_vectors(2), ["a", "b"], None, w), word)  # type: ignore[misc]
    require_equal((len(gallery), gallery.revision), (1, revision), "after refused attributes")
    longest = {f"n{number:02}": "%" * 200 for number in range(15)} | {"quote": "'\"\\; --"}
    enrol(gallery, random_vectors(2), ["a", "b"], None, [None, longest])
    in_order = [{"line": "Grün"}, {}, longest]
    for each in (gallery, open_gallery(address)):
        require_equal([entry.attributes for entry in listed(each)], in_order, "attributes")
        require_equal(
            [entry.id for entry in each.entries(where={"line": "Gru\u0308n"})], [0], "a value in its other form"
        )
        require_equal([entry.id for entry in each.entries(where={"quote": "'\"\\; --"})], [2], "a value with quotes")


@filter_law
def attributes_stay_with_their_references(address: str) -> None:
    """Through changes of classes, a failed change, a calibration and copies, also in half precision."""
    for half in (False, True):
        place = f"{address}.half" if half else address
        gallery = create(place, half=half)
        attributes = random_attributes(12, 3)
        enrol(gallery, random_vectors(12), list("abcdabcdabcd"), [f"{row}" for row in range(12)], attributes)
        try:
            with gallery.change() as change:
                change.enrol(random_vectors(1), ["x"], None, {"other": "x"})
                change.remove(ids=[0])
                require("other" in change.attributes(), "attributes that the change sees")
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            require("other" not in gallery.attributes(), "attributes of a change that failed")
        with gallery.change() as change:
            change.rename("a", "e")
            change.merge(["b", "e"], "c")
            change.remove(ids=[1, 5])
        gallery.calibration = calibration_for(gallery)
        gallery.save()
        in_order = [attributes[row] for row in range(12) if row not in (1, 5)]
        for each in (gallery, open_gallery(place), copy_gallery(place, f"{place}.copy"), open_gallery(f"{place}.copy")):
            require_equal([entry.attributes for entry in listed(each)], in_order, "attributes")
            require_equal(each.attributes(), gallery.attributes(), "references by attribute")
            with each.view() as view:
                entry, rows = view.entry(3), range(len(in_order))
                require_equal(entry and entry.attributes, attributes[3], "attributes of one reference")
                require_equal(
                    view.first_entries(["d"])["d"].attributes, attributes[3], "attributes of the first of a class"
                )
                require_equal(
                    [view.snapshot().attributes_of(row) for row in rows], in_order, "attributes of the snapshot"
                )
        ids = enrol(open_gallery(f"{place}.copy"), random_vectors(1), ["y"], None, {"site": "lyon", "season": "ss26"})
        require(
            ids[0] in [entry.id for entry in open_gallery(f"{place}.copy").entries(where={"site": "lyon"})],
            "added to a copy",
        )


@filter_law
def a_view_does_not_wait_for_the_first_attributes(address: str) -> None:
    """A gallery without attributes gets some while it is read; the reader's state has none."""
    gallery, queries_QD = create(address), random_vectors(2, seed=7)
    enrol(gallery, random_vectors(3), list("abc"))
    other = open_gallery(address)
    with open_gallery(address).view() as view:
        enrol(gallery, random_vectors(2, seed=1), ["a", "d"], None, {"site": "x"})
        require_equal((view.attributes(), len(view.entries())), ({}, 3), "the state before")
        require_error(DataError, lambda: view.search(queries_QD, where={"site": "x"}), "'site'")
    require(other.refresh(), "attributes are not words")
    require_equal([entry.id for entry in other.entries(where={"site": "x"})], [3, 4], "the state after")
