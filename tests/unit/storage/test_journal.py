"""A journal at the end of a file of blocks: what was stored is read again, what was not finished is ignored, damage is found."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.storage.blockfile import JOURNAL_VERSION, OpenBlockFile, read_blocks, write_blocks
from unalike.storage.journal import _OPEN as OPEN
from unalike.storage.journal import JournalEnd, append_record, is_end, read_records

CONTENTS = [b"first", b"", b"third" * 40]
BESIDE = 48  # bytes of a record beside its content


def open_file(path: Path) -> OpenBlockFile:
    return read_blocks(path)[1]["numbers"].file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_blocks(tmp_path / "file", {}, {"numbers": [np.arange(5)]}, version=JOURNAL_VERSION)
    return tmp_path / "file"


@pytest.fixture
def ends(path: Path) -> list[JournalEnd]:
    """The ends of the journal before each of three records, and after the last."""
    ends = [JournalEnd.of(open_file(path))]
    for content in CONTENTS:
        ends.append(append_record(path, ends[-1], content))
    return ends


def read(path: Path) -> list[bytes]:
    file = open_file(path)
    return [content for content, _ in read_records(file, JournalEnd.of(file))]


def test_records_are_read_in_their_order(path: Path, ends: list[JournalEnd]) -> None:
    file = open_file(path)
    assert list(read_records(file, ends[0])) == list(zip(CONTENTS, ends[1:], strict=True))
    assert [content for content, _ in read_records(file, ends[2])] == CONTENTS[2:]
    assert np.array_equal(read_blocks(path)[1]["numbers"].check(), np.arange(5))
    assert [is_end(path, end, file.generation) for end in ends] == [False, False, False, True]
    assert path.stat().st_size == ends[-1].offset == ends[0].offset + sum(map(len, CONTENTS)) + 3 * BESIDE


def test_a_reader_that_opened_the_file_before_sees_what_was_appended_since(path: Path) -> None:
    file = open_file(path)
    append_record(path, JournalEnd.of(file), b"later")
    assert [content for content, _ in read_records(file, JournalEnd.of(file))] == [b"later"]


@pytest.mark.parametrize("whole", [False, True])
def test_a_record_that_was_not_finished_is_ignored_and_cut_off(path: Path, ends: list[JournalEnd], whole: bool) -> None:
    """A writer is killed after any number of bytes of the last record."""
    complete = bytearray(path.read_bytes())
    last = ends[2].offset
    complete[last : last + 4] = b"OPEN"
    for size in range(last, len(complete) if not whole else len(complete) + 1):
        path.write_bytes(complete[:size])
        assert read(path) == CONTENTS[:2], size
        assert is_end(path, ends[2], open_file(path).generation)
    assert append_record(path, ends[2], b"again").digest != ends[3].digest
    assert read(path) == [*CONTENTS[:2], b"again"]


def test_zeros_behind_the_last_record_are_ignored(path: Path, ends: list[JournalEnd]) -> None:
    with path.open("ab") as file:
        file.write(bytes(100))
    assert read(path) == CONTENTS


def test_every_changed_byte_is_found(path: Path, ends: list[JournalEnd]) -> None:
    """But in the four bytes of each record that mean nothing."""
    content = path.read_bytes()
    unused = {end.offset + i for end in ends[:-1] for i in range(4, 8)}
    for place in range(ends[0].offset, len(content)):
        for bit in (0, 7):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            if place in unused:
                assert read(path) == CONTENTS
                continue
            with pytest.raises(DataError, match="damaged"):
                read(path)


def test_a_file_that_was_cut_inside_a_finished_record_is_damaged(path: Path, ends: list[JournalEnd]) -> None:
    content, between = path.read_bytes(), {end.offset for end in ends}
    for size in range(ends[0].offset, len(content)):
        path.write_bytes(content[:size])
        if size in between:
            assert read(path) == CONTENTS[: [end.offset for end in ends].index(size)]
            continue
        with pytest.raises(DataError):
            read(path)


@pytest.mark.parametrize("moment", [1, 2])
def test_a_full_disk_leaves_the_file_as_it_was(
    path: Path, ends: list[JournalEnd], monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    before, calls = path.read_bytes(), iter(range(1, 10))
    sync: Callable[[int], None] = os.fsync

    def full(descriptor: int) -> None:
        if next(calls) == moment:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="cannot be written: No space left"):
        append_record(path, ends[-1], b"too much")
    monkeypatch.undo()
    assert path.read_bytes() == before and read(path) == CONTENTS


def test_blocks_of_an_open_file_that_grew_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file is mapped; each append would else cost a check of all of it."""
    monkeypatch.setattr("unalike.storage.blockfile.LARGE_BYTES", 0)
    path = tmp_path / "large"
    write_blocks(path, {}, {"numbers": [np.arange(5)]}, version=JOURNAL_VERSION)
    block = read_blocks(path)[1]["numbers"]
    block.check()
    append_record(path, JournalEnd.of(block.file), b"x")
    monkeypatch.setattr(block, "_compare", lambda *_: pytest.fail("checked again"))
    assert block.check().tolist() == [0, 1, 2, 3, 4]


def test_a_record_that_is_finished_and_followed_while_it_is_read_is_no_damage(
    path: Path, ends: list[JournalEnd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a record and that at the size of the file a writer may finish it and append another one."""
    file, look, looks = open_file(path), OpenBlockFile.read, [0]

    def look_early(self: OpenBlockFile, offset: int, size: int) -> bytes:
        content = look(self, offset, size)
        if offset == ends[1].offset and size == BESIDE:
            looks[0] += 1
            if looks[0] == 1:  # as it was before
                return OPEN + content[4:]
        return content

    monkeypatch.setattr(OpenBlockFile, "read", look_early)
    assert [content for content, _ in read_records(file, ends[0])] == CONTENTS and looks[0] == 3
