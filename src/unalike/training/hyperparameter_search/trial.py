"""One trial of a hyperparameter search: its spec, its job, and the metrics that it writes.

A trial is a plain training with its own spec file, folder ``trial_NNN`` and process. Its metrics are read from its
``status.json``, so that a trial on another machine needs nothing but the shared folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from unalike.runs.filenames import LATEST_CHECKPOINT, PERIODIC_CHECKPOINTS, STATUS_FILE, TRIAL_SPEC_FILE
from unalike.spec import Experiment, load_spec
from unalike.spec.fields import declared_fields
from unalike.spec.ranges import FREE
from unalike.storage.atomic import write_text
from unalike.training.checkpoints import ranking_key

# Fields that a trial does not take from the user's spec: where to write, how to search, and the query set, by which
# nothing is selected.
_EXCLUDED = ("results_dir", "train.results_dir", "automl", "automl_policy", "dataset.val_dataset",
             "train.resume_training_checkpoint_path", "evaluate", "inference", "export", "gen_trt_engine")  # fmt: skip


def set_value(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path of nested mappings.

    Args:
        tree: the mappings; missing ones are added.
        path: the dotted path.
        value: the value.
    """
    *parents, name = path.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[name] = value


def user_settings(experiment: Experiment) -> dict[str, Any]:
    """Return what the user set, as far as trials take it over, as nested mappings."""
    tree: dict[str, Any] = {}
    for path, node in declared_fields().items():
        is_included = not any(path == name or path.startswith(name + ".") for name in _EXCLUDED)
        if node.section is None and is_included and experiment.is_set(path):
            value: Any = experiment
            for part in path.split("."):
                value = getattr(value, part, None)
            set_value(tree, path, value)
    set_value(tree, "train.recipe", experiment.train.recipe)
    return tree


@dataclass(frozen=True)
class TrialJob:
    """A trial to be trained.

    Attributes:
        number: its number in the study.
        folder: its results folder.
        spec: its spec file.
        values: the drawn values by field.
        resume: whether to continue from its checkpoint.
        minutes: its time limit, or None.
    """

    number: int
    folder: Path
    spec: Path
    values: Mapping[str, Any]
    resume: bool = False
    minutes: float | None = None


@dataclass(frozen=True)
class TrialExit:
    """How a trial's process ended; ``reason`` is why it failed or was stopped."""

    ok: bool
    reason: str = ""


