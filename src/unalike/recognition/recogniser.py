"""A recogniser in a user's program: images in, names out. With an exported network it needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unalike import progress
from unalike.data.decode import ImageInput
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.errors import DataError, ModelError
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import load_model
from unalike.metrics.knn import unit
from unalike.recognition.calibration import calibrate, check_settings
from unalike.recognition.decision import LABEL, GalleryCalibration
from unalike.recognition.gallery import Gallery, ModelIdentity
from unalike.recognition.ranking import DEPTH, VOTERS, ClassRanking, check_vectors, rank_classes
from unalike.recognition.snapshot import GallerySnapshot


@dataclass(frozen=True)
class Neighbor:
    """One enrolled image: its label, the name it was enrolled under, cosine and squared distance of unit vectors."""

    label: str
    name: str
    score: float
    distance: float


@dataclass(frozen=True)
class Identification:
    """What one image is.

    ``decision`` is ``label``, ``ambiguous`` or ``unknown``; ``label`` the class where it is the first, else None.
    ``nearest`` is the best class whatever the decision, with its cosine ``score`` (-1..1) and squared L2 ``distance`` of
    unit vectors (0..4); ``second`` the next class, ``margin`` how far that is behind (both None where there is none or
    where it was not looked for). ``neighbours`` are the nearest enrolled images, best first.
    ``calibrated`` is False for a gallery that was never calibrated: every decision is then ``label``.
    """

    label: str | None
    score: float
    distance: float
    neighbours: tuple[Neighbor, ...]
    decision: str = LABEL
    nearest: str = ""
    second: str | None = None
    margin: float | None = None
    calibrated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


class Recogniser:
    """A network, its view and a gallery. Any number of threads may call it, also while images are enrolled.

    >>> recogniser = Recogniser.load("model.onnx")            # doctest: +SKIP
    >>> recogniser.enrol("references/")                       # a folder a class
    >>> recogniser.calibrate(rate=0.01)                       # from now on it may answer "unknown"
    >>> recogniser.identify(["photo.jpg"], k=3)[0].label
    """

    def __init__(
        self, engine: Engine, view: View, gallery: Gallery | None = None, *, approximate: bool = False, source: str = "",
        trunk: str = "", network: str = "",
    ) -> None:  # fmt: skip
        self.engine, self.view = engine, view
        self.model_identity = ModelIdentity(probe_embedding(engine), view.to_dict(), source, trunk, network)
        self.gallery = gallery if gallery is not None else Gallery(engine.dim, self.model_identity)
        if self.gallery.dim != engine.dim:
            raise ModelError(
                f"a gallery of width {self.gallery.dim} for a network of width {engine.dim}",
                remedy="enrol the references again with this network",
            )
        self.gallery.model_identity.check_compatible(self.model_identity)
        self._index: Any = None
        if approximate:
            from unalike.recognition.faiss_index import build_index

            self._index = build_index(self.gallery)

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
        approximate: bool = False,
    ) -> Recogniser:
        """From an exported ``.onnx`` or a training checkpoint ``.pth`` (needs the extra ``train``).

        ``view``, ``mean`` and ``std`` are for networks that were exported elsewhere and do not carry them.
        ``approximate`` searches through an index (extra ``ann``) that is built now; ``index`` says how exact it is.
        Raises ModelError, WeightsError, DataError, MissingExtra.
        """
        opened = load_model(model, runtime=runtime, precision=precision, threads=threads, view=view, mean=mean, std=std)
        held = Gallery.load(gallery) if isinstance(gallery, str | Path) else gallery
        return cls(opened.engine, opened.view, held, approximate=approximate, source=str(model), trunk=opened.trunk,
                   network=opened.network)  # fmt: skip

    @property
    def index(self) -> Any:
        """The approximate index in use (``recognition.faiss_index.FaissIndex``, with its measured recall), or None."""
        return self._index

    def encode(self, images: ImageInput | Iterable[ImageInput]) -> np.ndarray:
        """float32 (N, D) for N paths, PIL images or uint8 arrays (H, W, 3); a file that cannot be read raises DataError.

        One 3-dimensional array, path or picture counts as one image.
        """
        pictures: list[ImageInput] = [images] if isinstance(images, str | Path | Image.Image) else list(images)
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
        images: ImageInput | Iterable[ImageInput],
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
        if not isinstance(source, str | Path):
            raise DataError("images without labels", remedy="give labels, or a folder with a sub-folder a class")
        vectors_ND, labels, names = self.embed_folder(source, "enrolling")
        self.gallery.enrol(vectors_ND, labels, names)
        return len(labels)

    def embed_folder(self, source: str | Path, doing: str = "embedding") -> tuple[np.ndarray, list[str], list[str]]:
        """(vectors, class names, paths) of a folder (or archive, or manifest) with a sub-folder a class.

        Unreadable files are passed over up to 5 %, and said.
        """
        from unalike.data.imageset import load_images

        found = load_images(source)
        done = embed_files(self.engine, found.paths, self.view, describe=doing)
        if done.failures:
            progress.say(f"{len(done.failures)} unreadable images were passed over, the first: {done.failures[0][1]}")
        labels = [found.classes[found.labels_N[index]] for index in done.kept_N]
        return done.vectors_ND, labels, [str(found.paths[index]) for index in done.kept_N]

    def calibrate(
        self, rate: float = 0.01, images: str | Path | None = None, *, rule: str = "nearest", **settings: Any
    ) -> GalleryCalibration:
        """Let the gallery answer "unknown", so that of unknown images at most a share ``rate`` is taken for known.

        ``images``: class folders of further images; those whose class is not enrolled are the unknown ones. Without, the
        gallery's own classes are held out in turn. More in ``gallery.calibration.calibrate``, which takes ``settings``.
        """
        check_settings(rate, rule=rule, **settings)
        given = None if images is None else self.embed_folder(images, "calibrating")[:2]
        made = calibrate(self.gallery, rate, rule=rule, images=given, **settings)
        self.gallery.calibration = made
        return made

    def identify(
        self, images: ImageInput | Iterable[ImageInput], k: int = 1, label_by: str | None = None
    ) -> list[Identification]:
        """One Answer an image, with its ``k`` nearest enrolled images.

        ``label_by``: nearest, prototype or vote; left out, the rule of the calibration. By another rule than that the
        calibration does not speak, and the answer is always the best class.
        """
        return self.identify_vectors(self.encode(images), k, label_by)

    def identify_vectors(self, vectors_QD: np.ndarray, k: int = 1, label_by: str | None = None) -> list[Identification]:
        """As ``identify``, of vectors that this network made of images (``encode``)."""
        vectors_QD = check_vectors(vectors_QD, self.gallery.dim)
        held, made = self.gallery.snapshot, self.gallery.calibration
        if not len(vectors_QD):
            return []
        if made is not None and label_by not in (None, made.rule):
            made = None
        rule, voters = (made.rule, made.k) if made is not None else (label_by or "nearest", VOTERS)
        depth = max(k, voters if rule == "vote" else DEPTH)
        scores_QK, indices_QK = self._search(held, vectors_QD, k if rule == "prototype" else depth)
        ranked = rank_classes(
            held,
            vectors_QD,
            rule,
            voters,
            neighbours=(scores_QK, indices_QK),
            second=made is not None and made.margin > 0,
        )
        decisions = [LABEL] * len(vectors_QD) if made is None else made.decide(ranked.score_Q, ranked.margin_Q)
        return [
            _answer(held, ranked, q, decisions[q], scores_QK[q, :k], indices_QK[q, :k], made is not None)
            for q in range(len(vectors_QD))
        ]

    def _search(self, held: GallerySnapshot, vectors_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self._index is not None and self._index.is_current(held):
            found: tuple[np.ndarray, np.ndarray] = self._index.search(unit(vectors_QD), k)
            return found
        return held.search(vectors_QD, k)


def _answer(
    held: GallerySnapshot,
    ranked: ClassRanking,
    q: int,
    decision: str,
    scores_K: np.ndarray,
    indices_K: np.ndarray,
    calibrated: bool,
) -> Identification:
    near = tuple(
        Neighbor(held.classes[held.codes_N[index]], held.names[index], float(score), _distance(score))
        for score, index in zip(scores_K, indices_K.tolist(), strict=True)
        if index >= 0
    )
    nearest = held.classes[ranked.code_Q[q]]
    there = ranked.second_Q[q] >= 0
    score = float(ranked.score_Q[q])
    return Identification(
        nearest if decision == LABEL else None, score, _distance(score), near, decision, nearest,
        held.classes[ranked.second_Q[q]] if there else None, float(ranked.margin_Q[q]) if there else None, calibrated,
    )  # fmt: skip


def _distance(score: float) -> float:
    return float(max(0.0, 2.0 - 2.0 * score))


def probe_embedding(engine: Engine) -> np.ndarray:
    """What the network makes of one fixed smooth image: equal for the same network in any format, to rounding."""
    height, width = engine.input_size
    y_H1, x_1W = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]
    planes = [np.sin(5 * x_1W + 3 * y_H1), np.cos(7 * y_H1 * x_1W), np.sin(9 * y_H1 - 4 * x_1W)]
    image_HWC = np.stack([np.broadcast_to(127.5 + 120 * plane, (height, width)) for plane in planes], axis=-1)
    return engine(image_HWC.astype(np.uint8)[None])[0]
