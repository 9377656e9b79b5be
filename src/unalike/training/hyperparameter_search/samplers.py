"""Optuna's samplers and pruners by the names that a spec may hold, with a seed for each trial."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from unalike.spec.automl import ALGORITHMS, Algorithm

# The search prints its own messages; Optuna's warnings about experimental arguments are no concern of the user.
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
warnings.filterwarnings("ignore", module="optuna")

DEFAULT_ALGORITHM = "bayesian"
STARTUP_TRIALS = 10  # drawn at random before a sampler uses its model; Optuna's default


def find_algorithm(name: str | None) -> tuple[str, Algorithm]:
    """Return the algorithm of this name, or the default one, with its name."""
    algorithm = name or DEFAULT_ALGORITHM
    return algorithm, ALGORITHMS[algorithm]


def build_sampler(name: str, *, seed: int, number: int, trials: int | None) -> BaseSampler:
    """Build the sampler of one trial.

    Its random numbers depend on the seed and the trial's number alone, so that a search that was killed continues as if it
    had not been. Trial 0 has fixed values, those of the user's own spec; the algorithm sees it as a finished trial only
    (NSGA-II would otherwise count it as a member of its first generation).

    Args:
        name: tpe, gp, qmc, nsga2 or random.
        seed: seed of the search.
        number: number of the trial.
        trials: number of trials of the search, where it is limited.
    """
    trial_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if number == 0:
        return optuna.samplers.RandomSampler(seed=trial_seed)
    startup = STARTUP_TRIALS if trials is None else max(3, min(STARTUP_TRIALS, trials // 3))
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=trial_seed, n_startup_trials=startup, multivariate=True, group=True,
                                          constant_liar=True)  # fmt: skip
    if name == "gp":
        return optuna.samplers.GPSampler(seed=trial_seed, n_startup_trials=startup)
    if name == "qmc":  # one sequence, whose position is in the storage: its seed must not change
        return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_asynchronous_seeding=False,
                                          warn_independent_sampling=False)  # fmt: skip
    if name == "nsga2":
        population = 20 if trials is None else max(4, min(20, trials // 4))
        return optuna.samplers.NSGAIISampler(seed=trial_seed, population_size=population)
    return optuna.samplers.RandomSampler(seed=trial_seed)


def suggest_value(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    """Draw one value of a trial.

    Args:
        trial: the trial.
        name: the field.
        distribution: what the value is drawn from.
    """
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def build_pruner(name: str, *, epochs: int, reduction_factor: int) -> BasePruner:
    """Build a pruner for trials of at most ``epochs`` epochs.

    Args:
        name: none, median, halving, hyperband or patient.
        epochs: epochs of the longest trial.
        reduction_factor: of successive halving and Hyperband.
    """
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 4))
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=reduction_factor)
    hyperband = optuna.pruners.HyperbandPruner(
        min_resource=1, max_resource=max(epochs, 1), reduction_factor=reduction_factor
    )
    if name == "hyperband":
        return hyperband
    if name == "patient":
        return optuna.pruners.PatientPruner(hyperband, patience=max(1, epochs // 5))
    return optuna.pruners.NopPruner()
