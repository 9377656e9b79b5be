"""The model that a gallery is served with, candidates for it, and what is known of their trainings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from unalike.actions.gallery import find_model
from unalike.data.decode import MAX_PIXELS
from unalike.errors import DataError, SpecError, closest
from unalike.inference.model_files import is_pretrained
from unalike.learning.withholding import TrainingFacts
from unalike.recognition.backends.address import open_gallery
from unalike.recognition.backends.protocol import Entry, GalleryBackend, pages
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_conversion import EmbeddedReferences
from unalike.recognition.model_identity import ModelIdentity
from unalike.recognition.recognizer import Recogniser
from unalike.serve.model_files import own_model, relative_file, training_digests, vectors_file
from unalike.serve.store import Store
from unalike.serve.store.learning import ModelRecord


@dataclass(frozen=True)
class LearningGallery:
    """A gallery of a service, for which models are trained.

    Attributes:
        store: the store of the service.
        name: name of the gallery.
        address: its file, or its address in a database.
        model: the model that the service was started with; None where the gallery names it.
        runtime, precision, threads: of the networks.
        max_pixels: larger images cannot be read.
    """

    store: Store
    name: str
    address: str
    model: str | None = None
    runtime: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    max_pixels: int = MAX_PIXELS

    @property
    def folder(self) -> Path:
        """The folder of the service."""
        return self.store.folder

    @contextmanager
    def opened(self) -> Iterator[GalleryBackend]:
        """The gallery, closed at the end. Raises DataError."""
        gallery = open_gallery(self.address)
        try:
            yield gallery
        finally:
            gallery.close()

    def model_in_service(self, gallery: GalleryBackend) -> str:
        """File of the model that the gallery is served with. Raises ModelError."""
        own = own_model(self.folder, gallery.model_identity.file)
        return str(own or self.model or find_model(gallery, self.address, None))

    def open(self, model: str, gallery: GalleryBackend | None = None) -> Recogniser:
        """A recognizer of a model. Raises ModelError, DataError, MissingExtra."""
        return Recogniser.load(model, gallery, self.runtime, self.precision, self.threads)

    def file_of(self, name: str) -> str:
        """The path of a model's file as the store names it."""
        if is_pretrained(name) or Path(name).is_absolute():
            return name
        return str(self.folder / name)

    def stored_file(self, file: str) -> str:
        """The name of a model's file for the store."""
        return relative_file(self.folder, file)

    def candidate(self, model_id: str) -> ModelRecord:
        """A model of this gallery. Raises DataError."""
        record = self.store.learning.model(model_id)
        if record is None or record.gallery != self.name:
            ids = [entry.id for entry in self.store.learning.models(self.name)]
            raise DataError(f"no model {model_id[:64]!r} of the gallery {self.name}", expected="the id of a model that was trained for it",
                            remedy=closest(model_id, ids))  # fmt: skip
        return record

    def facts_of(self, file: str) -> TrainingFacts:
        """What is known of the images that a model was trained on."""
        if is_pretrained(file):
            return TrainingFacts(is_frozen=True)
        path = Path(file)
        own = own_model(self.folder, file)
        digests = None if own is None else training_digests(self.folder, own.parent.name)
        if digests is not None:
            return TrainingFacts(hashes=digests)
        try:
            modified = path.stat().st_mtime
        except OSError:
            return TrainingFacts()
        return TrainingFacts(until=datetime.fromtimestamp(modified, UTC))

    def kept_vectors(self, identity: ModelIdentity) -> EmbeddedReferences:
        """Vectors of the references by a network, from an earlier conversion; none where there was none."""
        path = vectors_file(self.folder, self.name, identity)
        try:
            return EmbeddedReferences.of_gallery(Gallery.load(path))
        except DataError:  # none, or damaged: they are computed
            return EmbeddedReferences({})


def entries_of(gallery: GalleryBackend) -> list[Entry]:
    """All references of a gallery."""
    with gallery.view() as view:
        return list(pages(view))


def choose_gallery(store: Store, name: str | None) -> tuple[str, str]:
    """Name and address of a gallery that services of a store serve.

    Raises:
        SpecError: there is none of that name, or several and none is named.
    """
    addresses = store.galleries.list()
    if name is None and len(addresses) == 1:
        return next(iter(addresses.items()))
    if name is None or name not in addresses:
        fault = f"no gallery {name!r}" if name is not None else f"{len(addresses)} galleries"
        raise SpecError(f"{fault} in the store of the service: {', '.join(addresses) or 'none was served yet'}",
                        expected="the name of one of them", remedy=closest(name or "", addresses) or "start the service once: unalike serve")  # fmt: skip
    return name, addresses[name]
