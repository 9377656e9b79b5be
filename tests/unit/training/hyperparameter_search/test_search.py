"""A whole search on made-up curves: what it leaves, what it prints, and what it selects."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.support.searching import TRUNK_LR, journal_spec, peak_curve, play_search, read_trials, spec
from unalike.errors import RunError, TrainingError
from unalike.spec import load_spec, settle
from unalike.training.hyperparameter_search.search import _settled_as


def test_a_search_leaves_record_best_spec_report_and_checkpoint(tmp_path):
    folder = tmp_path / "run"
    result, jobs, run = play_search(
        spec(trials=6, seed=3, parameters=[TRUNK_LR]), folder, peak_curve
    )  # SQLite, as by default
    record = json.loads((folder / "search.json").read_text())
    assert [job.number for job in jobs] == list(range(6)) == [t["trial"] for t in record["trials"]]
    assert jobs[0].values == {} and record["best"]["value"] == max(t["value"] for t in record["trials"])
    assert (folder / "ml_model_best.pth").read_text() == f"trial {record['best']['trial']}"
    assert (folder / "study.db").exists() and len(read_trials(folder)) == 6
    best = load_spec("train", folder / "best_spec.yaml")
    assert best.policy() == "off" and not best.automl.requests_search()
    assert best.train.optim.trunk.base_lr == record["best"]["values"].get(TRUNK_LR, 3.5e-4)
    assert record["importance"] == {TRUNK_LR: 1.0}
    page = (folder / "report.html").read_text()
    assert (
        f"Of {len(read_trials(folder))} trials, " in page and f"{record['best']['value']:.3f}" in page.split("</p>")[0]
    )
    assert TRUNK_LR in page and "Importance of the fields" in page and "<script" not in page
    assert run.lines[-1]["step"] == run.lines[-1]["max_step"] == 6
    assert result.checkpoint == (folder / "ml_model_best.pth").resolve()


def test_the_spec_of_a_search_holds_what_its_trials_train_with(tmp_path):
    """As the experiment.yaml of any other run it gives the same again, where it is taken for a spec."""
    own = load_spec("train", None, ["model.backbone=test_resnet", "train.recipe=unalike", "automl.trials=1"])
    base = load_spec("train", None, ["model.backbone=test_resnet", "train.recipe=unalike"])
    settle(base, "train.loss.name", "CosFaceLoss", "the recipe")
    settle(base, "train.batch_size", 18, "the recipe")
    resolved = _settled_as(own, base)
    assert (resolved.train.loss.name, resolved.train.batch_size, resolved.automl.trials) == ("CosFaceLoss", 18, 1)
    assert own.train.loss.name == "TripletMarginLoss" and not own.settled
    again = load_spec("train", yaml.safe_load(resolved.to_yaml()))
    assert (again.train.recipe, again.train.loss.name, again.automl.trials) == ("unalike", "CosFaceLoss", 1)


def test_a_search_without_any_value_is_an_error_with_the_reason(tmp_path):
    with pytest.raises(TrainingError, match="no such trunk"):
        play_search(journal_spec(tmp_path, trials=50), tmp_path / "run", lambda job: "no such trunk")
    assert len(read_trials(tmp_path / "run")) == 5
    assert json.loads((tmp_path / "run/search.json").read_text())["best"] is None


def test_another_space_or_spec_in_the_same_study_is_refused(tmp_path):
    play_search(journal_spec(tmp_path, trials=1), tmp_path / "a", peak_curve)
    with pytest.raises(RunError, match="another space"):
        play_search(journal_spec(tmp_path, trials=2, parameters=[TRUNK_LR]), tmp_path / "b", peak_curve)
    with pytest.raises(RunError, match="another spec"):
        play_search(journal_spec(tmp_path, "model.feat_dim=64", trials=2), tmp_path / "c", peak_curve)
    _, jobs, _ = play_search(
        journal_spec(tmp_path, trials=3), tmp_path / "d", peak_curve
    )  # more trials of the same are allowed
    assert [job.number for job in jobs] == [1, 2]


def test_a_metric_can_be_minimized(tmp_path):
    result, _, _ = play_search(journal_spec(tmp_path, trials=4, direction="minimize"), tmp_path / "run", peak_curve)
    lowest = min(t["value"] for t in result.record["trials"])
    assert result.record["best"]["value"] == lowest and result.record["best"]["best_epoch"] == 0
    trial_spec = yaml.safe_load((tmp_path / "run/trial_000/trial_spec.yaml").read_text())
    assert trial_spec["train"]["checkpointer"]["mode"] == "min"
