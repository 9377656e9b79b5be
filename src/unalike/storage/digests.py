"""SHA-256 digests of files, texts and contents, by which files, caches and networks are identified."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO


def file_sha256(file: Path | BinaryIO) -> str:
    """Return the SHA-256 of a file, in 64 hexadecimal digits.

    Args:
        file: Its path, or the file opened in binary mode, which is read from its position on.

    Raises:
        OSError: The file cannot be read.
    """
    if isinstance(file, Path):
        with file.open("rb") as opened_file:
            return file_sha256(opened_file)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def content_sha256(content: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes, in 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def text_sha256(text: str, digits: int = 64) -> str:
    """Return the first hexadecimal ``digits`` (1..64) of the SHA-256 of a text in UTF-8.

    Bytes of file names that are no UTF-8, which Python keeps as surrogates, count as they are.
    """
    return content_sha256(text.encode("utf-8", "surrogateescape"))[:digits]
