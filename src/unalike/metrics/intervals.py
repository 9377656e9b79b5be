"""Confidence intervals of shares, means and paired differences over independent or grouped trials.

Images of one class, series or part are alike, so that a hundred of them tell less than a hundred trials. All intervals here
are score intervals (Wilson, 1927) for an effective number of trials that is estimated from how the groups differ (Kish,
"Survey Sampling", 1965; Korn and Graubard, Survey Methodology, 1998), with quantiles of Student's t. Two things keep them
reliable where errors are rare or in few groups, where plain estimates cover 80 % instead of 95 %:

- the design effect is a weighted geometric mean of the estimate and of the one at an intra-group correlation of
  PRIOR_CORRELATION. With K groups that carry the rarer outcome (their participation number, ``_carrying_groups``) of G
  groups, the estimate weighs K^3 / (G - 1) and the prior PRIOR_WEIGHT;
- Student's t has at most 2 K + 1 degrees of freedom.

Two claims can be made. "Classes like these": classes are random, the groups are the classes. It needs MIN_GROUPS of them;
with fewer, no interval both covers the truth and is narrow enough to tell something (``Interval.too_few``). "These classes":
the classes are fixed and their images random; the classes are strata (Yan and Su, "Stratified Wilson and Newcombe
confidence intervals for multiple binomial proportions", Stat. Biopharm. Research, 2010), two are enough.

The constants were chosen by simulation (benchmarks/interval_coverage.py); coverage and width stand in
docs/experiments/metrics.md. What no interval of groups covers: a kind of group that is rarer than three in G, since more than
one sample in twenty then holds none of it.

Shape letters: Q queries or trials, M metrics, G groups.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from unalike.errors import UnalikeError

PRIOR_CORRELATION, PRIOR_WEIGHT = 0.5, 2.0
# The lowest design effect. An estimate below 1 is mostly chance, but cutting it off at 1 makes 95 % intervals cover 98 %.
LEAST_EFFECT = 1 / 3
# With fewer groups no interval is both reliable and narrow: "too few to say" (docs/experiments/metrics.md, 2026-11-29).
MIN_GROUPS, MIN_GROUPS_OF_PAIRS = 10, 8
# The same where groups are so unequal that they tell as much as fewer than this number of equal ones.
MIN_EVEN_GROUPS = 5.0
# With more events than this of the rarer kind, Wilson's bound is wider than the Poisson bound on its side.
MOST_RARE = 10.0
# An interval of a share or difference that is wider than this part of its range is printed as "too few to say" too.
UNINFORMATIVE = 0.8
# Shares this near to one half are one half: which outcome is the rarer one is not decided by rounding.
TIE = 1e-9
TOO_FEW = "too few to say"
# By how much trials count less whose events occur in both directions. Theory gives 2; 2.5 was chosen by measurement: 95 %
# intervals for false matches of one in a hundred held on the other classes in 89 % of 100 halvings of 81 grocery classes
# with 2, in 95 % of 60 of the same halvings with 2.5 (frozen EfficientNet-Lite0). On data that had no part in the choice,
# 120 brands with a trained network, one in fifty: 95 % of 40 halvings (own measurements, 2026-11-24); grocery classes halved
# anew, other trunks, one in a hundred: 45 of 48; one in fifty 40 of 40 (2026-11-26).
SYMMETRIC_FACTOR = 2.5


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval [low, high].

    Attributes:
        value: The estimate; NaN without trials.
        low, high: Bounds; NaN where an interval cannot be computed (fewer than two groups) or was not requested.
        span: Width of the range of possible values: 1 for a share, 2 for a difference of shares.
        few_groups: Whether it stands on too few groups to be printed (``MIN_GROUPS``); the bounds are wide, but cover.
    """

    value: float
    low: float
    high: float
    span: float = 1.0
    few_groups: bool = False

    @property
    def excludes_zero(self) -> bool:
        """Whether zero is outside the interval, as that of a difference."""
        return self.low > 0 or self.high < 0

    @property
    def too_few(self) -> bool:
        """Whether there are too few groups to say more than that the value is in its range."""
        return math.isnan(self.low) or self.few_groups or self.high - self.low > UNINFORMATIVE * self.span

    def to_dict(self) -> dict[str, float | bool | None]:
        """For JSON: NaN becomes None; ``too_few`` is present where it is true of a value that exists."""
        values: dict[str, float | bool | None] = {
            name: None if math.isnan(number) else number
            for name, number in (("value", self.value), ("low", self.low), ("high", self.high))
        }
        return values | ({"too_few": True} if self.too_few and not math.isnan(self.value) else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], span: float = 1.0) -> Interval:
        """The inverse of ``to_dict``; ``span`` is 2 for a difference."""
        value, low, high = (math.nan if values.get(end) is None else values[end] for end in ("value", "low", "high"))
        return cls(value, low, high, span, few_groups=bool(values.get("too_few", False)))

    def format_bounds(self, spec: str = ".4f") -> str:
        """Format the bounds as ``[low, high]``, or in words where there are too few groups to say."""
        return f"[{TOO_FEW}]" if self.too_few else f"[{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return f"{self.value:.4f} {self.format_bounds()}"


