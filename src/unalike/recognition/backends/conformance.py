"""Laws of a gallery as tests that any backend can run: ``LAWS``, each called with the address of a gallery to be made.

Examples:
    >>> for law in LAWS:                                                          # doctest: +SKIP
    ...     law(f"postgresql://localhost/test?gallery={law.__name__}")

A law raises AssertionError where the backend breaks it. Laws of several processes are in
``recognition.backends.conformance_processes``.

Shape letters: N enrolled vectors, Q queries, K neighbors, D width.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from unalike.errors import DataError
from unalike.recognition.backends.address import delete_gallery, open_gallery, save_gallery
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
from unalike.recognition.decision import GalleryCalibration, RateGuarantee
from unalike.recognition.gallery import Gallery

Law = Callable[[str], None]
LAWS: list[Law] = []


def law(function: Law) -> Law:
    """Add a law to ``LAWS``."""
    LAWS.append(function)
    return function


@law
def search_and_lists_equal_a_plain_list(address: str) -> None:
    """After random changes, searches and lists are those of a slow oracle, from the changed object and from a new one."""
    gallery, oracle = create(address), PlainList()
    rng, queries_QD = np.random.default_rng(4), random_vectors(5, seed=9)
    for step in range(8):
        count, first = int(rng.integers(1, 6)), oracle.next_id
        vectors, labels = random_vectors(count, seed=step), [f"class {rng.integers(6)}" for _ in range(count)]
        names = [f"{step}/{row}.jpg" for row in range(count)]
        require_equal(enrol(gallery, vectors, labels, names), list(range(first, first + count)), "ids")
        oracle.enrol(vectors, labels, names)
        with gallery.change() as change:
            if step % 2:
                ids = sorted(rng.choice([row[0] for row in oracle.rows], 2, replace=False).tolist())
                require_equal(change.remove(ids=ids), 2, "number removed")
                oracle.remove(ids)
            old, new = oracle.rows[0][1], oracle.rows[-1][1]
            if step % 3 == 2 and old != new:
                moved = sum(row[1] == old for row in oracle.rows)
                require_equal(change.merge([old], new), moved, "number merged")
                oracle.relabel([old], new)
    check_against(oracle, gallery, queries_QD, 4, SCORE_TOLERANCE)
    check_against(oracle, open_gallery(address), queries_QD, 1000, SCORE_TOLERANCE)


@law
def equal_scores_are_ordered_by_id(address: str) -> None:
    """References at the same distance come in the order of their ids, whatever their number and the changes before."""
    gallery, axes = create(address), np.eye(DIM, dtype=np.float32)
    enrol(gallery, axes[[0, 1, 0, 1, 0, 2, 0]], list("abcabca"))
    with gallery.change() as change:
        change.remove(ids=[2])
        change.merge(["b"], "c")
        change.enrol(np.repeat(axes[:1], 40, axis=0), ["d"] * 40)
    with gallery.view() as view:
        for k in (1, 2, 3, 5, 43):
            ids = view.search(axes[:1], k).ids_QK[0].tolist()
            require_equal(ids, [0, 4, 6, *range(7, 47)][:k], f"the {k} nearest of equal ones")
        both = view.search(axes[:1] + axes[1:2], 4).ids_QK[0].tolist()
        require_equal(both, [0, 1, 3, 4], "equal ones of two directions")


@law
def classes_are_ranked_as_by_the_gallery_in_memory(address: str) -> None:
    """Every rule gives the classes, scores, margins and neighbors that ``Gallery`` gives."""
    memory, backend = Gallery(DIM), create(address)
    centers = random_vectors(6, seed=1)
    labels = [f"class {row % 6}" for row in range(90)]
    vectors = centers[np.arange(90) % 6] + 0.4 * random_vectors(90, seed=2)
    vectors[:50] = centers[0] + 0.01 * random_vectors(50, seed=3)  # all of the nearest are of one class
    labels[:50] = ["class 0"] * 50
    for gallery in (memory, backend):
        with gallery.change() as change:
            change.enrol(vectors, labels, [f"{row}.jpg" for row in range(90)])
    queries_QD = np.concatenate([centers, random_vectors(4, seed=5)])
    for rule in ("nearest", "prototype", "vote"):
        for second in (True, False):
            with backend.view() as view:
                result = view.rank(queries_QD, rule, 7, k=3, second=second)
            reference = memory.view().rank(queries_QD, rule, 7, k=3, second=second)
            require_equal(result.label_Q, reference.label_Q, f"classes by {rule}")
            require_equal(result.second_Q, reference.second_Q, f"second classes by {rule}")
            for name in ("score_Q", "margin_Q"):
                same = np.allclose(getattr(result, name), getattr(reference, name), atol=10 * SCORE_TOLERANCE, rtol=0)
                require(same, f"{name} by {rule}")
            require_equal(result.nearest.entries_QK, reference.nearest.entries_QK, f"neighbors by {rule}")
    with backend.view() as view:
        require(
            np.allclose(view.snapshot().vectors(np.arange(90)), memory.vectors_ND, atol=1e-6), "vectors of the snapshot"
        )
        require_equal(view.snapshot().labels_of(view.snapshot().codes_N), labels, "labels of the snapshot")


@law
def references_are_listed_by_class_and_page(address: str) -> None:
    """Pages hold ascending ids; a class, a name and an id find their references."""
    gallery = create(address)
    ids = enrol(gallery, random_vectors(7), list("abababb"), ["x", "y", "x", "", "z/ü.jpg", "x", ""])
    require_equal(ids, list(range(7)), "ids")
    require_equal([entry.id for entry in gallery.entries("b", limit=2)], [1, 3], "first page")
    require_equal([entry.id for entry in gallery.entries("b", after=3, limit=2)], [5, 6], "second page")
    require_equal(gallery.entries("b", after=6), [], "page behind the last")
    require_equal(gallery.entry(4), Entry(4, "a", "z/ü.jpg"), "entry")
    require_equal(gallery.entry(99), None, "entry without a reference")
    require_equal(gallery.ids_of_name("x"), [0, 2, 5], "ids of a name")
    require_equal([gallery.has_name("z/ü.jpg"), gallery.has_name("z")], [True, False], "names")
    require_error(DataError, lambda: gallery.entries("c"), "'c'")
    require_error(DataError, lambda: gallery.entries(limit=0), "0")


@law
def vectors_and_neighbors_of_other_classes_are_those_of_a_plain_list(address: str) -> None:
    """Vectors by id, the first reference of each class, and the nearest of all other classes, after a removal."""
    gallery, oracle, queries_QD = create(address), PlainList(), random_vectors(6, seed=9)
    vectors, labels, names = random_vectors(12), list("abcabcabcabc"), [f"{row}.jpg" for row in range(12)]
    enrol(gallery, vectors, labels, names)
    oracle.enrol(vectors, labels, names)
    with gallery.change() as change:
        change.remove(ids=[0, 4])
    oracle.remove([0, 4])
    with gallery.view() as view:
        require_equal(
            view.first_entries(["a", "c", "none"]),
            {"a": Entry(3, "a", "3.jpg"), "c": Entry(2, "c", "2.jpg")},
            "first references",
        )
        own = {row[0]: row[3] for row in oracle.rows}
        require(np.abs(view.vectors([7, 2, 7]) - np.array([own[7], own[2], own[7]])).max() < SCORE_TOLERANCE, "vectors")
        require_error(DataError, lambda: view.vectors([2, 4]), "4")
        require_error(DataError, lambda: view.search_others(queries_QD, "none"), "none")
        nearest = view.search_others(queries_QD, "b")
        oracle.rows = [row for row in oracle.rows if row[1] != "b"]
        for q, query_D in enumerate(queries_QD):
            ((score, id),) = oracle.search(query_D, 1)
            require_equal(nearest.ids_QK[q].tolist(), [id], "nearest of another class")
            require(abs(float(nearest.scores_QK[q, 0]) - score) <= SCORE_TOLERANCE, "score of another class")
    with gallery.change() as change:
        change.remove(labels=["a", "c"])
    with gallery.view() as view:
        require_equal(
            view.search_others(queries_QD, "b").entries_QK, ((),) * 6, "neighbors where there is no other class"
        )


@law
def ids_are_never_used_again(address: str) -> None:
    """A new reference has another id than any before it, also where the last one was removed and the gallery opened anew."""
    gallery = create(address)
    enrol(gallery, random_vectors(3), list("aab"))
    with gallery.change() as change:
        change.remove(ids=[2])
    require_equal(enrol(open_gallery(address), random_vectors(1), ["c"]), [3], "id after a removal")
    gallery.refresh()
    with gallery.change() as change:
        change.remove(labels=["a", "c"])
    require_equal((len(gallery), gallery.counts()), (0, {}), "a gallery without references")
    require_equal(enrol(gallery, random_vectors(2), list("ab")), [4, 5], "ids after all were removed")


@law
def removals_rename_and_merge(address: str) -> None:
    """Classes are removed, renamed and merged; ids and the order of classes stay; what does not exist is refused."""
    gallery = create(address)
    enrol(gallery, random_vectors(8), list("abcabcdd"), [f"{row}.jpg" for row in range(8)])
    with gallery.change() as change:
        require_equal(change.remove(labels=["b"], names=["6.jpg"], ids=[0, 0]), 4, "number removed")
        change.rename("c", "z")
        require_equal(change.merge(["z", "d"], "new"), 3, "number merged")
    reference = [Entry(2, "new", "2.jpg"), Entry(3, "a", "3.jpg"), Entry(5, "new", "5.jpg"), Entry(7, "new", "7.jpg")]
    for each in (gallery, open_gallery(address)):
        require_equal(listed(each), reference, "references")
        require_equal(list(each.counts().items()), [("a", 1), ("new", 3)], "classes in their order")
    revision = gallery.revision
    for call, word in (
        (lambda change: change.remove(labels=["a", "aa"]), "'aa'"),
        (lambda change: change.remove(labels=["a"], names=["1.jpg"]), "1.jpg"),
        (lambda change: change.remove(ids=[2, 6]), "6"),
        (lambda change: change.rename("q", "r"), "'q'"),
        (lambda change: change.rename("a", "new"), "'new'"),
        (lambda change: change.rename("a", ""), "empty"),
        (lambda change: change.merge(["a"], "a"), "nothing to merge"),
        (lambda change: change.merge(["a", "q"], "new"), "'q'"),
        (lambda change: change.merge(["a"], ""), "empty"),
    ):
        with gallery.change() as change:
            require_error(DataError, lambda call=call, change=change: call(change), word)  # type: ignore[misc]
    require_equal((listed(gallery), gallery.revision), (reference, revision), "after refused changes")
    with gallery.change() as change:
        require_equal(change.merge(["a", "a", "a"], "b"), 1, "number merged of a class that is named thrice")
        require_equal(change.remove(), 0, "number removed of nothing")
    require_equal(list(open_gallery(address).counts().items()), [("b", 1), ("new", 3)], "classes in their order")


@law
def vectors_that_cannot_be_searched_are_refused(address: str) -> None:
    """Zero, infinite and wrong vectors, empty labels and unequal numbers change nothing."""
    gallery, good = create(address), random_vectors(2)
    enrol(gallery, good, ["a", "b"])
    for vectors, labels in (
        (np.zeros((1, DIM)), ["a"]),
        (np.full((1, DIM), np.nan), ["a"]),
        (np.full((1, DIM), np.inf), ["a"]),
        (np.ones((1, DIM + 1)), ["a"]),
        (good, ["a"]),
        (good, ["a", ""]),
    ):
        with gallery.change() as change:
            require_error(DataError, lambda c=change, v=vectors, n=labels: c.enrol(v, n))  # type: ignore[misc]
    revision = gallery.revision
    require_equal(enrol(gallery, np.empty((0, DIM), np.float32), []), [], "ids of nothing")
    require_equal((len(gallery), gallery.revision), (2, revision), "after refused and empty enrollments")
    with gallery.view() as view:
        require_error(DataError, lambda: view.search(np.ones((1, DIM + 1)), 1))
        require_error(DataError, lambda: view.search(good, 0), "k is 0")


@law
def an_empty_gallery_says_so(address: str) -> None:
    """Nothing is listed, and a search names the remedy."""
    create(address)
    gallery = open_gallery(address)
    require_equal(
        (len(gallery), gallery.counts(), gallery.entries(), gallery.stale), (0, {}, [], ""), "an empty gallery"
    )
    with gallery.view() as view:
        require_error(DataError, lambda: view.search(random_vectors(1), 3), "empty", "enrol")
        for rule in ("nearest", "prototype", "vote"):
            require_error(DataError, lambda rule=rule: view.rank(random_vectors(1), rule), "empty")  # type: ignore[misc]
        require_equal(len(view.snapshot()), 0, "vectors of the snapshot")


@law
def names_keep_every_character(address: str) -> None:
    """Class names are in Unicode's composed form; names of images come back as they were given, whatever they hold."""
    gallery, composed, decomposed = create(address), "Gr\u00fcn", "Gru\u0308n"
    names = [
        "\udcff.jpg",
        "a\x00b",
        "\x1a0000",
        decomposed,
        "'; DROP TABLE x; --",
        "名前/" + "x" * 4000,
        "",
        "%s \\ \t",
    ]
    enrol(gallery, random_vectors(8), [composed, decomposed, *"ab\udcfed", "名前", "'\"%s"], names)
    for each in (gallery, open_gallery(address)):
        require_equal([entry.name for entry in listed(each)], names, "names")
        require_equal(each.counts()[composed], 2, "images of the class of two forms")
        require_equal(len(each.entries(decomposed)), 2, "references of the class of two forms")
        for row, name in enumerate(names):
            require_equal(each.ids_of_name(name), [row], f"ids of {name!r}")
        require_equal(each.ids_of_name(composed), [3], "ids of a name in its other form")
    with gallery.change() as change:
        change.rename(decomposed, "'\x00\udcfd")
        require_equal(change.remove(names=[composed, names[0], names[1]]), 3, "number removed")
    require_equal(
        [entry.name for entry in listed(open_gallery(address))], [names[2], *names[4:]], "names that are left"
    )


