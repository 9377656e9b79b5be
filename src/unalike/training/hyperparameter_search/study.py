"""The plan of a search, fixed before its first trial, and Optuna's study that stores the trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage

from unalike.data.from_spec import load_from_spec, load_training_sets
from unalike.data.notices import Notices
from unalike.data.splits import write_manifest
from unalike.errors import DataError, RunError, SpecError
from unalike.runs.filenames import SEARCH_FILE, SELECTION_FILE, STUDY_FILE
from unalike.spec import load_spec
from unalike.storage.digests import text_sha256
from unalike.training.checkpoints import KPI_NAMES, MONITORED
from unalike.training.hyperparameter_search.space import SearchSpace, build_space
from unalike.training.hyperparameter_search.trial import TrialTemplate, user_settings
from unalike.training.recipe import settle_backbone, settle_precision, settle_training

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.spec.automl import Automl

HEARTBEAT_S = 30.0
GRACE_S = 300.0  # a machine that was silent for so long counts as lost
DEFAULT_MINUTES, DEFAULT_TRIALS = 10.0, 20  # the contract's: without a GPU, with one
JOURNAL = "journal://"
USER_SPEC = "user_spec"  # attribute of the enqueued trial


@dataclass(frozen=True)
class SearchPlan:
    """Everything that is fixed before the first trial.

    Attributes:
        template: what all trials share.
        space: the search space.
        monitor: the validation metric to select by.
        sign: 1 if more is better, -1 if less is.
        trials: limit of trials, or None.
        seconds: limit of time, or None.
        selected_on: description of the data that the metric is measured on.
        excluded: description of the user's data that are not used for the selection.
    """

    template: TrialTemplate
    space: SearchSpace
    monitor: str
    sign: float
    trials: int | None
    seconds: float | None
    selected_on: str
    excluded: str = ""


def plan_search(experiment: Experiment, folder: Path) -> SearchPlan:
    """Settle the spec as a training would, then build the search space around it.

    Args:
        experiment: the user's spec.
        folder: the search's folder; gets a manifest where the user's own keeps rows for evaluation.

    Raises:
        SpecError: the trials have no validation or no metric to select by.
        DataError: no image can be held out for validation.
    """
    import torch

    from unalike.model.embedder import build_embedder

    automl, train = experiment.automl, experiment.train
    seed = automl.seed if automl.seed is not None else max(train.seed, 0)
    if experiment.dataset.validation.by == "none":
        raise SpecError("dataset.validation.by is none", expected="a validation, by which trials are compared",
                        remedy="set dataset.validation.by=class")  # fmt: skip
    monitor = train.checkpointer.monitor or MONITORED
    if monitor == "train_loss" or monitor not in KPI_NAMES:
        raise SpecError(f"train.checkpointer.monitor is {monitor!r}", expected="a figure of the validation, as the search "
                        f"selects by it: {', '.join(KPI_NAMES[:-1])}")  # fmt: skip
    notices = Notices()
    data, exclusion = _training_manifest(experiment, folder, notices)
    template = TrialTemplate(experiment, experiment, seed, data)
    base = load_spec("train", template.spec_dict({}, folder))
    settle_backbone(base)
    settle_precision(base)
    sets = load_training_sets(base, notices)
    if sets.query is None:
        raise DataError("no image can be held out for validation", expected="classes of two images or more",
                        remedy="train plainly with --automl-policy off")  # fmt: skip
    embedder = build_embedder(base)
    settle_training(base, facts=embedder.trunk.facts, stages=len(embedder.trunk.stages()),
                    classes=len(sets.train.classes), images=len(sets.train), cuda=torch.cuda.is_available())  # fmt: skip
    trials, minutes = automl.trials, automl.minutes
    if trials is None and minutes is None:
        trials, minutes = (DEFAULT_TRIALS, None) if torch.cuda.is_available() else (None, DEFAULT_MINUTES)
    lower = (automl.direction or train.checkpointer.mode or "max").startswith("min")
    return SearchPlan(
        replace(template, base=base), build_space(automl, base), monitor, -1.0 if lower else 1.0, trials,
        None if minutes is None else minutes * 60, sets.validation, exclusion,
    )  # fmt: skip


def _training_manifest(experiment: Experiment, folder: Path, notices: Notices) -> tuple[str | None, str]:
    """Write a manifest of the training rows where the user's own manifest keeps others for evaluation.

    Returns:
        The manifest's path, or None where the data are used as they are; and a description of the excluded data.
    """
    dataset = experiment.dataset
    val_dataset = dataset.val_dataset
    exclusion = (
        "dataset.val_dataset" if val_dataset is not None and (val_dataset.reference or val_dataset.query) else ""
    )
    if not dataset.train_dataset:
        return None, exclusion  # `load_training_sets` raises the error
    images = load_from_spec(experiment, dataset.train_dataset, notices)
    if images.splits is None or not any(images.splits):
        return None, exclusion
    rows = images.select([i for i, split in enumerate(images.splits) if split == "train"])
    if len(rows) == len(images) or not len(rows):
        return None, exclusion
    path = write_manifest(folder / SELECTION_FILE, {"train": rows.drop_empty_classes()}, by_source=False)
    return str(path.resolve()), exclusion or "what your manifest does not call train"


# ---- the study ----


def open_study(automl: Automl, folder: Path, plan: SearchPlan, pruner: BasePruner) -> tuple[optuna.Study, BaseStorage]:
    """Create the study with the user's own spec as trial 0, or join an existing one of the same name.

    Args:
        automl: name of the study and address of its storage; by default SQLite in ``folder``.
        folder: the search's folder.
        plan: a study's trials must share its space, spec, metric and direction.
        pruner: the pruner of this process.

    Returns:
        The study and its storage.

    Raises:
        SpecError: the storage cannot be opened.
        RunError: the storage has another search under this name.
    """
    direction: Literal["minimize", "maximize"] = "minimize" if plan.sign < 0 else "maximize"
    try:
        storage = _open_storage(automl.storage, folder)
        study = optuna.create_study(study_name=automl.study, storage=storage, direction=direction, pruner=pruner,
                                    load_if_exists=True)  # fmt: skip
    except Exception as error:  # each database driver has exceptions of its own
        kind = automl.storage.partition("://")[0] + "://..." if automl.storage else folder / STUDY_FILE  # no passwords
        raise SpecError(f"automl.storage {kind} cannot be opened ({type(error).__name__})", expected="sqlite:///FILE, journal:///FILE, mysql:// or "
                        "postgresql:// with its driver installed") from error  # fmt: skip
    terms = {"space": plan.space.fingerprint(), "spec": _spec_fingerprint(plan), "monitor": plan.monitor,
             "direction": direction}  # fmt: skip
    earlier_terms = study.user_attrs.get("terms")
    if earlier_terms is None:
        study.set_user_attr("terms", terms)
    elif earlier_terms != terms:
        changes = [name for name in terms if earlier_terms.get(name) != terms[name]]
        raise RunError(f"study {automl.study!r} was begun with another {' and '.join(changes)}",
                       expected="the same, as its trials are compared",
                       remedy="start with a new folder, or a new name in automl.study")  # fmt: skip
    _enqueue_user_spec(study, plan.space.user_values())
    return study, storage


def _enqueue_user_spec(study: optuna.Study, values: Mapping[str, Any]) -> None:
    """Make the user's own spec trial 0 of a study without trials (TAO never tries it, D38).

    Every process does this before it asks for a trial, so trial 0 is the user's spec whichever of them is first. Two that
    open an empty study at the same moment may both enqueue it: Optuna's ``skip_if_exists`` has the same race, and databases
    offer no lock. The second one is marked too, and ends as surplus when its turn comes (``is_duplicate_user_spec``).
    """
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(values), user_attrs={USER_SPEC: True})


def is_duplicate_user_spec(trial: optuna.Trial) -> bool:
    """Return whether another process enqueued the user's own spec as trial 0 at the same moment."""
    return trial.number > 0 and USER_SPEC in trial.user_attrs


