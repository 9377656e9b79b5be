"""Judging embeddings on what they are for: classes never seen, and known classes in scenes never seen.

Photographs of one class come in series: the same shelf, the same minute. Held out at random, such a picture finds its
twin, and everything scores 95 % (Grocery, 2026-11-24: 95.6 % against 57.1 % on new photographs). So each class is divided
into scenes, groups of like images, and a query never meets a reference of its own scene; the same figure is then 60.5 %,
and heads rank as they do on new photographs.
Shape letters: N images, D dimensions, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.metrics.intervals import Interval, bootstrap, paired_bootstrap
from unalike.metrics.knn import unit
from unalike.metrics.retrieval import Ranking, evaluate_ranking

SCENES = 4  # scenes a class, at most
GOALS = {"new-classes": ("new",), "known-classes": ("known",), "both": ("new", "known")}
ROUNDS = {"new": 3, "known": SCENES}


@dataclass(frozen=True)
class Round:
    """One question: what may be learnt from, what answers, what asks. Rows of the image set; ``kind``: new or known."""

    kind: str
    fit_N: np.ndarray
    reference_N: np.ndarray
    query_N: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """Per query, in the order of the rounds: was the nearest right, and the average precision at R."""

    kind_Q: np.ndarray
    hit_Q: np.ndarray
    precision_Q: np.ndarray
    label_Q: np.ndarray

    def score(self, goal: str) -> float:
        """The mean of R@1 and MAP@R, averaged over the kinds that the goal asks for; what selection maximises."""
        return float(np.mean(self.scores(goal)))

    def scores(self, goal: str) -> list[float]:
        return [float(pair.mean()) for pair in self.pairs(goal)]

    def kinds(self, goal: str) -> list[str]:
        """The kinds that the goal asks for and that were asked; those that were where it is none of these."""
        return [kind for kind in GOALS[goal] if (self.kind_Q == kind).any()] or sorted(set(self.kind_Q.tolist()))

    def pairs(self, goal: str) -> np.ndarray:
        """R@1 and MAP@R (columns) of each kind that the goal asks for, or of what there is where there is none of it."""
        return np.array(
            [(self.hit_Q[self.kind_Q == k].mean(), self.precision_Q[self.kind_Q == k].mean()) for k in self.kinds(goal)]
        )

    def figures(self, seed: int = 0) -> dict[str, dict[str, Interval]]:
        """R@1 and MAP@R with 95 % intervals of each kind; classes are resampled for new ones, queries for known."""
        found = {}
        for kind in sorted(set(self.kind_Q.tolist())):
            rows = self.kind_Q == kind
            groups = self.label_Q[rows] if kind == "new" else None
            found[kind] = {
                "R@1": bootstrap(self.hit_Q[rows], groups, seed=seed),
                "MAP@R": bootstrap(self.precision_Q[rows], groups, seed=seed),
            }
        return found

    def gain_over(self, other: Verdict, seed: int = 0) -> dict[str, dict[str, Interval]]:
        """Paired differences to another verdict of the same rounds."""
        found = {}
        for kind in sorted(set(self.kind_Q.tolist())):
            rows = self.kind_Q == kind
            groups = self.label_Q[rows] if kind == "new" else None
            found[kind] = {
                "R@1": paired_bootstrap(other.hit_Q[rows], self.hit_Q[rows], groups, seed=seed),
                "MAP@R": paired_bootstrap(other.precision_Q[rows], self.precision_Q[rows], groups, seed=seed),
            }
        return found

    def clearly_above(self, other: Verdict, goal: str, by: Sequence[str] = ("R@1", "MAP@R")) -> bool:
        """Whether of what the goal asks for no figure is lower, and one of those named is higher by more than chance.

        Chance: a paired 95 % interval.
        """
        rows = [row for kind, row in self.gain_over(other).items() if kind in self.kinds(goal)]
        none_lower = all(gain.value >= 0 for row in rows for gain in row.values())
        return none_lower and any(row[name].low > 0 for row in rows for name in by)

    def beside(self, base: Verdict) -> dict[str, Any]:
        """Plain data for a record: these figures, and what they gain on those of ``base``, the frozen trunk's."""
        sides = {"figures": self.figures(), "gain_over_frozen": self.gain_over(base)}
        return {
            name: {kind: {k: v.to_dict() for k, v in f.items()} for kind, f in found.items()}
            for name, found in sides.items()
        }