@law
def a_change_is_made_whole_or_not_at_all(address: str) -> None:
    """Others see a change when it has ended; after an exception nothing of it is there, nor in the object itself."""
    gallery, other = create(address), open_gallery(address)
    enrol(gallery, random_vectors(4), list("aabb"))
    other.refresh()
    before = listed(other)
    try:
        with gallery.change() as change:
            change.enrol(random_vectors(3), list("xyz"), list("xyz"))
            change.rename("a", "c")
            change.remove(labels=["b"])
            require_equal(change.counts(), {"c": 2, "x": 1, "y": 1, "z": 1}, "what the change sees")
            with change.view() as view:
                require_equal(len(view.search(random_vectors(1), 9).entries_QK[0]), 5, "neighbors that the change sees")
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    for each in (gallery, other, open_gallery(address)):
        each.refresh()
        require_equal(listed(each), before, "after an exception")
        require_equal(list(each.counts()), ["a", "b"], "classes after an exception")
    with gallery.change() as change:
        change.enrol(random_vectors(1), ["x"])
        change.rename("a", "c")
        require(not other.refresh() and listed(other) == before, "another object sees a change before its end")
    require(other.refresh(), "another object does not see a change")
    require_equal(other.counts(), {"c": 2, "b": 2, "x": 1}, "after the change")


