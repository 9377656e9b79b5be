"""Coverage and width of the confidence intervals, by simulation, in samples of 2 to 1,000 classes.

    python benchmarks/interval_coverage.py [--draws 400] [--seed 0]

Scenarios: hits whose rate differs by class (beta-binomial, correlation within a class 0 to 0.8, equal and unequal classes),
independent hits, a metric between 0 and 1, and paired differences of two equal models. Width is compared with an oracle's,
Wilson's interval for the true effective number of queries with the normal quantile.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import numpy as np

from unalike.metrics.intervals import Interval, difference_interval, mean_interval, score_bounds

SAMPLES = (
    (2, 5),
    (3, 5),
    (5, 4),
    (5, 20),
    (8, 15),
    (10, 4),
    (10, 30),
    (20, 8),
    (40, 4),
    (40, 60),
    (81, 4),
    (300, 4),
    (1000, 5),
)
MEANS = (0.5, 0.8, 0.9, 0.95, 0.98)
CORRELATIONS = (0.0, 0.2, 0.5, 0.8)
UNEQUAL = np.array([0.3, 0.5, 1, 1.4, 1.8])
INDEPENDENT = ((10, 0.8), (10, 0.95), (20, 0.95), (50, 0.98), (100, 0.99), (300, 0.97), (1000, 0.9), (1000, 0.5))


def draw_hits(
    rng: np.random.Generator, size_G: np.ndarray, mean: float, correlation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Hits and classes of queries; each class has a rate of its own where there is a correlation."""
    rate_G = np.full(len(size_G), mean)
    if correlation:
        total = 1 / correlation - 1
        rate_G = rng.beta(mean * total, (1 - mean) * total, len(size_G))
    group_Q = np.repeat(np.arange(len(size_G)), size_G)
    return (rng.random(len(group_Q)) < rate_G[group_Q]).astype(float), group_Q


def oracle(hits_Q: np.ndarray, size_G: np.ndarray, correlation: float) -> float:
    """Width of the interval of one who knows the correlation."""
    queries = size_G.sum()
    effect = 1 + (float(size_G @ size_G) / queries - 1) * correlation
    low, high = score_bounds(float(hits_Q.mean()), queries / effect, 1.96)
    return high - low


def measure_shares(draws: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """A row for each scenario of grouped hits."""
    rows = []
    for (groups, size), mean, correlation, unequal in itertools.product(SAMPLES, MEANS, CORRELATIONS, (False, True)):
        size_G = np.full(groups, size)
        if unequal:
            size_G = np.maximum(1, np.round(size * UNEQUAL[np.arange(groups) % 5])).astype(int)
        covered = width = best = 0.0
        for _ in range(draws):
            hits_Q, group_Q = draw_hits(rng, size_G, mean, correlation)
            interval = mean_interval(hits_Q, group_Q)
            covered += interval.low <= mean <= interval.high
            width += interval.high - interval.low
            best += oracle(hits_Q, size_G, correlation)
        effect = 1 + (float(size_G @ size_G) / size_G.sum() - 1) * correlation
        rows.append({"groups": groups, "size": size, "mean": mean, "correlation": correlation, "unequal": unequal,
                     "effective": size_G.sum() / effect, "coverage": covered / draws, "width": width / best})  # fmt: skip
    return rows


def false_alarm_share(
    draws: int, groups: int, size: int, rng: np.random.Generator, interval_of: Callable[..., Interval]
) -> float:
    """How often two equal models are called apart."""
    apart = 0
    for _ in range(draws):
        rate_G = rng.beta(4, 1, groups)[:, None]
        before, after = ((rng.random((groups, size)) < rate_G).astype(float).ravel() for _ in range(2))
        apart += interval_of(before, after, np.repeat(np.arange(groups), size)).excludes_zero
    return apart / draws


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    rows = measure_shares(arguments.draws, rng)
    print("| classes | scenarios | coverage: lowest, mean, highest | width against the oracle: mean, highest |")
    print("|---|---|---|---|")
    for groups in sorted({row["groups"] for row in rows}):
        part = [row for row in rows if row["groups"] == groups]
        coverage, width = (np.array([row[name] for row in part]) for name in ("coverage", "width"))
        print(f"| {groups} | {len(part)} | {coverage.min():.3f}, {coverage.mean():.3f}, {coverage.max():.3f} | "
              f"{width.mean():.2f}, {width.max():.2f} |")  # fmt: skip
    usual = [row for row in rows if row["effective"] >= 30 and row["mean"] <= 0.95]
    above = np.mean([row["coverage"] > 0.97 for row in usual])
    print(f"\n{len(usual)} scenarios of 30 or more effective queries and a mean of at most 0.95: coverage above 97 % in "
          f"{above:.0%}, width {np.mean([row['width'] for row in usual]):.2f} x the oracle's on average, above 1.3 x in "
          f"{np.mean([row['width'] > 1.3 for row in usual]):.0%}; of all {len(rows)}, coverage below 93 % in "
          f"{np.mean([row['coverage'] < 0.93 for row in rows]):.1%}")  # fmt: skip
    worst = min(rows, key=lambda row: row["coverage"])
    print(f"lowest: {worst}")
    for queries, mean in INDEPENDENT:
        intervals = [mean_interval((rng.random(queries) < mean).astype(float)) for _ in range(arguments.draws)]
        print(f"{queries} independent queries, {mean}: {np.mean([i.low <= mean <= i.high for i in intervals]):.3f}")
    for groups, size in SAMPLES:
        share = false_alarm_share(arguments.draws, groups, size, rng, difference_interval)
        print(f"two equal models, {groups} classes of {size}: called apart in {share:.3f}")


if __name__ == "__main__":
    main()
