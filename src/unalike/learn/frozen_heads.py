"""Stage one of automatic training: which head on frozen features, in closed form or trained on, by judged rounds.

Shape letters: N images, F features.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from unalike.errors import DataError
from unalike.learn.discriminant import Discriminant, whitening
from unalike.learn.judge import Round, Verdict, judge
from unalike.learn.trained_heads import FAMILIES, Family, fitted_head, train_head

# Weights of what does not tell the known classes apart, from none to all of it.
RESIDUALS = (0.0, 0.25, 0.5, 0.75, 1.0)
# Images that are enough to choose a head by; whole classes are drawn until there are as many.
ENOUGH = 6000


@dataclass(frozen=True)
class HeadTrial:
    """One way from features to vectors and what it was judged to be worth; ``root`` None is the features as they are.

    ``family``: what the closed form was trained with afterwards, or nothing.
    """

    root: bool | None
    residual: float
    verdict: Verdict
    score: float
    family: Family | None = None

    @property
    def name(self) -> str:
        if self.root is None:
            return "frozen trunk"
        closed = f"discriminant head, residual {self.residual:g}" + (", square root" if self.root else "")
        return closed + (f", trained with {self.family.name}" if self.family else "")

    def beats(self, other: HeadTrial, goal: str) -> bool:
        """Whether it is better by the score, and loses neither R@1 nor MAP@R of any kind of classes that the goal asks for.

        What a loss trains may give up the nearest neighbour for the others, which the score alone would not see.
        """
        here, there = self.verdict.pairs(goal), other.verdict.pairs(goal)
        return self.score > other.score and bool((here >= there).all())


def judge_raw(vectors_ND: np.ndarray, labels_N: np.ndarray, rounds: Sequence[Round]) -> Verdict:
    """The verdict on vectors as they are."""
    return judge(rounds, labels_N, lambda _, r: (vectors_ND[r.query_N], vectors_ND[r.reference_N]))


def search_heads(
    features_NF: np.ndarray, labels_N: np.ndarray, rounds: Sequence[Round], goal: str, *, seconds: float = float("inf"),
    roots: Sequence[bool] = (True, False),
) -> list[HeadTrial]:  # fmt: skip
    """Trials of every head, the features themselves first; ends early, at a whole square-root choice, after ``seconds``."""
    end = time.monotonic() + seconds
    raw = judge_raw(features_NF, labels_N, rounds)
    trials = [HeadTrial(None, 1.0, raw, raw.score(goal))]
    for root in roots:
        if time.monotonic() > end:
            break
        try:
            blends = [_blends(features_NF, labels_N, r, root) for r in rounds]
        except DataError:  # a round whose classes have one image each: no scatter to whiten by
            break
        for residual in RESIDUALS:
            verdict = judge(rounds, labels_N, partial(_blended, blends, residual))
            trials.append(HeadTrial(root, residual, verdict, verdict.score(goal)))
    return trials


def search_trained(
    trial: HeadTrial, features_NF: np.ndarray, labels_N: np.ndarray, rounds: Sequence[Round], goal: str, *,
    seconds: float,
) -> list[HeadTrial]:  # fmt: skip
    """The closed form of ``trial`` trained with one family after the other, as many as ``seconds`` allow.

    How long one takes is told by its first round; one that would not be judged in all of them is given up. A perceptron
    stands behind a square root alone (``model.head: mlp``).
    """
    if seconds <= 0:
        return []
    end = time.monotonic() + seconds
    closed = [
        whitening(features_NF[r.fit_N], labels_N[r.fit_N], root=bool(trial.root)).head(trial.residual) for r in rounds
    ]
    trials: list[HeadTrial] = []
    for family in FAMILIES:
        if family.bends and not trial.root:
            continue
        start = time.monotonic()
        vectors: list[tuple[np.ndarray, np.ndarray]] = []
        for head, r in zip(closed, rounds, strict=True):
            if start + len(rounds) * (time.monotonic() - start) / max(1, len(vectors)) > end:
                return trials
            trained = train_head(head, features_NF[r.fit_N], labels_N[r.fit_N], family)
            vectors.append((trained(features_NF[r.query_N]), trained(features_NF[r.reference_N])))
        verdict = judge(rounds, labels_N, partial(_made, vectors))
        trials.append(replace(trial, verdict=verdict, score=verdict.score(goal), family=family))
    return trials


def _made(vectors: Sequence[tuple[np.ndarray, np.ndarray]], number: int, _: Round) -> tuple[np.ndarray, np.ndarray]:
    return vectors[number]


def best_score(features_NF: np.ndarray, labels_N: np.ndarray, rounds: Sequence[Round], goal: str) -> float:
    """What the best of the square-root heads, or the features as they are, is worth."""
    return max(trial.score for trial in search_heads(features_NF, labels_N, rounds, goal, roots=(True,)))


def _blends(features_NF: np.ndarray, labels_N: np.ndarray, r: Round, root: bool) -> list[np.ndarray]:
    """Whitened queries and their part along the class directions, then the references' two."""
    fitted = whitening(features_NF[r.fit_N], labels_N[r.fit_N], root=root)
    return [part for rows in (r.query_N, r.reference_N) for part in fitted.blend(features_NF[rows])]


def _blended(
    blends: Sequence[Sequence[np.ndarray]], residual: float, number: int, _: Round
) -> tuple[np.ndarray, np.ndarray]:
    whole_q, part_q, whole_r, part_r = blends[number]
    return residual * whole_q + (1 - residual) * part_q, residual * whole_r + (1 - residual) * part_r


def fit_head(trial: HeadTrial, features_NF: np.ndarray, labels_N: np.ndarray, dim: int | None) -> Discriminant | None:
    """The trial's head fitted on all of these images; None where it is the features as they are."""
    if trial.root is None:
        return None
    return fitted_head(features_NF, labels_N, root=trial.root, residual=trial.residual, dim=dim, family=trial.family)


def enough_to_judge(labels_N: np.ndarray, seed: int) -> np.ndarray:
    """Rows of whole classes, drawn at random until they are ENOUGH images; all rows where there are no more."""
    if len(labels_N) <= ENOUGH:
        return np.arange(len(labels_N))
    order = np.random.default_rng([seed, 17]).permutation(np.unique(labels_N))
    total_C = np.cumsum([(labels_N == c).sum() for c in order])
    chosen = order[: max(4, int(np.searchsorted(total_C, ENOUGH)))]
    return np.flatnonzero(np.isin(labels_N, chosen))