@law
def a_view_stays_as_it_is(address: str) -> None:
    """Everything that is read through one view is of one state, while others change the gallery."""
    gallery = create(address)
    enrol(gallery, random_vectors(5), list("aabbc"))
    queries_QD = random_vectors(3, seed=7)
    with open_gallery(address).view() as view:
        before = view.search(queries_QD, 5)
        with gallery.change() as change:
            change.remove(labels=["a"])
            change.rename("b", "x")
            change.enrol(queries_QD, list("xyz"))
        require_equal((view.size, view.counts()), ((5, 3), {"a": 2, "b": 2, "c": 1}), "size and counts")
        after = view.search(queries_QD, 5)
        require_equal(
            (after.ids_QK.tolist(), after.entries_QK), (before.ids_QK.tolist(), before.entries_QK), "neighbors"
        )
        require_equal(
            view.rank(queries_QD, "prototype").label_Q, view.rank(queries_QD, "prototype").label_Q, "prototypes"
        )
        require_equal([entry.label for entry in view.entries()], list("aabbc"), "entries")
        require_equal(len(view.snapshot()), 5, "vectors of the snapshot")


@law
def refresh_takes_over_changes_of_others(address: str) -> None:
    """``refresh`` says whether others changed the gallery; its own changes are none of others."""
    gallery, other = create(address), open_gallery(address)
    require(not gallery.refresh() and not other.refresh(), "changes where there are none")
    enrol(gallery, random_vectors(2), ["a", "b"])
    require(other.refresh() and not other.refresh(), "one change is told once")
    require(not gallery.refresh(), "an own change is told")
    for make in (
        lambda change: change.rename("a", "c"),
        lambda change: setattr(change, "calibration", calibration_for(change)),
        lambda change: change.remove(labels=["c"]),
    ):
        with gallery.change() as change:
            make(change)
        require(other.refresh(), "a change is not told")
    require_equal((other.counts(), other.calibration is None), ({"b": 1}, False), "after refresh")


