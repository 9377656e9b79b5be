"""Confidence intervals: bootstrap over queries or groups, Wilson and Clopper-Pearson for proportions, clustered proportions.

Percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993), computed with weights: a
resample is a vector of how often each unit was drawn, so that all metrics of all resamples are matrix products.
Where the claim is about unseen classes the unit is the class: its queries are not independent of one another.

Shape letters: Q queries, M metrics, N resamples, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from unalike.errors import UnalikeError

# By how much trials count less whose events occur in both directions. Theory gives 2; 2.5 was chosen by measurement: 95 %
# intervals for false matches of one in a hundred held on the other classes in 89 % of 100 halvings of 81 grocery classes
# with 2, in 95 % of 60 of the same halvings with 2.5 (frozen EfficientNet-Lite0). On data that had no part in the choice,
# 120 brands with a trained network, one in fifty: 95 % of 40 halvings (own measurements, 2026-11-24); grocery classes halved
# anew, other trunks, one in a hundred: 45 of 48; one in fifty 40 of 40 (2026-11-26).
SYMMETRIC_FACTOR = 2.5
# Weights of resamples held at once (float64), about 32 MiB.
WEIGHTS_AT_ONCE = 4 * 2**20


@dataclass(frozen=True)
class Interval:
    """A value and the interval [low, high] that holds it; low and high are NaN when fewer than two units are known."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero is outside the interval, as that of a difference."""
        return self.low > 0 or self.high < 0

    def to_dict(self) -> dict[str, float | None]:
        """For JSON: NaN becomes None."""
        return {
            name: None if math.isnan(number) else number
            for name, number in (("value", self.value), ("low", self.low), ("high", self.high))
        }

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap(
    values_Q: np.ndarray,
    groups: np.ndarray | None = None,
    n: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The mean of ``values_Q`` with its percentile-bootstrap interval; NaN values are left out.

    With ``groups`` (Q,), one name or number a query, whole groups are resampled, and the mean stays one over queries.
    """
    return bootstrap_metrics(np.asarray(values_Q, float)[:, None], groups, by_group=groups is not None,
                             n=n, confidence=confidence, seed=seed)[0][0]  # fmt: skip


def paired_bootstrap(
    before_Q: np.ndarray,
    after_Q: np.ndarray,
    groups: np.ndarray | None = None,
    n: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The mean of after - before over the same queries with its interval; ``excludes_zero`` says whether zero is outside.

    Both sides are resampled together, so what makes a query hard for both cancels. Raises UnalikeError when the
    lengths differ.
    """
    before_Q, after_Q = np.asarray(before_Q, float), np.asarray(after_Q, float)
    if before_Q.shape != after_Q.shape:
        raise UnalikeError(
            f"paired values number {len(before_Q)} and {len(after_Q)}", expected="the same queries on both sides"
        )
    return bootstrap(after_Q - before_Q, groups, n, confidence, seed)


def bootstrap_metrics(
    values_QM: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    by_group: bool = False,
    n: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[list[Interval], list[Interval]]:
    """Intervals of M means at once: (over queries, over groups).

    The first list holds the means over all queries, the second the means over groups of the groups' means (empty
    without ``groups``). ``by_group`` resamples groups, else queries. A query with NaN in any metric is left out.
    """
    if n < 1 or not 0 < confidence < 1:
        raise UnalikeError(f"bootstrap of {n} resamples at confidence {confidence}", expected="n >= 1 and 0 < c < 1")
    values_QM = np.asarray(values_QM, float)
    known_Q = ~np.isnan(values_QM).any(axis=1)
    values_QM = values_QM[known_Q]
    queries, metrics = values_QM.shape
    if groups is None:
        group_Q, count = np.zeros(queries, np.int64), 1
    else:
        names, group_Q = np.unique(np.asarray(groups)[known_Q], return_inverse=True)
        count = len(names)
    if not queries:
        unknown = [Interval(math.nan, math.nan, math.nan)] * metrics
        return unknown, [] if groups is None else unknown
    order_Q = np.argsort(group_Q, kind="stable")
    values_QM, group_Q = values_QM[order_Q], group_Q[order_Q]
    sizes_G = np.bincount(group_Q, minlength=count).astype(float)
    sums_GM = np.add.reduceat(values_QM, np.cumsum(sizes_G).astype(int) - sizes_G.astype(int), axis=0)
    units = count if by_group else queries
    micro_NM, macro_NM = np.empty((n, metrics)), np.empty((n, metrics))
    rng = np.random.default_rng(seed)
    step = max(1, WEIGHTS_AT_ONCE // max(units, 1))
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        weights = _draw(rng, part.stop - start, units)
        if by_group:
            micro_NM[part] = (weights @ sums_GM) / (weights @ sizes_G)[:, None]
            macro_NM[part] = (weights @ (sums_GM / sizes_G[:, None])) / count
        else:
            micro_NM[part] = (weights @ values_QM) / queries
            if groups is not None:
                macro_NM[part] = _mean_of_groups(weights, values_QM, sizes_G)
    overall = _intervals(values_QM.mean(axis=0), micro_NM, confidence, units)
    if groups is None:
        return overall, []
    return overall, _intervals((sums_GM / sizes_G[:, None]).mean(axis=0), macro_NM, confidence, units)


def _draw(rng: np.random.Generator, rows: int, units: int) -> np.ndarray:
    """How often each unit is drawn when ``units`` are drawn with replacement, ``rows`` times over."""
    units_NU = rng.integers(0, units, (rows, units))
    units_NU += (np.arange(rows) * units)[:, None]
    return np.bincount(units_NU.ravel(), minlength=rows * units).reshape(rows, units).astype(float)


def _mean_of_groups(weights_NQ: np.ndarray, values_QM: np.ndarray, sizes_G: np.ndarray) -> np.ndarray:
    """(N, M): every group's weighted mean, averaged over the groups that were drawn at all. Queries lie by group."""
    starts = np.cumsum(sizes_G).astype(int) - sizes_G.astype(int)
    weight_NG = np.add.reduceat(weights_NQ, starts, axis=1)
    has_weight_NG = weight_NG > 0
    divisor_NG = np.where(has_weight_NG, weight_NG, 1)
    means = [
        (np.add.reduceat(weights_NQ * values_Q, starts, axis=1) / divisor_NG).sum(axis=1) / has_weight_NG.sum(axis=1)
        for values_Q in values_QM.T
    ]
    return np.stack(means, axis=1)


def _intervals(values_M: np.ndarray, resampled_NM: np.ndarray, confidence: float, units: int) -> list[Interval]:
    if units < 2:
        return [Interval(float(value), math.nan, math.nan) for value in values_M]
    tail = (1 - confidence) / 2
    low_M, high_M = np.quantile(resampled_NM, [tail, 1 - tail], axis=0)
    return [Interval(float(v), float(a), float(b)) for v, a, b in zip(values_M, low_M, high_M, strict=True)]


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """The share ``successes / n`` with Wilson's score interval (1927), which holds for small n and shares near 0 or 1."""
    if n < 0 or not 0 <= successes <= max(n, 0):
        raise UnalikeError(f"{successes} successes of {n}", expected="0 <= successes <= n")
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


# ---- rare events, exactly, and events that come in groups ----


def beta_cdf(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction (NIST DLMF, 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, its mirror image does not
        return 1 - beta_cdf(b, a, 1 - x)
    front = math.exp(
        a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) - math.log(a)
    )
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * value


def _solve(rising: Callable[[float], float], level: float) -> float:
    """Where a rising function on [0, 1] reaches ``level``."""
    low, high = 0.0, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < level else (low, middle)
    return (low + high) / 2


def beta_quantile(a: float, b: float, level: float) -> float:
    """The value that a Beta(a, b) variable is below with probability ``level``; 0 when a is 0, 1 when b is."""
    if a <= 0 or b <= 0:
        return 0.0 if a <= 0 else 1.0
    return _solve(lambda x: beta_cdf(a, b, x), level)


def student_quantile(freedom: float, level: float) -> float:
    """The upper quantile (``level`` above 0.5) of Student's t."""
    x = _solve(lambda x: beta_cdf(freedom / 2, 0.5, x), 2 * (1 - level))
    return math.sqrt(freedom * (1 - x) / x) if x > 0 else math.inf


def clopper_pearson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """The share ``successes / n`` with the exact interval of Clopper and Pearson (1934); neither need be whole."""
    if n < 0 or not 0 <= successes <= n:
        raise UnalikeError(f"{successes} successes of {n}", expected="0 <= successes <= n")
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    tail = (1 - confidence) / 2
    low = beta_quantile(successes, n - successes + 1, tail)
    return Interval(successes / n, low, beta_quantile(successes + 1, n - successes, 1 - tail))


def clustered_proportion(
    values_Q: np.ndarray,
    groups_Q: np.ndarray,
    confidence: float = 0.95,
    *,
    new_sample: bool = False,
    symmetric: bool = False,
    crossed_groups_Q: np.ndarray | None = None,
) -> tuple[Interval, float]:
    """Compute a proportion with its interval over trials that come in groups.

    Images of one class are alike, so that a hundred of them tell less than a hundred trials. How much less is
    estimated from how the groups differ; Clopper and Pearson's interval is then taken for that many trials, their
    number corrected for few groups (Korn and Graubard, "Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data", Survey Methodology, 1998). Where nothing was seen, each group
    counts as one trial. Needs two groups; else NaN bounds.

    Args:
        values_Q: 0 or 1 for each trial, or weights near them.
        groups_Q: The group of each trial.
        confidence: Confidence of the interval, 0..1.
        new_sample: The interval is for the proportion in as many trials of as many new groups, which vary as much as
            these do: half the effective number, in whole trials.
        symmetric: An event may be counted in two groups, since a is like b where b is like a: the effective number is
            divided by SYMMETRIC_FACTOR.
        crossed_groups_Q: Groups of another kind that cross the first (types of tampering across assets): the variances
            of both are added, less that of the cells where they meet (Cameron, Gelbach and Miller, "Robust inference
            with multiway clustering", JBES, 2011); the smaller number of groups sets the degrees of freedom.

    Returns:
        The interval and the effective number of trials.
    """
    values_Q = np.asarray(values_Q, float)
    trials = len(values_Q)
    sorts = [
        np.unique(np.asarray(groups), return_inverse=True)[1]
        for groups in (groups_Q, crossed_groups_Q)
        if groups is not None
    ]
    counts = [int(group_Q.max(initial=-1)) + 1 for group_Q in sorts]
    groups = min(counts)
    if not trials:
        return Interval(math.nan, math.nan, math.nan), 0.0
    share = min(1.0, float(values_Q.mean()))
    if groups < 2:
        return Interval(share, math.nan, math.nan), 1.0
    parts = [_variance_of_mean(values_Q - share, group_Q) for group_Q in sorts]
    variance = max(parts)
    if len(sorts) == 2:
        variance = max(variance, sum(parts) - _variance_of_mean(values_Q - share, sorts[0] * counts[1] + sorts[1]))
    effective = min(float(trials), share * (1 - share) / variance) if 0 < share < 1 and variance > 0 else float(groups)
    level = 0.5 + confidence / 2
    scaled = effective * (NormalDist().inv_cdf(level) / student_quantile(groups - 1, level)) ** 2
    scaled /= (2 if new_sample else 1) * (SYMMETRIC_FACTOR if symmetric else 1)
    bounds = clopper_pearson(share * scaled, scaled, confidence)
    low, high = bounds.low, bounds.high
    if new_sample:
        low, high = math.floor(low * trials) / trials, math.ceil(high * trials) / trials
    return Interval(share, low, high), effective


def _variance_of_mean(away_Q: np.ndarray, group_Q: np.ndarray) -> float:
    """Of the mean of trials whose groups are drawn at random; ``away_Q`` is each trial's distance from that mean."""
    sums_G = np.bincount(group_Q, away_Q)
    groups = int(np.count_nonzero(np.bincount(group_Q)))
    return float(groups / max(groups - 1, 1) * float(sums_G @ sums_G) / len(away_Q) ** 2)
