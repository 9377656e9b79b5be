"""Images of tar files read in one pass, without unpacking: samples of WebDataset, or any tar of images.

A WebDataset holds the files of one sample one after the other, under one name with different endings: ``0017.jpg`` and
``0017.cls``. The text of ``.cls`` is the class of the sample's images, or ``label``, ``class`` or ``cls`` of ``.json``; without
both the first folder of the name is.
"""

from __future__ import annotations

import gzip
import json
import posixpath
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, BinaryIO

from unalike.data.archives import CheckedMember, has_end, has_rest, rest_line
from unalike.data.class_names import normalize_class_name
from unalike.data.folders import is_image
from unalike.errors import DataError
from unalike.storage.filesystems import is_hidden

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
CLASS_SUFFIX, JSON_SUFFIX = ".cls", ".json"
JSON_KEYS = ("label", "class", "cls")
MAX_CLASS_BYTES, MAX_JSON_BYTES = 4096, 1 << 16
# One member is held in memory: a photograph has some megabytes.
MAX_IMAGE_BYTES = 1 << 30
MAX_RANGE = 10_000_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class TarImage:
    """One image of a tar file.

    Attributes:
        name: Its path in the tar.
        label: Its class; empty where there is none.
        content: The file's bytes; empty where it is not read.
        fault: Why it is not read; empty for an image that is.
    """

    name: str
    label: str
    content: bytes
    fault: str = ""


def is_tar(name: str) -> bool:
    """Whether a name has the suffix of a tar file."""
    return name.lower().endswith(TAR_SUFFIXES)


def expand_range(pattern: str) -> list[str]:
    """The names of a pattern of WebDataset: ``part-{000..127}.tar`` names 128 files; a name without braces is itself.

    Raises:
        DataError: A range that counts down, or of more than ``MAX_RANGE`` numbers.
    """
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + MAX_RANGE:
        raise DataError(f"{pattern}: the range {match[0]}", expected="numbers that count up, such as {000..127}")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [
        f"{before}{number:0{len(match[1])}d}{rest}" for number in range(first, last + 1) for rest in expand_range(after)
    ]


def read_tar(stream: BinaryIO, name: str) -> Iterator[TarImage]:
    """Read the images of a tar file, which may be compressed by gzip, in one pass.

    A damaged or truncated tar gives its images up to there, and then one entry with an empty name and the fault.

    Args:
        stream: The file, which need not be seekable.
        name: What messages call it.

    Yields:
        Its images, in their order. Links, hidden files and files of other kinds are left out.
    """
    try:
        with tarfile.open(fileobj=_decompressed(stream), mode="r|", tarinfo=CheckedMember) as tar:
            for _, members in groupby(_members(tar), lambda member: sample_key(member.name)):
                yield from _sample_images(tar, members)
            if not has_end(tar):
                yield TarImage("", "", b"", f"{name}: its last block is missing, it may be cut off")
            if has_rest(tar):
                yield TarImage("", "", b"", rest_line(name))
    except (tarfile.TarError, EOFError, ValueError, zlib.error, gzip.BadGzipFile) as error:
        yield TarImage("", "", b"", f"{name}: damaged or truncated ({str(error) or type(error).__name__})")


def _decompressed(stream: BinaryIO) -> Any:
    first = stream.read(2)
    whole = _Rewound(first, stream)
    return gzip.GzipFile(fileobj=whole, mode="rb") if first == b"\x1f\x8b" else whole  # type: ignore[call-overload]


class _Rewound:
    """A stream of which the first bytes were read already."""

    def __init__(self, first: bytes, stream: BinaryIO) -> None:
        self._first, self._stream = first, stream

    def read(self, size: int) -> bytes:
        if not self._first:
            return self._stream.read(size)
        first, self._first = self._first[:size], self._first[size:]
        return first


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        tar.members = []  # type: ignore[attr-defined]  # else a list of all headers grows in memory
        if member.isfile() and not any(is_hidden(part) for part in member.name.split("/") if part not in ("", ".")):
            yield member


def sample_key(name: str) -> str:
    """The path up to the first dot of its last part, by which WebDataset groups files into samples."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.partition(".")[0])


def sample_label(label: str, name: str, size: int, content: Callable[[], bytes]) -> str:
    """The class of a sample after one more of its files: that of ``.cls``, else that of ``.json``.

    Args:
        label: The class so far; empty where no file named one.
        name: The file's name.
        size: Its bytes.
        content: Reads it.
    """
    if name.endswith(CLASS_SUFFIX) and size <= MAX_CLASS_BYTES:
        return content().decode("utf-8", "replace").strip() or label
    if label or not name.endswith(JSON_SUFFIX) or size > MAX_JSON_BYTES:
        return label
    try:
        facts = json.loads(content())
    except (ValueError, RecursionError):  # captions and other facts, which nobody asked for
        return ""
    values = (facts.get(key) for key in JSON_KEYS) if isinstance(facts, dict) else ()
    return next(
        (str(value).strip() for value in values if isinstance(value, str | int) and not isinstance(value, bool)), ""
    )


def _sample_images(tar: tarfile.TarFile, members: Iterator[tarfile.TarInfo]) -> Iterator[TarImage]:
    images: list[tuple[str, bytes, str]] = []
    label = ""
    for member in members:
        if is_image(member.name):
            too_large = member.size > MAX_IMAGE_BYTES
            content = b"" if too_large else _content(tar, member)
            images.append(
                (member.name, content, f"{member.size} bytes, more than {MAX_IMAGE_BYTES}" if too_large else "")
            )
        else:
            label = sample_label(label, member.name, member.size, partial(_content, tar, member))
    for name, content, fault in images:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        folder = parts[0] if len(parts) > 1 else ""
        yield TarImage(name, normalize_class_name(label or folder), content, fault)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    content = b"" if file is None else file.read()
    if len(content) != member.size:
        raise EOFError(f"{member.name} ends early")
    return content
