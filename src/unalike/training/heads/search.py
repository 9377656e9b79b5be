"""Stage one of automatic training: which head on frozen features, in closed form or trained on, by judged rounds.

Shape letters: N images, F features.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.metrics.retrieval import Ranking, rank_scores
from unalike.training.automatic.holdout import Round, Verdict, judge, judge_ways
from unalike.training.heads.discriminant import scatter, whitening
from unalike.training.heads.trained import FAMILIES, Family, Form, family_of, train_head

# Weights of what does not tell the known classes apart, from none to all of it, and shares of the scatter that is evened
# out, as multiples of Ledoit and Wolf's: more is kinder to new classes. One eigendecomposition serves them all.
RESIDUALS, SHRINKAGES = tuple(step / 10 for step in range(11)), (1.0, 2.0, 4.0)
# Images that are enough to choose a head by; whole classes are drawn until there are as many.
ENOUGH = 6000
FROZEN = "frozen trunk"


@dataclass(frozen=True)
class HeadTrial:
    """One way from features to vectors and what it was judged to be worth; without a form it is the features as they are."""

    form: Form | None
    verdict: Verdict
    score: float

    @property
    def name(self) -> str:
        return self.form.name if self.form else FROZEN

    def beats(self, other: HeadTrial, goal: str) -> bool:
        """Whether its R@1 is clearly higher and no other figure that the goal asks for is lower.

        What a loss trains gains average precision and often gives up the nearest neighbour for it: taken where neither
        was lower, it lost R@1 on outer folds (docs/experiments/heads.md).
        """
        return self.verdict.clearly_above(other.verdict, goal, by=("R@1",))


@dataclass(frozen=True)
class Open:
    """What a spec leaves open of a fitted head; what the user has set is tried alone."""

    roots: Sequence[bool] = (True, False)
    residuals: Sequence[float] = RESIDUALS
    shrinkages: Sequence[float] = SHRINKAGES
    families: Sequence[Family] = FAMILIES  # what may train the closed form on, where that is better
    own: Family | None = None  # what trains it on in any case

    @classmethod
    def of(cls, spec: Any) -> Open:
        """By ``model.head`` and ``train.finish``, as the user wrote them."""
        finish, kind = spec.train.finish, spec.model.head if spec.is_set("model.head") else "auto"
        told = spec.is_set("train.finish.loss")
        own = family_of(finish.loss if told else None, bends=kind == "mlp")
        families = cls.families if kind == "auto" else tuple(f for f in cls.families if not f.bends)
        return cls(
            roots={"linear": (False,), "rooted": (True,), "mlp": (True,)}.get(kind, cls.roots),
            residuals=(finish.residual,) if spec.is_set("train.finish.residual") else cls.residuals,
            shrinkages=(finish.shrinkage,) if spec.is_set("train.finish.shrinkage") else cls.shrinkages,
            families=() if own or told else families,
            own=own,
        )


def judge_raw(vectors_ND: np.ndarray, labels_N: np.ndarray, rounds: Sequence[Round]) -> Verdict:
    """The verdict on vectors as they are."""
    return judge(rounds, labels_N, lambda _, r: (vectors_ND[r.query_N], vectors_ND[r.reference_N]))


def search_heads(
    features_NF: np.ndarray, labels_N: np.ndarray, rounds: Sequence[Round], goal: str, *, seconds: float = float("inf"),
    within: Open | None = None,
) -> list[HeadTrial]:  # fmt: skip
    """Trials of every closed form, the features themselves first; ends early, at a whole square-root choice, after ``seconds``."""
    end, within = time.monotonic() + seconds, within or Open()
    raw = judge_raw(features_NF, labels_N, rounds)
    trials = [HeadTrial(None, raw, raw.score(goal))]
    for root in within.roots:
        if time.monotonic() > end:
            break
        forms = [Form(root, r, s) for s, r in product(within.shrinkages, within.residuals)]

        def ranked(_: int, r: Round, forms: Sequence[Form] = forms) -> list[Ranking]:
            return _ranked_by_form(features_NF, labels_N, r, forms)

        try:
            verdicts = judge_ways(rounds, labels_N, ranked)
        except DataError:  # a round whose classes have one image each: no scatter to whiten by
            break
        trials += [HeadTrial(form, v, v.score(goal)) for form, v in zip(forms, verdicts, strict=True)]
    return trials


def best_closed(trials: Sequence[HeadTrial], goal: str) -> HeadTrial | None:
    """The best of the closed forms; one without the square root only where it is clearly better than all that have it.

    By the score alone, folds of photographs took such a form in four of five and lost 1.3 points of R@1
    (docs/experiments/heads.md). None
    where there is no closed form.
    """
    rooted, straight = (
        max((t for t in trials if t.form and t.form.root is root), key=lambda t: t.score, default=None)
        for root in (True, False)
    )
    if rooted is None or straight is None:
        return rooted or straight
    return straight if straight.verdict.clearly_above(rooted.verdict, goal) else rooted


def search_trained(
    trial: HeadTrial, features_NF: np.ndarray, labels_N: np.ndarray, rounds: Sequence[Round], goal: str, *,
    seconds: float, families: Sequence[Family] = FAMILIES,
) -> list[HeadTrial]:  # fmt: skip
    """The closed form of ``trial`` trained with one family after the other, as many as ``seconds`` allow.

    How long one takes is told by its first round; one that would not be judged in all of them is given up. A perceptron
    stands behind a square root alone (``model.head: mlp``).
    """
    form = trial.form
    if seconds <= 0 or form is None:
        return []
    end = time.monotonic() + seconds
    closed = [
        whitening(features_NF[r.fit_N], labels_N[r.fit_N], root=form.root, shrinkage=form.shrinkage).head(form.residual)
        for r in rounds
    ]
    trials: list[HeadTrial] = []
    for family in families:
        if family.bends and not form.root:
            continue
        start = time.monotonic()
        vectors: list[tuple[np.ndarray, np.ndarray]] = []
        for head, r in zip(closed, rounds, strict=True):
            if start + len(rounds) * (time.monotonic() - start) / max(1, len(vectors)) > end:
                return trials
            trained = train_head(head, features_NF[r.fit_N], labels_N[r.fit_N], family)
            vectors.append((trained(features_NF[r.query_N]), trained(features_NF[r.reference_N])))
        verdict = judge(rounds, labels_N, partial(_made, vectors))
        trials.append(HeadTrial(replace(form, family=family), verdict, verdict.score(goal)))
    return trials


def _made(vectors: Sequence[tuple[np.ndarray, np.ndarray]], number: int, _: Round) -> tuple[np.ndarray, np.ndarray]:
    return vectors[number]


def best_score(features_NF: np.ndarray, labels_N: np.ndarray, rounds: Sequence[Round], goal: str) -> float:
    """What the best of the square-root heads, or the features as they are, is worth."""
    trials = search_heads(features_NF, labels_N, rounds, goal, within=Open(roots=(True,), shrinkages=(1.0,)))
    return max(trial.score for trial in trials)


def _ranked_by_form(features_NF: np.ndarray, labels_N: np.ndarray, r: Round, forms: Sequence[Form]) -> list[Ranking]:
    """The round's rankings by the head of every form, all with or all without the square root, those of one shrinkage
    together: two products of vectors serve all residuals of a shrinkage."""
    fitted = scatter(features_NF[r.fit_N], labels_N[r.fit_N], root=forms[0].root)
    query_QF, reference_RF = (fitted.along(features_NF[rows]) for rows in (r.query_N, r.reference_N))
    rankings: list[Ranking] = []
    for shrinkage in dict.fromkeys(form.shrinkage for form in forms):
        white = fitted.whitening(shrinkage)
        residuals = [form.residual for form in forms if form.shrinkage == shrinkage]
        query, reference = (_Side(*white.parts(part_NF)) for part_NF in (query_QF, reference_RF))
        scores_of = partial(_scores, query, reference, residuals)
        rankings += rank_scores(scores_of, len(residuals), labels_N[r.query_N], labels_N[r.reference_N])
    return rankings


class _Side:
    """Queries or references as ``Whitening.parts`` gives them, with their squared lengths along the class directions and
    across them."""

    def __init__(self, whole_NF: np.ndarray, own_NC: np.ndarray) -> None:
        self.whole_NF, self.own_NC = whole_NF, own_NC
        self.along_N, whole_N = (np.einsum("nd,nd->n", part, part) for part in (own_NC, whole_NF))
        self.across_N = np.maximum(whole_N - self.along_N, 0)

    def inverse(self, weight: np.float32) -> np.ndarray:
        """One by the length of the vectors with this weight of what lies across; nothing for a vector of no length."""
        length_N = np.sqrt(self.along_N + weight * self.across_N)
        return np.divide(np.float32(1), length_N, out=np.zeros_like(length_N), where=length_N > 0)


def _scores(query: _Side, reference: _Side, residuals: Sequence[float], top: int, bottom: int) -> Iterator[np.ndarray]:
    """Cosines of the queries from ``top`` to before ``bottom`` with all references, by the head of each residual."""
    own_BR = query.own_NC[top:bottom] @ reference.own_NC.T
    rest_BR = query.whole_NF[top:bottom] @ reference.whole_NF.T
    rest_BR -= own_BR
    for residual in residuals:
        weight = np.float32(residual * residual)
        scores_BR = weight * rest_BR
        scores_BR += own_BR
        scores_BR *= reference.inverse(weight)
        scores_BR *= query.inverse(weight)[top:bottom, None]
        yield scores_BR


def enough_to_judge(labels_N: np.ndarray, seed: int) -> np.ndarray:
    """Rows of whole classes, drawn at random until they are ENOUGH images; all rows where there are no more."""
    if len(labels_N) <= ENOUGH:
        return np.arange(len(labels_N))
    order = np.random.default_rng([seed, 17]).permutation(np.unique(labels_N))
    total_C = np.cumsum([(labels_N == c).sum() for c in order])
    chosen = order[: max(4, int(np.searchsorted(total_C, ENOUGH)))]
    return np.flatnonzero(np.isin(labels_N, chosen))
