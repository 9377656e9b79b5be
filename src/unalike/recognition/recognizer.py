"""Recogniser: names images by their nearest references in a gallery; with an exported network it needs no torch.

Shape letters: N images, H, W their height and width, D width of an embedding, Q queries, K neighbors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unalike import progress
from unalike.data.class_names import check_class_name
from unalike.data.decode import ImageInput, image_list
from unalike.data.decoding import Decoding
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.errors import DataError, ModelError
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import load_model
from unalike.inference.model_files import is_pretrained
from unalike.numerics.arguments import check_count, check_list, check_share
from unalike.recognition.attributes import (
    Attributes,
    Where,
    check_attribute_name,
    check_attributes,
    check_where,
    checked_attributes,
)
from unalike.recognition.backends.address import open_gallery
from unalike.recognition.backends.protocol import GalleryBackend, GalleryView, SearchIndex
from unalike.recognition.calibration_trials import CalibrationTrials, collect_trials, compare_views
from unalike.recognition.decision import LABEL, UNKNOWN, GalleryCalibration, check_rule
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_calibration import calibrate, check_settings
from unalike.recognition.identification import Identification, lead_over_others, make_identification
from unalike.recognition.image_stream import image_batches, several_images
from unalike.recognition.model_identity import ModelIdentity
from unalike.recognition.operating_point import MAX_REFUSED, choose_threshold
from unalike.recognition.ranking import VOTERS, check_vectors
from unalike.recognition.snapshot_view import SnapshotView
from unalike.recognition.training_trials import trained_share, trials_from_training
from unalike.runs.environment import usable_cores
from unalike.source_names import source_name

# Vectors that are not in the approximate index are searched exactly; above this share of it they are added.
UPDATE_SHARE = 0.1
CHECK_S = 1.0  # between two looks at the gallery's file


class Recogniser:
    """A network, its evaluation view and a gallery. Any number of threads may call it, also while images are enrolled.

    Examples:
        >>> recognizer = Recogniser.load("model.onnx")            # doctest: +SKIP
        >>> recognizer.enrol("references/")                       # one folder a class
        >>> recognizer.calibrate(rate=0.01)                       # from now on it may answer "unknown"
        >>> recognizer.identify(["photo.jpg"], k=3)[0].label

    Args:
        engine: runs the network.
        view: turns an image into the network's input.
        gallery: the references; an empty one when None.
        approximate: search through a faiss index (extra ``ann``), which is read from the file beside the gallery's
            (``GALLERY.index``), or built now and kept there. It stays in use while images are enrolled and removed.
        source: the model's file.
        trunk: name of the network's trunk.
        network: key of the network (``engines.metadata.NetworkFacts``).
        classes: names of the classes that the network was trained on.
        held_out_scores: scores of images that its training held out (``recognition.training_trials``).
        says_changes: say once when the gallery's file was changed by others; False where the caller takes changes over.

    Raises:
        ModelError: the gallery was made with another network or view.
    """

    def __init__(
        self, engine: Engine, view: View, gallery: GalleryBackend | None = None, *, approximate: bool = False, source: str = "",
        trunk: str = "", network: str = "", classes: Sequence[str] = (), held_out_scores: Mapping[str, Any] | None = None,
        says_changes: bool = True,
    ) -> None:  # fmt: skip
        self.engine, self.view = engine, view
        self.classes, self.held_out_scores = tuple(classes), dict(held_out_scores or {})
        self.model_identity = ModelIdentity(probe_embedding(engine), view.to_dict(), source, trunk, network)
        self.gallery: GalleryBackend = gallery if gallery is not None else Gallery(engine.dim, self.model_identity)
        if self.gallery.dim != engine.dim:
            raise ModelError(
                f"a gallery of width {self.gallery.dim} for a network of width {engine.dim}",
                remedy="enrol the references again with this network",
            )
        self.gallery.model_identity.check_compatible(self.model_identity)
        self._set_decoding(view.decoding.completed(self.gallery.model_identity.decoding))
        self._index: SearchIndex | None = self.gallery.open_index() if approximate else None
        self._next_check = 0.0 if says_changes else math.inf

    @classmethod
    def load(
        cls,
        model: str | Path,
        gallery: str | Path | GalleryBackend | None = None,
        runtime: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        view: View | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        approximate: bool = False,
    ) -> Recogniser:
        """Load an exported network (``.onnx``) or a training checkpoint (``.pth``, needs the extra ``train``).

        Args:
            model: path or URI of the network; ``pretrained[:NAME]`` for a pretrained trunk as it is (extra ``train``).
            gallery: a gallery, its file or its address (``backends.address.open_gallery``); an empty one when None.
            runtime, precision, threads: as in ``inference.loaded_model.load_model``.
            view, mean, std: preprocessing of a network that was exported elsewhere and carries none; ``mean`` and ``std``
                on the scale 0..1.
            approximate: search through an index (extra ``ann``), as in the constructor; ``index`` says how exact it is.

        Raises:
            ModelError, WeightsError, DataError, MissingExtra.
        """
        file = load_model(model, runtime=runtime, precision=precision, threads=threads, view=view, mean=mean, std=std)
        references = open_gallery(gallery) if isinstance(gallery, str | Path) else gallery
        if not file.knows_decoding and view is None and references is not None and references.model_identity.view:
            file = file.with_decoding(references.model_identity.decoding)
        source = file.source if is_pretrained(model) or Path(str(model)).is_dir() else model
        return cls(file.engine, file.view, references, approximate=approximate, source=str(source),
                   trunk=file.trunk, network=file.network, classes=file.classes,
                   held_out_scores=file.held_out_scores)  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        is_kept = (
            not isinstance(self.gallery, Gallery) or self.gallery.is_saved
        )  # then its file is beside the gallery's
        keeps_index = self._index is not None and is_kept
        return {**self.__dict__, "_index": None, "approximate": True} if keeps_index else self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As it was; ModelError where the model's file is another network by now (a pickled engine carries its path)."""
        self.__dict__.update(state)
        if self.__dict__.pop("approximate", False):
            self._index = self.gallery.open_index()
        network = str(getattr(getattr(self.engine, "facts", None), "network", ""))
        before = self.model_identity if network else replace(self.model_identity, network="")
        before.check_compatible(replace(before, probe_D=probe_embedding(self.engine), network=network))

    @property
    def index(self) -> SearchIndex | None:
        """The approximate index in use, with its measured recall, or None."""
        return self._index

    def fit_decoding(self, images: Iterable[ImageInput]) -> None:
        """Choose what the model leaves open of the decoding (``data.decoding``) from a set of images, once.

        Enrolling does so by itself; the gallery keeps what was chosen.
        """
        if not self.view.decoding.is_complete:
            self._set_decoding(self.view.fitted(images).decoding)

    def _set_decoding(self, decoding: Decoding) -> None:
        self.view = replace(self.view, decoding=decoding)
        self.model_identity = self.model_identity.with_decoding(decoding)
        self.gallery.model_identity = self.gallery.model_identity.with_decoding(decoding)

    def encode(self, images: ImageInput | Iterable[ImageInput]) -> np.ndarray:
        """Compute embeddings.

        Args:
            images: one image or several, each as in ``data.decode.decode``.

        Returns:
            float32 (N, D).

        Raises:
            DataError: a file cannot be read.
        """
        inputs = image_list(images)
        if inputs and all(isinstance(image, str | Path) for image in inputs):
            files: list[Any] = inputs
            return embed_files(self.engine, files, self.view, max_unreadable=0).vectors_ND
        parts = []
        for start in range(0, len(inputs), self.engine.batch):
            views = [self.view(image) for image in inputs[start : start + self.engine.batch]]
            parts.append(self.engine(np.stack(views)))
        return np.concatenate(parts) if parts else np.empty((0, self.engine.dim), np.float32)

    def enrol(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: str | Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        attributes: Any = None,
        attribute_columns: Sequence[str] = (),
    ) -> int:
        """Add reference images to the gallery.

        Args:
            images: as in ``encode``; or, without ``labels``, a folder, archive or manifest as in training: one folder a
                class, of whose files up to 5 % may be unreadable.
            labels: one class name for each image, or one for all.
            names: a name for each image; the path of a file when None.
            attributes: of all images, or a list with those of each, by which searches are filtered, such as
                ``{"site": "berlin"}``.
            attribute_columns: columns of a manifest that hold further attributes of each image; without ``labels``.

        Returns:
            The number of images added.
        """
        if labels is None:
            return self._enrol_folder(images, attributes, attribute_columns)
        inputs = image_list(images)
        names_given = (
            [labels] * len(inputs) if isinstance(labels, str) else check_list("labels", labels, "a class name")
        )
        labels = [check_class_name(label) for label in names_given]
        if len(labels) != len(inputs):
            raise DataError(f"{len(inputs)} images and {len(labels)} labels", expected="as many labels as images")
        if names is None:
            names = [str(image) if isinstance(image, str | Path) else "" for image in inputs]
        checked_attributes(attributes, len(inputs))  # before images are embedded
        self.fit_decoding(inputs)
        self.gallery.enrol(self.encode(inputs), labels, names, attributes)
        return len(inputs)

    def _enrol_folder(self, source: Any, attributes: Any, attribute_columns: Sequence[str]) -> int:
        if not isinstance(source, str | Path):
            raise DataError("images without labels", remedy="give labels, or a folder with a sub-folder a class")
        references = self.embed_references(source, attributes, attribute_columns)
        self.gallery.enrol(*references)
        labels = references[1]
        return len(labels)

    def embed_folder(
        self, source: str | Path, description: str = "embedding"
    ) -> tuple[np.ndarray, list[str], list[str]]:
        """Compute the embeddings of a folder (or archive, or manifest) with a sub-folder a class.

        Up to 5 % of the files may be unreadable; they are left out, with a message.

        Returns:
            (vectors_ND, class names, paths).
        """
        return self.embed_references(source, description=description)[:3]

    def embed_references(
        self, source: str | Path, attributes: Attributes | None = None, attribute_columns: Sequence[str] = (), *,
        label: str | None = None, description: str = "enrolling",
    ) -> tuple[np.ndarray, list[str], list[str], list[Attributes]]:  # fmt: skip
        """As ``embed_folder``, with the attributes of each image.

        Args:
            source: as in ``embed_folder``; with ``label``, images in any arrangement.
            attributes: of all images.
            attribute_columns: columns of a manifest that hold further ones of each image; an empty cell gives none.
            label: class of all images.
            description: what the progress bar says.

        Returns:
            (vectors_ND, class names, paths, attributes).
        """
        from unalike.data.imageset import load_images

        common = check_attributes({} if attributes is None else attributes)
        columns = [check_attribute_name(name) for name in attribute_columns]
        images = load_images(source, labeled=label is None, further=columns)
        cells = images.cells or ((),) * len(images)
        own = [check_attributes(common | {n: c for n, c in zip(columns, row, strict=True) if c}) for row in cells]
        self.fit_decoding(images.paths)
        embeddings = embed_files(self.engine, images.paths, self.view, describe=description)
        if embeddings.failures:
            first_reason = embeddings.failures[0][1]
            progress.say(f"{len(embeddings.failures)} unreadable images were skipped, the first: {first_reason}")
        rows = embeddings.kept_N.tolist()
        labels = [images.classes[images.labels_N[row]] if label is None else label for row in rows]
        return (
            embeddings.vectors_ND,
            labels,
            [source_name(images.paths[row]) for row in rows],
            [own[row] for row in rows],
        )

    def calibrate(
        self, rate: float = 0.01, images: str | Path | None = None, *, rule: str = "nearest", **settings: Any
    ) -> GalleryCalibration:
        """Let the gallery answer "unknown", so that at most a share ``rate`` of unknown images is taken for known.

        Args:
            rate: target false match rate, 0..1, exclusive.
            images: class folders of further images; those whose class is not enrolled are unknown. Without them the
                gallery's own classes are left out in turn.
            rule: how neighbors become a class: ``nearest``, ``prototype`` or ``vote``.
            settings: further settings of ``recognition.gallery_calibration.calibrate``.

        Returns:
            The calibration, which the gallery keeps.
        """
        check_settings(rate, rule=rule, **settings)
        labeled_vectors = None if images is None else self.embed_folder(images, "calibrating")[:2]
        calibration = calibrate(self.gallery, rate, rule=rule, images=labeled_vectors, **settings)
        self.gallery.calibration = calibration
        return calibration

    def set_threshold(
        self, rate: float | None = None, max_refused: float = MAX_REFUSED, *, rule: str = "nearest"
    ) -> tuple[GalleryCalibration, CalibrationTrials]:
        """Let the gallery answer "unknown" whatever its size: at a promised rate where it can carry one, else provisionally.

        Args:
            rate: target false match rate, 0..1; None: the lowest at which few enough known images are refused.
            max_refused: share of images of enrolled classes that may be called unknown, 0..1.
            rule: how neighbors become a class: ``nearest``, ``prototype`` or ``vote``.

        Returns:
            The calibration, which the gallery keeps, and the trials that it was made of.

        Raises:
            DataError: one class, without a second image or a file that can be read.
        """
        check_settings(0.5 if rate is None else rate, rule=rule)
        max_refused = check_share("max_refused", max_refused)
        trials, views = None, None
        with self.gallery.view() as view:
            snapshot = view.snapshot()
        if trained_share(snapshot, self.classes) > 0:
            trials = trials_from_training(self.held_out_scores, snapshot, rule, VOTERS)
            if trials is None:
                raise DataError(
                    "the network was trained on classes of this gallery, whose images are nearer to each other than new "
                    "photographs will be, and its file holds no scores of held-out images",
                    remedy="train it again with unalike train, or calibrate with further images: unalike calibrate --images",
                )
        if trials is None:
            trials = collect_trials(self.gallery, rule=rule)
            views = compare_views(trials, self.engine, self.view) if trials.knowns is None else None
        self.gallery.calibration = choose_threshold(trials, rate, max_refused, views=views)
        return self.gallery.calibration, trials

    def identify(
        self,
        images: ImageInput | Iterable[ImageInput],
        k: int = 1,
        label_by: str | None = None,
        where: Where | None = None,
    ) -> list[Identification]:
        """Find the class of each image; one that cannot be read ends it (``identify_many`` goes on).

        Args:
            images: as in ``encode``.
            k: number of nearest enrolled images to return with each.
            label_by: ``nearest``, ``prototype`` or ``vote``; the rule of the calibration when None. The calibration does
                not hold for another rule, whose answer is always the best class.
            where: compares with references that have these attributes alone, exactly: ``{"site": "berlin", "season": ["ss26",
                "fw26"]}`` takes those of Berlin, of one of two seasons. Where none has them, the image is ``unknown``.
                The threshold is that of the whole gallery.

        Raises:
            DataError: an image cannot be read, or no reference has an attribute that ``where`` names.
        """
        check_count("k", k), check_where(where)  # before images are embedded
        return self.identify_vectors(self.encode(images), k, label_by, where)

    def identify_many(
        self, images: Iterable[ImageInput], k: int = 1, label_by: str | None = None, where: Where | None = None
    ) -> Iterator[Identification | DataError]:
        """Find the class of each image of a stream, in order; an image that cannot be read gives its error, and the others go on.

        Args:
            images: several images, each as in ``encode``; they are taken a batch at a time.
            k, label_by, where: as in ``identify``.

        Yields:
            For each image its identification, or the error that ``identify`` would have raised: ``UnreadableImage``, or
            DataError for an array of another shape or type.
        """
        check_count("k", k), check_where(where)
        images = several_images(images)
        with ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode") as pool:
            for batch in image_batches(images, self.engine.batch):
                views = list(pool.map(self._try_view, batch))
                readable = [view for view in views if isinstance(view, np.ndarray)]
                vectors_QD = self.engine(np.stack(readable)) if readable else np.empty((0, self.engine.dim))
                answers = iter(self.identify_vectors(vectors_QD, k, label_by, where))
                for view in views:
                    yield view if isinstance(view, DataError) else next(answers)

    def _try_view(self, image: ImageInput) -> np.ndarray | DataError:
        try:
            return self.view(image)
        except DataError as error:
            return error

    def identify_vectors(
        self, vectors_QD: np.ndarray, k: int = 1, label_by: str | None = None, where: Where | None = None
    ) -> list[Identification]:
        """As ``identify``, for embeddings that this network computed (``encode``)."""
        vectors_QD, k = check_vectors(vectors_QD, self.gallery.dim), check_count("k", k)
        values_by_name = check_where(where)
        if label_by is not None:
            check_rule(label_by)
        self._say_if_changed()
        if not len(vectors_QD):
            return []
        with self.gallery.view() as view:
            calibration, size, revision = view.calibration, view.size, view.revision
            if calibration is not None and label_by not in (None, calibration.rule):
                calibration = None
            if calibration is not None:
                rule, voters = calibration.rule, calibration.k
            else:
                rule, voters = label_by or "nearest", VOTERS
            second = calibration is not None and (calibration.margin > 0 or calibration.second_weight > 0)
            index = self._current_index(view)
            ranking = view.rank(vectors_QD, rule, voters, k=k, second=second, index=index, where=values_by_name)
            lead_Q = ranking.margin_Q
            if calibration is not None and calibration.second_weight > 0 and values_by_name is not None:
                # The second class of the whole gallery: a filter that leaves one class would make everything known.
                lead_Q = lead_over_others(ranking, view.rank(vectors_QD, rule, voters, k=1, index=index))
        stale, thresholds = False, None
        if calibration is None:
            decisions = [LABEL] * len(vectors_QD)
        else:
            stale = not calibration.holds_for(*size, revision)
            threshold = calibration.threshold_for(*size)
            decisions = calibration.decide(ranking.score_Q, ranking.margin_Q, threshold, lead_Q=lead_Q)
            thresholds = calibration.cosine_thresholds(ranking.score_Q, lead_Q, threshold)
        return [
            make_identification(
                ranking,
                q,
                decision if ranking.label_Q[q] else UNKNOWN,
                calibration=calibration,
                stale=stale,
                threshold=None if thresholds is None else float(thresholds[q]),
                where=values_by_name,
            )
            for q, decision in enumerate(decisions)
        ]

    def reload(self) -> None:
        """Take over what others changed in the gallery; changes that were not saved are dropped.

        Raises:
            DataError, ModelError: as of ``GalleryBackend.refresh``.
        """
        if isinstance(self.gallery, Gallery):
            self.gallery.reload()
        else:
            self.gallery.refresh()
        self._set_decoding(self.view.decoding.completed(self.gallery.model_identity.decoding))

    def _say_if_changed(self) -> None:
        """Say once, looking once a second, that the gallery's file is another one by now."""
        if time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + CHECK_S
        if isinstance(self.gallery, Gallery) and self.gallery.changed_on_disk():
            progress.say(f"{self.gallery.path} was changed on disk: answers come from the state that was loaded or saved "
                         "here; reload() takes over the new one", once=True)  # fmt: skip

    def _current_index(self, view: GalleryView) -> SearchIndex | None:
        """The index; where many vectors are missing in one of faiss, they are added first."""
        index = self._index
        if index is None or not isinstance(view, SnapshotView):
            return index
        from unalike.recognition.faiss_index import FaissIndex, update_index

        snapshot = view.snapshot()
        assert isinstance(index, FaissIndex)
        if index.pending(snapshot) > UPDATE_SHARE * len(index.ids_M) or not index.serves(snapshot):
            self._index = index = update_index(index, snapshot)
        return index


def probe_embedding(engine: Engine) -> np.ndarray:
    """Embedding (D,) of one fixed smooth image: equal for one network in any format, up to rounding."""
    height, width = engine.input_size
    y_H1, x_1W = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]
    planes = [np.sin(5 * x_1W + 3 * y_H1), np.cos(7 * y_H1 * x_1W), np.sin(9 * y_H1 - 4 * x_1W)]
    image_HWC = np.stack([np.broadcast_to(127.5 + 120 * plane, (height, width)) for plane in planes], axis=-1)
    embedding_D: np.ndarray = engine(image_HWC.astype(np.uint8)[None])[0]
    return embedding_D
