"""Model files, read once as a whole, and the checksums at their end, by which a flipped bit is noticed.

A file ends with the number of bytes before this text and their SHA-256: an ONNX file in an entry of its ``metadata_props``
(a protobuf message may end with one more entry), an OpenVINO ``.xml``, whose sum covers the weights too, in a comment. Every
other reader passes over both. Files of earlier versions and of other programs have none. One that another program wrote
again has another length, and what its checksum says no longer counts.

Whatever is made of a file is made of the bytes that were checked. By its name a library would open it again, and perhaps
find another one: somebody replaces it meanwhile, copies over it in place, or has replaced the first of two files.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from unalike.errors import ModelError
from unalike.storage.digests import content_sha256
from unalike.storage.outside_files import PAUSE_S, WRITING_S

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
# An ONNX file that names other files with tensors has entries of the key "location" (``onnx.TensorProto.external_data``).
_EXTERNAL = b"\x0a\x08location"


@dataclass(frozen=True)
class ModelContent:
    """The content of a model file.

    Attributes:
        graph: the bytes of the ``.onnx`` or ``.xml``.
        weights: those of the ``.bin`` of an ``.xml``, else empty.
        sha256: digest of both, in 64 hexadecimal digits.
    """

    graph: bytes
    weights: bytes
    sha256: str

    @property
    def names_other_files(self) -> bool:
        """Whether tensors of the network may be in files that the bytes name: such a network has to be opened by its path."""
        return not self.weights and _EXTERNAL in self.graph


def append_onnx_checksum(content: bytes) -> bytes:
    """The bytes of an ONNX file with its checksum; ``content`` holds none (``deploy.onnx_graph.read_network`` drops it)."""
    return content + _ONNX_HEAD + _text(len(content), content_sha256(content))


def append_xml_checksum(xml: Path, weights: Path) -> None:
    """Add its checksum, and that of its weights, to an OpenVINO file that was just written."""
    graph = xml.read_bytes()
    text = _text(len(graph), _digest(graph, weights.read_bytes()))
    with xml.open("ab") as file:
        file.write(_XML_HEAD + text + _XML_TAIL)


def read_model_file(path: Path) -> ModelContent:
    """Read a model file whole, and an ``.xml`` with its weights, and compare it with its checksum, where it has one.

    A file that is being written meanwhile is waited for.

    Raises:
        ModelError: the file is missing, cannot be read, is damaged, or changes all the time.
    """
    weights = path.with_suffix(".bin") if path.suffix.lower() == ".xml" else None
    deadline = time.monotonic() + WRITING_S
    while True:
        try:
            graph, is_unchanged, changed_at = _read_unchanged(path)
            content = b""
            if weights is not None and weights.is_file():
                content, weights_unchanged, weights_changed_at = _read_unchanged(weights)
                is_unchanged, changed_at = is_unchanged and weights_unchanged, max(changed_at, weights_changed_at)
        except OSError as error:
            raise ModelError(f"{path} cannot be read ({error.strerror or error})") from error
        is_whole = _agrees(graph, content, path.suffix.lower())
        if is_whole and is_unchanged:
            return ModelContent(graph, content, _digest(graph, content))
        # A graph that does not fit its weights so soon after one of both was written: somebody is replacing them.
        may_be_half = not is_unchanged or (weights is not None and abs(time.time() - changed_at) < WRITING_S)
        if not may_be_half or time.monotonic() > deadline:
            break
        time.sleep(PAUSE_S)
    if not is_unchanged:
        raise ModelError(f"{path} is written to again and again while it is read",
                         remedy="to replace a file in use, write another one and rename it (mv)")  # fmt: skip
    raise ModelError(
        f"{path} is damaged: its checksum differs",
        remedy=f"take a copy or export it again; if you edited it, remove its metadata entry {KEY}",
    )


def _read_unchanged(path: Path) -> tuple[bytes, bool, float]:
    """The bytes of a file, whether nobody wrote to it meanwhile, and when it was changed last (seconds of the day).

    A file that was renamed over it meanwhile is another one and changes nothing.
    """
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        content = file.read()
        after = os.fstat(file.fileno())
    # The time of the last change cannot be set, as that of the last modification is by ``cp -p``; a rename moves it too.
    names = ["st_size", "st_mtime_ns"] + ["st_ctime_ns"] * (before.st_nlink == after.st_nlink)
    is_unchanged = all(getattr(before, name) == getattr(after, name) for name in names)
    return content, is_unchanged and len(content) == after.st_size, after.st_mtime


def _agrees(graph: bytes, weights: bytes, suffix: str) -> bool:
    """Whether a file is as its checksum says; True where it has none that counts."""
    pattern = _ENDS.get(suffix)
    tail = graph[-2 * (len(_ONNX_HEAD) + _TEXT_BYTES) :]
    match = None if pattern is None else pattern.search(tail)
    if match is None or int(match["length"]) != len(graph) - len(match[0]):
        return True
    body = memoryview(graph)[: int(match["length"])]
    return _digest(body, weights).encode() == match["sha256"]


def _text(length: int, sha256: str) -> bytes:
    return f"{length:016}:{sha256}".encode()


def _digest(graph: bytes | memoryview, weights: bytes) -> str:
    digest = hashlib.sha256(graph)
    digest.update(weights)
    return digest.hexdigest()
