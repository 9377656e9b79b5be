"""Checksums at the end of model files, by which a flipped bit is noticed when a file is opened.

A file ends with the number of bytes before this text and their SHA-256: an ONNX file in an entry of its ``metadata_props``
(a protobuf message may end with one more entry), an OpenVINO ``.xml``, whose sum covers the weights too, in a comment. Every
other reader passes over both. Files of earlier versions and of other programs have none. One that another program wrote
again has another length, and what its checksum says no longer counts.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from unalike.errors import ModelError
from unalike.storage.digests import content_sha256

KEY = "unalike_sha256"
_TEXT = rb"(?P<length>\d{16}):(?P<sha256>[0-9a-f]{64})"
_TEXT_BYTES = 16 + 1 + 64
# Field 14 of ModelProto, metadata_props: key and value are its fields 1 and 2.
_ONNX_HEAD = b"\x0a" + bytes([len(KEY)]) + KEY.encode() + b"\x12" + bytes([_TEXT_BYTES])
_ONNX_HEAD = b"\x72" + bytes([len(_ONNX_HEAD) + _TEXT_BYTES]) + _ONNX_HEAD
_XML_HEAD, _XML_TAIL = f"<!--{KEY} ".encode(), b"-->\n"
_ENDS = {
    ".onnx": re.compile(re.escape(_ONNX_HEAD) + _TEXT + rb"\Z"),
    ".xml": re.compile(re.escape(_XML_HEAD) + _TEXT + re.escape(_XML_TAIL) + rb"\Z"),
}
_CHUNK_BYTES = 2**20


def append_onnx_checksum(content: bytes) -> bytes:
    """The bytes of an ONNX file with its checksum; ``content`` holds none (``deploy.onnx_graph.read_network`` drops it)."""
    return content + _ONNX_HEAD + _text(len(content), content_sha256(content))


def append_xml_checksum(xml: Path, weights: Path) -> None:
    """Add its checksum, and that of its weights, to an OpenVINO file that was just written."""
    length = xml.stat().st_size
    text = _text(length, _digest(xml, length, weights))
    with xml.open("ab") as file:
        file.write(_XML_HEAD + text + _XML_TAIL)


def check_model_file(path: Path) -> None:
    """Compare a model file with its checksum, where it has one.

    Raises:
        ModelError: the file is damaged.
    """
    pattern = _ENDS.get(path.suffix.lower())
    if pattern is None:
        return
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 2 * len(_ONNX_HEAD) - 2 * _TEXT_BYTES))
        match = pattern.search(file.read())
    if match is None or int(match["length"]) != size - len(match[0]):
        return
    weights = path.with_suffix(".bin") if path.suffix.lower() == ".xml" else None
    if _digest(path, int(match["length"]), weights).encode() != match["sha256"]:
        raise ModelError(
            f"{path} is damaged: its checksum differs",
            remedy=f"take a copy or export it again; if you edited it, remove its metadata entry {KEY}",
        )


def _text(length: int, sha256: str) -> bytes:
    return f"{length:016}:{sha256}".encode()


def _digest(path: Path, length: int, weights: Path | None) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while length > 0 and (part := file.read(min(length, _CHUNK_BYTES))):
            digest.update(part)
            length -= len(part)
    if weights is not None and weights.is_file():
        with weights.open("rb") as file:
            while part := file.read(_CHUNK_BYTES):
                digest.update(part)
    return digest.hexdigest()
