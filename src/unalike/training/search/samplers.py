"""Optuna's samplers and pruners by the names that a spec may hold, seeded trial by trial."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from unalike.spec.automl import ALGORITHMS, Algorithm

# What Optuna logs is said by us; its notes on experimental arguments are ours to know.
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
warnings.filterwarnings("ignore", module="optuna")

DEFAULT = "bayesian"
STARTUP_TRIALS = 10  # drawn at random before a sampler trusts its model, Optuna's own number


def algorithm(name: str | None) -> tuple[str, Algorithm]:
    """The name in force and what stands for it."""
    chosen = name or DEFAULT
    return chosen, ALGORITHMS[chosen]


class OwnFirst(BaseSampler):
    """Trial 0 is the user's own spec (TAO never tries it, D38); every other trial is the inner sampler's."""

    def __init__(self, inner: BaseSampler, own: Mapping[str, Any]) -> None:
        self.inner, self.own = inner, own

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {} if trial.number == 0 else self.inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
        return {} if trial.number == 0 else self.inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        if trial.number == 0:
            return self.own[param_name]
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Any, trial: Any) -> None:
        self.inner.before_trial(study, trial)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        self.inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self.inner.reseed_rng()


def build_sampler(name: str, *, seed: int, number: int, trials: int | None) -> BaseSampler:
    """The sampler of the next trial.

    Its random numbers depend on the seed and the trial's number alone, so that a search that was killed goes on as if
    nothing had happened.
    """
    own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    startup = STARTUP_TRIALS if trials is None else max(3, min(STARTUP_TRIALS, trials // 3))
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=own_seed, n_startup_trials=startup, multivariate=True, group=True,
                                          constant_liar=True)  # fmt: skip
    if name == "gp":
        return optuna.samplers.GPSampler(seed=own_seed, n_startup_trials=startup)
    if name == "qmc":  # one sequence, whose place the storage keeps: its seed must not change
        return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_asynchronous_seeding=False,
                                          warn_independent_sampling=False)  # fmt: skip
    if name == "nsga2":
        population = 20 if trials is None else max(4, min(20, trials // 4))
        return optuna.samplers.NSGAIISampler(seed=own_seed, population_size=population)
    return optuna.samplers.RandomSampler(seed=own_seed)


def suggest_value(trial: Any, name: str, distribution: Any) -> Any:
    """Draw one value of a trial."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    whole = isinstance(distribution, optuna.distributions.IntDistribution)
    suggest = trial.suggest_int if whole else trial.suggest_float
    return suggest(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def build_pruner(name: str, *, epochs: int, reduction_factor: int) -> BasePruner:
    """The pruner by its name for trials of at most ``epochs`` epochs."""
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
