"""TAO's faults in automatic training, each failing on the faulty behaviour (contract, rows D11, D38, D39)."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import optuna
import pytest

from tests.support.searching import FakeRun, FakeWorker, plan_without_data, play_search, spec
from unalike.training.checkpoints import MONITORED
from unalike.training.hyperparameter_search.samplers import suggest_value
from unalike.training.hyperparameter_search.search import run_search
from unalike.training.hyperparameter_search.space import build_space

ROWS = list(csv.DictReader((Path(__file__).parent / "tao_spec.tsv").open(), delimiter="\t", quoting=csv.QUOTE_NONE))
SEARCHED = [row for row in ROWS if row["automl_enabled"] == "True"]
MOMENTA = {f"train.optim.{part}.momentum" for part in ("trunk", "embedder")}
RATES = [f"train.optim.{part}.base_lr" for part in ("trunk", "embedder")]


def draw_trials(experiment, count=200, seed=0):
    """Draw the values of ``count`` trials at random from the space of a spec."""
    space = build_space(experiment.automl, experiment)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    values = []
    for _ in range(count):
        trial = study.ask()
        values.append(space.draw(lambda name, d, t=trial: suggest_value(t, name, d)))
    return values


def axes(experiment):
    return {axis.path for axis in build_space(experiment.automl, experiment).axes}


def test_d11_fields_without_effect_are_not_searched():
    assert not MOMENTA & axes(spec(trials=1))  # Adam
    sgd = axes(spec("train.optim.name=SGD", trials=1))
    assert MOMENTA <= sgd and "train.optim.gamma" not in sgd  # no step of [40, 70] within four epochs
    assert "train.optim.gamma" in axes(spec("train.optim.steps=[2]", trials=1))
    other = axes(spec("train.loss.name=CosFaceLoss", "train.miner.name=null", "train.train_trunk=false", trials=1))
    assert "train.optim.loss_lr" in other and not any(".trunk." in path for path in other)
    assert not {"train.optim.triplet_loss_margin", "train.optim.miner_function_margin"} & other
    assert "train.optim.warmup_factor" not in axes(spec("train.optim.warmup_iters=0", trials=1, parameters=[
        "train.optim.warmup_factor", RATES[0]]))  # fmt: skip


def test_d11_momentum_is_drawn_only_in_trials_that_use_it():
    trials = draw_trials(spec(trials=1, parameters=["train.optim.trunk.momentum", "train.optim.name"]))
    assert {trial["train.optim.name"] for trial in trials} == {"Adam", "SGD", "Adamax", "AdamW"}
    assert all(("train.optim.trunk.momentum" in trial) == (trial["train.optim.name"] == "SGD") for trial in trials)


@pytest.mark.parametrize(
    "override", ["train.optim.name=SGD", "train.optim.trunk.base_lr=0.2", "train.optim.trunk.weight_decay=0"]
)
def test_d38_draws_stay_within_the_published_bounds(override):
    trials = draw_trials(spec(override, "train.optim.steps=[2]", trials=1))
    compare = {">": lambda a, b: a > b, ">=": lambda a, b: a >= b}
    for row in SEARCHED:
        values = [trial[row["path"]] for trial in trials if row["path"] in trial]
        assert values or row["path"] in MOMENTA
        if override.startswith(row["path"]) and override.endswith("=0"):
            assert 0.0 in values and any(values)  # the user's own 0 stays a possibility
            values = [v for v in values if v]
        assert all(float(row["min"]) <= v <= float(row["max"]) for v in values)
        sign, bound = row["math_cond"].split()
        assert all(compare[sign](v, float(bound)) for v in values), row["path"]


@pytest.mark.parametrize("ranges", [{}, {RATES[0]: [0, 1], RATES[1]: {"valid_min": 0.0, "valid_max": 1.0}}])
def test_d38_learning_rates_are_drawn_on_a_log_scale(ranges):
    """TAO draws uniformly from [0, 1]: nine in ten above 0.1. A range of the user that starts at 0 has a log scale too."""
    trials = draw_trials(spec(trials=1, ranges=ranges), count=400)
    for path in RATES:
        values = [trial[path] for trial in trials]
        assert min(values) > 0 and sum(v > 0.1 for v in values) < 0.4 * len(values)
        if not ranges:
            assert 3.5e-5 <= min(values) < 7e-5 and 1.8e-3 < max(values) <= 3.5e-3
            below = sum(v < 3.5e-4 for v in values) / len(values)
            assert abs(below - 0.5) < 0.1  # as many below the user's value as above it


def play(folder, curve, **automl):
    result, jobs, _ = play_search(spec(storage=f"journal://{folder / 'j.log'}", **automl), folder, curve)
    return result, jobs


def test_d38_trial_0_is_the_users_own_spec(tmp_path):
    result, jobs = play(tmp_path, lambda job: [0.5], trials=4)
    assert jobs[0].number == 0 and jobs[0].values == {} and all(job.values for job in jobs[1:])
    own = (jobs[0].folder / "trial_spec.yaml").read_text()
    assert "base_lr" not in own and "base_lr" in (jobs[1].folder / "trial_spec.yaml").read_text()
    assert result.record["trials"][0]["value"] == 0.5


def test_d39_the_best_epoch_counts_not_the_last(tmp_path):
    curves = [[0.2, 0.9, 0.1], [0.5, 0.6, 0.7], [0.3, math.nan, 0.4]]
    result, _ = play(tmp_path, lambda job: curves[job.number], trials=3, pruner="none")
    assert [(t["value"], t["best_epoch"]) for t in result.record["trials"]] == [(0.9, 1), (0.7, 2), (0.4, 2)]
    assert result.record["best"]["trial"] == 0 and result.best == {MONITORED: 0.9}


def test_d39_trials_run_at_the_same_time(tmp_path):
    running, most = set(), 0

    class CountingWorker(FakeWorker):
        def start(self, job):
            nonlocal most
            super().start(job)
            running.add(job.number)
            most = max(most, len(running))

        def poll(self):
            exit_ = super().poll()
            if exit_ is not None:
                running.discard(self.job.number)
            return exit_

    jobs = []
    experiment = spec(trials=7, storage=f"journal://{tmp_path / 'j.log'}")
    run_search(experiment, FakeRun(tmp_path), plan=plan_without_data, poll_interval=0.0,
               workers=[CountingWorker(lambda job: [0.1, 0.2], jobs) for _ in range(3)])  # fmt: skip
    assert most == 3 and sorted(job.number for job in jobs) == list(range(7))


def test_d39_the_same_seed_draws_the_same_trials(tmp_path):
    drawn = []
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        (tmp_path / name).mkdir()
        _, jobs = play(tmp_path / name, lambda job: [0.1 * job.number], trials=4, seed=seed)
        drawn.append([job.values for job in jobs])
    assert drawn[0] == drawn[1] != drawn[2]
