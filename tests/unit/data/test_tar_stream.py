"""Images of tars in one pass: samples of WebDataset, plain folders in a tar, gzip, damage."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.support.sharding import image_bytes, write_tar
from unalike.data import tar_stream
from unalike.data.tar_stream import expand_range, is_tar, read_tar
from unalike.errors import DataError


class OneWay:
    """A stream that cannot go back."""

    def __init__(self, content: bytes) -> None:
        self._stream = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        return self._stream.read(size)


def images_of(path: Path) -> list[tuple[str, str, bytes, str]]:
    stream = OneWay(path.read_bytes())
    return [(i.name, i.label, i.content, i.fault) for i in read_tar(stream, path.name)]  # type: ignore[arg-type]


def test_the_class_of_a_sample_is_its_cls_wherever_it_stands_in_the_sample(tmp_path: Path) -> None:
    one, two = image_bytes(1), image_bytes(2)
    members = {
        "000.jpg": one,
        "000.cls": b"cat\n",
        "001.cls": b"dog",
        "001.side.jpg": two,
        "001.top.jpg": one,
        "001.json": b"{}",
    }
    path = write_tar(tmp_path / "a.tar", members)
    assert images_of(path) == [
        ("000.jpg", "cat", one, ""),
        ("001.side.jpg", "dog", two, ""),
        ("001.top.jpg", "dog", one, ""),
    ]


def test_without_cls_the_first_folder_is_the_class_and_other_files_are_left_out(tmp_path: Path) -> None:
    one = image_bytes(1)
    members = {
        "./a/x.png": one,
        "b/deep/x.png": one,
        "x.png": one,
        "notes.txt": b"",
        "a/.hidden.png": one,
        "__MACOSX/a.png": one,
    }
    path = write_tar(tmp_path / "a.tar", members)
    assert [(name, label) for name, label, _, _ in images_of(path)] == [
        ("./a/x.png", "a"),
        ("b/deep/x.png", "b"),
        ("x.png", ""),
    ]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar"])
def test_gzip_is_told_by_the_content(tmp_path: Path, name: str) -> None:
    path = write_tar(tmp_path / name, {"0.png": image_bytes(3)}, "w:gz")
    assert is_tar(name) and images_of(path) == [("0.png", "", image_bytes(3), "")]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_truncated_tar_gives_its_images_up_to_there_and_says_so(tmp_path: Path, mode: str) -> None:
    pictures = {f"{number}.png": image_bytes(number) + b"\0" * 4000 for number in range(20)}
    path = write_tar(tmp_path / "a.tar", pictures, mode)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    *images, last = images_of(path)
    assert 0 < len(images) < 20 and all(content == pictures[name] for name, _, content, _ in images)
    assert last[0] == "" and last[3].startswith("a.tar: damaged or truncated")


def test_what_is_no_tar_is_a_fault_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"something else" * 100)
    assert [fault.partition(" (")[0] for *_, fault in images_of(tmp_path / "a.tar")] == ["a.tar: damaged or truncated"]


def test_links_are_not_followed_and_an_image_too_large_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tar(tmp_path / "a.tar", {"0.png": image_bytes(1), "1.png": b"x" * 3000})
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("2.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    monkeypatch.setattr(tar_stream, "MAX_IMAGE_BYTES", 2000)
    assert [(name, fault) for name, _, _, fault in images_of(path)] == [
        ("0.png", ""),
        ("1.png", "3000 bytes, more than 2000"),
    ]


def test_a_range_of_names() -> None:
    assert expand_range("s3://b/part-{008..011}.tar") == [f"s3://b/part-{n}.tar" for n in ("008", "009", "010", "011")]
    assert expand_range("{0..1}/{0..1}.tar") == ["0/0.tar", "0/1.tar", "1/0.tar", "1/1.tar"]
    assert expand_range("plain.tar") == ["plain.tar"]
    with pytest.raises(DataError, match="count up"):
        expand_range("part-{5..1}.tar")


def test_a_class_in_json_counts_where_there_is_no_cls(tmp_path: Path) -> None:
    one = image_bytes(1)
    members = {"0.jpg": one, "0.json": b'{"label": "cat"}', "1.json": b'{"class": 7}', "1.jpg": one, "1.cls": b"dog",
               "2.jpg": one, "2.json": b'{"label": ["cat"], "cls": 3}', "3.jpg": one, "3.json": b"{", "3.txt": b"caption"}  # fmt: skip
    found = images_of(write_tar(tmp_path / "a.tar", members))
    assert [label for _, label, _, _ in found] == ["cat", "dog", "3", ""]


def test_a_damaged_header_or_a_missing_end_is_told(tmp_path: Path) -> None:
    whole = bytearray(write_tar(tmp_path / "a.tar", {f"a/{i}.png": bytes(1000) for i in range(4)}).read_bytes())
    (tmp_path / "b.tar").write_bytes(whole[: 2 * 1536])
    assert [(name, fault) for name, _, _, fault in images_of(tmp_path / "b.tar")] == [
        ("a/0.png", ""), ("a/1.png", ""), ("", "b.tar: its last block is missing, it may be cut off"),
    ]  # fmt: skip
    (tmp_path / "b.tar").write_bytes(whole + whole)
    *images, (name, _, _, fault) = images_of(tmp_path / "b.tar")
    assert len(images) == 4 and name == "" and fault.startswith("b.tar: data follow the end of the archive")
    whole[2 * 1536 + 5] ^= 0xFF
    (tmp_path / "b.tar").write_bytes(whole)
    assert [(name, fault) for name, _, _, fault in images_of(tmp_path / "b.tar")] == [
        ("a/0.png", ""),  # more files of the sample a/1 may be behind the damage
        ("", "b.tar: damaged or truncated (at byte 3072: bad checksum)"),
    ]
