"""Laws of a gallery that several processes change, and of a writer that is killed: ``PROCESS_LAWS``, as ``conformance.LAWS``."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from unalike.recognition.backends.address import open_gallery
from unalike.recognition.backends.conformance import Law
from unalike.recognition.backends.conformance_oracle import (
    create,
    enrol,
    listed,
    random_vectors,
    require,
    require_equal,
)

WRITERS, CHANGES, BATCH = 3, 8, 3
# Of the law on compaction: 64 names of 2,000 characters, some 130 kB a change.
LOADED_CHANGES, MANY, LONG_NAME = 12, 64, 2000
PROCESS_LAWS: list[Law] = []


def process_law(function: Law) -> Law:
    """Add a law to ``PROCESS_LAWS``."""
    PROCESS_LAWS.append(function)
    return function


def write_references(address: str, writer: int, changes: int) -> None:
    """Enroll batches, and print the number of each when it is durable; what a process of a law does."""
    gallery = open_gallery(address)
    for number in range(changes):
        enrol(gallery, random_vectors(BATCH, seed=number), [f"class {writer}"] * BATCH, [f"{writer}/{number}"] * BATCH)
        print(number, flush=True)


def start(function: Callable[..., None], *arguments: object) -> subprocess.Popen[str]:
    """Start a function of this module in a process of its own."""
    call = f"from {__name__} import *; {function.__name__}(*{arguments!r})"
    return subprocess.Popen([sys.executable, "-c", call], stdout=subprocess.PIPE, text=True)


@process_law
def processes_lose_nothing(address: str) -> None:
    """Several processes enroll at once; every reference is there, with an id of its own, and a reader sees them."""
    gallery = create(address)
    writers = [start(write_references, address, writer, CHANGES) for writer in range(WRITERS)]
    for process in writers:
        process.communicate()
        require_equal(process.returncode, 0, "exit status of a writer")
    require(gallery.refresh(), "a reader does not see what others enrolled")
    names = [entry.name for entry in listed(gallery)]
    reference = [f"{writer}/{number}" for writer in range(WRITERS) for number in range(CHANGES) for _ in range(BATCH)]
    require_equal(sorted(names), sorted(reference), "references")
    require_equal([entry.id for entry in listed(gallery)], list(range(len(reference))), "ids")
    require_equal(gallery.revision, WRITERS * CHANGES, "revision")


def write_and_remove(address: str, writer: int, changes: int) -> None:
    """Enroll references of long names, and remove those of every third change; what a process of a law does."""
    gallery = open_gallery(address)
    for number in range(changes):
        names = [f"{writer}/{number}/{row}/{'x' * LONG_NAME}" for row in range(MANY)]
        ids = enrol(gallery, random_vectors(MANY, seed=number), [f"class {writer}"] * MANY, names)
        if number % 3 == 2:
            with gallery.change() as change:
                change.remove(ids=ids)


@process_law
def changes_under_load_survive_compaction(address: str) -> None:
    """Processes write more than any journal keeps, and remove; a reader sees whole changes alone, and nothing is lost."""
    gallery = create(address)
    enrol(gallery, random_vectors(1), ["first"])
    writers = [start(write_and_remove, address, writer, LOADED_CHANGES) for writer in range(WRITERS)]
    faults: list[str] = []
    while any(process.poll() is None for process in writers):
        gallery.refresh()
        with gallery.view() as view:
            counts, size = view.counts(), view.size
            if (
                any(count % MANY for label, count in counts.items() if label != "first")
                or sum(counts.values()) != size[0]
            ):
                faults.append(f"{counts} at {size}")
            if len(view.search(random_vectors(1), size[0]).entries_QK[0]) != size[0]:
                faults.append("a search of another state")
    for process in writers:
        process.communicate()
        require_equal(process.returncode, 0, "exit status of a writer")
    require(not faults, f"a reader saw half a change: {faults[:3]}")
    numbers = [number for number in range(LOADED_CHANGES) if number % 3 != 2]
    reference = [f"{writer}/{number}/{row}" for writer in range(WRITERS) for number in numbers for row in range(MANY)]
    for each in (gallery, open_gallery(address)):
        each.refresh()
        names = [entry.name.removesuffix("x" * LONG_NAME).rstrip("/") for entry in listed(each) if entry.name]
        require_equal(sorted(names), sorted(reference), "references")


@process_law
def what_was_acknowledged_survives_a_kill(address: str) -> None:
    """A writer is killed (SIGKILL) at a random moment: all that it acknowledged is there, no change is there in part."""
    gallery = create(address)
    for round_number in range(2):
        process = start(write_references, address, round_number, 1000)
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(random.Random(round_number).randint(1, 6))]
        process.kill()
        acknowledged += [int(line) for line in process.stdout.read().split("\n")[:-1]]
        process.wait()
        gallery.refresh()
        counts: dict[str, int] = {}
        for entry in listed(gallery):
            counts[entry.name] = counts.get(entry.name, 0) + 1
        lost = [number for number in acknowledged if f"{round_number}/{number}" not in counts]
        require(not lost, f"acknowledged and lost: {lost}")
        require(set(counts.values()) == {BATCH}, f"changes in part: {counts}")
        require_equal(listed(open_gallery(address)), listed(gallery), "references after the kill")
    enrol(gallery, random_vectors(1), ["after"])
    require_equal(open_gallery(address).counts()["after"], 1, "a change after the kills")


@process_law
def a_gallery_goes_to_another_process(address: str) -> None:
    """A pickled gallery is the same one elsewhere, and can be changed there."""
    gallery = create(address)
    enrol(gallery, random_vectors(5), list("aabbc"))
    copy = pickle.loads(pickle.dumps(gallery))
    queries_QD = random_vectors(2, seed=3)
    with copy.view() as view, gallery.view() as own:
        require(np.array_equal(view.search(queries_QD, 5).ids_QK, own.search(queries_QD, 5).ids_QK), "neighbors")
    enrol(copy, random_vectors(1), ["d"])
    require(gallery.refresh() and gallery.counts()["d"] == 1, "a change of the copy")
