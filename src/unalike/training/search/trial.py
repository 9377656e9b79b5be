"""One trial of a search: its spec, its folder, the process in which it trains, and what its figures say.

A trial is a plain training: a spec file, a folder ``trial_NNN`` of its own, a process of its own. What it measures is read
from its ``status.json``, so that a trial on another machine needs nothing but the shared folder.
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

# A trial's spec is the user's, less these: where it writes, what searches, and the query set, which is never selected on.
_NOT_A_TRIALS = ("results_dir", "train.results_dir", "automl", "automl_policy", "dataset.val_dataset",
                 "train.resume_training_checkpoint_path", "evaluate", "inference", "export", "gen_trt_engine")  # fmt: skip


def place_value(tree: dict[str, Any], path: str, value: Any) -> None:
    """Write a value at a dotted path of nested mappings."""
    *parents, name = path.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[name] = value


def own_tree(experiment: Any) -> dict[str, Any]:
    """What the user set, as far as a trial takes it over, as nested mappings."""
    tree: dict[str, Any] = {}
    for path, declared in declared_fields().items():
        taken = not any(path == name or path.startswith(name + ".") for name in _NOT_A_TRIALS)
        if declared.section is None and taken and experiment.is_set(path):
            value = experiment
            for part in path.split("."):
                value = getattr(value, part, None)
            place_value(tree, path, value)
    place_value(tree, "train.recipe", experiment.train.recipe)
    return tree


@dataclass(frozen=True)
class TrialTerms:
    """What all trials of a search share beside the user's own fields."""

    experiment: Any
    base: Any  # the same spec, settled
    seed: int
    data: str | None = None  # in place of train_dataset: its rows that are not kept for measuring
    cache_gb: float | None = None  # a share of the memory where several trials run at once
    device_indices: bool = True  # False: each process sees its own GPUs, counted from 0

    def tree(self, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The spec of a trial as nested mappings."""
        tree, train = own_tree(self.experiment), self.experiment.train
        for path, value in values.items():
            section, name = path.rpartition(".")[0].removesuffix(".parameters"), path.rpartition(".")[2]
            place_value(tree, path, value)
            if f"{section}.parameters" in FREE and not self.experiment.is_set(section):
                _pin_free(tree, section, self.base, same=name != "name" or value == self.base_name(section))
        automl = self.experiment.automl
        extra: dict[str, Any] = {"automl_policy": "off", "train.results_dir": str(folder)}
        extra |= {f"train.{n}": 1 for n in ("validation_interval", "checkpoint_interval")
                  if not self.experiment.is_set(f"train.{n}")}  # fmt: skip
        if train.seed < 0:
            extra["train.seed"] = self.seed  # trials are compared and repeated: no seed by chance
        if automl.max_epochs and "train.num_epochs" not in values:
            extra["train.num_epochs"] = automl.max_epochs
        if automl.direction:
            extra["train.checkpointer.mode"] = automl.direction[:3]
        if self.data is not None:
            extra["dataset.train_dataset"] = self.data
            for name in ("manifest_columns", "class_map", "class_from"):  # it is written in our own words
                tree["dataset"].pop(name, None)
        if self.cache_gb is not None and not self.experiment.is_set("dataset.cache.limit_gb"):
            extra["dataset.cache.limit_gb"] = self.cache_gb
        for path, value in extra.items():
            place_value(tree, path, value)
        if not self.device_indices:
            tree["train"].pop("gpu_ids", None)
        return tree

    def base_name(self, section: str) -> Any:
        """The name of the settled loss or miner."""
        return getattr(self.base.train, section.split(".")[1]).name

    def write(self, number: int, values: Mapping[str, Any], folder: Path) -> Job:
        """Check a trial's spec and write it. Raises SpecError where the drawn values do not go together."""
        tree = self.tree(values, folder)
        load_spec("train", tree)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / TRIAL_SPEC_FILE
        write_text(path, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
        return Job(number, folder, path, dict(values))


def _pin_free(tree: dict[str, Any], section: str, base: Experiment, *, same: bool) -> None:
    """A settled loss of which one thing was drawn: the rest is written beside it, or it would be taken for the user's.

    ``same``: the loss is still the settled one, so that its arguments hold.
    """
    kind = section.split(".")[1]
    settled, held = getattr(base.train, kind), tree["train"][kind]
    held.setdefault("name", settled.name)
    if same:
        held["parameters"] = dict(settled.parameters) | held.get("parameters", {})


@dataclass(frozen=True)
class Job:
    """A trial to be trained."""

    number: int
    folder: Path
    spec: Path
    values: Mapping[str, Any]
    resume: bool = False


@dataclass(frozen=True)
class Ending:
    """How a trial's process ended; ``reason`` says why where it failed or was stopped."""

    ok: bool
    reason: str = ""


# ---- what a trial says of itself ----


class StatusTail:
    """The lines of a trial's ``status.json`` as they come; a half-written one is left for later."""

    def __init__(self, folder: Path) -> None:
        self.path, self.offset = folder / STATUS_FILE, 0
        self.last: dict[str, Any] = {}

    def validations(self) -> list[tuple[int, dict[str, float]]]:
        """(epoch, figures) of every validation since the last call."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self.offset += len(whole)
        found = []
        for line in whole.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # torn by a kill
            if isinstance(row, dict):
                self.last = row
                if row.get("message") == "validation" and isinstance(row.get("kpi"), dict):
                    found.append((int(row["epoch"]), {k: v for k, v in row["kpi"].items() if v is not None}))
        return found


class TrialFigures:
    """The validations of one trial so far; the best epoch counts, not the last (TAO D39)."""

    def __init__(self, folder: Path, monitor: str, sign: float) -> None:
        self.tail, self.monitor, self.sign = StatusTail(folder), monitor, sign
        self.rows: dict[int, dict[str, float]] = {}

    def fresh(self) -> list[tuple[int, float]]:
        """(epoch, figure) of validations not seen before."""
        news = []
        for epoch, kpi in self.tail.validations():
            value = kpi.get(self.monitor)
            if value is not None and math.isfinite(value):
                self.rows[epoch] = kpi
                news.append((epoch, float(value)))
        return news

    def best(self) -> tuple[int, dict[str, float]] | None:
        """(epoch, figures) of the best validation, the earliest of equals: the one whose checkpoint is kept."""
        if not self.rows:
            return None
        epoch = max(self.rows, key=lambda e: (ranking_key(self.rows[e], self.monitor, self.sign), -e))
        return epoch, self.rows[epoch]


def drop_checkpoints(folder: Path) -> None:
    """Keep a finished trial's best and latest checkpoint, delete those at intervals."""
    latest = folder / LATEST_CHECKPOINT
    kept = latest.resolve() if latest.exists() else None
    for path in folder.glob(PERIODIC_CHECKPOINTS):
        if path.resolve() != kept and not path.is_symlink():
            path.unlink(missing_ok=True)
