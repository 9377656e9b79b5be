"""Results of held-out queries: R@1 and MAP@R by kind of query, with intervals, counts and the images behind them.

Shape letters: Q queries of all splits, I images that were queries, N images, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unalike.metrics.intervals import MIN_GROUPS, Interval, difference_interval, mean_interval
from unalike.metrics.prediction import prediction_interval
from unalike.metrics.retrieval import Ranking, evaluate_ranking
from unalike.numerics.normalization import l2_normalize
from unalike.training.automatic.holdout import GOALS, Split

METRICS = ("R@1", "MAP@R")
EXPECTED_IMAGES = 100  # of which training says how many will be right
TILE_NUMBERS = 2**21  # cosines that are computed at once: 8 MB
# What a kind of queries tells.
KIND_NAMES = {"new": "new classes", "known": "known classes", "same": "known classes, same series"}
KIND_MEANINGS = {
    "new": "classes that nothing was fitted to, looked up among all images but those of the query's series",
    "known": "images of other series than those that were fitted to and searched: another place or another day",
    "same": "as known classes, with images of the query's own series among the references: photographs like those here",
}


@dataclass(frozen=True)
class Lookups:
    """The images behind the results: an entry per query, as rows of the image set.

    Attributes:
        query_Q: the query.
        nearest_Q: its nearest reference.
        score_Q: the cosine between them.
        own_Q: the nearest reference of its own class; -1 for hits, where it is the nearest one, and where there is none.
        own_score_Q: the cosine to that; NaN for hits, and where there is none.
        other_class_Q: class of the nearest reference of another class, for queries of new classes; else -1.
        other_score_Q: the cosine to that; NaN where there is none.
        lead_Q: lead of the nearest class over the second; infinite where there is none. For queries of new classes that of the
            nearest other class over the next one.
    """

    query_Q: np.ndarray
    nearest_Q: np.ndarray
    score_Q: np.ndarray
    own_Q: np.ndarray
    own_score_Q: np.ndarray
    other_class_Q: np.ndarray
    other_score_Q: np.ndarray
    lead_Q: np.ndarray

    def select(self, mask_Q: np.ndarray) -> Lookups:
        """Return the entries of some queries."""
        return Lookups(*(getattr(self, name)[mask_Q] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class HoldoutResult:
    """Per-query results on a list of splits, in the order of the splits.

    Attributes:
        kind_Q: the kind of the query's split.
        hit_Q: 1 where the nearest reference has the query's class, else 0.
        precision_Q: average precision at R, 0 to 1.
        label_Q: the query's label.
        lookups: the images; None where only figures are needed.
        series_Q: the query's series or group, by which intervals are computed where there are few classes.
    """

    kind_Q: np.ndarray
    hit_Q: np.ndarray
    precision_Q: np.ndarray
    label_Q: np.ndarray
    lookups: Lookups | None = None
    series_Q: np.ndarray | None = None

    def score(self, goal: str) -> float:
        """Return the mean of R@1 and MAP@R, averaged over the kinds of the goal; heads are ranked by it."""
        return float(np.mean([self.mean(name, goal) for name in METRICS]))

    def mean(self, metric: str, goal: str) -> float:
        """Return R@1 or MAP@R, averaged over the kinds of the goal."""
        values_Q = self._values(metric)
        return float(np.mean([values_Q[self.kind_Q == kind].mean() for kind in self.kinds(goal)]))

    def kinds(self, goal: str) -> list[str]:
        """Return the kinds of the goal that have queries; ``known``, or what there is, if the goal's have none."""
        present = sorted(set(self.kind_Q.tolist()))
        kinds = [kind for kind in GOALS[goal] if kind in present]
        return kinds or [kind for kind in present if kind == "known"] or present

    def _values(self, metric: str) -> np.ndarray:
        return self.hit_Q if metric == "R@1" else self.precision_Q

    def _by_image(self, kind: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean value of each image (I) over its queries, and its group: repeated queries of an image are no new trials."""
        rows = np.flatnonzero(self.kind_Q == kind)
        values_Q, group_Q = self._values(metric)[rows], self._groups(kind)[rows]
        if self.lookups is None:
            return values_Q, group_Q
        _, first_I, image_Q = np.unique(self.lookups.query_Q[rows], return_index=True, return_inverse=True)
        return np.bincount(image_Q, values_Q) / np.bincount(image_Q), group_Q[first_I]

    def _groups(self, kind: str) -> np.ndarray:
        """Group of each query: its class, or with few known classes its series."""
        few = len(np.unique(self.label_Q[self.kind_Q == kind])) < MIN_GROUPS  # no interval over so few classes
        return self.series_Q if few and kind != "new" and self.series_Q is not None else self.label_Q

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of queries, of different images among them and of their classes, by kind."""
        table = {}
        for kind in sorted(set(self.kind_Q.tolist())):
            rows = self.kind_Q == kind
            images = int(rows.sum()) if self.lookups is None else len(np.unique(self.lookups.query_Q[rows]))
            table[kind] = {"queries": int(rows.sum()), "images": images, "classes": len(np.unique(self.label_Q[rows]))}
        return table

    def metrics(self, seed: int = 0) -> dict[str, dict[str, Interval]]:
        """Compute R@1 and MAP@R of each kind with 95 % intervals over classes, or series, whose images are alike.

        Args:
            seed: Not used; intervals resample nothing.

        Returns:
            Interval by kind and metric.
        """
        kinds = sorted(set(self.kind_Q.tolist()))
        return {kind: {name: mean_interval(*self._by_image(kind, name)) for name in METRICS} for kind in kinds}

    def gain_over(self, other: HoldoutResult, seed: int = 0) -> dict[str, dict[str, Interval]]:
        """Compute the paired differences to another result on the same splits, with 95 % intervals.

        Args:
            other: the result to subtract.
            seed: Not used; intervals resample nothing.

        Returns:
            Interval by kind and metric.
        """
        gains: dict[str, dict[str, Interval]] = {}
        for kind in sorted(set(self.kind_Q.tolist())):
            gains[kind] = {}
            for name in METRICS:
                (after_I, group_I), (before_I, _) = self._by_image(kind, name), other._by_image(kind, name)
                gains[kind][name] = difference_interval(before_I, after_I, group_I)
        return gains

    def difference(self, other: HoldoutResult, metric: str, goal: str) -> tuple[float, float]:
        """Return the mean paired difference to another result on the same splits, and its standard error over images.

        Args:
            other: the result to subtract.
            metric: R@1 or MAP@R.
            goal: a key of ``GOALS``, whose kinds are averaged.
        """
        means, variances = [], []
        for kind in self.kinds(goal):
            change_I = self._by_image(kind, metric)[0] - other._by_image(kind, metric)[0]
            means.append(float(change_I.mean()))
            variances.append(float(change_I.var(ddof=1)) / len(change_I) if len(change_I) > 1 else 0.0)
        return float(np.mean(means)), math.sqrt(sum(variances)) / len(means)

    def significantly_better(self, other: HoldoutResult, goal: str, by: Sequence[str] = METRICS) -> bool:
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

    def expected(self) -> dict[str, Interval]:
        """The 95 % range in which the metrics on ``EXPECTED_IMAGES`` new photographs of known classes are expected.

        It reaches from the low end of the range for other series to the high end of that for the same series: the images
        do not tell how new ones will be related to them. The value is that for other series. Empty without known classes.
        """
        metrics = {
            kind: {name: prediction_interval(interval, EXPECTED_IMAGES) for name, interval in row.items()}
            for kind, row in self.metrics().items()
        }
        kinds = [kind for kind in ("known", "same") if kind in metrics]
        if "known" not in kinds:
            return {}
        return {
            name: Interval(metrics["known"][name].value, *(
                end([getattr(metrics[kind][name], side) for kind in kinds]) for end, side in ((min, "low"), (max, "high"))
            ))
            for name in METRICS
            if not any(metrics[kind][name].too_few for kind in kinds)
        }  # fmt: skip

    def to_dict(self, baseline: HoldoutResult) -> dict[str, Any]:
        """Return these metrics and the gain over those of ``baseline``, the frozen trunk, as plain data."""
        tables = {"figures": self.metrics(), "gain_over_frozen": self.gain_over(baseline)}
        return {
            name: {kind: {k: v.to_dict() for k, v in metrics.items()} for kind, metrics in table.items()}
            for name, table in tables.items()
        }

    def with_series(self, series_N: np.ndarray) -> HoldoutResult:
        """Return this result with the series of its queries.

        Args:
            series_N: a series per image, numbered over all classes.
        """
        assert self.lookups is not None
        return replace(self, series_Q=series_N[self.lookups.query_Q])


def stated_intervals(record: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return (low, high) of the delivered candidate's metrics, by the names that training reports them under.

    Args:
        record: the content of ``automatic.json``; of a training without labels there are none.
    """
    candidates = [row for row in record.get("candidates", []) if row.get("name") == record.get("chosen")]
    return {
        f"{KIND_NAMES[kind]} {name}": (value["low"], value["high"])
        for row in candidates[:1]
        for kind, figures in (row.get("figures") or {}).items()
        for name, value in figures.items()
        if kind in KIND_NAMES and None not in (value["low"], value["high"]) and not value.get("too_few")
    }


def describe_counts(counts: Mapping[str, int]) -> str:
    """Say how many queries, images and classes a figure is computed from.

    Args:
        counts: an entry of ``HoldoutResult.counts``.
    """
    text = f"{counts['queries']:,} queries"
    if counts["queries"] > counts["images"]:
        text += f" of {counts['images']:,} images"
    return f"{text}, {counts['classes']:,} classes"


def pool_results(results: Sequence[HoldoutResult]) -> HoldoutResult:
    """Pool the results of repeated cross-validation.

    Args:
        results: results with ``lookups``.
    """
    lookups = [r.lookups for r in results if r.lookups is not None]
    assert len(lookups) == len(results)

    def join(parts: Sequence[Any], name: str) -> np.ndarray:
        values: np.ndarray = np.concatenate([getattr(part, name) for part in parts])
        return values

    return HoldoutResult(
        join(results, "kind_Q"), join(results, "hit_Q"), join(results, "precision_Q"), join(results, "label_Q"),
        Lookups(*(join(lookups, name) for name in Lookups.__dataclass_fields__)),
        join(results, "series_Q") if all(r.series_Q is not None for r in results) else None,
    )  # fmt: skip


# ---- evaluation ----


def evaluate_embeddings(
    splits: Sequence[Split],
    labels_N: np.ndarray,
    vectors_of: Callable[[int, Split], tuple[np.ndarray, np.ndarray]],
    *,
    with_images: bool = False,
) -> HoldoutResult:
    """Look up the queries of every split by cosine.

    Args:
        splits: the splits.
        labels_N: an integer label per image.
        vectors_of: ``vectors_of(number, split)`` returns query vectors and reference vectors of a split.
        with_images: whether the result has ``lookups``; compare only results that are alike in this.
    """
    lookups: list[Lookups] = []

    def rank(number: int, split: Split) -> list[Ranking]:
        query_QD, reference_RD = vectors_of(number, split)
        ranking = evaluate_ranking(
            query_QD,
            labels_N[split.query_N],
            reference_RD,
            labels_N[split.reference_N],
            ks=(1,),
            same=split.leave_one_out,
        )
        if with_images:
            lookups.append(_look_up(split, labels_N, ranking, query_QD, reference_RD))
        return [ranking]

    result = evaluate_rankings(splits, labels_N, rank)[0]
    if not with_images:
        return result
    return replace(
        result,
        lookups=Lookups(*(np.concatenate([getattr(part, name) for part in lookups])
                          for name in Lookups.__dataclass_fields__)),
    )  # fmt: skip


def _look_up(
    split: Split, labels_N: np.ndarray, ranking: Ranking, query_QD: np.ndarray, reference_RD: np.ndarray
) -> Lookups:
    """The images of a split's ranking; the nearest reference of the own class for misses, of another one for new classes."""
    label_R, label_Q = labels_N[split.reference_N], labels_N[split.query_N]
    query_QD, reference_RD = l2_normalize(query_QD), l2_normalize(reference_RD)
    own_Q, own_score_Q = np.full(len(label_Q), -1), np.full(len(label_Q), np.nan)
    other_class_Q, other_score_Q = np.full(len(label_Q), -1), np.full(len(label_Q), np.nan)
    missed_Q, is_new = ranking.precision_at_1 == 0, split.kind == "new"
    rows = np.arange(len(label_Q)) if is_new else np.flatnonzero(missed_Q)
    step = max(1, TILE_NUMBERS // max(1, len(label_R)))
    for start in range(0, len(rows), step):
        rows_B = rows[start : start + step]
        cosines_BR = query_QD[rows_B] @ reference_RD.T
        is_own_BR = label_Q[rows_B][:, None] == label_R
        if is_new:
            others_BR = np.where(is_own_BR, -2, cosines_BR)
            nearest_B, score_B = others_BR.argmax(axis=1), others_BR.max(axis=1)
            has_other_B = score_B > -2
            other_class_Q[rows_B[has_other_B]] = label_R[nearest_B[has_other_B]]
            other_score_Q[rows_B[has_other_B]] = score_B[has_other_B]
        missed_B = missed_Q[rows_B]
        missed_rows_B = rows_B[missed_B]
        is_itself_BR = split.query_N[missed_rows_B][:, None] == split.reference_N
        own_BR = np.where(is_own_BR[missed_B] & ~is_itself_BR, cosines_BR[missed_B], -2)
        nearest_B, score_B = own_BR.argmax(axis=1), own_BR.max(axis=1)
        has_own_B = score_B > -2
        own_Q[missed_rows_B[has_own_B]] = split.reference_N[nearest_B[has_own_B]]
        own_score_Q[missed_rows_B[has_own_B]] = score_B[has_own_B]
    return Lookups(
        split.query_N,
        split.reference_N[ranking.nearest],
        ranking.score,
        own_Q,
        own_score_Q,
        other_class_Q,
        other_score_Q,
        _find_leads(split, label_Q, label_R, query_QD, reference_RD),
    )


def _find_leads(
    split: Split, label_Q: np.ndarray, label_R: np.ndarray, query_QD: np.ndarray, reference_RD: np.ndarray
) -> np.ndarray:
    """Lead of each query's nearest class over the second, its own left out where it is a new one; vectors of unit length."""
    lead_Q = np.full(len(label_Q), np.inf)
    step = max(1, TILE_NUMBERS // max(1, len(label_R)))
    for start in range(0, len(label_Q) if len(label_R) else 0, step):
        rows_B = np.arange(start, min(start + step, len(label_Q)))
        hidden_BR = split.query_N[rows_B][:, None] == split.reference_N
        if split.kind == "new":
            hidden_BR = label_Q[rows_B][:, None] == label_R
        cosines_BR = np.where(hidden_BR, -2, query_QD[rows_B] @ reference_RD.T)
        nearest_B, best_B = cosines_BR.argmax(axis=1), cosines_BR.max(axis=1)
        second_B = np.where(label_R[nearest_B][:, None] == label_R, -2, cosines_BR).max(axis=1)
        has_both_B = (best_B > -2) & (second_B > -2)
        lead_Q[rows_B[has_both_B]] = (best_B - second_B)[has_both_B]
    return lead_Q


def evaluate_rankings(
    splits: Sequence[Split], labels_N: np.ndarray, rank: Callable[[int, Split], Sequence[Ranking]]
) -> list[HoldoutResult]:
    """Collect the results of several models whose rankings are computed together.

    Args:
        splits: the splits.
        labels_N: an integer label per image.
        rank: ``rank(number, split)`` returns a ranking per model.

    Returns:
        A result per model, without ``lookups``.
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
