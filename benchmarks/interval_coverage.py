"""Coverage and width of the confidence intervals, by simulation, in samples of 2 to 1,000 classes.

    python benchmarks/interval_coverage.py [--draws 2000] [--seed 0] [--classes 2 10 81] [--parts classes these values pairs prediction]

Rates differ by class: not at all, by a beta distribution (correlation 0.02 to 0.6 within a class), or two kinds of classes.
Two claims are simulated: the mean over classes like these (each draw has new classes), and the mean over these classes (each
draw's own). The oracle of both knows everything but the mean: it is Wilson's interval with the normal quantile for the number
of independent queries that the true rates make of the sample. Equal and unequal classes (0.3 to 1.8 times the size).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

from unalike.metrics.intervals import (
    LEAST_EFFECT,
    MOST_RARE,
    PRIOR_CORRELATION,
    PRIOR_WEIGHT,
    TIE,
    Interval,
    _poisson_bound,
    difference_interval,
    mean_interval,
)
from unalike.metrics.prediction import prediction_interval

CLASSES = (2, 3, 5, 8, 10, 12, 20, 50, 81, 200, 1000)
IMAGES = (2, 5, 15, 60)
MEANS = (0.3, 0.5, 0.8, 0.9, 0.95, 0.99)
CORRELATIONS = (0.0, 0.02, 0.1, 0.3, 0.6)
# Two kinds of classes: rate of the first, of the second, share of the second.
MIXTURES = ((0.98, 0.5, 0.5), (0.95, 0.8, 0.5), (0.9, 0.3, 0.2))
UNEQUAL = np.array([0.3, 0.5, 1, 1.4, 1.8])
MOST_QUERIES = 60_000
# So many samples of a scenario are computed by the function itself too.
CHECKED = 2
INDEPENDENT = ((10, 0.8), (10, 0.95), (20, 0.95), (50, 0.98), (100, 0.99), (300, 0.97), (1000, 0.9), (1000, 0.5))


@dataclass(frozen=True)
class Scenario:
    """A population of classes, and the sizes of those in a sample.

    Attributes:
        size_G: Queries of each class.
        mean: Mean rate over the population.
        correlation: Correlation of two queries of one class.
        mixture: (rate of the first kind, of the second, share of the second), or None for a beta distribution.
    """

    size_G: np.ndarray
    mean: float
    correlation: float
    mixture: tuple[float, float, float] | None = None

    def draw_rates(self, rng: np.random.Generator) -> np.ndarray:
        """Rate of each class of a sample."""
        if self.mixture:
            first, second, share = self.mixture
            return np.where(rng.random(len(self.size_G)) < share, second, first)
        if not self.correlation:
            return np.full(len(self.size_G), self.mean)
        total = 1 / self.correlation - 1
        return rng.beta(self.mean * total, (1 - self.mean) * total, len(self.size_G))

    @property
    def effective(self) -> float:
        """Number of independent queries that tell as much about the population's mean."""
        queries = float(self.size_G.sum())
        return queries / (1 + (float(self.size_G @ self.size_G) / queries - 1) * self.correlation)

    @property
    def identifiable(self) -> bool:
        """Whether at most one sample in twenty holds only one kind of classes."""
        if not self.mixture:
            return True
        share = self.mixture[2]
        return (1 - share) ** len(self.size_G) + share ** len(self.size_G) <= 0.05


def scenarios(classes: int) -> Iterator[Scenario]:
    """All scenarios with this number of classes."""
    for images, unequal in itertools.product(IMAGES, (False, True)):
        size_G = np.full(classes, images)
        if unequal:
            size_G = np.maximum(1, np.round(images * UNEQUAL[np.arange(classes) % 5])).astype(int)
        if not 10 <= size_G.sum() <= MOST_QUERIES:
            continue
        for mean, correlation in itertools.product(MEANS, CORRELATIONS):
            yield Scenario(size_G, mean, correlation)
        for first, second, share in MIXTURES:
            mean = first * (1 - share) + second * share
            correlation = share * (1 - share) * (first - second) ** 2 / (mean * (1 - mean))
            yield Scenario(size_G, mean, correlation, (first, second, share))