def _open_storage(url: str | None, folder: Path) -> BaseStorage:
    if url is not None and url.startswith(JOURNAL):
        from optuna.storages.journal import JournalFileBackend

        return optuna.storages.JournalStorage(JournalFileBackend(url.removeprefix(JOURNAL)))
    address = url or f"sqlite:///{folder / STUDY_FILE}"
    arguments = {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {}
    heartbeat = {} if url is None else {"heartbeat_interval": int(HEARTBEAT_S), "grace_period": int(GRACE_S)}
    return optuna.storages.RDBStorage(address, engine_kwargs=arguments, **heartbeat)  # type: ignore[arg-type]


def _spec_fingerprint(plan: SearchPlan) -> str:
    """Digest everything that a trial is trained with and that does not depend on the machine."""
    tree = user_settings(plan.template.experiment)
    for name in ("num_gpus", "gpu_ids", "num_nodes"):
        tree["train"].pop(name, None)
    for name in ("workers", "cache", "train_dataset"):
        tree.get("dataset", {}).pop(name, None)
    text = json.dumps([tree, plan.template.experiment.automl.max_epochs], sort_keys=True, default=str)
    return text_sha256(text, 16)


def find_trial_id(study: optuna.Study, storage: BaseStorage, number: int) -> int:
    """Return the storage's key of a trial.

    Args:
        study: the study.
        storage: its storage.
        number: the trial's number in the study.
    """
    return storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(study.study_name), number)


def record_heartbeat(study: optuna.Study, storage: BaseStorage, number: int) -> None:
    """Record in the storage that a trial is still running, for other machines.

    Args:
        study: the study.
        storage: its storage; a journal file keeps no heartbeats.
        number: the trial's number in the study.
    """
    if isinstance(storage, optuna.storages.RDBStorage):  # journal files keep no heartbeats
        storage.record_heartbeat(find_trial_id(study, storage, number))


def fail_lost_trials(study: optuna.Study) -> None:
    """Mark trials of lost machines as failed; without effect where the storage keeps no heartbeats."""
    optuna.storages.fail_stale_trials(study)


def read_spent_seconds(folder: Path) -> float:
    """Return the time that earlier sessions of the search in this folder spent."""
    try:
        return float(json.loads((folder / SEARCH_FILE).read_text(encoding="utf-8")).get("seconds", 0.0))
    except (OSError, ValueError, AttributeError, TypeError):
        return 0.0
