import os

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.recognition.gallery import Gallery
from unalike.storage import atomic as whole
from unalike.storage import blockfile
from unalike.storage.blockfile import CHUNK_BYTES, PackedTexts, read_blocks, write_blocks


def large(tmp_path):
    """A file whose vectors take three and a half pieces, given in parts that fit no piece."""
    rows = np.arange(3.5 * CHUNK_BYTES / 16, dtype=np.float32).repeat(4).reshape(-1, 4)
    parts = np.array_split(rows, 37)
    write_blocks(tmp_path / "f", {"said": "ü"}, {"rows": parts, "none": [np.empty((0, 3), np.int64)]})
    return tmp_path / "f", rows


def test_blocks_come_back(tmp_path):
    path, rows = large(tmp_path)
    said, blocks = read_blocks(path)
    assert said == {"said": "ü"} and np.array_equal(blocks["rows"].check(), rows)
    assert blocks["none"].check().shape == (0, 3) and blocks["none"].dtype == np.int64
    assert not blocks["rows"].check().flags.writeable
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("is_mapped", [False, True])
def test_copies_of_rows_are_those_rows(tmp_path, monkeypatch, is_mapped):
    if is_mapped:
        monkeypatch.setattr(blockfile, "LARGE_BYTES", 0)
    path, rows = large(tmp_path)
    block = read_blocks(path)[1]["rows"]
    per_piece = CHUNK_BYTES // 16
    for first, last in ((0, 1), (5, 5), (per_piece - 1, per_piece + 2), (len(rows) - 3, len(rows) + 9), (0, len(rows))):
        part = block.copy(first, last)
        assert np.array_equal(part, rows[first:last]) and part.dtype == rows.dtype
    assert read_blocks(path)[1]["none"].copy(0, 0).shape == (0, 3)


def test_copies_of_damaged_rows_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(blockfile, "LARGE_BYTES", 0)
    path, rows = large(tmp_path)
    content = bytearray(path.read_bytes())
    content[64 + 2 * CHUNK_BYTES + 5] ^= 1
    path.write_bytes(content)
    block, per_piece = read_blocks(path)[1]["rows"], CHUNK_BYTES // 16
    assert np.array_equal(block.copy(0, 2 * per_piece), rows[: 2 * per_piece])
    for _ in range(2):
        with pytest.raises(DataError, match="damaged: a checksum differs"):
            block.copy(3 * per_piece - 1, 3 * per_piece)
    content[64 + 5] ^= 1
    path.write_bytes(content)  # over the open file
    with pytest.raises(DataError, match="damaged|overwritten"):
        block.copy(0, 1)


@pytest.mark.parametrize("is_mapped", [False, True])
def test_what_was_loaded_stays_when_the_file_is_shortened_in_place(tmp_path, monkeypatch, is_mapped):
    if is_mapped:
        monkeypatch.setattr(blockfile, "LARGE_BYTES", 0)
    path, rows = large(tmp_path)
    blocks = read_blocks(path)[1]
    array, empty = blocks["rows"].load(), blocks["none"].load()
    path.write_bytes(b"short")  # a map of the file would end the process here (SIGBUS)
    assert np.array_equal(array, rows) and array.flags.writeable
    assert empty.shape == (0, 3) and empty.dtype == np.int64
    with pytest.raises(DataError, match="overwritten"):
        blocks["rows"].load()


def test_damage_is_found_when_the_damaged_piece_is_read(tmp_path):
    path, rows = large(tmp_path)
    content = bytearray(path.read_bytes())
    content[64 + 2 * CHUNK_BYTES + 5] ^= 1  # one bit in the third piece
    path.write_bytes(content)
    block = read_blocks(path)[1]["rows"]
    per_piece = CHUNK_BYTES // 16
    assert np.array_equal(block.check(0, 2 * per_piece), rows[: 2 * per_piece])
    assert np.array_equal(block.check(3 * per_piece), rows[3 * per_piece :])
    for first, last in ((2 * per_piece, 2 * per_piece + 1), (3 * per_piece - 1, None), (0, None)):
        with pytest.raises(DataError, match="damaged: a checksum differs"):
            block.check(first, last)