def share_bounds(hits_DG: np.ndarray, size_G: np.ndarray, these: bool) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of ``mean_interval`` for many samples at once, from the hits of each class; groups, or strata if ``these``.

    ``measure`` compares some of them with those of the function itself.
    """
    queries, groups = float(size_G.sum()), len(size_G)
    share_D = hits_DG.sum(1) / queries
    binomial_D = share_D * (1 - share_D) / queries
    is_low_D, is_high_D = share_D < 0.5 + TIE, share_D > 0.5 - TIE
    rarer_DG = np.where(is_low_D[:, None], hits_DG, size_G - hits_DG)
    if these:
        even, prior, carrying_D = queries, 1.0, rarer_DG.sum(1)
        rate_DG = hits_DG / size_G
        single_G = size_G < 2
        within_DG = size_G**2 / np.maximum(size_G - 1, 1) * rate_DG * (1 - rate_DG)
        within_DG[:, single_G] = (hits_DG - share_D[:, None])[:, single_G] ** 2
        variance_D = within_DG.sum(1) / queries**2
        most_D = 4 * carrying_D + 8
    else:
        even = queries**2 / float(size_G @ size_G)
        prior = 1 + (queries / even - 1) * PRIOR_CORRELATION
        carrying_D = rarer_DG.sum(1) ** 2 / np.maximum((rarer_DG**2).sum(1), 1e-9)
        misses_DG = size_G - hits_DG
        other_D = misses_DG.sum(1) ** 2 / np.maximum((misses_DG**2).sum(1), 1e-9)
        carrying_D = np.where(is_low_D & is_high_D, np.minimum(carrying_D, other_D), carrying_D)
        away_DG = hits_DG - size_G * share_D[:, None]
        variance_D = groups / (groups - 1) * (away_DG**2).sum(1) / queries**2
        most_D = 2 * carrying_D + 1
    measured_D = np.maximum(LEAST_EFFECT, variance_D / np.maximum(binomial_D, 1e-300))
    weight_D = np.minimum(carrying_D, even - 1) ** 3 / (even - 1)
    effect_D = np.exp((weight_D * np.log(measured_D) + PRIOR_WEIGHT * np.log(prior)) / (weight_D + PRIOR_WEIGHT))
    effect_D = np.where(binomial_D > 0, effect_D, prior)
    freedom_D = np.maximum(1, np.where(carrying_D > 0, np.minimum(even - 1, most_D), even - 1))
    quantile_D = scipy.stats.t.ppf(0.975, np.floor(10 * np.minimum(freedom_D, 1000) + 1e-6) / 10)
    trials_D = queries / effect_D
    low_D, high_D = wilson_bounds(share_D, trials_D, quantile_D)
    rare_D = trials_D * np.minimum(share_D, 1 - share_D)
    bound_D = np.interp(
        np.floor(20 * rare_D + 1e-6) / 20, np.arange(201) / 20, [_poisson_bound(i / 20, 0.05) for i in range(201)]
    )
    applies_D = (rare_D > 0) & (rare_D <= MOST_RARE)
    low_D = np.where(applies_D & is_low_D, np.minimum(low_D, bound_D / trials_D), low_D)
    high_D = np.where(applies_D & is_high_D, np.maximum(high_D, 1 - bound_D / trials_D), high_D)
    return low_D, high_D


def wilson_bounds(share_D: np.ndarray, trials_D: np.ndarray, quantile_D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``score_bounds`` of many samples at once."""
    square_D = quantile_D**2
    center_D = (share_D + square_D / (2 * trials_D)) / (1 + square_D / trials_D)
    error_D = np.sqrt(share_D * (1 - share_D) / trials_D + square_D / (4 * trials_D**2))
    half_D = quantile_D / (1 + square_D / trials_D) * error_D
    return np.maximum(0, np.minimum(share_D, center_D - half_D)), np.minimum(1, np.maximum(share_D, center_D + half_D))


