"""The file of a gallery: small changes are appended, every acknowledged one is there, and nobody undoes another's."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.recognition import gallery_file
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_file import read_gallery_file
from unalike.storage.blockfile import read_blocks, write_blocks

State = list[tuple[str, str, list[float]]]


def state(gallery: Gallery) -> State:
    return list(zip(gallery.labels, gallery.names, gallery.vectors_ND.tolist(), strict=True))


def make(path: Path, count: int = 40, *, half: bool = False) -> Gallery:
    gallery = Gallery(6, half=half)
    draws = np.random.default_rng(0).normal(size=(count, 6))
    gallery.enrol(draws, [f"class {i % 8}" for i in range(count)], [f"{i}.jpg" for i in range(count)])
    gallery.save(path)
    return gallery


def change_by_chance(gallery: Gallery, draw: random.Random, number: int) -> None:
    kind = draw.choice(["enroll", "enroll", "enroll", "remove class", "remove images", "rename", "merge"])
    classes = gallery.classes
    if kind == "enroll" or len(classes) < 3:
        count = draw.randint(1, 3)
        labels = [draw.choice([*classes, f"new {number}"]) for _ in range(count)]
        vectors = np.random.default_rng(number).normal(size=(count, 6))
        gallery.enrol(vectors, labels, [f"{number}-{i}.jpg" for i in range(count)])
    elif kind == "remove class":
        gallery.remove([draw.choice(classes)])
    elif kind == "remove images":
        gallery.remove(names=draw.sample([name for name in gallery.names if name], 1))
    elif kind == "rename":
        gallery.rename(draw.choice(classes), f"renamed {number} {draw.random()}")
    else:
        gallery.merge(draw.sample(classes, 2), draw.choice([*classes, f"merged {number} {draw.random()}"]))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("longest", [0, 3000, 10**6])
def test_every_saved_state_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bool, large: bool, longest: int
) -> None:
    """With the file written anew each time, now and then, and never; by a new reader and by one that reloads."""
    monkeypatch.setattr(gallery_file, "JOURNAL_BYTES", longest)
    monkeypatch.setattr(gallery_file, "JOURNAL_SHARE", 0)
    if large:
        monkeypatch.setattr("unalike.storage.blockfile.LARGE_BYTES", 0)
    path = tmp_path / "g"
    gallery, draw = make(path, half=half), random.Random(1)
    written, reader = read_gallery_file(path)[0].header_digest, Gallery.load(path)
    for number in range(40):
        for _ in range(draw.randint(1, 3)):
            change_by_chance(gallery, draw, number)
        gallery.save(path)
        if number % 7 == 0:  # from a state that is partly in the file
            gallery = Gallery.load(path)
        again = Gallery.load(path, verify=True)
        reader.reload()
        for other in (again, reader):
            assert state(other) == state(gallery) and other.classes == gallery.classes
            assert other.snapshot.revision == gallery.snapshot.revision
            assert np.array_equal(other.snapshot.ids_N, gallery.snapshot.ids_N) and not other.changed_on_disk()
        queries = np.random.default_rng(number).normal(size=(2, 6))
        assert again.search(queries, 3).labels_QK == gallery.search(queries, 3).labels_QK
    assert (read_gallery_file(path)[0].header_digest == written) == (longest == 10**6)


def test_one_more_image_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "g"
    make(path, 2000)
    before, size = os.stat(path).st_ino, path.stat().st_size
    with Gallery.edit(path) as gallery:
        gallery.enrol(np.ones((1, 6)), ["new"], ["new.jpg"])
    assert os.stat(path).st_ino == before and path.stat().st_size - size < 250
    assert Gallery.load(path).names[-1] == "new.jpg" and len(Gallery.load(path)) == 2001


def test_a_change_that_takes_nothing_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "g"
    gallery = make(path)
    before = path.read_bytes()
    gallery.save(path)
    assert path.read_bytes() == before


def test_a_hard_link_keeps_what_it_was(tmp_path: Path) -> None:
    gallery = make(tmp_path / "g")
    os.link(tmp_path / "g", tmp_path / "copy")
    before = (tmp_path / "copy").read_bytes()
    gallery.rename("class 0", "other")
    gallery.save(tmp_path / "g")
    assert (tmp_path / "copy").read_bytes() == before and "other" in Gallery.load(tmp_path / "g").classes


def test_a_file_that_cannot_be_written_to_is_replaced(tmp_path: Path) -> None:
    gallery = make(tmp_path / "g")
    (tmp_path / "g").chmod(0o444)
    gallery.rename("class 0", "other")
    gallery.save(tmp_path / "g")
    assert "other" in Gallery.load(tmp_path / "g").classes and (tmp_path / "g").stat().st_mode & 0o777 == 0o444


def test_of_two_who_change_one_file_the_second_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g"
    make(path)
    first, second = Gallery.load(path), Gallery.load(path)
    first.rename("class 0", "a")
    second.rename("class 0", "b")
    first.save(path)
    with pytest.raises(DataError, match="was changed by another"):
        second.save(path)
    second.reload()
    assert "a" in second.classes and "b" not in second.classes
    second.rename("class 1", "b")
    second.save(path)
    assert {"a", "b"} <= set(Gallery.load(path).classes)


def test_a_reader_notices_each_change_and_follows_a_file_that_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "g"
    gallery = make(path)
    reader = Gallery.load(path)
    for number in range(4):
        gallery.enrol(np.ones((1, 6)), [f"new {number}"])
        gallery.save(path)
        if number == 2:
            fresh = Gallery.load(path)
            fresh.store(half=True)  # has to be written anew
            fresh.save(path)
            gallery = Gallery.load(path)
        assert reader.changed_on_disk()
        reader.reload()
        assert not reader.changed_on_disk() and reader.classes == gallery.classes


def test_a_change_that_is_appended_while_a_reader_reloads_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g"
    gallery = make(path)
    reader, read = Gallery.load(path), gallery_file._read_changes
    gallery.rename("class 0", "first")
    gallery.save(path)

    def read_and_append(*arguments: Any) -> Any:
        result = read(*arguments)
        gallery.rename("class 1", "second")
        gallery.save(path)
        return result

    monkeypatch.setattr(gallery_file, "_read_changes", read_and_append)
    reader.reload()
    monkeypatch.undo()
    assert "first" in reader.classes and "second" not in reader.classes and reader.changed_on_disk()
    reader.reload()
    assert "second" in reader.classes and not reader.changed_on_disk()


def test_an_older_copy_in_place_of_the_file_is_noticed(tmp_path: Path) -> None:
    """The copy begins alike and lacks the last changes."""
    path = tmp_path / "g"
    gallery = make(path)
    older = path.read_bytes()
    gallery.enrol(np.ones((1, 6)), ["new"])
    gallery.save(path)
    path.write_bytes(older)
    assert gallery.changed_on_disk()
    gallery.enrol(np.ones((1, 6)), ["newer"])
    with pytest.raises(DataError, match="was changed by another"):
        gallery.save(path)
    gallery.reload()
    assert "new" not in gallery.classes


def test_forged_changes_are_refused(tmp_path: Path) -> None:
    """The checksums fit, the content does not."""
    from unalike.storage.journal import append_record

    path = tmp_path / "g"
    make(path)
    base = path.read_bytes()
    vector = np.ones(6, np.float32).tobytes()
    entries: list[tuple[object, bytes]] = [
        ([{"enroll": ["a"], "names": ["n"]}], b""), ([{"enroll": ["a"], "names": []}], vector),
        ([{"enroll": [1], "names": ["n"]}], vector), ([{"enroll": [""], "names": ["n"]}], vector),
        ([{"rename": "nobody", "new": "x"}], b""), ([{"rename": "class 0", "new": 3}], b""),
        ([{"merge": [], "into": "x"}], b""), ([{"merge": ["nobody"], "into": "x"}], b""), ([{"remove": -1}], b""),
        ([{"remove": 10**12}], b""), ([{"calibration": {}}], b""), ([{"other": 1}], b""), ([3], b""), ({}, b""),
        ([], b"left over"), ([{"calibration": {"format_version": "x"}}], b""),
    ]  # fmt: skip
    for changes, arrays in entries:
        path.write_bytes(base)
        text = json.dumps({"changes": changes, "revision": 2, "next_id": 40}).encode()
        content = len(text).to_bytes(8, "little") + text + arrays
        append_record(path, read_gallery_file(path)[0].end, content)
        with pytest.raises(DataError, match="damaged"):
            Gallery.load(path)
    for content in (b"", b"1234567", (2**63).to_bytes(8, "little"), (4).to_bytes(8, "little") + b"null"):
        path.write_bytes(base)
        append_record(path, read_gallery_file(path)[0].end, content)
        with pytest.raises(DataError, match="damaged"):
            Gallery.load(path)


KILLED = """
import sys
import numpy as np
from unalike.recognition.gallery import Gallery
number = int(sys.argv[2])
while True:
    with Gallery.edit(sys.argv[1]) as gallery:
        gallery.enrol(np.ones((1, 6)), [f"c{number}"], [f"{number}.jpg"])
        if number % 5 == 4:
            gallery.remove([f"c{number - 3}"])
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("times", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_nothing_that_was_acknowledged_is_lost_by_a_kill(tmp_path: Path, times: int) -> None:
    path, draw, number = tmp_path / "g", random.Random(2), 0
    make(path)
    for _ in range(times):
        process = subprocess.Popen([sys.executable, "-c", KILLED, path, str(number)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        acknowledged = int(process.stdout.readline())
        time.sleep(draw.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.stdout.close()
        process.wait()
        acknowledged = int(rest[-1]) if rest else acknowledged
        names = set(Gallery.load(path, verify=True).names)
        last = acknowledged + 1 if f"{acknowledged + 1}.jpg" in names else acknowledged
        removed = {n - 3 for n in range(last + 1) if n % 5 == 4}
        assert {f"{n}.jpg" for n in range(last + 1) if n not in removed} == names - {f"{i}.jpg" for i in range(40)} | {
            f"{n}.jpg" for n in range(min(40, last + 1)) if n not in removed
        }
        number = last + 1


def _enroll(path: str, worker: int, count: int) -> None:
    for i in range(count):
        with Gallery.edit(path) as gallery:
            gallery.enrol(np.ones((1, 6)), [f"w{worker}"], [f"w{worker}-{i}"])


def test_every_change_of_several_processes_is_there(tmp_path: Path) -> None:
    path = tmp_path / "g"
    make(path)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_enroll, args=(str(path), number, 10)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert set(Gallery.load(path).names) >= {f"w{number}-{i}" for number in range(3) for i in range(10)}
    assert len(Gallery.load(path, verify=True)) == 70


def test_a_gallery_that_was_empty_when_it_was_written_gives_all_its_names(tmp_path: Path) -> None:
    path = tmp_path / "new.gallery"
    Gallery(3).save(path)
    with Gallery.edit(path) as gallery:
        gallery.enrol(np.eye(3), ["a", "b", "a"], ["1.png", "2.png", "3.png"])
    gallery = Gallery.load(path)
    assert gallery.snapshot.names.unpack() == ["1.png", "2.png", "3.png"] and gallery.names == (
        "1.png",
        "2.png",
        "3.png",
    )
    gallery.save(tmp_path / "copy.gallery")
    assert Gallery.load(tmp_path / "copy.gallery", verify=True).names == gallery.names


def test_attributes_have_a_format_of_their_own_and_files_without_keep_theirs(tmp_path: Path) -> None:
    """An earlier release would lose attributes that are appended to its file, and refuses a file that holds them."""
    path = tmp_path / "shop.gallery"
    gallery = make(path)

    def version() -> tuple[int, bool]:
        head, blocks = read_blocks(path)
        return blocks["codes"].file.version, "attributes" in head

    assert version() == (3, False)
    gallery.enrol(np.ones((1, 6)), ["x"])
    gallery.save()
    assert version() == (3, False) and path.read_bytes().count(b"DONE") == 1
    gallery.enrol(np.ones((1, 6)), ["x"], None, {"site": "berlin"})
    gallery.save()
    assert version() == (4, True) and b"DONE" not in path.read_bytes()
    gallery.enrol(np.ones((2, 6)), ["x", "y"], None, [{"site": "lyon"}, None])
    gallery.save()
    assert path.read_bytes().count(b"DONE") == 1
    again = Gallery.load(path, verify=True)
    assert again.attributes() == {"site": {"berlin": 1, "lyon": 1}}
    assert [entry.attributes for entry in again.entries(after=39)] == [{}, {"site": "berlin"}, {"site": "lyon"}, {}]
    gallery.remove(["x"])
    copy = tmp_path / "copy.gallery"
    gallery.save(copy)
    path = copy
    assert version() == (3, False)
    write_blocks(path, {"dim": 6}, {"codes": [np.zeros(1)]}, version=5)
    with pytest.raises(DataError, match="format version 5; update unalike"):
        Gallery.load(path)


def test_the_journal_of_a_large_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens a gallery holds its journal in memory, so that it does not grow with the file for ever."""
    monkeypatch.setattr(gallery_file, "JOURNAL_BYTES", 0)
    path = Gallery(8).save(tmp_path / "a.gallery")
    with Gallery.edit(path) as gallery:
        gallery.enrol(np.eye(8)[np.arange(4000) % 8], ["a"] * 4000)
    file = gallery_file.read_gallery_file(path)[0]
    quarter = int(0.25 * file.start)
    assert file.may_append(quarter) and not file.may_append(quarter + 1)
    monkeypatch.setattr(gallery_file, "MOST_JOURNAL_BYTES", 1000)
    assert file.may_append(1000) and not file.may_append(1001)