UNKNOWN = Interval(math.nan, math.nan, math.nan)


def mean_interval(
    values_Q: np.ndarray,
    groups_Q: np.ndarray | None = None,
    confidence: float = 0.95,
    *,
    strata_Q: np.ndarray | None = None,
    averaged_over_Q: np.ndarray | None = None,
) -> Interval:
    """Compute the mean of values in 0..1 with its score interval.

    Args:
        values_Q: Values in 0..1 (Q,): hits as 0 and 1, or a metric per query. NaN values are left out.
        groups_Q: Class, series or part of each value, by name or number (Q,), where groups are random and the values of one
            group alike; None where the values are independent.
        confidence: Confidence of the interval, 0..1, exclusive.
        strata_Q: Class of each value (Q,), where values are independent and the claim is about these classes alone: how
            classes differ then does not widen the interval. Not together with ``groups_Q``.
        averaged_over_Q: Class of each value (Q,), to compute the mean of the classes' means; None computes that of all values.

    Returns:
        The mean and its interval; NaN bounds with fewer than two groups.

    Raises:
        UnalikeError: ``confidence`` is out of range, a value is outside 0..1, or the lengths differ.
    """
    values_Q, (group_Q, stratum_Q, class_Q) = _checked(values_Q, (groups_Q, strata_Q, averaged_over_Q), confidence)
    queries = len(values_Q)
    if not queries:
        return UNKNOWN
    if np.any((values_Q < -1e-9) | (values_Q > 1 + 1e-9)):
        raise UnalikeError(f"values from {values_Q.min():g} to {values_Q.max():g}", expected="values in 0..1")
    values_Q = np.clip(values_Q, 0, 1)
    weight_Q = np.full(queries, 1 / queries)
    if class_Q is not None:
        size_G = np.bincount(class_Q)
        weight_Q = 1 / (len(size_G) * size_G[class_Q])
    mean = float(np.clip(weight_Q @ values_Q, values_Q.min(), values_Q.max()))  # exactly 1 where all values are
    is_grouped = group_Q is not None
    if group_Q is None:
        group_Q = np.arange(queries)
    if group_Q.max() < 1:
        return Interval(mean, math.nan, math.nan)
    away_Q = values_Q - mean
    carrying = min(_carrying_groups(weight_Q * part_Q, group_Q) for part_Q in _rarer_outcomes(mean, values_Q))
    effect = _design_effect(away_Q, group_Q, carrying, weight_Q, stratum_Q)
    # Values between 0 and 1 vary less than hits do. One hit more keeps that finite where all values are equal.
    of_hits = mean * (1 - mean)
    squares = float(weight_Q @ weight_Q)
    spread = float((weight_Q * away_Q) @ (weight_Q * away_Q)) / squares
    ratio = (queries * spread + of_hits) / ((queries + 1) * of_hits) if of_hits > 0 else 1.0
    trials, quantile = 1 / (squares * effect * ratio), _quantile(_freedom(carrying, group_Q, weight_Q), confidence)
    low, high = score_bounds(mean, trials, quantile)
    # Where the rarer outcome is very rare, Wilson's bound on that side covers less than it says (Brown, Cai and DasGupta,
    # "Interval estimation for a binomial proportion", Statistical Science, 2001): the Poisson bound stands there.
    rare = trials * min(mean, 1 - mean)
    if 0 < rare <= MOST_RARE:
        nearest = _poisson_bound(_floor(20 * rare) / 20, 1 - confidence) / trials
        if mean < 0.5 + TIE:
            low = min(low, nearest)
        if mean > 0.5 - TIE:
            high = max(high, 1 - nearest)
    return Interval(mean, low, high, few_groups=is_grouped and _few_groups(group_Q, weight_Q, MIN_GROUPS))


