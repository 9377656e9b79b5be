"""A recogniser in a user's program: images in, names out. With an exported network it needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unalike import progress
from unalike.data.view import View
from unalike.engines.files import embed_files
from unalike.engines.protocol import Engine
from unalike.errors import DataError, ModelError
from unalike.gallery.gallery import Gallery
from unalike.measure.nearest import unit
from unalike.tasks.opening import open_model

Picture = str | Path | Image.Image | np.ndarray
# Cosine of two networks' vectors of the probe image from which they count as one: below what rounding to bfloat16
# leaves, above what other weights give.
SAME_NETWORK = 0.98


@dataclass(frozen=True)
class Neighbour:
    """One enrolled image: its label, the name it was enrolled under, cosine and squared distance of unit vectors."""

    label: str
    name: str
    score: float
    distance: float


@dataclass(frozen=True)
class Answer:
    """The nearest label of one image, its cosine ``score`` (-1..1), squared L2 ``distance`` of unit vectors (0..4),
    and the ``neighbours`` that it was chosen from, best first."""

    label: str
    score: float
    distance: float
    neighbours: tuple[Neighbour, ...]


class Recogniser:
    """A network, its view and a gallery.

    >>> recogniser = Recogniser.load("model.onnx")            # doctest: +SKIP
    >>> recogniser.enrol("references/")                       # a folder a class
    >>> recogniser.identify(["photo.jpg"], k=3)[0].label
    """

    def __init__(self, engine: Engine, view: View, gallery: Gallery | None = None) -> None:
        self.engine, self.view = engine, view
        probe_D = _probe(engine)
        self.gallery = gallery if gallery is not None else Gallery(engine.dim, probe_D)
        if self.gallery.dim != engine.dim:
            raise ModelError(
                f"a gallery of width {self.gallery.dim} for a network of width {engine.dim}",
                remedy="enrol the references again with this network",
            )
        held_D = self.gallery.probe_D
        if len(held_D) and float(unit(held_D[None])[0] @ unit(probe_D[None])[0]) < SAME_NETWORK:
            raise ModelError(
                "the gallery was made with another network",
                remedy="enrol the references again with this network",
            )

    @classmethod
    def load(
        cls,
        model: str | Path,
        gallery: str | Path | Gallery | None = None,
        runtime: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        view: View | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Recogniser:
        """From an exported ``.onnx`` or a training checkpoint ``.pth`` (needs the extra ``train``).

        ``view``, ``mean`` and ``std`` are for networks that were exported elsewhere and do not carry them.
        Raises ModelError, WeightsError, DataError, MissingExtra.
        """
        opened = open_model(model, runtime=runtime, precision=precision, threads=threads, view=view, mean=mean, std=std)
        held = Gallery.load(gallery) if isinstance(gallery, str | Path) else gallery
        return cls(opened.engine, opened.view, held)

    def encode(self, images: Picture | Iterable[Picture]) -> np.ndarray:
        """float32 (N, D) for N paths, PIL images or uint8 arrays (H, W, 3); a file that cannot be read raises DataError.

        One 3-dimensional array, path or picture counts as one image.
        """
        pictures: list[Picture] = [images] if isinstance(images, str | Path | Image.Image) else list(images)
        if isinstance(images, np.ndarray) and images.ndim in (2, 3):
            pictures = [images]
        if pictures and all(isinstance(picture, str | Path) for picture in pictures):
            files: list[Any] = pictures
            return embed_files(self.engine, files, self.view, max_unreadable=0).vectors_ND
        parts = []
        for start in range(0, len(pictures), self.engine.batch):
            shown = [self.view(picture) for picture in pictures[start : start + self.engine.batch]]
            parts.append(self.engine(np.stack(shown)))
        return np.concatenate(parts) if parts else np.empty((0, self.engine.dim), np.float32)

    def enrol(
        self,
        images: Picture | Iterable[Picture],
        labels: str | Sequence[str] | None = None,
        names: Sequence[str] | None = None,
    ) -> int:
        """Add reference images and give their number back.

        A folder (or archive, or manifest) without ``labels`` is read as training data is: a folder a class, unreadable
        files passed over up to 5 %. Otherwise one label an image, or one for all.
        """
        if labels is None:
            return self._enrol_folder(images)
        one = isinstance(images, str | Path | Image.Image) or (isinstance(images, np.ndarray) and images.ndim < 4)
        pictures: list[Any] = [images] if one else list(images)  # type: ignore[arg-type]
        told = [labels] * len(pictures) if isinstance(labels, str) else list(labels)
        if len(told) != len(pictures):
            raise DataError(f"{len(pictures)} images and {len(told)} labels", expected="as many labels as images")
        if names is None:
            names = [str(picture) if isinstance(picture, str | Path) else "" for picture in pictures]
        self.gallery.enrol(self.encode(pictures), told, names)
        return len(pictures)

    def _enrol_folder(self, source: Any) -> int:
        from unalike.data.items import load_images

        if not isinstance(source, str | Path):
            raise DataError("images without labels", remedy="give labels, or a folder with a sub-folder a class")
        found = load_images(source)
        done = embed_files(self.engine, found.paths, self.view, describe="enrolling")
        if done.failures:
            progress.say(f"{len(done.failures)} unreadable images were not enrolled, the first: {done.failures[0][1]}")
        labels = [found.classes[found.labels_N[index]] for index in done.kept_N]
        self.gallery.enrol(done.vectors_ND, labels, [str(found.paths[index]) for index in done.kept_N])
        return len(labels)

    def identify(self, images: Picture | Iterable[Picture], k: int = 1) -> list[Answer]:
        """One Answer an image, from its ``k`` nearest enrolled images; the label is the nearest one's."""
        vectors_QD = self.encode(images)
        if not len(vectors_QD):
            return []
        found = self.gallery.search(vectors_QD, k)
        names = self.gallery.names
        answers = []
        for scores_K, indices_K, labels_K in zip(found.scores_QK, found.indices_QK, found.labels_QK, strict=True):
            near = tuple(
                Neighbour(label, names[index], float(score), float(max(0.0, 2.0 - 2.0 * score)))
                for score, index, label in zip(scores_K, indices_K, labels_K, strict=True)
            )
            answers.append(Answer(near[0].label, near[0].score, near[0].distance, near))
        return answers


def _probe(engine: Engine) -> np.ndarray:
    """What the network makes of one fixed smooth image: equal for the same network in any format, to rounding."""
    height, width = engine.input_size
    y_H1, x_1W = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]
    planes = [np.sin(5 * x_1W + 3 * y_H1), np.cos(7 * y_H1 * x_1W), np.sin(9 * y_H1 - 4 * x_1W)]
    image_HWC = np.stack([np.broadcast_to(127.5 + 120 * plane, (height, width)) for plane in planes], axis=-1)
    return engine(image_HWC.astype(np.uint8)[None])[0]