def scenes(
    features_ND: np.ndarray, labels_N: np.ndarray, *, groups: Sequence[str] | None = None, seed: int = 0
) -> np.ndarray:
    """A scene number (0 .. SCENES - 1) for every image: clusters of like images within each class.

    ``groups`` (a manifest's own: a shop, a day, a part number) go before what the features say. Scenes of a class are
    numbered from the largest to the smallest, from a start drawn for each class, so that round f holds out about as much
    whichever f. A class of n images has at most n // 2 scenes: what remains of it can still answer.
    """
    unit_ND = unit(features_ND)
    draw = np.random.default_rng([seed, 11])
    scene_N = np.zeros(len(labels_N), np.int64)
    for label in np.unique(labels_N):
        rows = np.flatnonzero(labels_N == label)
        names = None if groups is None else [groups[i] for i in rows.tolist()]
        if names is not None and len(set(names)) > 1:
            part_n = np.unique(names, return_inverse=True)[1]
        else:
            part_n = _clusters(unit_ND[rows], min(SCENES, len(rows) // 2), draw)
        sizes = np.bincount(part_n)
        rank_n = np.empty(len(sizes), np.int64)
        rank_n[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
        scene_N[rows] = (rank_n[part_n] + draw.integers(SCENES)) % SCENES
    return scene_N


def _clusters(unit_ND: np.ndarray, count: int, draw: np.random.Generator, steps: int = 20) -> np.ndarray:
    """Spherical k-means of one class's images, started far apart (k-means++); as many labels as clusters are found."""
    if count < 2:
        return np.zeros(len(unit_ND), np.int64)
    centres = [int(draw.integers(len(unit_ND)))]
    for _ in range(count - 1):
        apart = np.maximum(1 - (unit_ND @ unit_ND[centres].T).max(axis=1), 0).astype(np.float64)
        total = apart.sum()
        if total <= 1e-9:  # all the same picture
            break
        centres.append(int(draw.choice(len(unit_ND), p=apart / total)))
    centre_KD, own_N = unit_ND[centres], np.zeros(len(unit_ND), np.int64)
    for step in range(steps):
        nearest_N = (unit_ND @ centre_KD.T).argmax(axis=1)
        if step and np.array_equal(nearest_N, own_N):
            break
        own_N = nearest_N
        sums_KD = np.stack([unit_ND[own_N == k].sum(axis=0) if (own_N == k).any() else centre_KD[k]
                            for k in range(len(centre_KD))])  # fmt: skip
        centre_KD = unit(sums_KD)
    return np.unique(own_N, return_inverse=True)[1]


def make_rounds(labels_N: np.ndarray, scene_N: np.ndarray, goal: str, *, seed: int = 0) -> list[Round]:
    """The rounds of a goal, of both kinds where the data allow: a verdict shows both, ``score`` weighs by the goal.

    known, f: scene f of every class asks, the others answer and may be learnt from. new, s: half of the classes may be
    learnt from; of the other half one scene asks and the others answer. Raises DataError when the classes are too small
    for any round.
    """
    if goal not in GOALS:
        raise KeyError(goal)
    classes = np.unique(labels_N)
    rounds = []
    for f in range(ROUNDS["known"]):
        query_N = scene_N == f
        fitting_N = ~query_N
        asks_N = query_N & np.isin(labels_N, labels_N[fitting_N])
        rounds.append(Round("known", np.flatnonzero(fitting_N), np.flatnonzero(fitting_N), np.flatnonzero(asks_N)))
    if len(classes) >= 4:
        for s in range(ROUNDS["new"]):
            order = np.random.default_rng([seed, 13, s]).permutation(classes)
            learnt_N = np.isin(labels_N, order[: len(order) // 2])
            query_N = ~learnt_N & (scene_N == s % SCENES)
            reference_N = ~learnt_N & ~query_N
            asks_N = query_N & np.isin(labels_N, labels_N[reference_N])
            rounds.append(Round("new", np.flatnonzero(learnt_N), np.flatnonzero(reference_N), np.flatnonzero(asks_N)))
    rounds = [r for r in rounds if len(r.query_N) and len(r.reference_N) and len(np.unique(labels_N[r.fit_N])) > 1]
    if not rounds:
        raise DataError(f"{len(classes)} classes of {len(labels_N)} images cannot be judged", expected="at least two classes "
                        "with two images or more each", remedy="add images, or train with automl_policy=off")  # fmt: skip
    return rounds


@dataclass(frozen=True)
class Held:
    """What nothing may be fitted to: ``class_N`` images of classes left out whole, ``query_N`` scenes of other classes."""

    class_N: np.ndarray
    query_N: np.ndarray


CLASSES_HELD, FEWEST_CLASSES = 0.15, 8  # share of classes left out, of sets that have so many
SCENES_HELD = 0.4  # share of the remaining classes of which one scene is left out


def hold_out(labels_N: np.ndarray, scene_N: np.ndarray, goal: str, *, seed: int = 0) -> Held:
    """About a seventh of the classes where new ones are the goal; a scene of some others where known ones are.

    A scene is left out only where as many images remain. Where the goal allows nothing else, and for too few classes, scenes
    are left out. Raises DataError when nothing can be.
    """
    draw = np.random.default_rng([seed, 19])
    classes = draw.permutation(np.unique(labels_N))
    new = "new" in GOALS[goal] and len(classes) >= FEWEST_CLASSES
    out = classes[: max(2, round(CLASSES_HELD * len(classes)))] if new else classes[:0]
    class_N = np.isin(labels_N, out)
    query_N = np.zeros(len(labels_N), bool)
    if "known" in GOALS[goal] or not new:
        rest = classes[len(out) :]
        for label in rest[: max(2, round(SCENES_HELD * len(rest)))]:
            rows_N = labels_N == label
            sizes = np.bincount(scene_N[rows_N], minlength=SCENES)
            smallest = int(np.argmin(np.where(sizes > 0, sizes, len(labels_N) + 1)))
            if 0 < 2 * sizes[smallest] <= sizes.sum():
                query_N |= rows_N & (scene_N == smallest)
    if not class_N.any() and not query_N.any():
        raise DataError(f"{len(classes)} classes of {len(labels_N)} images: nothing can be held out to judge by",
                        expected="two classes with four images or more each",
                        remedy="add images, or train with automl_policy=off")  # fmt: skip
    return Held(class_N, query_N)


def held_rounds(labels_N: np.ndarray, scene_N: np.ndarray, held: Held, *, among_all: bool) -> list[Round]:
    """The rounds on what was held out: each scene of a class left out asks the class's others; held scenes ask the rest.

    ``among_all``: what may be fitted to stands among the references of both. Among the few classes alone that are left out
    nearly every image finds its own, whatever is judged (docs/experiments/new-classes.md); without it where other
    groups may be the same class.
    """
    fit_N = np.flatnonzero(~(held.class_N | held.query_N))
    rounds = []
    if held.query_N.any():
        rounds.append(Round("known", fit_N, fit_N, np.flatnonzero(held.query_N)))
    for f in range(SCENES if held.class_N.any() else 0):
        query_N = held.class_N & (scene_N == f)
        reference_N = held.class_N & ~query_N
        query_N &= np.isin(labels_N, labels_N[reference_N])
        if query_N.any():
            answers_N = np.flatnonzero(reference_N)
            answers_N = np.union1d(answers_N, fit_N) if among_all else answers_N
            rounds.append(Round("new", fit_N, answers_N, np.flatnonzero(query_N)))
    if not rounds:
        raise DataError("every class that was held out is one series of like pictures", expected="classes seen more than once "
                        "in different scenes", remedy="train with automl_policy=off")  # fmt: skip
    return rounds


def judge(
    rounds: Sequence[Round],
    labels_N: np.ndarray,
    vectors_of: Callable[[int, Round], tuple[np.ndarray, np.ndarray]],
) -> Verdict:
    """Ask every round. ``vectors_of(number, round)`` gives (query vectors, reference vectors) of that round."""

    def ranked(number: int, r: Round) -> list[Ranking]:
        query_QD, reference_RD = vectors_of(number, r)
        return [evaluate_ranking(query_QD, labels_N[r.query_N], reference_RD, labels_N[r.reference_N], ks=(1,))]

    return judge_ways(rounds, labels_N, ranked)[0]


def judge_ways(
    rounds: Sequence[Round], labels_N: np.ndarray, ranked: Callable[[int, Round], Sequence[Ranking]]
) -> list[Verdict]:
    """A verdict on each of several ways, whose rankings of a round ``ranked(number, round)`` gives at once."""
    by_round = [ranked(number, r) for number, r in enumerate(rounds)]
    kind_Q = np.array([kind for r in rounds for kind in [r.kind] * len(r.query_N)])
    label_Q = np.concatenate([labels_N[r.query_N] for r in rounds])
    return [
        Verdict(
            kind_Q,
            np.concatenate([ranking.precision_at_1 for ranking in way]),
            np.concatenate([ranking.average_precision_at_r for ranking in way]),
            label_Q,
        )
        for way in zip(*by_round, strict=True)
    ]