def enough_groups(groups_Q: np.ndarray) -> bool:
    """Return whether so many groups, of these sizes, allow a statement about groups like these."""
    group_Q = np.unique(np.asarray(groups_Q), return_inverse=True)[1]
    return len(group_Q) > 0 and not _few_groups(group_Q, np.full(len(group_Q), 1 / len(group_Q)), MIN_GROUPS)


def difference_interval(
    before_Q: np.ndarray, after_Q: np.ndarray, groups_Q: np.ndarray | None = None, confidence: float = 0.95
) -> Interval:
    """Compute the mean of ``after_Q - before_Q`` over the same queries with its interval.

    What makes a query hard for both sides cancels. The interval is that of Bonett and Price ("Adjusted Wald confidence
    interval for a difference of binomial proportions based on paired data", JEBS, 2012) for the effective number of
    queries, with Student's t.

    Args:
        before_Q: Values of the first side, in 0..1 (Q,).
        after_Q: Values of the second side, in 0..1 (Q,).
        groups_Q: Class or series of each query; None where queries are independent.
        confidence: Confidence of the interval, 0..1, exclusive.

    Returns:
        The mean difference, -1..1; ``excludes_zero`` tells whether the sides differ.

    Raises:
        UnalikeError: ``confidence`` is out of range, or the lengths differ.
    """
    before_Q, after_Q = np.asarray(before_Q, float), np.asarray(after_Q, float)
    if before_Q.shape != after_Q.shape:
        raise UnalikeError(
            f"paired values number {len(before_Q)} and {len(after_Q)}", expected="the same queries on both sides"
        )
    change_Q, (group_Q,) = _checked(after_Q - before_Q, (groups_Q,), confidence)
    if group_Q is None:
        group_Q = np.arange(len(change_Q))
    if not len(change_Q):
        return Interval(math.nan, math.nan, math.nan, 2.0)
    mean = float(change_Q.mean())
    if group_Q.max() < 1:
        return Interval(mean, math.nan, math.nan, 2.0)
    queries = len(change_Q)
    square = float(change_Q @ change_Q)
    size = square / float(np.abs(change_Q).sum()) if square else 1.0  # of a typical change: 1 for hits
    weight_Q = np.full(queries, 1 / queries)
    carrying = _carrying_groups(np.abs(change_Q), group_Q)
    effect = _design_effect(change_Q - mean, group_Q, carrying, weight_Q, square=square / queries**2)
    effective = queries / effect
    # One pseudo-query in each direction, of a typical change's size.
    center = mean * effective / (effective + 2)
    second_moment = (square / queries * effective + 2 * size**2) / (effective + 2)
    error = math.sqrt(max(0.0, second_moment - center**2) / (effective + 2))
    half = _quantile(_freedom(carrying, group_Q, weight_Q), confidence) * error
    low, high = min(mean, center - half), max(mean, center + half)
    few = groups_Q is not None and not (low > 0 or high < 0) and _few_groups(group_Q, weight_Q, MIN_GROUPS_OF_PAIRS)
    return Interval(mean, max(-1.0, low), min(1.0, high), 2.0, few)


