"""Section ``automl``: how long a search may take, what it varies, by which algorithm, and where its trials run."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator

from unalike.spec.declare import Section, Text, field


class Algorithm(NamedTuple):
    """The Optuna sampler and pruner of an algorithm's name, and how they differ from the algorithm of that name."""

    sampler: str
    pruner: str
    note: str = ""


# TAO's names first, then the samplers' own.
ALGORITHMS: dict[str, Algorithm] = {
    "bayesian": Algorithm("tpe", "median"),
    "bfbo": Algorithm("gp", "none", "a Gaussian process that allows for trials still running"),
    "hyperband": Algorithm("random", "hyperband"),
    "bohb": Algorithm("tpe", "hyperband"),
    "asha": Algorithm("random", "halving"),
    "dehb": Algorithm("nsga2", "hyperband", "genetic instead of differential evolution"),
    "hyperband_es": Algorithm("random", "patient"),
    "pbt": Algorithm("nsga2", "median", "the population evolves between trials; within one, settings stay"),
    "tpe": Algorithm("tpe", "median"),
    "gp": Algorithm("gp", "median"),
    "random": Algorithm("random", "none"),
    "qmc": Algorithm("qmc", "none"),
    "nsga2": Algorithm("nsga2", "none"),
}
# TAO's algorithms that query a language model for the next trial, which would send settings and results to another machine.
LANGUAGE_MODEL_ALGORITHMS = ("llm", "hybrid", "autoresearch")
PRUNERS = ("none", "median", "halving", "hyperband", "patient")

# TAO's settings at the top of a spec -> ours. Both spellings of one setting in one spec are an error.
SPELLINGS = {
    "automl_algorithm": "automl.algorithm",
    "automl_max_recommendations": "automl.trials",
    "automl_max_epochs": "automl.max_epochs",
    "automl_reduction_factor": "automl.reduction_factor",
    "automl_max_concurrent": "automl.concurrent",
    "automl_hyperparameters": "automl.parameters",
    "custom_param_ranges": "automl.ranges",
    "direction": "automl.direction",
}


def _names(value: object) -> object:
    """TAO writes the list as text: ``'["train.optim.trunk.base_lr"]'``; names with commas between them do too."""
    if isinstance(value, str):
        return [name for name in re.split(r"[\s,\[\]\"']+", value) if name]
    return [] if value is None else value


def _no_ranges(value: object) -> object:
    return {} if value is None else value


MAX_MINUTES = 366 * 24 * 60  # a year: more is a slip of the keyboard, and other clocks overflow


class Automl(Section):
    minutes: float | None = field(
        None, "Time that may be spent, everything included; unset and without `trials`: 10 without a GPU.",
        gt=0, le=MAX_MINUTES, units="minutes", ours=True,
    )  # fmt: skip
    trials: int | None = field(
        None, "Trainings that may be tried, your own spec being the first; unset and without `minutes`: 20 with a GPU.",
        ge=1, ours=True,
    )  # fmt: skip
    goal: Literal["new-classes", "known-classes", "both"] = field(
        "new-classes", "What the recogniser is for: classes that it has never seen, the ones that it is trained on, or both.",
        ours=True,
    )  # fmt: skip
    seed: int | None = field(None, "Seed of the search; unset means train.seed.", ge=0, le=2**32 - 1, ours=True)
    algorithm: str | None = field(
        None, f"How the next trial is chosen: {', '.join(ALGORITHMS)}; unset means bayesian.", min_length=1, ours=True
    )
    pruner: Literal["none", "median", "halving", "hyperband", "patient"] | None = field(
        None, "When a trial that does badly is ended early; unset means what belongs to the algorithm.", ours=True
    )
    parameters: Annotated[list[str], BeforeValidator(_names)] = field(
        [], "Dotted fields to search; empty means the usual ones, as far as they act.",
        ours=True, automl_enabled=False, schema={"type": ["array", "string", "null"]},
    )  # fmt: skip
    ranges: Annotated[dict[str, Any], BeforeValidator(_no_ranges)] = field(
        {}, "What a field may become, by its dotted name: [low, high], a list of values, or {low, high, log, step, values}.",
        ours=True, automl_enabled=False, schema={"type": ["object", "null"]},
    )  # fmt: skip
    direction: Literal["maximize", "minimize"] | None = field(
        None, "Whether more or less of the monitored figure is better; unset means what train.checkpointer.mode says.",
        ours=True,
    )  # fmt: skip
    max_epochs: int | None = field(
        None, "Epochs of each trial; unset means train.num_epochs.", ge=1, units="epochs", ours=True
    )
    reduction_factor: int = field(
        3, "Of the trials at a rung, hyperband and halving let one in so many go on.", ge=2, le=100, ours=True
    )
    concurrent: int | None = field(
        None, "Trials at the same time; unset means one a GPU, and one on a CPU, whose threads they would share.",
        ge=1, le=1024, ours=True,
    )  # fmt: skip
    storage: Text = field(
        None, "Optuna storage where several machines meet, such as mysql://user@host/base or sqlite:////shared/study.db; "
        "unset means study.db in the run's folder.",
        ours=True,
    )  # fmt: skip
    study: str = field("search", "Name of the search in the storage; processes with the same name share it.",
                       min_length=1, ours=True)  # fmt: skip
    cluster: Literal["local", "ray"] = field("local", "Who runs the trials: this machine, or a Ray cluster.", ours=True)
    address: Text = field(
        None, "Address of the Ray cluster; unset starts one on this machine. All its machines must see results_dir.",
        ours=True,
    )  # fmt: skip
    keep_checkpoints: bool = field(
        False,
        "Keep every checkpoint of every trial; otherwise a finished one keeps its best and its latest.",
        ours=True,
    )

    def requests_search(self) -> bool:
        """Whether a field is set that only a hyperparameter search uses."""
        return bool(self.trials or self.parameters or self.ranges or self.algorithm or self.pruner or self.max_epochs
                    or self.concurrent or self.storage or self.cluster != "local")  # fmt: skip
