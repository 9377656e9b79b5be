"""Names of members of zip archives, which may be in an encoding that nothing tells.

A flag marks UTF-8; without it the standard's encoding is CP437 (APPNOTE.TXT, appendix D). Programs write UTF-8 without the
flag as well, or the encoding of their language, and some add the name as UTF-8 in an extra field.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from unalike.progress import say

_UTF8 = 1 << 11
# Extra field: version 1, CRC-32 of the other name, the name as UTF-8.
_UNICODE_PATH, _VERSION = 0x7075, b"\x01"


class ZipNames:
    """Reads names of members, and counts those of which nobody knows the encoding.

    Args:
        path: The archive, for the line that is printed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guesses: list[str] = []

    def name_of(self, member: zipfile.ZipInfo) -> str:
        """The name of a member: the extra field's, else UTF-8 where it is valid, else CP437."""
        name = member.filename
        if member.flag_bits & _UTF8 or name.isascii():
            return name
        raw = name.encode("cp437")
        try:
            return _unicode_path(member.extra, raw) or raw.decode("utf-8")
        except UnicodeDecodeError:
            self._guesses.append(name)
            return name

    def say(self) -> None:
        """Print one line where names were read as CP437."""
        if self._guesses:
            number = len(self._guesses)
            say(f"{self._path}: {number} {'name' if number == 1 else 'names'} (the first: {self._guesses[0]!r}) not marked as "
                "UTF-8, read as CP437: if they look wrong, unpack the archive with the program that packed it, and give the "
                "folder")  # fmt: skip


def _unicode_path(extra: bytes, raw_name: bytes) -> str:
    position = 0
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, position)
        content = extra[position + 4 : position + 4 + size]
        if kind == _UNICODE_PATH and content[:5] == _VERSION + struct.pack("<I", zlib.crc32(raw_name)):
            return content[5:].decode("utf-8")
        position += 4 + size
    return ""
