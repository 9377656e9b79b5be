"""Holdout and cross-validation splits by class and by scene, and the evaluation of embeddings on them.

A split is of kind ``new`` (the classes of its queries are not fitted to) or ``known`` (they are, on other scenes).
Shape letters: N images, D dimensions, Q queries of all splits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.metrics.intervals import Interval, difference_interval, mean_interval
from unalike.metrics.retrieval import Ranking, evaluate_ranking
from unalike.training.automatic.scenes import MAX_SCENES, has_several_scenes

# What to optimize: the value of automl.goal, and the kinds of splits that count for it.
GOALS = {"new-classes": ("new",), "known-classes": ("known",), "both": ("new", "known")}
NEW_CLASS_SPLITS = 3
# Of sets with at least MIN_CLASSES_TO_HOLD_OUT classes, the share of classes held out entirely.
HOLDOUT_CLASS_SHARE, MIN_CLASSES_TO_HOLD_OUT = 0.15, 8
HOLDOUT_SCENE_SHARE = 0.4  # share of the remaining classes of which one scene is held out


@dataclass(frozen=True)
class Split:
    """Rows of an image set that are fitted to, that are searched, and that are the queries.

    Attributes:
        kind: ``new`` or ``known``.
        fit_N: rows to fit to.
        reference_N: rows among which the queries are looked up.
        query_N: rows of the queries.
    """

    kind: str
    fit_N: np.ndarray
    reference_N: np.ndarray
    query_N: np.ndarray


@dataclass(frozen=True)
class HoldoutResult:
    """Per-query results on a list of splits, in the order of the splits.

    Attributes:
        kind_Q: the kind of the query's split.
        hit_Q: 1 where the nearest reference has the query's class, else 0.
        precision_Q: average precision at R, 0 to 1.
        label_Q: the query's label.
    """

    kind_Q: np.ndarray
    hit_Q: np.ndarray
    precision_Q: np.ndarray
    label_Q: np.ndarray

    def score(self, goal: str) -> float:
        """Return the mean of R@1 and MAP@R, averaged over the kinds of the goal; model selection maximizes it."""
        return float(np.mean([float(pair.mean()) for pair in self._pairs(goal)]))

    def kinds(self, goal: str) -> list[str]:
        """Return the kinds of the goal that have queries; all kinds that have some if the goal's have none."""
        return [kind for kind in GOALS[goal] if (self.kind_Q == kind).any()] or sorted(set(self.kind_Q.tolist()))

    def _pairs(self, goal: str) -> np.ndarray:
        """R@1 and MAP@R (columns) of each kind of the goal (rows)."""
        return np.array(
            [(self.hit_Q[self.kind_Q == k].mean(), self.precision_Q[self.kind_Q == k].mean()) for k in self.kinds(goal)]
        )

    def metrics(self, seed: int = 0) -> dict[str, dict[str, Interval]]:
        """Compute R@1 and MAP@R of each kind with 95 % intervals over classes, whose queries are alike.

        Args:
            seed: Not used; intervals resample nothing.

        Returns:
            Interval by kind and metric.
        """
        metrics = {}
        for kind in sorted(set(self.kind_Q.tolist())):
            rows = self.kind_Q == kind
            metrics[kind] = {
                "R@1": mean_interval(self.hit_Q[rows], self.label_Q[rows]),
                "MAP@R": mean_interval(self.precision_Q[rows], self.label_Q[rows]),
            }
        return metrics

    def gain_over(self, other: HoldoutResult, seed: int = 0) -> dict[str, dict[str, Interval]]:
        """Compute the paired differences to another result on the same splits, with 95 % intervals over classes.

        Args:
            other: the result to subtract.
            seed: Not used; intervals resample nothing.

        Returns:
            Interval by kind and metric.
        """
        gains = {}
        for kind in sorted(set(self.kind_Q.tolist())):
            rows = self.kind_Q == kind
            label_Q = self.label_Q[rows]
            gains[kind] = {
                "R@1": difference_interval(other.hit_Q[rows], self.hit_Q[rows], label_Q),
                "MAP@R": difference_interval(other.precision_Q[rows], self.precision_Q[rows], label_Q),
            }
        return gains

    def significantly_better(self, other: HoldoutResult, goal: str, by: Sequence[str] = ("R@1", "MAP@R")) -> bool:
        """Return whether no metric of the goal is lower and one of those in ``by`` is significantly higher.

        Significant: the paired 95 % interval lies above 0.

        Args:
            other: the result to compare with.
            goal: a key of ``GOALS``.
            by: metrics of which one must be significantly higher.
        """
        gains = [gain for kind, gain in self.gain_over(other).items() if kind in self.kinds(goal)]
        none_lower = all(interval.value >= 0 for gain in gains for interval in gain.values())
        return none_lower and any(gain[name].low > 0 for gain in gains for name in by)

    def to_dict(self, baseline: HoldoutResult) -> dict[str, Any]:
        """Return these metrics and the gain over those of ``baseline``, the frozen trunk, as plain data."""
        tables = {"figures": self.metrics(), "gain_over_frozen": self.gain_over(baseline)}
        return {
            name: {kind: {k: v.to_dict() for k, v in metrics.items()} for kind, metrics in table.items()}
            for name, table in tables.items()
        }


