"""Conversion of a gallery to another network: its references are embedded anew, and it is replaced in one step.

Shape letters: N references, M of them that are embedded now, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from unalike.data.decode import MAX_PIXELS
from unalike.errors import DataError, RunError, UnreadableImage
from unalike.inference.embedding import embed_files
from unalike.numerics.normalization import l2_normalize
from unalike.recognition.backends.address import open_gallery, replace_gallery
from unalike.recognition.backends.database_address import display_address
from unalike.recognition.backends.protocol import Entry, GalleryView
from unalike.recognition.decision import GalleryCalibration
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_file import write_gallery_file
from unalike.recognition.model_identity import ModelIdentity
from unalike.recognition.recognizer import Recogniser
from unalike.recognition.snapshot import EnrolledNames, GallerySnapshot
from unalike.recognition.snapshot_view import SnapshotView

# How often a gallery that others change meanwhile is converted again; each time only what they added is embedded.
TRIES = 5
# Reads the picture of a reference; None where there is none.
ReadOriginal = Callable[[Entry], bytes | None]


class MissingOriginals(DataError):
    """References of a gallery without a picture, which cannot be embedded by another network.

    Attributes:
        names: their names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        super().__init__(
            f"{len(names)} references have no picture, such as {names[0]!r}", expected="a picture of every reference",
            remedy="name a folder that holds them, or remove these references",
        )  # fmt: skip


@dataclass
class EmbeddedReferences:
    """Vectors of references by one network, by name and id; those of a former conversion are used again.

    Attributes:
        vectors: (id, name) -> vector (D,).
    """

    vectors: dict[tuple[int, str], np.ndarray]

    @classmethod
    def of_gallery(cls, gallery: Gallery) -> EmbeddedReferences:
        """The vectors of a gallery of the network."""
        snapshot = gallery.snapshot
        names = snapshot.names.unpack()
        vectors_ND = snapshot.vectors(np.arange(len(snapshot)))
        keys = zip(snapshot.ids_N.tolist(), names, strict=False)
        return cls(dict(zip(keys, vectors_ND, strict=True)))

    def save(self, path: Path, identity: ModelIdentity) -> None:
        """Write them as the file of a gallery of one class."""
        keys = sorted(
            {id: (id, name) for id, name in self.vectors}.values()
        )  # of a replaced gallery an id may come twice
        if not keys:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        vectors_ND = np.stack([self.vectors[key] for key in keys]).astype(np.float32)
        count = len(keys)
        state = GallerySnapshot(
            vectors_ND, np.zeros(count, np.int32), np.array([id for id, _ in keys], np.int64), ["references"],
            EnrolledNames(added=[name for _, name in keys]), next_id=keys[-1][0] + 1,
        )  # fmt: skip
        write_gallery_file(path, state, None, identity)


def embed_references(
    recognizer: Recogniser, entries: Sequence[Entry], read_original: ReadOriginal, cache: EmbeddedReferences,
    *, max_pixels: int = MAX_PIXELS,
) -> np.ndarray:  # fmt: skip
    """Embed references by a network; those that are known are not embedded again.

    Args:
        recognizer: of the network.
        entries: the references.
        read_original: reads their pictures.
        cache: gets the vectors too.
        max_pixels: larger pictures cannot be read.

    Returns:
        float32 (N, D), of unit length.

    Raises:
        MissingOriginals: a reference has no picture, or one that cannot be decoded.
    """
    new = [entry for entry in entries if (entry.id, entry.name) not in cache.vectors]
    by_key = {str(number): entry for number, entry in enumerate(new)}

    def view(key: str | Path, *, max_pixels: int) -> np.ndarray:
        content = read_original(by_key[str(key)])
        if content is None:
            raise UnreadableImage(f"reference {by_key[str(key)].name!r} has no picture")
        return recognizer.view(content, max_pixels=max_pixels)

    if new:
        if not recognizer.view.decoding.is_complete:
            recognizer.fit_decoding([content for entry in new if (content := read_original(entry)) is not None])
        embeddings = embed_files(
            recognizer.engine, list(by_key), view, max_unreadable=1.0, max_pixels=max_pixels, describe="references"
        )
        if embeddings.failures:
            raise MissingOriginals([by_key[key].name for key, _ in embeddings.failures])
        unit_MD = l2_normalize(embeddings.vectors_ND)
        for entry, vector_D in zip(new, unit_MD, strict=True):
            cache.vectors[entry.id, entry.name] = vector_D
    if not entries:
        return np.empty((0, recognizer.engine.dim), np.float32)
    return np.stack([cache.vectors[entry.id, entry.name] for entry in entries]).astype(np.float32)