def measure(scenario: Scenario, draws: int, rng: np.random.Generator, these: bool) -> dict[str, float]:
    """Coverage and width.

    Args:
        scenario: What is sampled.
        draws: Number of samples.
        rng: Source of randomness.
        these: Whether the truth is the mean rate of the classes in the sample.
    """
    size_G, queries = scenario.size_G, scenario.size_G.sum()
    rate_DG = np.stack([scenario.draw_rates(rng) for _ in range(draws)])
    hits_DG = rng.binomial(size_G, rate_DG).astype(float)
    low_D, high_D = share_bounds(hits_DG, size_G, these)
    for hits_G, low, high in zip(hits_DG[:CHECKED], low_D, high_D, strict=False):
        hits_Q = np.concatenate([np.arange(size) < hits for size, hits in zip(size_G, hits_G, strict=True)]).astype(
            float
        )
        group_Q = np.repeat(np.arange(len(size_G)), size_G)
        interval = mean_interval(hits_Q, strata_Q=group_Q) if these else mean_interval(hits_Q, group_Q)
        if not np.allclose((interval.low, interval.high), (low, high), atol=2e-3):  # degrees of freedom are rounded
            raise SystemExit(f"{scenario}: {interval} of mean_interval, {low:.6f} to {high:.6f} here")
    truth_D, effective_D = np.full(draws, scenario.mean), np.full(draws, scenario.effective)
    if these:
        truth_D = rate_DG @ size_G / queries
        variance_D = (rate_DG * (1 - rate_DG)) @ size_G / queries**2
        effective_D = np.maximum(1, truth_D * (1 - truth_D) / np.maximum(variance_D, 1e-12))
    best_low_D, best_high_D = wilson_bounds(hits_DG.sum(1) / queries, effective_D, np.full(draws, 1.96))
    return {
        "classes": len(size_G), "queries": int(queries), "mean": round(scenario.mean, 3),
        "correlation": round(scenario.correlation, 3), "mixture": scenario.mixture is not None,
        "unequal": bool(size_G.min() < size_G.max()), "identifiable": scenario.identifiable,
        "effective": float(queries) if these else round(scenario.effective, 1),
        "coverage": float(np.mean((low_D - 1e-9 <= truth_D) & (truth_D <= high_D + 1e-9))),
        "width": float((high_D - low_D).mean() / (best_high_D - best_low_D).mean()),
    }  # fmt: skip


def measure_prediction(scenario: Scenario, draws: int, rng: np.random.Generator, further: int) -> float:
    """How often the mean of a further sample lies in the range that is stated for so many images.

    Its images are of the same classes, in the same proportions.
    """
    size_G = scenario.size_G
    rate_DG = np.stack([scenario.draw_rates(rng) for _ in range(draws)])
    hits_DG = rng.binomial(size_G, rate_DG).astype(float)
    low_D, high_D = share_bounds(hits_DG, size_G, these=False)
    further_DG = rng.multinomial(further, size_G / size_G.sum(), draws)
    share_D = rng.binomial(further_DG, rate_DG).sum(1) / further
    covered = 0
    for low, high, value, share in zip(low_D, high_D, hits_DG.sum(1) / size_G.sum(), share_D, strict=True):
        stated = prediction_interval(Interval(float(value), float(low), float(high)), further)
        covered += stated.low - 1e-9 <= share <= stated.high + 1e-9
    return covered / draws


def print_predictions(classes: Sequence[int], draws: int, seed: int) -> None:
    """A line for each number of classes and of further images."""
    print("\n| classes | further images | scenarios | coverage: lowest, mean | below 93 % |\n|---|---|---|---|---|")
    for number, further in itertools.product(classes, (20, 100, 1000)):
        coverage = np.array([
            measure_prediction(scenario, draws, np.random.default_rng([seed, number, further, index]), further)
            for index, scenario in enumerate(scenarios(number)) if scenario.identifiable
        ])  # fmt: skip
        print(f"| {number} | {further} | {len(coverage)} | {coverage.min():.3f}, {coverage.mean():.3f} | "
              f"{np.mean(coverage < 0.93):.3f} |", flush=True)  # fmt: skip


