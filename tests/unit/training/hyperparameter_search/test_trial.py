"""One trial: its spec, and its metrics as they are read from status.json."""

from __future__ import annotations

import json

from unalike.spec import load_spec
from unalike.training.checkpoints import CheckpointManager
from unalike.training.hyperparameter_search.trial import (
    StatusReader,
    TrialMetrics,
    TrialTemplate,
    delete_periodic_checkpoints,
)

TRUNK_LR = "train.optim.trunk.base_lr"


def test_a_trial_has_the_users_spec_and_the_drawn_values_but_not_the_query_set(tmp_path):
    tree = {"train": {"num_epochs": 7, "seed": 5}, "dataset": {"val_dataset": {"query": "q", "reference": "r"}},
            "results_dir": "somewhere", "evaluate": {"topk": 3}}  # fmt: skip
    experiment = load_spec("train", tree, ["automl.trials=2", "model.feat_dim=32"])
    trial_tree = TrialTemplate(experiment, experiment, 0).spec_dict({TRUNK_LR: 0.01}, tmp_path)
    trial = load_spec("train", trial_tree)
    assert "val_dataset" not in trial_tree.get("dataset", {})
    assert trial.train.optim.trunk.base_lr == 0.01 and trial.model.feat_dim == 32 and trial.train.num_epochs == 7
    assert trial.train.recipe == "tao" and trial.train.results_dir == str(tmp_path) and trial.policy() == "off"
    assert trial.train.checkpoint_interval == trial.train.validation_interval == 1
    assert trial.is_set("train.validation_interval") and not trial.automl.requests_search()
    assert experiment.dataset.val_dataset.query == "q"
    # Its file holds the addresses of the data with their passwords.
    assert TrialTemplate(experiment, experiment, 0).write_job(0, {}, tmp_path).spec.stat().st_mode & 0o777 == 0o600


def test_a_drawn_parameter_of_a_settled_loss_comes_with_the_loss(tmp_path):
    experiment = load_spec("train", None, ["automl.trials=2"])
    base = load_spec("train", None)
    base.train.loss.name, base.train.loss.parameters = "CosFaceLoss", {"margin": 0.2, "scale": 20.0}
    template = TrialTemplate(experiment, base, 0)
    assert "loss" not in template.spec_dict({TRUNK_LR: 0.01}, tmp_path)["train"]  # training settles it again
    loss = template.spec_dict({"train.loss.parameters.margin": 0.3}, tmp_path)["train"]["loss"]
    assert loss == {"name": "CosFaceLoss", "parameters": {"margin": 0.3, "scale": 20.0}}
    assert template.spec_dict({"train.loss.name": "ArcFaceLoss"}, tmp_path)["train"]["loss"] == {"name": "ArcFaceLoss"}
    same = template.spec_dict({"train.loss.name": "CosFaceLoss"}, tmp_path)["train"]["loss"]
    assert same["parameters"] == {"margin": 0.2, "scale": 20.0}


def test_metrics_are_read_as_they_are_written_and_incomplete_lines_wait(tmp_path):
    reader = StatusReader(tmp_path)
    assert reader.read_validations() == []
    row = json.dumps({"message": "validation", "epoch": 4, "kpi": {"a": 0.5, "b": None}})
    (tmp_path / "status.json").write_text("torn{\n" + row + "\n" + row[:20])
    assert reader.read_validations() == [(4, {"a": 0.5})] and reader.read_validations() == []
    with open(tmp_path / "status.json", "a") as file:
        file.write(row[20:] + "\n")
    assert reader.read_validations() == [(4, {"a": 0.5})]


def test_of_equal_epochs_the_one_whose_checkpoint_is_kept_counts(tmp_path):
    """A trial's metrics are those of its ml_model_best.pth, which is chosen by MAP where R@1 is equal."""
    rows = [{"val Precision at Rank 1": 1.0, "val Mean Average Precision": m} for m in (0.5, 0.7, 0.7, 0.6)]
    rows.append({"val Precision at Rank 1": 0.9, "val Mean Average Precision": 0.9})
    checkpointer = CheckpointManager(tmp_path, load_spec("train").train)
    lines = []
    for epoch, kpi in enumerate(rows):
        payload = {"model": {}, "spec": {}, "training": {}}
        checkpointer.save(payload, epoch=epoch, step=epoch, due=False, last=False, kpis=kpi)
        lines.append(json.dumps({"message": "validation", "epoch": epoch, "kpi": kpi}) + "\n")
    (tmp_path / "status.json").write_text("".join(lines))
    metrics = TrialMetrics(tmp_path, "val Precision at Rank 1", 1.0)
    metrics.read_new()
    best = metrics.best()
    assert best is not None and best[0] == checkpointer.best_epoch == 1


def test_a_finished_trial_keeps_its_best_and_latest_checkpoint(tmp_path):
    for name in ("model_epoch_000_step_00001.pth", "model_epoch_001_step_00002.pth", "ml_model_best.pth"):
        (tmp_path / name).write_text(name)
    (tmp_path / "ml_model_latest.pth").symlink_to("model_epoch_001_step_00002.pth")
    delete_periodic_checkpoints(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ml_model_best.pth", "ml_model_latest.pth", "model_epoch_001_step_00002.pth",
    ]  # fmt: skip