def _checked(
    values_Q: np.ndarray, labelings: Sequence[np.ndarray | None], confidence: float
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """Values without NaN, and their labels in each labeling as numbers from 0."""
    if not 0 < confidence < 1:
        raise UnalikeError(f"an interval at confidence {confidence}", expected="between 0 and 1")
    values_Q = np.asarray(values_Q, float)
    known_Q = ~np.isnan(values_Q)
    codes: list[np.ndarray | None] = []
    for labels in labelings:
        if labels is not None and len(labels) != len(values_Q):
            raise UnalikeError(f"{len(labels)} groups for {len(values_Q)} values", expected="one group for each value")
        codes.append(None if labels is None else np.unique(np.asarray(labels)[known_Q], return_inverse=True)[1])
    return values_Q[known_Q], codes


def _rarer_outcomes(share: float, values_Q: np.ndarray) -> list[np.ndarray]:
    """How much of the rarer outcome each value is, hits or misses; both at a share of one half."""
    hits_Q, misses_Q = np.maximum(0.0, values_Q), np.maximum(0.0, 1 - values_Q)
    return [part_Q for part_Q, applies in ((hits_Q, share < 0.5 + TIE), (misses_Q, share > 0.5 - TIE)) if applies]


def _carrying_groups(weight_Q: np.ndarray, group_Q: np.ndarray) -> float:
    """How many groups the sum of weights comes from: (sum)^2 / sum of squares over groups; 0 where all are 0."""
    weight_G = np.bincount(group_Q, weight_Q)
    squares = float(weight_G @ weight_G)
    return float(weight_G.sum()) ** 2 / squares if squares else 0.0


def _even_groups(group_Q: np.ndarray, weight_Q: np.ndarray) -> float:
    """Number of groups of equal weight that tell as much as these."""
    return _carrying_groups(weight_Q, group_Q)


def _few_groups(group_Q: np.ndarray, weight_Q: np.ndarray, least: int) -> bool:
    return int(group_Q.max()) + 1 < least or _even_groups(group_Q, weight_Q) < MIN_EVEN_GROUPS


def _design_effect(
    away_Q: np.ndarray,
    group_Q: np.ndarray,
    carrying: float,
    weight_Q: np.ndarray,
    stratum_Q: np.ndarray | None = None,
    square: float | None = None,
) -> float:
    """Factor by which the variance of a weighted mean exceeds that of independent trials.

    Args:
        away_Q: Each value less the mean.
        group_Q: Group of each value.
        carrying: Result of ``_carrying_groups`` for the rarer outcome.
        weight_Q: Weight of each value in the mean; they sum to 1.
        stratum_Q: Stratum of each value, where each value is a group and only what differs within strata is random.
        square: Sum of squares, with weights, that independent trials would have; None computes it from ``away_Q``.
    """
    part_Q = weight_Q * away_Q
    square = float(part_Q @ part_Q) if square is None else square
    even = _even_groups(group_Q, weight_Q)
    prior = 1 + (1 / (even * float(weight_Q @ weight_Q)) - 1) * PRIOR_CORRELATION
    if square <= 0:
        return prior
    if stratum_Q is None:
        sum_G = np.bincount(group_Q, part_Q)
        effect = len(sum_G) / (len(sum_G) - 1) * float(sum_G @ sum_G) / square
    else:
        size_S = np.bincount(stratum_Q)
        mean_S = np.bincount(stratum_Q, away_Q) / size_S
        mean_S[size_S < 2] = 0  # one value does not tell how its stratum varies: it counts against the common mean
        within_Q = weight_Q * (away_Q - mean_S[stratum_Q])
        effect = float(size_S[stratum_Q] / np.maximum(1, size_S[stratum_Q] - 1) @ within_Q**2) / square
    weight = min(carrying, even - 1) ** 3 / (even - 1)
    logarithm = weight * math.log(max(LEAST_EFFECT, effect)) + PRIOR_WEIGHT * math.log(prior)
    return math.exp(logarithm / (weight + PRIOR_WEIGHT))


def _freedom(carrying: float, group_Q: np.ndarray, weight_Q: np.ndarray) -> float:
    """Degrees of freedom, at least 1; more where each trial is a group, since no correlation is then unknown."""
    even = _even_groups(group_Q, weight_Q) - 1
    most = 4 * carrying + 8 if len(group_Q) == group_Q.max() + 1 else 2 * carrying + 1
    return max(1.0, min(even, most) if carrying else even)


def score_bounds(share: float, trials: float, quantile: float) -> tuple[float, float]:
    """Compute the bounds of Wilson's score interval.

    Args:
        share: Share of successes, 0..1.
        trials: Number of trials, above 0; it need not be whole.
        quantile: Quantile of the normal distribution, or of Student's t.
    """
    square = quantile * quantile
    center = (share + square / (2 * trials)) / (1 + square / trials)
    half = quantile / (1 + square / trials) * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))


