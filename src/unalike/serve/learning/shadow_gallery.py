"""A gallery as a candidate would serve it: its references embedded by the candidate, kept in step with those in service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.recognition.backends.protocol import Entry, GalleryBackend
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_conversion import (
    EmbeddedReferences,
    MissingOriginals,
    embed_references,
    recognizer_for,
)
from unalike.recognition.recognizer import Recogniser
from unalike.serve.learning.collection import Originals
from unalike.serve.learning.gallery_models import LearningGallery, entries_of
from unalike.serve.learning.promotion import calibrate_alike
from unalike.serve.model_files import vectors_file
from unalike.serve.store.learning import ModelRecord
from unalike.storage.file_lock import file_lock

# While others change the gallery again and again, its references are taken over so often, in seconds.
CONVERT_S = 10.0
TRIES = 3


@dataclass(frozen=True)
class CandidateAnswer:
    """What a candidate answers to an image; the attributes are those of ``Identification``."""

    decision: str
    label: str | None
    nearest: str
    score: float
    threshold: float | None


class ShadowGallery:
    """A gallery by the network of a candidate, in the memory of one process.

    Args:
        place: the gallery in service.
        gallery: the same, open.
        record: the candidate.
    """

    def __init__(self, place: LearningGallery, gallery: GalleryBackend, record: ModelRecord) -> None:
        self.place, self.gallery = place, gallery
        self.left_out: list[str] = []
        self._candidate = place.open(place.file_of(record.file))
        self._convert()

    @property
    def size(self) -> int:
        """Number of references that the candidate embedded."""
        return len(self._recognizer.gallery)

    @property
    def _path(self) -> Path:
        """Where the vectors are kept; the first images may choose how images are decoded, which is part of it."""
        return vectors_file(self.place.folder, self.place.name, self._candidate.model_identity)

    def identify(self, content: bytes, rule: str | None = None) -> CandidateAnswer:
        """What the candidate answers to an image.

        Args:
            content: the image.
            rule: that labels it; that of the calibration when None.

        Raises:
            UnreadableImage: it cannot be decoded.
            DataError: no reference has a picture.
            ModelError: another model is in service.
        """
        self._is_behind |= self.gallery.refresh()
        if self._is_behind and time.monotonic() - self._converted >= CONVERT_S:
            self._convert()
        answer = self._answer(content, rule)
        if (
            self._is_behind and answer.nearest not in self.gallery.counts()
        ):  # removed or renamed since: it is named no more
            self._convert()
            answer = self._answer(content, rule)
        return answer

    def _answer(self, content: bytes, rule: str | None) -> CandidateAnswer:
        if not self.size:
            raise DataError("no reference has a picture", expected="references with pictures")
        (answer,) = self._recognizer.identify([content], label_by=rule)
        return CandidateAnswer(answer.decision, answer.label, answer.nearest, answer.score, answer.threshold)

    def _convert(self) -> None:
        """Embed the references that are new, and calibrate as the gallery in service is; vectors are kept for the next process.

        A purge removes what is kept: where the gallery changed meanwhile, it is done again without what was removed.
        """
        for _ in range(TRIES):
            self._recognizer = self._convert_once()
            self._is_behind = self.gallery.refresh()
            if not self._is_behind:
                break
        else:
            self._path.unlink(missing_ok=True)
        self._converted = time.monotonic()

    def _convert_once(self) -> Recogniser:
        originals, candidate = Originals(self.place.store), self._candidate
        entries = entries_of(self.gallery)
        usable = [entry for entry in entries if originals.exists(entry)]
        lock = self._path.with_suffix(".lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
        with file_lock(lock):  # of several replicas one computes, and the others read
            cache = self.place.kept_vectors(candidate.model_identity)
            earlier = set(cache.vectors)
            usable, vectors_ND = self._embed(usable, originals, cache)
            cache.vectors = {key: cache.vectors[key] for key in ((entry.id, entry.name) for entry in usable)}
            if not cache.vectors:
                self._path.unlink(missing_ok=True)
            elif cache.vectors.keys() != earlier or not self._path.exists():
                cache.save(self._path, candidate.model_identity)
        own_ids = {entry.id for entry in usable}
        self.left_out = [entry.name for entry in entries if entry.id not in own_ids]
        converted = Gallery(candidate.engine.dim, candidate.model_identity, half=self.gallery.half)
        converted.enrol(vectors_ND, [entry.label for entry in usable], [entry.name for entry in usable])
        recognizer = recognizer_for(candidate, converted)
        notes: dict[str, Any] = {}
        converted.calibration = calibrate_alike(recognizer, self.gallery.calibration, notes) if usable else None
        return recognizer

    def _embed(
        self, entries: Sequence[Entry], originals: Originals, cache: EmbeddedReferences
    ) -> tuple[list[Entry], np.ndarray]:
        """The references whose picture can be decoded, and their vectors (N, D)."""
        usable = list(entries)
        while True:
            try:
                return usable, embed_references(
                    self._candidate, usable, originals.read, cache, max_pixels=self.place.max_pixels
                )
            except MissingOriginals as error:
                bad_names = set(error.names)
                usable = [entry for entry in usable if entry.name not in bad_names]
