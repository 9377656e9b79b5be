"""Comparison of two models on the same withheld images: R@1 of each against the same references, and the images that change sides.

Shape letters: Q withheld images, R references, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.metrics.intervals import Interval, difference_interval
from unalike.numerics.nearest_neighbors import top_k

CONFIDENCE = 0.95


@dataclass(frozen=True)
class ChangedImage:
    """A withheld image that one of two models labels right and the other wrong.

    Attributes:
        sha256: of its content.
        name: what it is called in reports.
        label: its class.
        before: the class that the model in service gives it.
        after: the class that the candidate gives it.
    """

    sha256: str
    name: str
    label: str
    before: str
    after: str

    @property
    def is_gain(self) -> bool:
        """Whether the candidate is the one that is right."""
        return self.after == self.label

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"image": self.sha256, "name": self.name, "label": self.label, "before": self.before, "after": self.after,
                "gain": self.is_gain}  # fmt: skip


@dataclass(frozen=True, eq=False)
class PairedResult:
    """What two models say of the same images.

    Attributes:
        hit_before_Q: whether the model in service labels each image right.
        hit_after_Q: whether the candidate does.
        changes: the images that change sides, gains first.
        references: number of references that were searched.
        classes: number of classes of the withheld images.
    """

    hit_before_Q: np.ndarray
    hit_after_Q: np.ndarray
    changes: tuple[ChangedImage, ...]
    references: int
    classes: int

    def __len__(self) -> int:
        return len(self.hit_before_Q)

    @property
    def difference(self) -> Interval:
        """Difference of R@1, candidate less the model in service, with its 95 % interval.

        The claim is about the classes of the gallery, as they are: their images are random, each content counts once
        (``metrics.intervals``).
        """
        return difference_interval(self.hit_before_Q, self.hit_after_Q, confidence=CONFIDENCE)

    @property
    def gains(self) -> int:
        """Number of images that the candidate alone labels right."""
        return int((self.hit_after_Q & ~self.hit_before_Q).sum())

    @property
    def losses(self) -> int:
        """Number of images that the model in service alone labels right."""
        return int((self.hit_before_Q & ~self.hit_after_Q).sum())

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the images."""
        rates = [float(hit_Q.mean()) if len(self) else None for hit_Q in (self.hit_before_Q, self.hit_after_Q)]
        return {
            "images": len(self), "classes": self.classes, "references": self.references, "before": rates[0], "after": rates[1],
            "difference": self.difference.to_dict(), "gains": self.gains, "losses": self.losses,
        }  # fmt: skip


def compare_models(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray], labels_Q: Sequence[str],
    labels_R: Sequence[str], images_Q: Sequence[tuple[str, str]],
) -> PairedResult:  # fmt: skip
    """Compare two models by the class of the nearest reference.

    Args:
        before: query vectors (Q, D) and reference vectors (R, D) of the model in service.
        after: those of the candidate, whose width may be another one.
        labels_Q: class of each withheld image.
        labels_R: class of each reference; a class without a reference cannot be found by either model.
        images_Q: digest and name of each withheld image; no reference has one of these contents.

    Returns:
        The result.

    Raises:
        DataError: there is no reference, or the numbers differ.
    """
    if not labels_R:
        raise DataError("no reference to compare models with", expected="a gallery with pictures of its references")
    for query_QD, reference_RD in (before, after):
        if (len(query_QD), len(reference_RD)) != (len(labels_Q), len(labels_R)):
            raise DataError(
                f"{len(query_QD)} and {len(reference_RD)} vectors for {len(labels_Q)} and {len(labels_R)} labels"
            )
    answers = [_nearest_labels(*vectors, labels_R) for vectors in (before, after)]
    right = np.array(labels_Q, dtype=object)
    hits = [np.array(answer, dtype=object) == right for answer in answers]
    changes = []
    for q in np.flatnonzero(hits[0] != hits[1]).tolist():
        sha256, name = images_Q[q]
        changes.append(ChangedImage(sha256, name, labels_Q[q], answers[0][q], answers[1][q]))
    changes.sort(key=lambda change: (not change.is_gain, change.label, change.sha256))
    return PairedResult(
        hits[0].astype(bool), hits[1].astype(bool), tuple(changes), len(labels_R), len(set(labels_Q))
    )  # fmt: skip


def _nearest_labels(query_QD: np.ndarray, reference_RD: np.ndarray, labels_R: Sequence[str]) -> list[str]:
    if not len(query_QD):
        return []
    return [labels_R[r] for r in top_k(query_QD, reference_RD, 1).indices_QK[:, 0].tolist()]
