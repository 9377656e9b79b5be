"""Reference vectors with their class names: what a recogniser compares with, and one file to keep them in.

Shape letters: N enrolled vectors, Q queries, K neighbours, D width.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.measure.nearest import top_k, unit

FORMAT_VERSION = 1
_CONTENT, _HEAD = "content.npz", "gallery.json"


@dataclass(frozen=True)
class Neighbours:
    """For every query the K nearest enrolled vectors, best first: cosine, index into the gallery, and its label."""

    scores_QK: np.ndarray
    indices_QK: np.ndarray
    labels_QK: tuple[tuple[str, ...], ...]


class Gallery:
    """Enrolled unit vectors, all from one network.

    ``probe_D`` is what that network makes of a fixed image (``tasks.recogniser``): by it another network is told from
    the same one in another format or precision, which a file's checksum could not do.
    """

    def __init__(self, dim: int, probe_D: np.ndarray | None = None) -> None:
        self.dim = dim
        self.probe_D = np.empty(0, np.float32) if probe_D is None else np.asarray(probe_D, np.float32)
        self.classes: list[str] = []
        self._vectors_ND = np.empty((0, dim), np.float32)
        self._labels_N = np.empty(0, np.int64)
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._names)

    @property
    def vectors_ND(self) -> np.ndarray:
        """float32, unit length, in the order in which they were enrolled."""
        return self._vectors_ND

    @property
    def labels(self) -> tuple[str, ...]:
        """The class name of every vector."""
        return tuple(self.classes[index] for index in self._labels_N)

    @property
    def names(self) -> tuple[str, ...]:
        """What each vector was made from: a path, or what the caller gave."""
        return tuple(self._names)

    def enrol(self, vectors_ND: np.ndarray, labels: Sequence[str], names: Sequence[str] | None = None) -> None:
        """Add vectors (any length), their class names, and optionally what they came from.

        Raises DataError when the numbers or widths differ, a label is empty, or a vector is zero or not finite.
        """
        vectors_ND = np.atleast_2d(np.asarray(vectors_ND, np.float32))
        labels = [str(label) for label in labels]
        names = [str(name) for name in names] if names is not None else [""] * len(labels)
        if len(vectors_ND) != len(labels) or len(labels) != len(names):
            raise DataError(
                f"{len(vectors_ND)} vectors, {len(labels)} labels, {len(names)} names", expected="as many each"
            )
        self._check(vectors_ND)
        if not all(labels):
            raise DataError("an empty label", expected="a class name for every vector")
        lengths = np.linalg.norm(vectors_ND, axis=1)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise DataError(
                "a vector that is zero or not finite", remedy="check the image and the network it came from"
            )
        known = {name: index for index, name in enumerate(self.classes)}
        for label in labels:
            if label not in known:
                known[label] = len(self.classes)
                self.classes.append(label)
        self._vectors_ND = np.concatenate([self._vectors_ND, unit(vectors_ND)])
        self._labels_N = np.concatenate([self._labels_N, np.asarray([known[label] for label in labels], np.int64)])
        self._names += names

    def _check(self, vectors_ND: np.ndarray) -> None:
        if vectors_ND.ndim != 2 or vectors_ND.shape[1] != self.dim:
            raise DataError(
                f"vectors of shape {vectors_ND.shape}",
                expected=f"(any, {self.dim})",
                remedy="enrol and search with the network that the gallery was made with",
            )

    def search(self, vectors_QD: np.ndarray, k: int = 1) -> Neighbours:
        """The ``k`` nearest enrolled vectors of every query by cosine, fewer when the gallery holds fewer.

        Raises DataError for an empty gallery or vectors of another width.
        """
        vectors_QD = np.atleast_2d(np.asarray(vectors_QD, np.float32))
        self._check(vectors_QD)
        if not len(self):
            raise DataError("the gallery is empty", remedy="enrol reference images first")
        scores_QK, indices_QK = top_k(vectors_QD, self._vectors_ND, k)
        labels = tuple(tuple(self.classes[self._labels_N[index]] for index in row) for row in indices_QK)
        return Neighbours(scores_QK, indices_QK, labels)

    def save(self, path: str | Path) -> Path:
        """Write one file: a head with format version and checksum, and the arrays. A kill leaves the old file whole."""
        path = Path(path)
        content = io.BytesIO()
        texts = json.dumps({"classes": self.classes, "names": self._names}, ensure_ascii=False).encode()
        np.savez(
            content,
            vectors=self._vectors_ND,
            labels=self._labels_N,
            probe=self.probe_D,
            texts=np.frombuffer(texts, np.uint8),
            allow_pickle=False,
        )
        head = {
            "format_version": FORMAT_VERSION,
            "dim": self.dim,
            "count": len(self),
            "sha256": hashlib.sha256(content.getbuffer()).hexdigest(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with temporary.open("wb") as file:
                with zipfile.ZipFile(file, "w") as archive:
                    archive.writestr(_HEAD, json.dumps(head))
                    archive.writestr(_CONTENT, content.getvalue())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Gallery:
        """A saved gallery. Raises DataError when it is missing, damaged, or of a newer release."""
        path = Path(path)
        if not path.is_file():
            raise DataError(f"there is no gallery {path}")
        try:
            with zipfile.ZipFile(path) as archive:
                head: dict[str, Any] = json.loads(archive.read(_HEAD))
                content = archive.read(_CONTENT)
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
            raise DataError(f"{path} is no gallery, or damaged ({error})", remedy="enrol again") from error
        if int(head.get("format_version", 0)) > FORMAT_VERSION:
            raise DataError(f"{path} has format version {head['format_version']}", remedy="update unalike")
        if hashlib.sha256(content).hexdigest() != head.get("sha256"):
            raise DataError(f"{path} is damaged: its checksum differs", remedy="enrol again")
        gallery = cls(int(head["dim"]))
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            texts = json.loads(arrays["texts"].tobytes())
            gallery._vectors_ND, gallery._labels_N = arrays["vectors"], arrays["labels"]
            gallery.probe_D = arrays["probe"]
        gallery.classes, gallery._names = list(texts["classes"]), list(texts["names"])
        return gallery
