"""Indexes of tar files: compared with what tarfile reads; damage, changes, the cache."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.support.mutations import mutations
from tests.support.sharding import image_bytes, write_tar
from unalike.data.shard_files import LocalShard
from unalike.data.tar_index import INDEX_FILE, TarIndex, build_index, load_index
from unalike.errors import DataError

LONG = "/".join(["folder of a name that is long"] * 9)


def contents(path: Path, index: TarIndex) -> dict[str, bytes]:
    file = LocalShard(path)
    return {
        index.name(row): file.read_at(int(index.offsets_M[row]), int(index.sizes_M[row])) for row in range(len(index))
    }


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **facts: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in facts.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_image_is_where_tarfile_finds_it(tmp_path: Path, kind: int) -> None:
    names = ["a/1.png", "./a/ü 2.JPG", "b/c/3.webp", "9.png"] + (
        [f"{LONG}/x.png"] if kind != tarfile.USTAR_FORMAT else []
    )
    with tarfile.open(tmp_path / "a.tar", "w", format=kind) as tar:
        add(tar, "empty", type=tarfile.DIRTYPE)
        for number, name in enumerate(names):
            add(tar, name, bytes([number]) * (number * 700 + 1), pax_headers={"comment": "pax"})
        add(tar, "notes.txt", b"x")
        add(tar, "a/.hidden.png", b"x")
    index = build_index(LocalShard(tmp_path / "a.tar"))
    with tarfile.open(tmp_path / "a.tar") as tar:
        expected = {name.removeprefix("./"): tar.extractfile(name).read() for name in names}  # type: ignore[union-attr]
    assert contents(tmp_path / "a.tar", index) == expected
    assert index.folders == ("empty",) and index.strays == ("notes.txt",)
    for row in range(len(index)):
        assert index.find(index.name(row)) == row
    assert index.find("a/3.png") is None and index.find("") is None


def test_a_name_that_is_no_utf8_is_kept(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        add(tar, "ä/ö.png", b"1")
        add(tar, "ä/notes", b"1")
    index, _ = load_index(LocalShard(tmp_path / "a.tar"), "a", tmp_path)
    again, _ = load_index(LocalShard(tmp_path / "a.tar"), "a", tmp_path)
    assert index.name(0) == again.name(0) == "\udce4/\udcf6.png" and again.strays == index.strays == ("\udce4/notes",)
    assert again.find("\udce4/\udcf6.png") == 0


def test_classes_of_samples(tmp_path: Path) -> None:
    members = {"0.jpg": b"a", "0.cls": b" cat\n", "1.json": b'{"label": 7}', "1.png": b"b", "2.png": b"c", "2.txt": b"caption",
               "3.left.png": b"d", "3.json": b'{"class": "dog"}', "3.cls": b"wolf", "3.right.png": b"e", "4.png": b"f",
               "4.json": b"[1", "5.cls": b"cat", "x/6.png": b"g", "x/6.json": b'{"label": true}'}  # fmt: skip
    index = build_index(LocalShard(write_tar(tmp_path / "a.tar", members)))
    assert {index.name(row): index.label(row) for row in range(len(index))} == {
        "0.jpg": "cat", "1.png": "7", "2.png": "", "3.left.png": "wolf", "3.right.png": "wolf", "4.png": "", "x/6.png": "",
    }  # fmt: skip
    assert index.strays == ("5.cls",)  # the others belong to an image


def test_the_later_of_two_members_of_one_name_is_taken(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("a/1.png", b"old"), ("a/2.png", b"two"), ("./a/1.png", b"new"), ("a/1.png", b"newest")):
            add(tar, name, content)
    index = build_index(LocalShard(tmp_path / "a.tar"))
    assert contents(tmp_path / "a.tar", index) == {"a/1.png": b"newest", "a/2.png": b"two"}
    assert "2 members (the first: 'a/1.png') stood there before" in capfd.readouterr().err


def test_an_index_comes_from_the_cache_until_the_file_changes_or_the_index_is_damaged(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a/1.png": b"1", "a/1.cls": b"k"})
    _, is_new = load_index(LocalShard(path), "here", tmp_path / "cache")
    again, is_new_again = load_index(LocalShard(path), "here", tmp_path / "cache")
    assert is_new and not is_new_again and again.name(0) == "a/1.png" and again.label(0) == "k"
    (stored,) = (tmp_path / "cache/indexes").glob(f"*/{INDEX_FILE}")
    for seed, damaged in mutations(stored.read_bytes(), range(60)):
        stored.write_bytes(damaged)
        index = load_index(LocalShard(path), "here", tmp_path / "cache")[0]
        assert contents(path, index).keys() <= {"a/1.png", index.name(0)}, seed
    stored.write_bytes(b"")
    assert load_index(LocalShard(path), "here", tmp_path / "cache")[1]
    write_tar(path, {"b/2.png": b"1", "b/3.png": b"2"})
    changed, is_new = load_index(LocalShard(path), "here", tmp_path / "cache")
    assert is_new and [changed.name(row) for row in range(2)] == ["b/2.png", "b/3.png"]


def test_without_a_cache_that_can_be_written_the_index_is_made_each_time(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    path = write_tar(tmp_path / "a.tar", {"a/1.png": b"1"})
    assert len(load_index(LocalShard(path), "here", tmp_path / "cache")[0]) == 1


@pytest.mark.parametrize("name", ["/etc/a.png", "a/../../b.png"])
def test_names_that_lead_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="outside its folder"):
        build_index(LocalShard(write_tar(tmp_path / "a.tar", {name: b"1"})))


@pytest.mark.parametrize(
    ("kind", "text"), [(tarfile.SYMTYPE, "is a link"), (tarfile.LNKTYPE, "hard link"), (tarfile.FIFOTYPE, "no plain file"),
                       (tarfile.CHRTYPE, "no plain file")],
)  # fmt: skip
def test_members_that_are_no_files(tmp_path: Path, kind: bytes, text: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "a/1.png", type=kind, linkname="a/2.png")
    with pytest.raises(DataError, match=text):
        build_index(LocalShard(tmp_path / "a.tar"))


def test_two_tar_files_that_were_joined(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = write_tar(tmp_path / "a.tar", {f"a/{i}.png": bytes(1000) for i in range(4)}).read_bytes()
    (tmp_path / "b.tar").write_bytes(whole + whole)
    assert len(build_index(LocalShard(tmp_path / "b.tar"))) == 4
    assert "b.tar: data follow the end of the archive" in capfd.readouterr().err
    assert len(build_index(LocalShard(tmp_path / "a.tar"))) == 4 and "data follow" not in capfd.readouterr().err


def test_a_tar_file_that_was_cut_off(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = write_tar(tmp_path / "a.tar", {f"a/{i}.png": bytes(1000) for i in range(4)}).read_bytes()
    member = 512 + 1024
    for length in (1, 511, 513, member + 1, 2 * member - 1, 2 * member + 100, 3 * member - 600):
        (tmp_path / "b.tar").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"b\.tar: damaged or truncated"):
            build_index(LocalShard(tmp_path / "b.tar"))
    (tmp_path / "b.tar").write_bytes(whole[: 3 * member])  # between two members: nothing is wrong but the missing end
    assert len(build_index(LocalShard(tmp_path / "b.tar"))) == 3
    assert "its last block is missing: if it was cut off, files after 'a/2.png' are lost" in capfd.readouterr().err


def test_a_header_that_is_damaged_in_the_middle_is_an_error(tmp_path: Path) -> None:
    content = bytearray(write_tar(tmp_path / "a.tar", {f"a/{i}.png": bytes(1000) for i in range(4)}).read_bytes())
    content[2 * 1536 + 5] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match="damaged or truncated .at byte 3072: bad checksum"):
        build_index(LocalShard(tmp_path / "a.tar"))


def test_damaged_tar_files_give_an_index_that_fits_or_one_error(tmp_path: Path) -> None:
    """Bounded fuzz: what the index says lies in the file, and headers are where it says."""
    members = {f"k{i % 2}/{i}.png": image_bytes(i) for i in range(5)} | {
        f"{LONG}/9.png": b"9",
        "5.cls": b"k",
        "5.jpg": b"5",
    }
    whole = write_tar(tmp_path / "a.tar", members).read_bytes()
    errors = 0
    for seed, damaged in mutations(whole, range(400)):
        path = tmp_path / "b.tar"
        path.write_bytes(damaged)
        try:
            index = build_index(LocalShard(path))
        except DataError as error:
            assert "b.tar" in str(error) and "\n" not in str(error), seed
            errors += 1
            continue
        for row in range(len(index)):
            assert int(index.offsets_M[row] + index.sizes_M[row]) <= len(damaged), seed
            assert index.find(index.name(row)) is not None
    assert 100 < errors < 400