def _quantile(freedom: float, confidence: float) -> float:
    """The two-sided quantile of Student's t; degrees of freedom are rounded to a tenth, downwards."""
    return _cached_student_quantile(_floor(10 * min(freedom, 1000.0)) / 10, 0.5 + confidence / 2)


def _floor(value: float) -> int:
    """The largest whole number that is no more than a value, which rounding may have put just below it."""
    return math.floor(value + 1e-6)


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Compute the share ``successes / n`` of independent trials with Wilson's score interval (1927).

    Raises:
        UnalikeError: ``successes`` is not in 0..n.
    """
    if n < 0 or not 0 <= successes <= max(n, 0):
        raise UnalikeError(f"{successes} successes of {n}", expected="0 <= successes <= n")
    if n == 0:
        return UNKNOWN
    share = successes / n
    return Interval(share, *score_bounds(share, n, NormalDist().inv_cdf(0.5 + confidence / 2)))


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


@functools.lru_cache(4096)
def _cached_student_quantile(freedom: float, level: float) -> float:
    return student_quantile(freedom, level)


@functools.lru_cache(4096)
def _poisson_bound(events: float, level: float) -> float:
    """The mean at which so many Poisson events, or more, have a probability of ``level``; ``events`` need not be whole."""
    if events <= 0:
        return 0.0

    def at_least(mean: float) -> float:
        """The regularized lower incomplete gamma function P(events, mean), by its series (NIST DLMF, 8.7.1)."""
        term = total = math.exp(events * math.log(mean) - mean - math.lgamma(events + 1)) if mean > 0 else 0.0
        for k in range(1, 200):
            term *= mean / (events + k)
            total += term
        return total

    return events * _solve(lambda share: at_least(events * share), level)


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
    """Compute the share of a rare event with its interval over trials that come in groups.

    Clopper and Pearson's interval for the effective number of trials, corrected for few groups (Korn and Graubard,
    "Confidence intervals for proportions with small expected number of positive counts estimated from survey data", Survey
    Methodology, 1998). Where no event was observed, each group counts as one trial.

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
        The interval and the effective number of trials. NaN bounds and 1 with fewer than two groups.
    """
    values_Q = np.asarray(values_Q, float)
    trials = len(values_Q)
    if not trials:
        return UNKNOWN, 0.0
    sorts = [
        np.unique(np.asarray(groups), return_inverse=True)[1]
        for groups in (groups_Q, crossed_groups_Q)
        if groups is not None
    ]
    share = min(1.0, float(values_Q.mean()))
    if min(int(group_Q.max()) for group_Q in sorts) < 1:
        return Interval(share, math.nan, math.nan), 1.0
    if len(sorts) == 2:
        sorts.append(np.unique(sorts[0] * (int(sorts[1].max()) + 1) + sorts[1], return_inverse=True)[1])
    away_Q, weight_Q = values_Q - share, np.full(trials, 1 / trials)
    rarer = _rarer_outcomes(share, values_Q)
    carrying = [min(_carrying_groups(rarer_Q, group_Q) for rarer_Q in rarer) for group_Q in sorts]
    effects = [_design_effect(away_Q, g, k, weight_Q) for g, k in zip(sorts, carrying, strict=True)]
    effect = max([1.0, *effects[:2], effects[0] + effects[1] - effects[2]] if len(sorts) == 3 else [1.0, *effects])
    effective = trials / effect if carrying[0] else float(min(int(group_Q.max()) + 1 for group_Q in sorts[:2]))
    freedom = min(_freedom(k, g, weight_Q) for g, k in zip(sorts[:2], carrying[:2], strict=True))
    scaled = effective * (NormalDist().inv_cdf(0.5 + confidence / 2) / _quantile(freedom, confidence)) ** 2
    scaled /= (2 if new_sample else 1) * (SYMMETRIC_FACTOR if symmetric else 1)
    bounds = clopper_pearson(share * scaled, scaled, confidence)
    low, high = bounds.low, bounds.high
    if new_sample:
        low, high = math.floor(low * trials) / trials, math.ceil(high * trials) / trials
    return Interval(share, low, high), effective