@dataclass(frozen=True)
class TrialTemplate:
    """What all trials of a search share.

    Attributes:
        experiment: the user's spec.
        base: the same spec, settled as a plain training would.
        seed: seed of the search, and of the trials where the user's seed is -1.
        data: a manifest in place of ``train_dataset``, of its training rows alone; None takes it as it is.
        cache_gb: limit of the image cache where several trials share the memory.
        device_indices: whether trials use the user's GPU indices; False where each process sees its own GPUs only.
    """

    experiment: Experiment
    base: Experiment
    seed: int
    data: str | None = None
    cache_gb: float | None = None
    device_indices: bool = True

    def spec_dict(self, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """Return the spec of a trial as nested mappings.

        Args:
            values: the drawn values by field.
            folder: the trial's results folder.
        """
        tree = user_settings(self.experiment)
        for path, value in values.items():
            section, name = path.rpartition(".")[0].removesuffix(".parameters"), path.rpartition(".")[2]
            set_value(tree, path, value)
            if f"{section}.parameters" in FREE and not self.experiment.is_set(section):
                _pin_parameters(tree, section, self.base, same=name != "name" or value == self._base_name(section))
        for path, value in self._extra_settings(values, folder).items():
            set_value(tree, path, value)
        if self.data is not None:
            for name in ("manifest_columns", "class_map", "class_from"):  # that manifest has our own columns
                tree["dataset"].pop(name, None)
        if not self.device_indices:
            tree["train"].pop("gpu_ids", None)
        return tree

    def _extra_settings(self, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """Settings of a trial that are neither the user's nor drawn, by field."""
        automl, train = self.experiment.automl, self.experiment.train
        extra: dict[str, Any] = {"automl_policy": "off", "train.results_dir": str(folder)}
        extra |= {f"train.{n}": 1 for n in ("validation_interval", "checkpoint_interval")
                  if not self.experiment.is_set(f"train.{n}")}  # fmt: skip
        if train.seed < 0:
            extra["train.seed"] = self.seed  # trials are compared and repeated, so none draws its own seed
        if automl.max_epochs and "train.num_epochs" not in values:
            extra["train.num_epochs"] = automl.max_epochs
        if automl.direction:
            extra["train.checkpointer.mode"] = automl.direction[:3]
        if self.data is not None:
            extra["dataset.train_dataset"] = self.data
        if self.cache_gb is not None and not self.experiment.is_set("dataset.cache.limit_gb"):
            extra["dataset.cache.limit_gb"] = self.cache_gb
        return extra

    def _base_name(self, section: str) -> Any:
        """The name of the settled loss or miner."""
        return getattr(self.base.train, section.split(".")[1]).name

    def write_job(self, number: int, values: Mapping[str, Any], folder: Path) -> TrialJob:
        """Check a trial's spec and write it to its folder.

        Args:
            number: the trial's number in the study.
            values: the drawn values by field.
            folder: the trial's results folder.

        Raises:
            SpecError: the drawn values do not go together.
        """
        tree = self.spec_dict(values, folder)
        load_spec("train", tree)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / TRIAL_SPEC_FILE
        path.touch(mode=0o600)  # its addresses keep their passwords, which the trial's process needs; the mode stays
        write_text(path, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
        return TrialJob(number, folder, path, dict(values))


def _pin_parameters(tree: dict[str, Any], section: str, base: Experiment, *, same: bool) -> None:
    """Complete a loss or miner of which one field was drawn: with its name alone it would count as the user's own.

    Args:
        tree: the trial's spec.
        section: ``train.loss`` or ``train.miner``.
        base: the settled spec.
        same: whether the loss or miner is still the settled one, so that its parameters apply.
    """
    kind = section.split(".")[1]
    recipe, own = getattr(base.train, kind), tree["train"][kind]
    own.setdefault("name", recipe.name)
    if same:
        own["parameters"] = dict(recipe.parameters) | own.get("parameters", {})


# ---- metrics of a trial ----


class StatusReader:
    """Reads the lines of a trial's ``status.json`` as they are written; an incomplete line waits for the next call.

    Attributes:
        last: the latest line.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.offset = folder / STATUS_FILE, 0
        self.last: dict[str, Any] = {}

    def read_validations(self) -> list[tuple[int, dict[str, float]]]:
        """Return (epoch, metrics) of every validation since the last call."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                text = file.read()
        except OSError:
            return []
        complete = text[: text.rfind(b"\n") + 1]
        self.offset += len(complete)
        validations = []
        for line in complete.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # cut off by a kill
            if isinstance(row, dict):
                self.last = row
                if row.get("message") == "validation" and isinstance(row.get("kpi"), dict):
                    metrics = {k: v for k, v in row["kpi"].items() if v is not None}
                    validations.append((int(row["epoch"]), metrics))
        return validations


class TrialMetrics:
    """The validations of one trial so far; its best epoch counts, not the last one (TAO D39).

    Args:
        folder: the trial's folder.
        monitor: the metric to select by.
        sign: 1 if more is better, -1 if less is.

    Attributes:
        by_epoch: metrics of each epoch with a finite value of the monitored one.
    """

    def __init__(self, folder: Path, monitor: str, sign: float) -> None:
        self.reader, self.monitor, self.sign = StatusReader(folder), monitor, sign
        self.by_epoch: dict[int, dict[str, float]] = {}

    def read_new(self) -> list[tuple[int, float]]:
        """Return (epoch, value of the monitored metric) of the validations since the last call."""
        new = []
        for epoch, metrics in self.reader.read_validations():
            value = metrics.get(self.monitor)
            if value is not None and math.isfinite(value):
                self.by_epoch[epoch] = metrics
                new.append((epoch, float(value)))
        return new

    def best(self) -> tuple[int, dict[str, float]] | None:
        """Return (epoch, metrics) of the best validation, the earliest of equals: the one whose checkpoint is kept."""
        if not self.by_epoch:
            return None
        epoch = max(self.by_epoch, key=lambda e: (ranking_key(self.by_epoch[e], self.monitor, self.sign), -e))
        return epoch, self.by_epoch[epoch]


def delete_periodic_checkpoints(folder: Path) -> None:
    """Delete a finished trial's checkpoints except for its best and its latest one."""
    latest = folder / LATEST_CHECKPOINT
    latest_target = latest.resolve() if latest.exists() else None
    for path in folder.glob(PERIODIC_CHECKPOINTS):
        if path.resolve() != latest_target and not path.is_symlink():
            path.unlink(missing_ok=True)
