"""The plan and the study of a search: the rows to select by, the storage, and when a search is started at all."""

from __future__ import annotations

import csv
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from PIL import Image

from tests.support.searching import TRUNK_LR, journal_spec, peak_curve, plan_without_data, play_search, spec
from unalike.actions import train
from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.errors import DataError, SpecError
from unalike.spec import Experiment, load_spec
from unalike.training.hyperparameter_search.samplers import build_pruner, suggest_value
from unalike.training.hyperparameter_search.study import (
    USER_SPEC,
    _training_manifest,
    open_study,
    plan_search,
    read_spent_seconds,
)


def manifest(folder: Path, splits: list[str]) -> Path:
    """Two images of each of five classes for every split, in columns with other names."""
    rows = [("file", "what", "part")]
    for split in splits:
        for number in range(10):
            path = folder / f"{split}_{number}.png"
            Image.new("RGB", (16, 16), (number, 0, 0)).save(path)
            rows.append((path.name, f"class {number % 5}", split))
    with open(folder / "all.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "all.csv"


COLUMNS = {"path": "file", "label": "what", "split": "part"}


def test_rows_that_a_manifest_keeps_for_evaluation_are_not_used(tmp_path):
    path = manifest(tmp_path, ["train", "val", "test"])
    experiment = load_spec("train", {"dataset": {"train_dataset": str(path), "manifest_columns": COLUMNS}})
    data, excluded = _training_manifest(experiment, tmp_path, Notices())
    assert data is not None and "does not call train" in excluded
    images = load_images(data, notices=Notices())
    assert len(images) == 10 and {p.name.split("_")[0] for p in map(Path, images.paths)} == {"train"}


def test_data_without_such_rows_are_used_as_they_are(tmp_path):
    path = manifest(tmp_path, ["train"])
    tree = {"dataset": {"train_dataset": str(path), "manifest_columns": COLUMNS, "val_dataset": {"query": "q"}}}
    assert _training_manifest(load_spec("train", tree), tmp_path, Notices()) == (None, "dataset.val_dataset")
    assert _training_manifest(load_spec("train", {}), tmp_path, Notices()) == (None, "")


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("dataset.validation.by=none", "trials are compared"),
        ("train.checkpointer.monitor=train_loss", "a figure of the validation"),
    ],
)
def test_a_search_without_a_metric_to_select_by_is_refused(tmp_path, override, part):
    with pytest.raises(SpecError, match=part):
        plan_search(load_spec("train", None, [override, "automl.trials=2"]), tmp_path)


def test_nothing_to_hold_out_is_refused(tmp_path):
    for number in range(3):
        (tmp_path / "data" / str(number)).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "data" / str(number) / "only.png")
    with pytest.raises(DataError):
        plan_search(load_spec("train", None, ["automl.trials=2"], data=tmp_path / "data"), tmp_path)


def test_a_storage_that_cannot_be_opened_is_one_line_without_its_password(tmp_path):
    experiment = spec(trials=1, storage="nosuchbase://me:secret@host/base")
    with pytest.raises(SpecError) as caught:
        open_study(
            experiment.automl,
            tmp_path,
            plan_without_data(experiment, tmp_path),
            build_pruner("none", epochs=1, reduction_factor=3),
        )
    assert "nosuchbase://..." in str(caught.value) and "secret" not in str(caught.value)


def test_the_time_of_earlier_sessions_is_read(tmp_path):
    assert read_spent_seconds(tmp_path) == 0.0
    (tmp_path / "search.json").write_text('{"seconds": 12.5}')
    assert read_spent_seconds(tmp_path) == 12.5
    (tmp_path / "search.json").write_text("torn{")
    assert read_spent_seconds(tmp_path) == 0.0


