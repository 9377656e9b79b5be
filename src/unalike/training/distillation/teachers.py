"""Vectors of the teachers: computed once for each image, joined into one vector, and reduced to the width of the student's.

Shape letters: N images, W width of the joined vectors, D width of the student's vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.engines.protocol import Engine
from unalike.errors import SpecError
from unalike.inference.loaded_model import LoadedModel, load_model, require_model_file
from unalike.inference.model_files import is_pretrained
from unalike.numerics.covariance import largest_directions
from unalike.numerics.normalization import l2_normalize
from unalike.progress import say
from unalike.storage.digests import file_sha256
from unalike.training.automatic.sampling import LEAST_IMAGES, EmbeddingLimit
from unalike.training.heads.cached_vectors import compute_vectors
from unalike.training.time_budget import TimeBudget

if TYPE_CHECKING:
    from unalike.spec.dataset import Dataset
    from unalike.spec.distill import Distill

TEACHERS_SHARE = 0.4  # of the time that is left, for the vectors of all teachers


class ImageLimit(EmbeddingLimit):
    """Stops the embedding of images in a random order where its share of the time is spent.

    Args:
        budget: the time budget.
        share: of what is left of the budget at the first image.
    """

    def __init__(self, budget: TimeBudget, share: float) -> None:
        super().__init__(budget)
        self.share = share

    def stop(self, count: int, total: int) -> bool:
        """Return whether no more images are to be embedded; called after ``count`` of ``total``."""
        return LEAST_IMAGES <= count < total and self._until(self.share) <= 0


@dataclass(frozen=True)
class TeacherVectors:
    """The joined vectors of the teachers.

    Attributes:
        vectors_NW: of length 1, one row per image that every teacher could read in the time.
        kept_N: the index of each row's image in the image set.
        facts: of each teacher: file, network's key, trunk, width and engine, as plain data.
        classes: names of the classes that the teachers were trained on, sorted.
    """

    vectors_NW: np.ndarray
    kept_N: np.ndarray
    facts: tuple[dict[str, Any], ...]
    classes: tuple[str, ...]


def require_teachers(section: Distill) -> None:
    """Raise ModelError for a teacher's file that is missing or no file of a model, before anything is read."""
    for teacher in section.teachers or ():
        if not is_pretrained(teacher):
            require_model_file(teacher)


def compute_teacher_vectors(
    section: Distill, images: ImageSet, dataset: Dataset, order_N: np.ndarray, notices: Notices, budget: TimeBudget
) -> TeacherVectors:
    """Compute the vectors of every teacher, each with its own view of the images, and join them.

    Args:
        section: names the teachers, their runtime and their precision.
        images: all images.
        dataset: number of workers and limits on unreadable images.
        order_N: all rows of the images, in the order in which they are read where the time does not suffice for all.
        notices: collects unreadable images.
        budget: the time budget.

    Raises:
        ModelError: a file is missing, or is no embedding model.
        DataError: too many images cannot be read.
    """
    files = list(section.teachers or ())
    parts: list[np.ndarray] = []
    kept_N = np.arange(len(images))
    facts: list[dict[str, Any]] = []
    classes: set[str] = set()
    for number, file in enumerate(files):
        model = load_model(
            file, runtime=section.runtime, precision=section.precision, images=len(kept_N), quiet=False
        ).fitted(images.paths)
        limit = ImageLimit(budget, TEACHERS_SHARE / len(files))
        vectors = compute_vectors(
            _cache_key(model), partial(_engine_of, model), images, model.view, notices, dataset,
            describe=_describe(files, number), dim=model.engine.dim, limit=limit,
            order_N=order_N[np.isin(order_N, kept_N)],
        )  # fmt: skip
        keep_N = np.isin(kept_N, vectors.kept_N)
        parts = [part_ND[keep_N] for part_ND in parts] + [vectors.vectors_ND]
        kept_N = kept_N[keep_N]
        classes.update(model.classes)
        facts.append({"file": str(model.source), "network": model.network, "trunk": model.trunk, "dim": model.engine.dim,
                      "view": model.view.to_dict(), "engine": model.engine.describe()})  # fmt: skip
        say(f"{_describe(files, number)}: {len(vectors.kept_N)} of {len(images)} images, {vectors.rate:.0f} images/s")
    return TeacherVectors(join_vectors(parts), kept_N, tuple(facts), tuple(sorted(classes)))


def _engine_of(model: LoadedModel, _: int) -> Engine:
    return model.engine


def _describe(files: Sequence[str], number: int) -> str:
    return "vectors of the teacher" + (f" {number + 1} of {len(files)}" if len(files) > 1 else "")


def _cache_key(model: LoadedModel) -> str:
    """Name the cache file by all that determines a vector: network, number format, view and normalization."""
    network = model.network or file_sha256(model.source)
    view = sorted(model.view.to_dict().items())
    facts = (network, model.engine.precision, view, model.preprocessing.mean, model.preprocessing.std)
    return f"vectors-{hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()}"


def join_vectors(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Join the vectors of several networks: their cosine is the mean of the cosines of the networks.

    Args:
        parts: vectors of each network, a row per image.

    Returns:
        Vectors of length 1 (N, W), W the sum of the widths.
    """
    joined_NW = np.concatenate([l2_normalize(part_ND) for part_ND in parts], axis=1)
    return l2_normalize(joined_NW)


def fit_projection(vectors_NW: np.ndarray, dim: int) -> np.ndarray | None:
    """Return the ``dim`` directions that keep scalar products best (W, D); None where no width is to be lost."""
    return None if dim >= vectors_NW.shape[1] else largest_directions(vectors_NW, dim)


def project(vectors_NW: np.ndarray, projection_WD: np.ndarray | None) -> np.ndarray:
    """Return vectors of length 1 (N, D) along the directions; all of them where there is no projection."""
    return l2_normalize(vectors_NW if projection_WD is None else vectors_NW @ projection_WD)


def choose_width(requested: int | None, joined: int, features: int) -> int:
    """Return the width D of the student's vector: as asked for, or the largest that is of use.

    Args:
        requested: ``distill.dim``.
        joined: width W of the teachers' joined vectors.
        features: number of features of the student's trunk.

    Raises:
        SpecError: more is asked for than the teachers' vectors, or the student's features, have.
    """
    largest = min(joined, features)
    if requested is not None and requested > largest:
        of = (
            f"the {joined} of the teachers' vectors"
            if joined <= features
            else f"the {features} features of the student's trunk"
        )
        raise SpecError(f"distill.dim is {requested}, more than {of}", expected=f"at most {largest}", remedy="leave --dim out")  # fmt: skip
    return largest if requested is None else requested
