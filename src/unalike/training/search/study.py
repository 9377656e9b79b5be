"""What a search is settled on before its first trial, and Optuna's study that holds the trials."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from unalike.data.from_spec import load_from_spec, load_training_sets
from unalike.data.notices import Notices
from unalike.data.splits import write_manifest
from unalike.errors import DataError, RunError, SpecError
from unalike.runs.filenames import SEARCH_FILE, SELECTION_FILE, STUDY_FILE
from unalike.spec import load_spec
from unalike.training.checkpoints import KPI_NAMES, MONITORED
from unalike.training.recipe import settle_backbone, settle_precision, settle_training
from unalike.training.search.space import Space, build_space
from unalike.training.search.trial import TrialTerms, own_tree

HEARTBEAT_S = 30.0
GRACE_S = 300.0  # a machine that was silent for so long is taken for gone
DEFAULT_MINUTES, DEFAULT_TRIALS = 10.0, 20  # the contract's: without a GPU, with one
JOURNAL = "journal://"


@dataclass(frozen=True)
class Plan:
    """Everything that is settled before the first trial."""

    terms: TrialTerms
    space: Space
    monitor: str
    sign: float
    trials: int | None
    seconds: float | None
    selected_on: str
    kept_out: str = ""


def settle_terms(experiment: Any, folder: Path) -> Plan:
    """Settle the spec as a training would, then the space around it. Raises DataError where nothing can be held out."""
    import torch

    from unalike.model.embedder import build_embedder

    automl, train = experiment.automl, experiment.train
    seed = automl.seed if automl.seed is not None else max(train.seed, 0)
    if experiment.dataset.validation.by == "none":
        raise SpecError("dataset.validation.by is none", expected="a validation, by which trials are told apart",
                        remedy="set dataset.validation.by=class")  # fmt: skip
    monitor = train.checkpointer.monitor or MONITORED
    if monitor == "train_loss" or monitor not in KPI_NAMES:
        raise SpecError(f"train.checkpointer.monitor is {monitor!r}", expected="a figure of the validation, as the search "
                        f"selects by it: {', '.join(KPI_NAMES[:-1])}")  # fmt: skip
    notices = Notices()
    data, kept_out = _rows_to_learn_from(experiment, folder, notices)
    terms = TrialTerms(experiment, experiment, seed, data)
    base = load_spec("train", terms.tree({}, folder))
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
    return Plan(
        replace(terms, base=base), build_space(automl, base), monitor, -1.0 if lower else 1.0, trials,
        None if minutes is None else minutes * 60, sets.validation, kept_out,
    )  # fmt: skip


def _rows_to_learn_from(experiment: Any, folder: Path, notices: Notices) -> tuple[str | None, str]:
    """(a manifest of the training rows where the user's own keeps some for measuring, what is kept out of selection)."""
    dataset = experiment.dataset
    named = dataset.val_dataset
    kept_out = "dataset.val_dataset" if named is not None and (named.reference or named.query) else ""
    if not dataset.train_dataset:
        return None, kept_out  # said with its remedy by `training_sets`
    whole = load_from_spec(experiment, dataset.train_dataset, notices)
    if whole.splits is None or not any(whole.splits):
        return None, kept_out
    rows = whole.select([i for i, split in enumerate(whole.splits) if split == "train"])
    if len(rows) == len(whole) or not len(rows):
        return None, kept_out
    path = write_manifest(folder / SELECTION_FILE, {"train": rows.drop_empty_classes()})
    return str(path.resolve()), kept_out or "what your manifest does not call train"


# ---- the study ----


def open_study(automl: Any, folder: Path, plan: Plan, pruner: Any) -> Any:
    """The study by its name, begun or joined. Raises SpecError for a storage that cannot be opened, RunError for one that
    holds another search under this name."""
    direction: Any = "minimize" if plan.sign < 0 else "maximize"
    try:
        storage = _open_storage(automl.storage, folder)
        study = optuna.create_study(study_name=automl.study, storage=storage, direction=direction, pruner=pruner,
                                    load_if_exists=True)  # fmt: skip
    except Exception as error:  # each database driver has exceptions of its own
        kind = automl.storage.partition("://")[0] + "://..." if automl.storage else folder / STUDY_FILE  # no passwords
        raise SpecError(f"automl.storage {kind} cannot be opened ({type(error).__name__})", expected="sqlite:///FILE, journal:///FILE, mysql:// or "
                        "postgresql:// with its driver installed") from error  # fmt: skip
    terms = {"space": plan.space.fingerprint(), "spec": _fingerprint(plan), "monitor": plan.monitor,
             "direction": direction}  # fmt: skip
    known = study.user_attrs.get("terms")
    if known is None:
        study.set_user_attr("terms", terms)
    elif known != terms:
        changed = [name for name in terms if known.get(name) != terms[name]]
        raise RunError(f"study {automl.study!r} was begun with another {' and '.join(changed)}",
                       expected="the same, as its trials are compared",
                       remedy="start with a new folder, or a new name in automl.study")  # fmt: skip
    return study


def _open_storage(url: str | None, folder: Path) -> Any:
    if url is not None and url.startswith(JOURNAL):
        from optuna.storages.journal import JournalFileBackend

        return optuna.storages.JournalStorage(JournalFileBackend(url.removeprefix(JOURNAL)))
    address = url or f"sqlite:///{folder / 'study.db'}"
    arguments = {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {}
    watched = {} if url is None else {"heartbeat_interval": int(HEARTBEAT_S), "grace_period": int(GRACE_S)}
    return optuna.storages.RDBStorage(address, engine_kwargs=arguments, **watched)  # type: ignore[arg-type]


def _fingerprint(plan: Plan) -> str:
    """Of everything that a trial is trained with and that this machine does not decide."""
    tree = own_tree(plan.terms.experiment)
    for name in ("num_gpus", "gpu_ids", "num_nodes"):
        tree["train"].pop(name, None)
    for name in ("workers", "cache", "train_dataset"):
        tree.get("dataset", {}).pop(name, None)
    text = json.dumps([tree, plan.terms.experiment.automl.max_epochs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def heartbeat(study: Any, trial: Any) -> None:
    """Tell other machines that this trial is still at work."""
    record = getattr(study._storage, "record_heartbeat", None)  # databases have it, files of lines have not
    if record is not None:
        record(trial._trial_id)


def discard_lost_trials(study: Any) -> None:
    """Mark trials of machines that are gone as failed; without effect where the storage keeps no heartbeats."""
    optuna.storages.fail_stale_trials(study)


def earlier_seconds(folder: Path) -> float:
    """Time that earlier sessions of the search in this folder spent."""
    try:
        return float(json.loads((folder / SEARCH_FILE).read_text(encoding="utf-8")).get("seconds", 0.0))
    except (OSError, ValueError, AttributeError, TypeError):
        return 0.0
