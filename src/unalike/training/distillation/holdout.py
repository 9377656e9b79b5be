"""Images that distillation holds out, and what each candidate gives for them: cosine to the teacher, and retrieval with labels.

With labels whole scenes of known classes are held out, as in automatic training, and looked up among the images that were
learned from; without labels, or where no class has two images to divide, single images, or whole groups of a manifest. Near
duplicates of an image without a label may be on both sides: then the cosine says how well the teacher is followed on images like these, not on others.
Shape letters: N images, H held-out images, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.metrics.intervals import Interval, difference_interval, mean_interval
from unalike.numerics.normalization import l2_normalize
from unalike.progress import say
from unalike.training.automatic.holdout import Split, TooFewImages, draw_holdout, holdout_splits
from unalike.training.automatic.holdout_result import HoldoutResult, evaluate_embeddings
from unalike.training.automatic.scenes import assign_scenes, find_series
from unalike.training.heads.discriminant import FittedHead

# Share of the images without labels that is held out; at least, and at most so many.
HELD_OUT_SHARE, MIN_HELD_OUT, MAX_HELD_OUT = 0.1, 8, 1000
LARGEST_SHARE = 0.25  # of the images that groups of different sizes may hold out
MIN_IMAGES = 32  # with fewer, too few are left to learn from and to judge by
MIN_GROUPS = 8  # of a manifest, from which whole ones are held out
GOAL = "known-classes"


@dataclass(frozen=True)
class HeldOut:
    """What is held out of a set of images.

    Attributes:
        held_H: rows of the held-out images, ascending.
        fit_N: rows of all others.
        labels_N: a label per image; -1 for none.
        splits: the retrieval of the held-out images, where they have labels; else empty.
        series_N: series of alike images, by which intervals are computed where there are few classes.
    """

    held_H: np.ndarray
    fit_N: np.ndarray
    labels_N: np.ndarray
    splits: Sequence[Split] = ()
    series_N: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def hold_out(
    vectors_ND: np.ndarray,
    labels_N: np.ndarray,
    own_N: np.ndarray,
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> HeldOut:
    """Draw the images to hold out.

    Args:
        vectors_ND: the teachers' vectors, by which scenes are found.
        labels_N: a label per image; -1 for none.
        own_N: mask of the images that may be held out; further ones are only learned from.
        groups: a group per image from a manifest.
        seed: of the draw.

    Raises:
        DataError: fewer than ``MIN_IMAGES`` images.
    """
    count = len(labels_N)
    if count < MIN_IMAGES or own_N.sum() < 2 * MIN_HELD_OUT:
        raise DataError(f"{count} readable images to learn from", expected=f"at least {MIN_IMAGES}; some thousand to gain by it",
                        remedy="add images: labels are not needed")  # fmt: skip
    labeled = np.flatnonzero((labels_N >= 0) & own_N)
    if len(labeled):
        names = None if groups is None else [groups[i] for i in labeled.tolist()]
        try:
            return _hold_out_scenes(vectors_ND, labels_N, labeled, names, seed)
        except TooFewImages:
            say("R@1 is not measured: too few classes have images of two scenes or groups, one of which could be held out; students are compared "
                "by the cosine to the teacher")  # fmt: skip
    held_H = _draw(np.flatnonzero(own_N), groups, seed)
    return HeldOut(held_H, np.setdiff1d(np.arange(count), held_H), labels_N)


def _draw(rows: np.ndarray, groups: Sequence[str] | None, seed: int) -> np.ndarray:
    """Draw images, or whole groups where there are enough, until ``HELD_OUT_SHARE`` of the images is held out."""
    names = [(groups[i] if groups is not None else "") or f"\0{i}" for i in rows.tolist()]
    part_N = np.unique(names, return_inverse=True)[1]
    enough = min(MAX_HELD_OUT, max(MIN_HELD_OUT, round(HELD_OUT_SHARE * len(rows))))
    sizes_G, parts, count = np.bincount(part_N), [], 0
    for part in np.random.default_rng([seed, 47]).permutation(len(sizes_G)).tolist():
        if count < enough and count + sizes_G[part] <= max(enough, LARGEST_SHARE * len(rows)):
            parts.append(part)
            count += int(sizes_G[part])
    if len(sizes_G) < MIN_GROUPS or count < MIN_HELD_OUT:
        return _draw(rows, None, seed)  # too few groups: single images
    held_H: np.ndarray = rows[np.isin(part_N, parts)]
    return held_H


def _hold_out_scenes(
    vectors_ND: np.ndarray, labels_N: np.ndarray, labeled: np.ndarray, groups: Sequence[str] | None, seed: int
) -> HeldOut:
    """Hold out scenes of some classes, each looked up among all other labeled images."""
    unit_ND, label_N = vectors_ND[labeled], labels_N[labeled]
    scene_N = assign_scenes(unit_ND, label_N, groups=groups, seed=seed)
    held_out = draw_holdout(label_N, scene_N, GOAL, seed=seed)
    splits = holdout_splits(label_N, scene_N, held_out, search_all=True)
    held_H = labeled[held_out.scene_N]
    fit_N = np.setdiff1d(np.arange(len(labels_N)), held_H)
    series_N = np.zeros(len(labels_N), np.int64)
    series_N[labeled] = find_series(unit_ND, label_N)
    rows = [Split(s.kind, labeled[s.fit_N], labeled[s.reference_N], labeled[s.query_N]) for s in splits]
    return HeldOut(held_H, fit_N, labels_N, rows, series_N)


@dataclass(frozen=True)
class Outcome:
    """What a network gives for the held-out images.

    Attributes:
        cosine_H: cosine to the teachers' vector of each.
        result: the retrieval, where there are labels.
    """

    cosine_H: np.ndarray
    result: HoldoutResult | None

    @property
    def cosine(self) -> float:
        """The mean cosine."""
        return float(self.cosine_H.mean())

    @property
    def score(self) -> float:
        """What candidates are ranked by: the mean of R@1 and MAP@R where there are labels, else the mean cosine."""
        return self.cosine if self.result is None else self.result.score(GOAL)

    def describe_cosine(self) -> Interval:
        """The mean cosine with its 95 % interval over images."""
        return mean_interval(np.clip(self.cosine_H, 0, 1))

    def gain_over(self, other: Outcome) -> Interval:
        """The mean paired difference of the cosines to another outcome, with its 95 % interval over images."""
        return difference_interval(other.cosine_H, self.cosine_H)

    def to_dict(self, teacher: HoldoutResult | None) -> dict[str, Any]:
        """Return the figures as plain data, with the paired difference of the retrieval to the teachers'.

        Args:
            teacher: the retrieval by the teachers' vectors.
        """
        figures = {"held-out images": {"cosine to the teacher": self.describe_cosine()}}
        row: dict[str, Any] = {
            "lowest_percentiles": {str(p): round(float(np.percentile(self.cosine_H, p)), 4) for p in (1, 5)}
        }
        if self.result is not None:
            figures |= self.result.metrics()
        if self.result is not None and teacher is not None:
            row["difference_to_teacher"] = _plain(self.result.gain_over(teacher))
        return {"figures": _plain(figures), **row}


def _plain(table: dict[str, dict[str, Interval]]) -> dict[str, dict[str, Any]]:
    return {kind: {name: value.to_dict() for name, value in row.items()} for kind, row in table.items()}


def judge(vectors_ND: np.ndarray, targets_ND: np.ndarray, held_out: HeldOut) -> Outcome:
    """Compare a network's vectors of all images with the teachers'.

    Args:
        vectors_ND: the network's vectors, of any length.
        targets_ND: the teachers' vectors, of the same width and of length 1.
        held_out: what is held out.
    """
    unit_ND = l2_normalize(vectors_ND)
    cosine_H = np.einsum("hd,hd->h", unit_ND[held_out.held_H], targets_ND[held_out.held_H])
    return Outcome(cosine_H, retrieval(unit_ND, held_out))


def retrieval(vectors_ND: np.ndarray, held_out: HeldOut) -> HoldoutResult | None:
    """Look up the held-out images by vectors of any network; None without labels."""
    splits = held_out.splits
    if not splits:
        return None
    result = evaluate_embeddings(
        splits, held_out.labels_N, lambda _, s: (vectors_ND[s.query_N], vectors_ND[s.reference_N])
    )
    return replace(result, series_Q=held_out.series_N[np.concatenate([s.query_N for s in splits])])


def head_vectors(head: FittedHead, features_NF: np.ndarray) -> np.ndarray:
    """Apply a head to features block by block: the root and the vectors of all would take several times their memory."""
    return np.concatenate([head(features_NF[start : start + 8192]) for start in range(0, len(features_NF), 8192)])