def calibration_for(gallery: GalleryBackend) -> GalleryCalibration:
    """A calibration that holds for the present state."""
    share = RateGuarantee(0.01, 0.005, 0.0, 0.01, 0.95, 500, 50, 321.5, 300)
    vectors, classes, revision = len(gallery), len(gallery.counts()), gallery.revision
    return GalleryCalibration(0.625, 0.03, "nearest", 10, share, None, vectors, classes, "trials of a law",
                              {"auroc": 0.99, "known_unknown": None}, revision=revision, tail=0.04)  # fmt: skip


@law
def a_calibration_is_kept_and_becomes_stale(address: str) -> None:
    """A calibration comes back as it was; other vectors or classes make it stale, another name of a class does not."""
    gallery = create(address)
    enrol(gallery, random_vectors(4), list("aabb"))
    require_equal((gallery.calibration, gallery.stale), (None, ""), "without a calibration")
    calibration = calibration_for(gallery)
    gallery.calibration = calibration
    gallery.save()
    again = open_gallery(address)
    require_equal((again.calibration, again.stale), (calibration, ""), "the calibration")
    with again.change() as change:
        change.rename("a", "c")
    require_equal(again.stale, "", "stale after a class was renamed")
    with again.change() as change:
        change.merge(["c"], "b")
    require("4 images of 2 classes and now has 4 of 1" in again.stale, f"not stale after a merger: {again.stale!r}")
    with again.change() as change:
        change.calibration = calibration = calibration_for(change)
        change.enrol(random_vectors(1), ["b"])
        change.remove(ids=[0])
    require("these are others by now" in again.stale, f"not stale after an exchange: {again.stale!r}")
    again.calibration = None
    again.save()
    require_equal(open_gallery(address).calibration, None, "a calibration that was taken away")


