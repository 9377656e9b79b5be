"""Simulate the threshold of `inspect fit`: does the stated false-alarm rate hold, with and without odd images among the good ones?

Scores of good images are drawn from several distributions; with odd images, one in thirty (at least one) is 1.3 to 3 times the
highest of the others. Printed for each: how often images were left out, the mean true rate of good images, and how often the
95 % interval holds it.

    python benchmarks/false_alarm_simulation.py [--draws 1500] [--seed 0]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from unalike.metrics.false_alarm import fit_threshold, images_needed

Draw = Callable[[np.random.Generator, int], np.ndarray]
POPULATIONS: dict[str, Draw] = {
    "normal, cv 0.08": lambda rng, n: rng.normal(1, 0.08, n).clip(0.01),
    "log-normal, sigma 0.3": lambda rng, n: rng.lognormal(0, 0.3, n),
    "log-normal, sigma 1": lambda rng, n: rng.lognormal(0, 1, n),
    "gamma, shape 4": lambda rng, n: rng.gamma(4, 0.25, n),
    "exponential": lambda rng, n: rng.exponential(1, n),
    "1 + 0.1 exponential": lambda rng, n: 1 + 0.1 * rng.exponential(1, n),
    "Student t 5, cv 0.1": lambda rng, n: (1 + 0.08 * rng.standard_t(5, n)).clip(0.01),
    "Student t 3, cv 0.14": lambda rng, n: (1 + 0.08 * rng.standard_t(3, n)).clip(0.01),
    "Pareto 3": lambda rng, n: rng.pareto(3, n) + 1,
}
COUNTS, RATES, POPULATION_SIZE = (20, 31, 60, 100, 300), (0.05, 0.02), 400_000


def simulate(draw: Draw, count: int, rate: float, odd: bool, draws: int, rng: np.random.Generator) -> tuple[float, ...]:
    """(share of draws with outliers left out, mean true rate, coverage of the interval)."""
    population = np.sort(draw(rng, POPULATION_SIZE))
    excluded, rates, covered = 0, [], 0
    for _ in range(draws):
        scores = draw(rng, count)
        if odd:
            most = max(1, count // 30)
            scores[:most] = scores[most:].max() * rng.uniform(1.3, 3, most)
        threshold = fit_threshold(scores, rate)
        true_rate = 1 - np.searchsorted(population, threshold.threshold, "right") / POPULATION_SIZE
        excluded += bool(threshold.outliers)
        covered += threshold.low <= true_rate <= threshold.high
        rates.append(true_rate)
    return excluded / draws, float(np.mean(rates)), covered / draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    print(f"{'scores':22} {'images':>6} {'stated':>6}   left out / true rate / coverage: all good, with odd images")
    for rate in RATES:
        for count in COUNTS:
            if count < images_needed(rate):
                continue
            for name, draw in POPULATIONS.items():
                clean, odd = (simulate(draw, count, rate, odd, options.draws, rng) for odd in (False, True))
                cells = [f"{left_out:.3f} / {mean:.4f} / {held:.3f}" for left_out, mean, held in (clean, odd)]
                print(f"{name:22} {count:6} {rate:6.2f}   {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