def convert_gallery(
    address: str | Path, recognizer: Recogniser, read_original: ReadOriginal,
    calibrate: Callable[[Recogniser], GalleryCalibration | None], cache: EmbeddedReferences | None = None,
    *, max_pixels: int = MAX_PIXELS, on_replace: Callable[[Gallery], None] | None = None,
) -> Gallery:  # fmt: skip
    """Embed the references of a gallery anew, calibrate them, and replace it: whoever opens it sees the old or the new one.

    Ids, names and classes stay. What others change meanwhile is taken over; their changes wait while the gallery is replaced,
    and those that come later are refused, since it is then one of another network.

    Args:
        address: path of a file, or address of a gallery in a database.
        recognizer: of the new network; its own gallery is not used.
        read_original: reads the pictures of references.
        calibrate: calibrates a recognizer of the new gallery; None leaves it without calibration.
        cache: vectors of the new network that need not be computed.
        max_pixels: larger pictures cannot be read.
        on_replace: called with the gallery as it was, while nobody else can change it, just before it is replaced.

    Returns:
        The gallery as it was before.

    Raises:
        MissingOriginals: references have no picture; nothing was changed.
        RunError: others changed the gallery all the time.
    """
    cache = cache or EmbeddedReferences({})
    for _ in range(TRIES):
        view, before = _read(address)
        converted = _convert(before, recognizer, read_original, cache, max_pixels)
        converted.calibration = calibrate(recognizer_for(recognizer, converted))
        converted.model_identity = recognizer.model_identity
        notify = None if on_replace is None else partial(on_replace, before)
        if replace_gallery(address, converted, view, notify):
            return before
    raise RunError(
        f"{display_address(address)} is changed again and again", remedy="try again when fewer references are enrolled"
    )


def _read(address: str | Path) -> tuple[GalleryView, Gallery]:
    """A view of a gallery, closed where it is one of a database, and all that it holds in memory."""
    backend = open_gallery(address)
    try:
        with backend.view() as view:
            state = SnapshotView(view.snapshot(), view.calibration, view.model_identity)
    finally:
        backend.close()
    return view, Gallery.of_state(state)


def recognizer_for(recognizer: Recogniser, gallery: Gallery) -> Recogniser:
    """A recognizer of the same network over another gallery."""
    identity = recognizer.model_identity
    return Recogniser(
        recognizer.engine, recognizer.view, gallery, source=identity.file, trunk=identity.trunk, network=identity.network,
        classes=recognizer.classes, held_out_scores=recognizer.held_out_scores, says_changes=False,
    )  # fmt: skip


def _convert(
    gallery: Gallery, recognizer: Recogniser, read_original: ReadOriginal, cache: EmbeddedReferences, max_pixels: int
) -> Gallery:
    snapshot = gallery.snapshot
    labels, names = snapshot.labels_of(snapshot.codes_N), snapshot.names.unpack()[: len(snapshot)]
    entries = [Entry(*values) for values in zip(snapshot.ids_N.tolist(), labels, names, strict=True)]
    missing = [
        entry.name for entry in entries if (entry.id, entry.name) not in cache.vectors and read_original(entry) is None
    ]
    if missing:
        raise MissingOriginals(missing)
    vectors_ND = embed_references(recognizer, entries, read_original, cache, max_pixels=max_pixels)
    dtype = np.float16 if snapshot.half else np.float32
    state = GallerySnapshot(
        vectors_ND.astype(dtype), snapshot.codes_N, snapshot.ids_N, list(snapshot.classes), EnrolledNames(added=list(names)),
        revision=snapshot.revision + 1, next_id=snapshot.next_id, attributes=snapshot.attributes,
    )  # fmt: skip
    return Gallery.of_state(SnapshotView(state, None, recognizer.model_identity))