@pytest.mark.parametrize(
    ("tree", "overrides", "searches"),
    [
        (None, ["automl.trials=3"], True),
        (None, [f"automl_hyperparameters={['train.optim.trunk.base_lr']}"], True),
        ({}, ["automl.trials=3"], False),  # a spec file or dict: off unless it says otherwise
        ({"automl_policy": "auto", "automl_max_recommendations": 3}, [], True),
        ({"automl_policy": "auto"}, ["automl.trials=3", "automl_policy=off"], False),
        (None, ["automl.seed=3"], False),
    ],
)
def test_a_search_is_started_by_the_contract_s_rule(monkeypatch, tree, overrides, searches):
    class Searched(Exception):
        pass

    class Trained(Exception):
        pass

    def raises(kind):
        def call(*args, **kwargs):
            raise kind

        return call

    monkeypatch.setattr(train, "_search", raises(Searched))
    monkeypatch.setattr(train, "_train_in_budget", raises(Trained))
    import unalike.training.automatic.pipeline  # noqa: F401  (its imports must not bind the patched function)

    monkeypatch.setattr("unalike.training.recipe.settle_backbone", raises(Trained))
    monkeypatch.setattr(train, "require_training_data", lambda experiment: "photos")
    with pytest.raises(Searched if searches else Trained):
        train.train(tree, overrides)


def test_without_the_packaged_schema_there_is_no_search(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(train, "__file__", str(tmp_path / "actions" / "train.py"))
    assert train._schemas_exist() is False
    assert "not runnable until schemas are generated" in capsys.readouterr().err


# ---- trial 0: the user's own spec ----


def open_without_pruner(experiment: Experiment, folder: Path) -> optuna.Study:
    plan = plan_without_data(experiment, folder)
    return open_study(experiment.automl, folder, plan, build_pruner("none", epochs=4, reduction_factor=3))[0]


def test_processes_that_open_an_empty_study_at_once_train_the_users_spec_once(tmp_path):
    experiment = journal_spec(tmp_path, trials=4, parameters=[TRUNK_LR])
    plan = plan_without_data(experiment, tmp_path)
    study = open_without_pruner(experiment, tmp_path)
    assert [t.state for t in study.get_trials()] == [TrialState.WAITING]
    assert len(open_without_pruner(experiment, tmp_path).trials) == 1
    study.enqueue_trial(plan.space.user_values(), user_attrs={USER_SPEC: True})  # the process that lost the race
    result, jobs, _ = play_search(experiment, tmp_path / "run", peak_curve)
    assert [job.number for job in jobs] == [0, 2, 3, 4] and jobs[0].values == {}
    assert all(job.values for job in jobs[1:]) and result.record["counts"] == {"complete": 4}
    trials = open_without_pruner(experiment, tmp_path).trials
    assert trials[0].params == plan.space.user_values() and trials[1].state == TrialState.FAIL


def test_trial_0_is_the_users_spec_whichever_of_several_machines_is_first(tmp_path):
    experiment = journal_spec(tmp_path, parameters=[TRUNK_LR])
    barrier = threading.Barrier(4)

    def join(_: int) -> tuple[int, bool]:
        barrier.wait()
        trial = open_without_pruner(experiment, tmp_path).ask()
        return trial.number, USER_SPEC in trial.user_attrs

    with ThreadPoolExecutor(4) as threads:
        asked = dict(threads.map(join, range(4)))
    assert len(asked) == 4 and asked[0]


def test_a_study_of_an_earlier_version_gets_no_second_trial_0(tmp_path):
    experiment = journal_spec(tmp_path, trials=3, parameters=[TRUNK_LR])
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    study = optuna.create_study(study_name=experiment.automl.study, storage=storage, direction="maximize")
    trial = study.ask()
    (axis,) = plan_without_data(experiment, tmp_path).space.axes
    for name, value in {"run": str(tmp_path / "run"), "values": {}, "state": "complete", "value": 0.5}.items():
        trial.set_user_attr(name, value)
    suggest_value(trial, axis.path, axis.distribution)
    study.tell(trial, 0.5)
    result, jobs, _ = play_search(experiment, tmp_path / "run", peak_curve)
    assert [job.number for job in jobs] == [1, 2] and all(job.values for job in jobs)
    assert result.record["counts"] == {"complete": 3}