# ---- splits ----


def cross_validation_splits(labels_N: np.ndarray, scene_N: np.ndarray, goal: str, *, seed: int = 0) -> list[Split]:
    """Make the splits by which heads and trunks are selected, of both kinds where the data allow it.

    Of kind ``known``, one split per scene number: that scene of every class holds the queries, the other scenes are fitted
    to and searched. Of kind ``new``, ``NEW_CLASS_SPLITS`` splits: half of the classes are fitted to; of the other half, one
    scene holds the queries and the others are searched.

    Args:
        labels_N: an integer label per image.
        scene_N: a scene per image, from ``assign_scenes``.
        goal: a key of ``GOALS``; ``HoldoutResult.score`` weighs the kinds by it.
        seed: seed of the draws of classes.

    Raises:
        DataError: the classes are too small for any split.
    """
    if goal not in GOALS:
        raise KeyError(goal)
    several_N = has_several_scenes(labels_N, scene_N)
    classes = np.unique(labels_N)
    splits = []
    for number in range(MAX_SCENES):
        query_N = several_N & (scene_N % MAX_SCENES == number)
        held_N = query_N | _in_scenes_of_all_classes(scene_N, query_N)
        fit_N = ~held_N
        query_N &= np.isin(labels_N, labels_N[fit_N])
        splits.append(Split("known", np.flatnonzero(fit_N), np.flatnonzero(fit_N), np.flatnonzero(query_N)))
    if len(classes) >= 4:
        turn_N = _turns(labels_N, scene_N)
        for number in range(NEW_CLASS_SPLITS):
            order = np.random.default_rng([seed, 13, number]).permutation(classes)
            answerable = np.isin(order, np.unique(labels_N[several_N]))  # of those that can be asked for, half
            halves = [part[: len(part) // 2] for part in (order[answerable], order[~answerable])]
            class_N = ~np.isin(labels_N, np.concatenate(halves))
            query_N = class_N & several_N & (turn_N == number % MAX_SCENES)
            reference_N = class_N & ~query_N
            fit_N = ~class_N & ~_in_scenes_of_all_classes(scene_N, query_N)
            answerable_N = query_N & np.isin(labels_N, labels_N[reference_N])
            splits.append(
                Split("new", np.flatnonzero(fit_N), np.flatnonzero(reference_N), np.flatnonzero(answerable_N))
            )
    splits = [s for s in splits if len(s.query_N) and len(s.reference_N) and len(np.unique(labels_N[s.fit_N])) > 1]
    # A split whose classes have one image each to fit to tells nothing of fitted heads.
    splits = [s for s in splits if len(np.unique(labels_N[s.fit_N])) < len(s.fit_N)] or splits
    if not splits:
        raise DataError(f"{len(classes)} classes of {len(labels_N)} images cannot be split for validation", expected="at least "
                        "two classes, one of them with two different images (in two groups, where there are groups)", remedy="add images, or train with automl_policy=off")  # fmt: skip
    return splits


def _in_scenes_of_all_classes(scene_N: np.ndarray, query_N: np.ndarray) -> np.ndarray:
    """Return a mask of the images in the queries' scenes where these span classes: none of them may be fitted to."""
    mask_N: np.ndarray = np.isin(scene_N, scene_N[query_N & (scene_N >= MAX_SCENES)])
    return mask_N


def _turns(labels_N: np.ndarray, scene_N: np.ndarray) -> np.ndarray:
    """Return the split, 0 to ``MAX_SCENES`` - 1, in which an image is a query; classes of few scenes have one in each.

    That is the number of its scene, for classes of ``MAX_SCENES`` scenes and for scenes that span classes.
    """
    turn_N = scene_N % MAX_SCENES
    for label in np.unique(labels_N[scene_N < MAX_SCENES]):
        rows = np.flatnonzero(labels_N == label)
        scenes = np.unique(scene_N[rows])
        if scenes[-1] < MAX_SCENES and 1 < len(scenes) < MAX_SCENES:
            turn_N[rows] = np.searchsorted(scenes, scene_N[rows])
    return turn_N


@dataclass(frozen=True)
class Holdout:
    """Masks of the held-out images, to which nothing may be fitted.

    Attributes:
        class_N: images of classes that are held out entirely.
        scene_N: images of held-out scenes of other classes.
    """

    class_N: np.ndarray
    scene_N: np.ndarray

    @property
    def fit_N(self) -> np.ndarray:
        """Rows of the images that may be fitted to."""
        return np.flatnonzero(~(self.class_N | self.scene_N))


def draw_holdout(labels_N: np.ndarray, scene_N: np.ndarray, goal: str, *, seed: int = 0) -> Holdout:
    """Draw classes to hold out where new classes are the goal, and scenes of other classes where known ones are.

    Only classes of two scenes or more are held out, since only these can be evaluated. Where there are fewer than
    ``MIN_CLASSES_TO_HOLD_OUT`` of them, a scene of each is held out instead, for every goal. Scenes that span classes
    (groups) are held out in all classes or in none.

    Args:
        labels_N: an integer label per image.
        scene_N: a scene per image, from ``assign_scenes``.
        goal: a key of ``GOALS``.
        seed: seed of the draw.

    Raises:
        DataError: nothing can be held out.
    """
    rng = np.random.default_rng([seed, 19])
    several_N = has_several_scenes(labels_N, scene_N)
    classes = rng.permutation(np.unique(labels_N))
    classes = classes[np.isin(classes, labels_N[several_N])]
    few = len(classes) < MIN_CLASSES_TO_HOLD_OUT
    new = "new" in GOALS[goal] and not few
    held_out = classes[: max(2, round(HOLDOUT_CLASS_SHARE * len(classes)))] if new else classes[:0]
    class_mask_N = np.isin(labels_N, held_out)
    scene_mask_N = np.zeros(len(labels_N), bool)
    rest = classes[len(held_out) :]
    if "known" in GOALS[goal] or not new:
        for label in rest if few else rest[: max(2, round(HOLDOUT_SCENE_SHARE * len(rest)))]:
            rows_N = (labels_N == label) & (scene_N < MAX_SCENES)
            if len(np.unique(scene_N[labels_N == label])) > 1 and rows_N.any():
                sizes = np.bincount(scene_N[rows_N], minlength=MAX_SCENES)
                smallest = int(np.argmin(np.where(sizes > 0, sizes, len(labels_N) + 1)))
                if 2 * sizes[smallest] <= (labels_N == label).sum():
                    scene_mask_N |= rows_N & (scene_N == smallest)
    spanning_N = scene_N >= MAX_SCENES
    if (spanning_N & several_N).any():
        numbers, sizes = np.unique(scene_N[spanning_N & several_N], return_counts=True)
        scene_mask_N |= (scene_N == numbers[int(np.argmin(sizes))]) & ~class_mask_N
    if not class_mask_N.any() and not scene_mask_N.any():
        raise DataError(f"{len(classes)} classes of {len(labels_N)} images: nothing can be held out for the final comparison",
                        expected="two classes, one of them with two different images (in two groups, where there are groups)",
                        remedy="add images, or train with automl_policy=off")  # fmt: skip
    return Holdout(class_mask_N, scene_mask_N)


def holdout_splits(labels_N: np.ndarray, scene_N: np.ndarray, holdout: Holdout, *, search_all: bool) -> list[Split]:
    """Make the splits by which the final candidates are compared.

    Held-out scenes are looked up among the images that may be fitted to; each scene of a held-out class is looked up among
    the class's other scenes.

    Args:
        labels_N: an integer label per image.
        scene_N: a scene per image, from ``assign_scenes``.
        holdout: the held-out images.
        search_all: whether the images that may be fitted to are references of held-out classes too. Among the few held-out
            classes alone nearly every image finds its own class, whatever the model (docs/experiments/new-classes.md).
            False where other groups may be of the same class.

    Raises:
        DataError: every held-out class has one scene only.
    """
    fit_N = holdout.fit_N
    splits = []
    query_N = holdout.scene_N & np.isin(labels_N, labels_N[fit_N])
    if query_N.any():
        splits.append(Split("known", fit_N, fit_N, np.flatnonzero(query_N)))
    fitted_groups = np.unique(scene_N[fit_N][scene_N[fit_N] >= MAX_SCENES])
    for number in np.unique(scene_N[holdout.class_N]):
        if number in fitted_groups:
            continue  # queries of a group that is fitted to would be too easy
        query_N = holdout.class_N & (scene_N == number)
        reference_N = holdout.class_N & ~query_N
        query_N &= np.isin(labels_N, labels_N[reference_N])
        if query_N.any():
            reference_rows = np.flatnonzero(reference_N)
            reference_rows = np.union1d(reference_rows, fit_N) if search_all else reference_rows
            splits.append(Split("new", fit_N, reference_rows, np.flatnonzero(query_N)))
    if not splits:
        raise DataError("every held-out class is one series of similar pictures", expected="classes seen more than once "
                        "in different scenes", remedy="train with automl_policy=off")  # fmt: skip
    return splits


# ---- evaluation ----


def evaluate_embeddings(
    splits: Sequence[Split],
    labels_N: np.ndarray,
    vectors_of: Callable[[int, Split], tuple[np.ndarray, np.ndarray]],
) -> HoldoutResult:
    """Look up the queries of every split by cosine.

    Args:
        splits: the splits.
        labels_N: an integer label per image.
        vectors_of: ``vectors_of(number, split)`` returns query vectors and reference vectors of a split.
    """

    def rank(number: int, split: Split) -> list[Ranking]:
        query_QD, reference_RD = vectors_of(number, split)
        return [evaluate_ranking(query_QD, labels_N[split.query_N], reference_RD, labels_N[split.reference_N], ks=(1,))]

    return evaluate_rankings(splits, labels_N, rank)[0]


def evaluate_rankings(
    splits: Sequence[Split], labels_N: np.ndarray, rank: Callable[[int, Split], Sequence[Ranking]]
) -> list[HoldoutResult]:
    """Collect the results of several models whose rankings are computed together.

    Args:
        splits: the splits.
        labels_N: an integer label per image.
        rank: ``rank(number, split)`` returns a ranking per model.

    Returns:
        A result per model.
    """
    by_split = [rank(number, split) for number, split in enumerate(splits)]
    kind_Q = np.array([kind for split in splits for kind in [split.kind] * len(split.query_N)])
    label_Q = np.concatenate([labels_N[split.query_N] for split in splits])
    return [
        HoldoutResult(
            kind_Q,
            np.concatenate([ranking.precision_at_1 for ranking in rankings]),
            np.concatenate([ranking.average_precision_at_r for ranking in rankings]),
            label_Q,
        )
        for rankings in zip(*by_split, strict=True)
    ]