@law
def half_precision_is_kept(address: str) -> None:
    """Vectors in half precision give scores that differ by less than 1e-3, and those of the gallery in memory."""
    memory, backend = Gallery(DIM, half=True), create(address, half=True)
    vectors, queries_QD = random_vectors(30), random_vectors(4, seed=8)
    for gallery in (memory, backend):
        with gallery.change() as change:
            change.enrol(vectors, [f"class {row % 5}" for row in range(30)])
    again = open_gallery(address)
    require(again.half and backend.half, "half precision")
    with again.view() as view:
        for rule in ("nearest", "prototype", "vote"):
            result, reference = view.rank(queries_QD, rule, k=6), memory.view().rank(queries_QD, rule, k=6)
            require_equal(result.label_Q, reference.label_Q, f"classes by {rule}")
            require(
                np.allclose(result.score_Q, reference.score_Q, atol=10 * SCORE_TOLERANCE, rtol=0), f"scores by {rule}"
            )
        require_equal(view.snapshot().half, True, "half precision of the snapshot")


@law
def a_gallery_is_kept_as_it_is(address: str) -> None:
    """A gallery that was made in memory keeps ids, revision and calibration; another one is replaced where that is asked for."""
    memory = Gallery(DIM)
    memory.enrol(random_vectors(5), list("abcab"), [f"{row}" for row in range(5)])
    memory.remove(ids=[1, 4])
    memory.calibration = calibration_for(memory)
    reference = memory.entries(), memory.revision, memory.calibration, memory.counts()
    backend = save_gallery(memory, address)
    for each in (backend, open_gallery(address)):
        require_equal((each.entries(), each.revision, each.calibration, each.counts()), reference, "the gallery")
    require_equal(enrol(backend, random_vectors(1), ["d"]), [5], "the next id")
    require_error(DataError, lambda: save_gallery(Gallery(DIM), address), "exists")
    reader, early, before = open_gallery(address), open_gallery(address), backend.counts()
    replacement = Gallery(DIM)
    replacement.enrol(random_vectors(2), ["x", "y"])
    save_gallery(replacement, address, overwrite=True)
    require(early.counts() in (before, {"x": 1, "y": 1}), "a reader sees neither the old gallery nor the new one")
    require(reader.refresh() and reader.counts() == {"x": 1, "y": 1}, "a reader follows a gallery that was replaced")
    require_error(DataError, lambda: enrol(open_gallery(address + ".none"), random_vectors(1), ["d"]), "none")


