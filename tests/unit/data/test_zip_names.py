"""Names in zip archives of other programs: UTF-8 without its flag, extra fields, other encodings."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from unalike.data.archives import open_archive


class _Named(zipfile.ZipInfo):
    """A member whose name is stored in an encoding, without the flag of UTF-8."""

    encoding = "utf-8"

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode(self.encoding), 0


def _unpack(folder: Path, name: str, encoding: str, extra: bytes = b"") -> set[str]:
    member = _Named(name)
    member.encoding, member.extra = encoding, extra
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr(member, b"content")
    root = open_archive(folder / "a.zip", folder / "cache")
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_utf8_without_its_flag(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert _unpack(tmp_path, "Möhre/人参.png", "utf-8") == {"Möhre/人参.png"}
    assert "CP437" not in capfd.readouterr().err


@pytest.mark.parametrize(("encoding", "says"), [("cp437", "Möhre/0.png"), ("cp1252", "M÷hre/0.png")])
def test_other_names_are_read_as_cp437_and_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], encoding: str, says: str
) -> None:
    assert _unpack(tmp_path, "Möhre/0.png", encoding) == {says}
    assert "1 name (the first: " in (line := capfd.readouterr().err) and "read as CP437" in line


@pytest.mark.parametrize("is_right", [True, False])
def test_the_extra_field_holds_the_name_if_its_checksum_is_that_of_the_other_name(
    tmp_path: Path, is_right: bool
) -> None:
    other = "M?hre/0.png".replace("?", "é").encode("cp437")
    name = b"\x01" + struct.pack("<I", zlib.crc32(other) ^ (not is_right)) + "Möhre/0.png".encode()
    extra = struct.pack("<HH", 1, 2) + b"ab" + struct.pack("<HH", 0x7075, len(name)) + name
    expected = "Möhre/0.png" if is_right else "Méhre/0.png"
    assert _unpack(tmp_path, "Méhre/0.png", "cp437", extra) == {expected}
