"""Calibrate a verifier: trials rendered from the assets alone set its thresholds.

Shape letters: A assets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

from unalike import progress
from unalike.metrics.roc import trials_needed
from unalike.numerics.arguments import check_count
from unalike.runs.environment import usable_cores
from unalike.verification.matching import AssetMatcher
from unalike.verification.measures import AssetDifference
from unalike.verification.tampering import TAMPERING
from unalike.verification.thresholds import (
    TrialMeasurements,
    VerificationThresholds,
    check_rate,
    fit_thresholds,
    require_trials,
)
from unalike.verification.trials import (
    VerificationTrial,
    measure_asset,
    render_trials,
    stack_measurements,
)

# Least number of genuine trials of an asset, and bounds of the tampered and other ones; within them the rate decides.
MIN_GENUINE, MIN_TRIALS, MAX_TRIALS = 6, 8, 400
# Assets from this cosine similarity on are compared with each other, and are twins if all measures stay below these.
TWIN_SIMILARITY = 0.97
TWIN_LIMITS = {"parts": 0.12, "colour": 4.0, "distortion": 0.02, "area": 0.01}


def calibrate_thresholds(
    matcher: AssetMatcher,
    rate: float,
    *,
    trials: int | None = None,
    kinds: Collection[str] = TAMPERING,
    confidence: float = 0.95,
    seed: int = 0,
    threads: int | None = None,
) -> tuple[VerificationThresholds, tuple[tuple[str, str], ...]]:
    """Render trials of the assets and fit the thresholds to them.

    Args:
        matcher: The assets.
        rate: Target rate of false accepts, 0 to 1.
        trials: Tampered copies of each asset; as many as the rate needs if unset.
        kinds: Kinds of tampering.
        confidence: Confidence of the intervals, 0 to 1.
        seed: Determines the trials.
        threads: CPU cores that the trials may use; all if unset.

    Returns:
        The thresholds, and the pairs of assets that cannot be told apart.

    Raises:
        DataError: The trials cannot support the rate.
        SpecError: A setting is out of range, or a kind unknown.
    """
    check_rate(rate, confidence)
    seed, threads = check_count("seed", seed, 0), None if threads is None else check_count("threads", threads)
    trials = None if trials is None else check_count("trials", trials)
    assets = matcher.assets
    twins = find_twins(matcher)
    if trials is None:
        required_trials = int(np.ceil(1.1 * trials_needed(rate, confidence) / len(assets)))
        trials = int(np.clip(required_trials, MIN_TRIALS, MAX_TRIALS))
    require_trials(trials * len(assets), trials * len(assets), rate, confidence)
    similarity_AA = matcher.asset_similarities()
    exclusions: dict[str, set[str]] = {asset.name: {asset.name} for asset in assets}
    for first, second in twins:
        exclusions[first].add(second)
        exclusions[second].add(first)

    def similar(number: int) -> list[int]:
        order = np.argsort(-similarity_AA[number], kind="stable").tolist()
        return [i for i in order if assets[i].name not in exclusions[assets[number].name]]

    genuine = max(MIN_GENUINE, trials // 2)
    rendered = render_trials(
        assets, genuine=genuine, tampered=trials, others=trials, kinds=kinds, similar=similar, seed=seed
    )
    measurements = measure_trials(matcher, rendered, len(assets) * (2 * trials + genuine), threads)
    return fit_thresholds(measurements, rate, confidence), twins


def measure_trials(
    matcher: AssetMatcher, trials: Iterable[VerificationTrial], total: int, threads: int | None = None
) -> TrialMeasurements:
    """Measure trials, a few at a time and by threads; ``total`` is their number for the progress bar."""
    measurements: list[tuple[AssetDifference | None, int, str, float]] = []
    remaining = iter(trials)
    workers = threads or usable_cores()
    with ThreadPoolExecutor(workers) as pool, progress.progress("calibrating", total, "trials") as advance:
        while batch := list(islice(remaining, max(8, matcher.engine.batch))):
            differences = list(pool.map(lambda t: measure_asset(matcher.template(t.asset), t.image_HW3), batch))
            vectors_ND = matcher.embed([trial.image_HW3 for trial in batch])
            for trial, difference, vector_D in zip(batch, differences, vectors_ND, strict=True):
                similarity = float(matcher.similarities(vector_D)[trial.asset])
                measurements.append((difference, trial.asset, trial.kind, similarity))
            advance(len(batch))
    return stack_measurements(*zip(*measurements, strict=True))


def find_twins(matcher: AssetMatcher) -> tuple[tuple[str, str], ...]:
    """Find pairs of assets that are one drawing: an image of one does not differ from the other."""
    assets = matcher.assets
    pairs = []
    for first, second in np.argwhere(np.triu(matcher.asset_similarities(), 1) > TWIN_SIMILARITY).tolist():
        difference = measure_asset(matcher.template(first), assets[second].composite())
        if difference and all(difference.measures[name] < limit for name, limit in TWIN_LIMITS.items()):
            pairs.append((assets[first].name, assets[second].name))
    if pairs:
        pairs_text = ", ".join(f"{a} and {b}" for a, b in pairs[:3])
        progress.say(f"{len(pairs)} pairs of assets cannot be told apart: {pairs_text}")
    return tuple(pairs)