def test_every_flipped_byte_is_found(tmp_path):
    gallery = Gallery(3)
    gallery.enrol(np.eye(3), ["a", "b", "ü"], ["x", "", "z"])
    path = gallery.save(tmp_path / "g")
    whole = path.read_bytes()
    pads = sum(whole[i] == 0 and i >= 64 for i in range(len(whole)))
    missed = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            Gallery.load(path, verify=True)
            missed += 1
        except DataError:
            pass
    assert missed <= pads  # only what pads blocks to a multiple of 64 may change unseen


def test_what_is_no_gallery_is_refused(tmp_path):
    gallery = Gallery(3)
    gallery.enrol(np.eye(3), ["a", "b", "c"])
    path = gallery.save(tmp_path / "g")
    whole = path.read_bytes()
    newer = whole[:8] + b"\x09" + whole[9:]
    for content, said in (
        (b"", "no gallery"), (b"text", "no gallery"), (whole[:40], "no gallery"), (whole[:-9], "damaged"),
        (newer, "update unalike"), (b"PK\x03\x04" + bytes(80), "version 1.*enrol again"),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(DataError, match=said):
            Gallery.load(path)
    with pytest.raises(DataError, match="there is no gallery"):
        Gallery.load(tmp_path / "nothing")
    with pytest.raises(DataError, match="is a folder, no gallery; expected the file of a gallery"):
        Gallery.load(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    gallery = Gallery(3)
    gallery.enrol(np.eye(3), ["a", "b", "c"])
    path = gallery.save(tmp_path / "g")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole.os, "fsync", full)
    gallery.remove(["a"])
    with pytest.raises(DataError, match="No space left"):
        gallery.save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["g"]


def test_a_gallery_may_be_saved_over_the_file_that_it_reads(tmp_path):
    gallery = Gallery(3)
    gallery.enrol(np.eye(3), ["a", "b", "c"])
    path = gallery.save(tmp_path / "g")
    first, second = Gallery.load(path), Gallery.load(path)
    first.remove(["b"])
    first.save(path)
    assert second.labels == ("a", "b", "c") and Gallery.load(path).labels == ("a", "c")
    Gallery.load(Gallery.load(path).save(path), verify=True)


def test_texts_come_back_one_by_one_and_together(tmp_path):
    texts = ["", "ü", "a/b.jpg", "", "not utf-8: \udcff", "last"]
    content, ends = PackedTexts.pack(texts)
    write_blocks(tmp_path / "f", {}, {"c": [content], "e": [ends]})
    _, blocks = read_blocks(tmp_path / "f")
    held = PackedTexts(blocks["c"], blocks["e"])
    assert list(held) == held.unpack() == held[:] == texts and held[-1] == "last" and held[1:3] == texts[1:3]
    with pytest.raises(IndexError):
        held[6]
    assert [len(part) for part in PackedTexts.pack([])] == [0, 0]


def test_other_content_of_the_same_size_and_time_is_noticed(tmp_path):
    """``cp -p`` over a file in use, or a clock that was set back: the time of modification says nothing."""
    for name, value in (("f", 1.0), ("other", 2.0)):
        write_blocks(
            tmp_path / name, {}, {"rows": [np.full((2, 2), value, np.float32)], "more": [np.full(3, value, np.float32)]}
        )
    path = tmp_path / "f"
    status = path.stat()
    blocks = read_blocks(path)[1]
    assert blocks["rows"].check()[0, 0] == 1.0
    path.write_bytes((tmp_path / "other").read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns and path.stat().st_size == status.st_size
    with pytest.raises(DataError, match="was overwritten while it was in use"):
        blocks["more"].check()