def print_table(title: str, rows: list[dict[str, float]]) -> None:
    """A line for each number of classes, and the lowest coverages."""
    print(f"\n{title}\n")
    print("| classes | scenarios | coverage: lowest, mean | below 93 % | width / oracle's: all, mean <= 0.95 | "
          "30 or more effective queries, mean <= 0.95: scenarios, coverage above 97 %, width / oracle's: mean, highest |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    for classes in sorted({row["classes"] for row in rows}):
        part = [row for row in rows if row["classes"] == classes]
        coverage, width = (np.array([row[name] for row in part]) for name in ("coverage", "width"))
        low = np.array([row["mean"] <= 0.95 for row in part])
        usual = low & np.array([row["effective"] >= 30 for row in part])
        of_usual = (
            f"{usual.sum()}, {np.mean(coverage[usual] > 0.97):.2f}, {width[usual].mean():.2f}, {width[usual].max():.2f}"
            if usual.any()
            else ""
        )
        print(f"| {classes} | {len(part)} | {coverage.min():.3f}, {coverage.mean():.3f} | {np.mean(coverage < 0.93):.3f} | "
              f"{width.mean():.2f}, {width[low].mean():.2f} | {of_usual} |")  # fmt: skip
    for row in sorted(rows, key=lambda row: row["coverage"])[:5]:
        print(f"low: {row}")


def measure_values(draws: int, rng: np.random.Generator) -> None:
    """A metric between 0 and 1 whose classes differ: mean over queries and over classes."""
    print(
        "\n| metric per query, classes x images | coverage: over queries, over classes | width / that of the true error |"
    )
    print("|---|---|---|")
    for groups, size in ((10, 4), (10, 30), (20, 8), (40, 8), (300, 3)):
        covered, widths, means = np.zeros(2), np.zeros(2), []
        for _ in range(draws):
            center_G = rng.beta(4, 1, groups)[:, None]
            values_Q = np.clip(center_G + rng.normal(0, 0.1, (groups, size)), 0, 1).ravel()
            means.append(float(values_Q.mean()))
        truth, error = float(np.mean(means)), float(np.std(means))
        for _ in range(draws):
            center_G = rng.beta(4, 1, groups)[:, None]
            values_Q = np.clip(center_G + rng.normal(0, 0.1, (groups, size)), 0, 1).ravel()
            group_Q = np.repeat(np.arange(groups), size)
            both = mean_interval(values_Q, group_Q), mean_interval(values_Q, group_Q, averaged_over_Q=group_Q)
            covered += [one.low <= truth <= one.high for one in both]
            widths += [one.high - one.low for one in both]
        print(f"| {groups} x {size} | {covered[0] / draws:.3f}, {covered[1] / draws:.3f} | "
              f"{', '.join(f'{w / draws / (2 * 1.96 * error):.2f}' for w in widths)} |")  # fmt: skip


def measure_pairs(draws: int, rng: np.random.Generator) -> None:
    """How often two models that are equal on average are called apart, and the width against the true error's."""
    print(
        "\n| two models, classes x images | the same rates: called apart, width | rates differ by class: called apart, width |"
    )
    print("|---|---|---|")
    for groups, size in ((2, 5), (3, 5), (5, 4), (5, 20), (8, 15), (10, 4), (10, 30), (20, 8), (40, 4), (40, 60),
                         (81, 4), (300, 4), (1000, 5)):  # fmt: skip
        cells = []
        for differ in (False, True):
            apart, width, means = 0, 0.0, []
            for _ in range(draws):
                rate_G = rng.beta(4, 1, groups)[:, None]
                other_G = rng.beta(4, 1, groups)[:, None] if differ else rate_G
                before, after = (
                    (rng.random((groups, size)) < rates).astype(float).ravel() for rates in (rate_G, other_G)
                )
                interval = difference_interval(before, after, np.repeat(np.arange(groups), size))
                apart += interval.excludes_zero
                width += interval.high - interval.low
                means.append(interval.value)
            cells.append(f"{apart / draws:.3f}, {width / draws / (2 * 1.96 * np.std(means)):.2f}")
        print(f"| {groups} x {size} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classes", type=int, nargs="+", default=list(CLASSES))
    parser.add_argument("--parts", nargs="+", default=["classes", "these", "values", "pairs", "prediction"])
    arguments = parser.parse_args()
    for name, title in (("classes", "Classes like these"), ("these", "These classes")):
        if name in arguments.parts:
            rows = [
                measure(
                    scenario, arguments.draws, np.random.default_rng([arguments.seed, classes, number]), name == "these"
                )
                for classes in arguments.classes
                for number, scenario in enumerate(scenarios(classes))
            ]
            print_table(title, [row for row in rows if name == "these" or row["identifiable"]])
            if name == "classes":
                hidden = [row["coverage"] for row in rows if not row["identifiable"]]
                print(f"two kinds, one of which more than one sample in twenty lacks: {len(hidden)} scenarios, coverage "
                      f"{min(hidden, default=1):.3f} at the least", flush=True)  # fmt: skip
    rng = np.random.default_rng(arguments.seed)
    if "values" in arguments.parts:
        measure_values(arguments.draws, rng)
        for queries, mean in INDEPENDENT:
            intervals = [mean_interval((rng.random(queries) < mean).astype(float)) for _ in range(arguments.draws)]
            print(f"{queries} independent queries, {mean}: {np.mean([i.low <= mean <= i.high for i in intervals]):.3f}")
    if "pairs" in arguments.parts:
        measure_pairs(arguments.draws, rng)
    if "prediction" in arguments.parts:
        print_predictions(arguments.classes, arguments.draws, arguments.seed)


if __name__ == "__main__":
    main()
