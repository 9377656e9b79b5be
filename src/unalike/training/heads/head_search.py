"""Choose the head for frozen features by cross-validation: closed forms, and heads trained with a loss.

Shape letters: N images, F features, Q queries, R references, B a block of queries, C class directions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from unalike.errors import DataError
from unalike.metrics.retrieval import Ranking, rank_scores
from unalike.training.automatic.holdout import Split
from unalike.training.automatic.holdout_result import HoldoutResult, evaluate_embeddings, evaluate_rankings
from unalike.training.heads.config import (
    HEAD_TRAININGS,
    HeadConfig,
    HeadTraining,
    frozen_head_kind,
    head_training,
    requested_dim,
    too_many_dimensions,
)
from unalike.training.heads.discriminant import fit_scatter
from unalike.training.heads.label_weights import label_weights
from unalike.training.heads.trained import fit_closed_form, fit_head, train_head

if TYPE_CHECKING:
    from unalike.spec import Experiment

# Weights of the directions in which the known classes do not differ, and shrinkages as multiples of Ledoit and Wolf's;
# larger values suit unseen classes. One eigendecomposition serves them all.
RESIDUALS, SHRINKAGES = tuple(step / 10 for step in range(11)), (1.0, 2.0, 4.0)
# Residual and shrinkage of a head that is taken without a comparison. Beside 0.5 and 1, which were taken for all goals before:
# R@1 +2.7 and MAP@R +2.8 points with known classes (3 data sets), +1.1 and +1.7 with new ones (7), no set lower with its 95 %
# interval below 0; nothing is as clear for both (docs/experiments/heads.md, 2026-11-30).
UNCOMPARED = {"known-classes": (0.0, 2.0), "new-classes": (0.5, 4.0), "both": (0.5, 1.0)}
MAX_SEARCH_IMAGES = 6000  # enough images to choose a head by; classes are drawn up to this number of images
FROZEN = "frozen trunk"
FITS_AFTERWARDS = 4  # of the heads that are compared and of the one that is delivered, each about as long as a split


class TooSlow(Exception):
    """Not one closed form can be evaluated in time; ``baseline`` is the trial of the features themselves."""

    def __init__(self, baseline: HeadTrial) -> None:
        super().__init__()
        self.baseline = baseline


@dataclass(frozen=True)
class HeadTrial:
    """A head configuration with its cross-validation result.

    Attributes:
        config: the head, or None for the features themselves.
        result: per-query results on the splits.
        score: ``result.score`` for the goal of the search.
    """

    config: HeadConfig | None
    result: HoldoutResult
    score: float

    @property
    def name(self) -> str:
        """The name of the head; that of the frozen trunk without one."""
        return self.config.name if self.config else FROZEN

    def beats(self, other: HeadTrial, goal: str) -> bool:
        """Return whether R@1 is significantly higher and no other metric of the goal is lower.

        Training with a loss raises average precision and often lowers R@1: heads accepted where neither was lower lost
        R@1 on outer folds (docs/experiments/heads.md).
        """
        return self.result.significantly_better(other.result, goal, by=("R@1",))


@dataclass(frozen=True)
class HeadSearchSpace:
    """The head settings to search over; a setting of the user's own is the only value tried.

    Attributes:
        sqrt: whether to take the signed square root of the features.
        residuals: weights of the residual directions.
        shrinkages: multiples of Ledoit and Wolf's shrinkage.
        trainings: trainings to try after the best closed form.
        fixed_training: the training that the user set, or None; it is applied without comparison.
        dim: ``model.feat_dim`` where the user set it, else None: dimensions of the heads that are trained, and of those delivered;
            closed forms are compared with all of theirs.
        kind: value of ``model.head`` for the frozen trunk without a fitted head.
        label_weights: see ``HeadConfig``; the same for all heads.
    """

    sqrt: Sequence[bool] = (True, False)
    residuals: Sequence[float] = RESIDUALS
    shrinkages: Sequence[float] = SHRINKAGES
    trainings: Sequence[HeadTraining] = HEAD_TRAININGS
    fixed_training: HeadTraining | None = None
    dim: int | None = None
    kind: str = "linear"
    label_weights: bool = False

    @classmethod
    def from_spec(cls, spec: Experiment, *, classes: int) -> HeadSearchSpace:
        """Read what the user set in ``model.feat_dim``, ``model.head`` and ``train.finish``.

        Args:
            spec: the spec.
            classes: number of classes to fit to. With residual 0 a head has one dimension less than classes; where
                ``model.feat_dim`` is larger, that residual is left out.

        Raises:
            SpecError: the user set residual 0 and a larger ``model.feat_dim``.
        """
        finish, kind = spec.train.finish, spec.model.head if spec.is_set("model.head") else "auto"
        dim = requested_dim(spec)
        residuals = (finish.residual,) if spec.is_set("train.finish.residual") else cls.residuals
        wide = tuple(r for r in residuals if r > 0 or dim is None or dim < classes)
        if not wide:
            raise too_many_dimensions(dim or 0, classes - 1, 0.0)
        loss_is_set = spec.is_set("train.finish.loss")
        fixed_training = head_training(finish.loss if loss_is_set else None, mlp=kind == "mlp")
        trainings = cls.trainings if kind == "auto" else tuple(t for t in cls.trainings if not t.mlp)
        return cls(
            sqrt={"linear": (False,), "rooted": (True,), "mlp": (True,)}.get(kind, cls.sqrt),
            residuals=wide,
            shrinkages=(finish.shrinkage,) if spec.is_set("train.finish.shrinkage") else cls.shrinkages,
            trainings=() if fixed_training or loss_is_set else trainings,
            fixed_training=fixed_training,
            dim=dim,
            kind=frozen_head_kind(spec),
            label_weights=finish.label_weights,
        )

    def uncompared_head(self, goal: str) -> HeadConfig:
        """Return the head to take where there is no time to compare any: of the values of this space, those nearest the usual ones.

        Args:
            goal: a key of ``holdout.GOALS``.
        """
        residual, shrinkage = UNCOMPARED[goal]
        return HeadConfig(
            self.sqrt[0],
            min(self.residuals, key=lambda value: abs(value - residual)),
            min(self.shrinkages, key=lambda value: abs(value - shrinkage)),
            label_weights=self.label_weights,
        )


def evaluate_vectors(
    vectors_ND: np.ndarray, labels_N: np.ndarray, splits: Sequence[Split], *, with_images: bool = False
) -> HoldoutResult:
    """Evaluate vectors that do not depend on the split.

    Args:
        vectors_ND: vectors (N, D).
        labels_N: an integer label per image.
        splits: splits of these images.
        with_images: whether the result has ``lookups``.
    """
    return evaluate_embeddings(
        splits, labels_N, lambda _, s: (vectors_ND[s.query_N], vectors_ND[s.reference_N]), with_images=with_images
    )


def search_heads(
    features_NF: np.ndarray, labels_N: np.ndarray, splits: Sequence[Split], goal: str, *, seconds: float = float("inf"),
    space: HeadSearchSpace | None = None, hard_seconds: float = float("inf"),
) -> list[HeadTrial]:  # fmt: skip
    """Evaluate every closed form of a search space.

    Args:
        features_NF: frozen features (N, F).
        labels_N: an integer label per image.
        splits: cross-validation splits of these images.
        goal: a key of ``holdout.GOALS``.
        seconds: time limit, checked between the two values of ``sqrt``.
        space: the heads to try; all by default.
        hard_seconds: time limit at which even the first value of ``sqrt`` is given up, by the time of its first splits;
            ``FITS_AFTERWARDS`` fits more are to be made within it.

    Returns:
        The features themselves first, then the closed forms in the order of the space.

    Raises:
        TooSlow: no closed form can be evaluated within ``hard_seconds``.
    """
    start, space = time.monotonic(), space or HeadSearchSpace()
    end, hard_end, split_seconds = start + seconds, start + hard_seconds, 0.0
    baseline = _evaluate_frozen(features_NF, labels_N, splits, space)
    frozen = HeadTrial(None, baseline, baseline.score(goal))
    trials = [frozen]
    for sqrt in space.sqrt:
        start = time.monotonic()
        if start > end or start + (len(splits) + FITS_AFTERWARDS) * split_seconds > hard_end:
            break
        configs = [
            HeadConfig(sqrt, r, s, label_weights=space.label_weights)
            for s, r in product(space.shrinkages, space.residuals)
        ]

        def rank(
            number: int, split: Split, configs: Sequence[HeadConfig] = configs, start: float = start
        ) -> list[Ranking]:
            nonlocal split_seconds
            if number and start + (len(splits) + FITS_AFTERWARDS) * split_seconds > hard_end:
                raise TooSlow(frozen)
            rankings = _rank_by_config(features_NF, labels_N, split, configs)
            split_seconds = (time.monotonic() - start) / (number + 1)
            return rankings

        try:
            results = evaluate_rankings(splits, labels_N, rank)
        except TooSlow:
            if len(trials) == 1:
                raise
            break
        except DataError:  # a split whose classes have one image each: there is no within-class scatter
            break
        trials += [HeadTrial(c, result, result.score(goal)) for c, result in zip(configs, results, strict=True)]
    return trials


def _evaluate_frozen(
    features_NF: np.ndarray, labels_N: np.ndarray, splits: Sequence[Split], space: HeadSearchSpace
) -> HoldoutResult:
    """Evaluate the frozen trunk without a fitted head."""
    if space.dim is None and space.kind == "linear":
        return evaluate_vectors(features_NF, labels_N, splits)

    def vectors_of(_: int, split: Split) -> tuple[np.ndarray, np.ndarray]:
        head = fit_head(features_NF[split.fit_N], labels_N[split.fit_N], None, space.dim, space.kind)
        return head(features_NF[split.query_N]), head(features_NF[split.reference_N])

    return evaluate_embeddings(splits, labels_N, vectors_of)


def best_closed_form(trials: Sequence[HeadTrial], goal: str) -> HeadTrial | None:
    """Return the best closed form; one without the square root only if significantly better than the best one with it.

    Chosen by the score alone, folds of photographs took a form without it in four of five cases and lost 1.3 points of R@1
    (docs/experiments/heads.md).

    Args:
        trials: trials of ``search_heads``.
        goal: a key of ``holdout.GOALS``.

    Returns:
        The trial; None where there is no closed form.
    """
    with_sqrt, without = (
        max((t for t in trials if t.config and t.config.sqrt is sqrt), key=lambda t: t.score, default=None)
        for sqrt in (True, False)
    )
    if with_sqrt is None or without is None:
        return with_sqrt or without
    return without if without.result.significantly_better(with_sqrt.result, goal) else with_sqrt


def evaluate_width(
    trial: HeadTrial, features_NF: np.ndarray, labels_N: np.ndarray, splits: Sequence[Split], goal: str, dim: int
) -> HeadTrial:
    """Evaluate the closed form of a trial again with as many dimensions as are delivered.

    Args:
        trial: a trial of ``search_heads`` that has a head.
        features_NF: frozen features (N, F).
        labels_N: an integer label per image.
        splits: cross-validation splits of these images.
        goal: a key of ``holdout.GOALS``.
        dim: number of dimensions of the vectors.
    """
    assert trial.config is not None
    config = trial.config

    def vectors_of(_: int, split: Split) -> tuple[np.ndarray, np.ndarray]:
        head = fit_closed_form(features_NF[split.fit_N], labels_N[split.fit_N], config, dim)
        return head(features_NF[split.query_N]), head(features_NF[split.reference_N])

    result = evaluate_embeddings(splits, labels_N, vectors_of)
    return HeadTrial(config, result, result.score(goal))


def search_trained_heads(
    trial: HeadTrial, features_NF: np.ndarray, labels_N: np.ndarray, splits: Sequence[Split], goal: str, *,
    seconds: float, trainings: Sequence[HeadTraining] = HEAD_TRAININGS, dim: int | None = None,
) -> list[HeadTrial]:  # fmt: skip
    """Evaluate the closed form of ``trial`` after each training, as many as the time allows.

    The time of a training is estimated from its splits so far; one that would not finish on all splits is abandoned. An MLP
    is tried only behind a square root (``model.head: mlp`` has one).

    Args:
        trial: the closed form to start from; nothing is tried for the features themselves.
        features_NF: frozen features (N, F).
        labels_N: an integer label per image.
        splits: cross-validation splits of these images.
        goal: a key of ``holdout.GOALS``.
        seconds: time limit.
        trainings: what to try, in this order.
        dim: number of dimensions of the vectors (None: no limit).
    """
    config = trial.config
    if seconds <= 0 or config is None:
        return []
    end = time.monotonic() + seconds
    closed_forms = [fit_closed_form(features_NF[s.fit_N], labels_N[s.fit_N], config, dim) for s in splits]
    trials: list[HeadTrial] = []
    for training in trainings:
        if training.mlp and not config.sqrt:
            continue
        start = time.monotonic()
        vectors: list[tuple[np.ndarray, np.ndarray]] = []
        for head, split in zip(closed_forms, splits, strict=True):
            if start + len(splits) * (time.monotonic() - start) / max(1, len(vectors)) > end:
                return trials
            trained = train_head(head, features_NF[split.fit_N], labels_N[split.fit_N], training)
            vectors.append((trained(features_NF[split.query_N]), trained(features_NF[split.reference_N])))
        result = evaluate_embeddings(splits, labels_N, partial(_vectors_of_split, vectors))
        trials.append(HeadTrial(replace(config, training=training), result, result.score(goal)))
    return trials


def _vectors_of_split(
    vectors: Sequence[tuple[np.ndarray, np.ndarray]], number: int, _: Split
) -> tuple[np.ndarray, np.ndarray]:
    return vectors[number]


def best_score(features_NF: np.ndarray, labels_N: np.ndarray, splits: Sequence[Split], goal: str) -> float:
    """Return the best score of the features themselves and of the square-root heads without extra shrinkage."""
    space = HeadSearchSpace(sqrt=(True,), shrinkages=(1.0,))
    return max(trial.score for trial in search_heads(features_NF, labels_N, splits, goal, space=space))


def _rank_by_config(
    features_NF: np.ndarray, labels_N: np.ndarray, split: Split, configs: Sequence[HeadConfig]
) -> list[Ranking]:
    """Rank a split's queries by the head of every config, with all its dimensions; all configs share ``sqrt`` and label weights.

    Two matrix products serve all residuals of one shrinkage (``ClassWhitening.components``).
    """
    fit_NF, fit_label_N = features_NF[split.fit_N], labels_N[split.fit_N]
    weights_N = label_weights(fit_NF, fit_label_N) if configs[0].label_weights else None
    scatter = fit_scatter(fit_NF, fit_label_N, sqrt=configs[0].sqrt, weights_N=weights_N)
    query_QF, reference_RF = (scatter.project(features_NF[rows]) for rows in (split.query_N, split.reference_N))
    rankings: list[Ranking] = []
    for shrinkage in dict.fromkeys(config.shrinkage for config in configs):
        whitening = scatter.whiten(shrinkage)
        residuals = [config.residual for config in configs if config.shrinkage == shrinkage]
        query, reference = (_Components(*whitening.components(rows_NF)) for rows_NF in (query_QF, reference_RF))
        score_blocks = partial(_cosines_by_residual, query, reference, residuals)
        rankings += rank_scores(score_blocks, len(residuals), labels_N[split.query_N], labels_N[split.reference_N])
    return rankings


class _Components:
    """Vectors as ``ClassWhitening.components`` gives them, with their squared lengths along the class directions and
    across them."""

    def __init__(self, white_NF: np.ndarray, class_NC: np.ndarray) -> None:
        self.white_NF, self.class_NC = white_NF, class_NC
        self.along_N, total_N = (np.einsum("nd,nd->n", part, part) for part in (class_NC, white_NF))
        self.across_N = np.maximum(total_N - self.along_N, 0)

    def inverse_norms(self, weight: np.float32) -> np.ndarray:
        """1 / length of each vector if the squared residual is ``weight``; 0 for a vector of length 0."""
        length_N: np.ndarray = np.sqrt(self.along_N + weight * self.across_N)
        inverse_N = np.zeros_like(length_N)
        np.divide(np.float32(1), length_N, out=inverse_N, where=length_N > 0)
        return inverse_N


def _cosines_by_residual(
    query: _Components, reference: _Components, residuals: Sequence[float], top: int, bottom: int
) -> Iterator[np.ndarray]:
    """Yield the cosines (B, R) of queries ``top`` to ``bottom`` with all references, for the head of each residual."""
    class_BR = query.class_NC[top:bottom] @ reference.class_NC.T
    rest_BR = query.white_NF[top:bottom] @ reference.white_NF.T
    rest_BR -= class_BR
    for residual in residuals:
        weight = np.float32(residual * residual)
        scores_BR = weight * rest_BR
        scores_BR += class_BR
        scores_BR *= reference.inverse_norms(weight)
        scores_BR *= query.inverse_norms(weight)[top:bottom, None]
        yield scores_BR


def sample_classes(labels_N: np.ndarray, seed: int) -> np.ndarray:
    """Draw classes at random, with all their images, until these are ``MAX_SEARCH_IMAGES``; return the rows (all if fewer).

    Args:
        labels_N: an integer label per image.
        seed: of the choice.
    """
    if len(labels_N) <= MAX_SEARCH_IMAGES:
        return np.arange(len(labels_N))
    classes, count_C = np.unique(labels_N, return_counts=True)
    order = np.random.default_rng([seed, 17]).permutation(classes)
    total_C = np.cumsum(count_C[np.searchsorted(classes, order)])
    sample_C = order[: max(4, int(np.searchsorted(total_C, MAX_SEARCH_IMAGES)))]
    return np.flatnonzero(np.isin(labels_N, sample_C))