@law
def a_gallery_that_was_deleted_is_gone(address: str) -> None:
    """Its address is free, and whoever still has it is told."""
    gallery = create(address)
    enrol(gallery, random_vectors(1), ["a"])
    delete_gallery(address)
    require_error(DataError, lambda: open_gallery(address))
    require_error(DataError, lambda: delete_gallery(address))
    require_error(DataError, gallery.refresh)
    require_equal(len(create(address)), 0, "a new gallery of that address")


@law
def threads_lose_nothing_and_see_whole_changes(address: str) -> None:
    """Threads of one object enroll; every reference is there, and a reader sees batches of four or none of them."""
    gallery, batches, stop = create(address), 6, threading.Event()
    failures: list[str] = []

    def write(number: int) -> list[int]:
        return [id for batch in range(batches)
                for id in enrol(gallery, random_vectors(4), [f"class {number}"] * 4, [f"{number}/{batch}"] * 4)]  # fmt: skip

    def read() -> None:
        while not stop.is_set():
            with gallery.view() as view:
                counts, size = view.counts(), view.size
                entries = view.entries(limit=1000)
                if any(count % 4 for count in counts.values()) or (sum(counts.values()), len(counts)) != size:
                    failures.append(f"{counts} at {size}")
                if len(entries) != size[0]:
                    failures.append(f"{len(entries)} entries of {size[0]}")
                if size[0] and len(view.search(random_vectors(1), 1000).entries_QK[0]) != size[0]:
                    failures.append("a search of another state")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with ThreadPoolExecutor(3) as pool:
            ids = [id for part in pool.map(write, range(3)) for id in part]
    finally:
        stop.set()
        reader.join()
    require(not failures, f"a reader saw half a change: {failures[:3]}")
    require_equal(sorted(ids), list(range(12 * batches)), "ids")
    for each in (gallery, open_gallery(address)):
        require_equal(each.counts(), {f"class {number}": 4 * batches for number in range(3)}, "counts")
