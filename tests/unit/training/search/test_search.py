"""The logic of a search on made-up figures: what is tried, what counts, what survives failures, signals and kills."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.support.searching import FakePlace, Run, settle, spec
from unalike.errors import Interrupted, RunError, SpecError, TrainingError
from unalike.spec import load_spec
from unalike.training.checkpoints import Checkpointer
from unalike.training.search import workers
from unalike.training.search.search import search
from unalike.training.search.space import build_space
from unalike.training.search.trial import Ending, Job, StatusTail, TrialFigures, TrialTerms, drop_checkpoints
from unalike.training.search.workers import LocalPlace, cut_devices, ending

LR = "train.optim.trunk.base_lr"


def peak(job):
    """Figures of four epochs, best at the third; the rate 1e-3 is the best."""
    rate = job.values.get(LR, 3.5e-4)
    height = 0.9 - 0.1 * abs(math.log10(rate) + 3)
    return [height - 0.2, height - 0.1, height, height - 0.05]


def run_search(experiment, folder, curve=peak, *, places=1, stop_after=None, tick=None, clock=None):
    run, seen = Run(folder, stop_after=stop_after), []
    there = [FakePlace(curve, seen, run, tick) for _ in range(places)]
    more = {} if clock is None else {"clock": clock}
    outcome = search(experiment, run, places=there, settle=settle, pace=0.0, **more)
    return outcome, seen, run


def journal(folder: Path) -> str:
    return f"journal://{folder / 'journal.log'}"


def quick(tmp_path, *overrides, **automl):
    """A spec whose study is a file of lines, which opens at once."""
    return spec(*overrides, **{"storage": journal(tmp_path), "seed": 3, "pruner": "none"} | automl)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


def test_a_search_leaves_record_best_spec_page_and_checkpoint(tmp_path):
    folder = tmp_path / "run"
    outcome, seen, run = run_search(spec(trials=6, seed=3, parameters=[LR]), folder)  # SQLite, as by default
    record = json.loads((folder / "search.json").read_text())
    assert [job.number for job in seen] == list(range(6)) == [t["trial"] for t in record["trials"]]
    assert seen[0].values == {} and record["best"]["value"] == max(t["value"] for t in record["trials"])
    assert (folder / "ml_model_best.pth").read_text() == f"trial {record['best']['trial']}"
    assert (folder / "study.db").exists() and len(lines(folder)) == 6
    best = load_spec("train", folder / "best_spec.yaml")
    assert best.policy() == "off" and not best.automl.names_a_search()
    assert best.train.optim.trunk.base_lr == record["best"]["values"].get(LR, 3.5e-4)
    assert record["importance"] == {LR: 1.0}
    page = (folder / "report.html").read_text()
    assert LR in page and "What mattered" in page and "<script" not in page
    assert run.lines[-1]["step"] == run.lines[-1]["max_step"] == 6
    assert outcome.checkpoint == (folder / "ml_model_best.pth").resolve()


def test_a_trial_is_the_users_spec_with_the_drawn_values_and_without_their_query_set(tmp_path):
    tree = {"train": {"num_epochs": 7, "seed": 5}, "dataset": {"val_dataset": {"query": "q", "reference": "r"}},
            "results_dir": "somewhere", "evaluate": {"topk": 3}}  # fmt: skip
    experiment = load_spec("train", tree, ["automl.trials=2", "model.feat_dim=32"])
    held = TrialTerms(experiment, experiment, 0).tree({LR: 0.01}, tmp_path)
    again = load_spec("train", held)
    assert "val_dataset" not in held.get("dataset", {})
    assert again.train.optim.trunk.base_lr == 0.01 and again.model.feat_dim == 32 and again.train.num_epochs == 7
    assert again.train.recipe == "tao" and again.train.results_dir == str(tmp_path) and again.policy() == "off"
    assert again.train.checkpoint_interval == again.train.validation_interval == 1
    assert again.is_set("train.validation_interval") and not again.automl.names_a_search()
    assert experiment.dataset.val_dataset.query == "q"


def test_an_argument_of_a_settled_loss_takes_the_loss_along(tmp_path):
    experiment = load_spec("train", None, ["automl.trials=2"])
    base = load_spec("train", None)
    base.train.loss.name, base.train.loss.parameters = "CosFaceLoss", {"margin": 0.2, "scale": 20.0}
    terms = TrialTerms(experiment, base, 0)
    assert "loss" not in terms.tree({LR: 0.01}, tmp_path)["train"]  # left to be settled again
    loss = terms.tree({"train.loss.parameters.margin": 0.3}, tmp_path)["train"]["loss"]
    assert loss == {"name": "CosFaceLoss", "parameters": {"margin": 0.3, "scale": 20.0}}
    assert terms.tree({"train.loss.name": "ArcFaceLoss"}, tmp_path)["train"]["loss"] == {"name": "ArcFaceLoss"}
    same = terms.tree({"train.loss.name": "CosFaceLoss"}, tmp_path)["train"]["loss"]
    assert same["parameters"] == {"margin": 0.2, "scale": 20.0}


def test_failures_are_recorded_with_their_reason_and_cost_nothing_else(tmp_path):
    def curve(job):
        return "the loss is nan at epoch 0" if job.number in (1, 3) else peak(job)

    outcome, seen, _ = run_search(quick(tmp_path, trials=6), tmp_path / "run", curve)
    rows = lines(tmp_path / "run")
    assert [r["state"] for r in rows] == ["complete", "failed", "complete", "failed", "complete", "complete"]
    assert rows[1]["reason"] == "the loss is nan at epoch 0" and rows[1]["value"] is None and len(seen) == 6
    assert outcome.record["counts"] == {"complete": 4, "failed": 2}


def test_values_that_do_not_go_together_are_a_failed_trial_too(tmp_path):
    experiment = quick(tmp_path, "train.checkpointer.save_top_k=1", trials=8,
                       ranges={"dataset.gaussian_blur.kernel": [[3, 3], [999, 999]]}, parameters=[LR])  # fmt: skip
    _, seen, _ = run_search(experiment, tmp_path / "run")
    rows = lines(tmp_path / "run")
    refused = [r for r in rows if r["values"].get("dataset.gaussian_blur.kernel") == [999, 999]]
    assert refused and all(r["state"] == "failed" and "kernel" in r["reason"] for r in refused)
    assert len(seen) == 8 - len(refused)


def test_nothing_but_failures_ends_the_search_with_the_reason(tmp_path):
    with pytest.raises(TrainingError, match="no such trunk"):
        run_search(quick(tmp_path, trials=50), tmp_path / "run", lambda job: "no such trunk")
    assert len(lines(tmp_path / "run")) == 5
    assert json.loads((tmp_path / "run/search.json").read_text())["best"] is None


def test_a_trial_that_falls_behind_is_ended_but_never_the_users_own(tmp_path):
    def curve(job):
        return [0.1, 0.1, 0.1, 0.1] if job.number in (0, 7) else [0.5 + 0.01 * job.number] * 4

    _, _, _ = run_search(quick(tmp_path, trials=8, pruner="median"), tmp_path / "run", curve)
    rows = lines(tmp_path / "run")
    assert rows[0]["state"] == "complete" and rows[0]["epochs"] == 4
    assert rows[7]["state"] == "pruned" and rows[7]["epochs"] < 4 and rows[7]["value"] == 0.1


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def tick(self):
        self.now += 2.0


def test_minutes_end_a_search_and_no_trial_is_begun_that_cannot_be_finished(tmp_path):
    clock = Clock()  # a trial takes five looks: ten seconds
    experiment = quick(tmp_path, minutes=1.05, trials=100)
    _, seen, _ = run_search(experiment, tmp_path / "run", clock=clock, tick=clock.tick)
    assert len(seen) == 6 and clock.now <= 63
    assert {r["state"] for r in lines(tmp_path / "run")} == {"complete"}


def test_a_first_trial_that_is_too_long_counts_with_what_it_measured(tmp_path):
    clock = Clock()
    outcome, seen, _ = run_search(
        quick(tmp_path, minutes=0.1, parameters=[LR]), tmp_path / "run", lambda job: [0.3, 0.6, 0.2] + [0.1] * 50,
        clock=clock, tick=clock.tick,
    )  # fmt: skip
    (row,) = lines(tmp_path / "run")
    assert len(seen) == 1 and row["state"] == "out of time" and row["value"] == 0.6 and row["best_epoch"] == 1
    assert "ended early" in (tmp_path / "run/best_spec.yaml").read_text()
    assert outcome.checkpoint is None  # this place wrote none


def test_ctrl_c_keeps_the_best_so_far_and_resuming_goes_on_where_it_was(tmp_path):
    folder, experiment = tmp_path / "run", quick(tmp_path, trials=7, parameters=[LR, "train.optim.embedder.base_lr"])
    with pytest.raises(Interrupted, match="best so far: trial"):
        run_search(experiment, folder, stop_after=3)
    assert json.loads((folder / "search.json").read_text())["best"] is not None
    assert (folder / "ml_model_best.pth").exists() and (folder / "report.html").exists()
    _, seen, _ = run_search(experiment, folder)
    rows = lines(folder)
    assert [job.number for job in seen] == [3, 4, 5, 6] and seen[0].resume
    assert [r["trial"] for r in rows] == [0, 1, 2, 3, 3, 4, 5, 6] and rows[3]["state"] == "stopped"
    (tmp_path / "other").mkdir()
    _, straight, _ = run_search(quick(tmp_path / "other", trials=7, parameters=experiment.automl.parameters),
                                tmp_path / "other" / "run")  # fmt: skip
    assert [j.values for j in straight[3:]] == [j.values for j in seen]  # as if nothing had happened


def test_another_space_or_spec_in_the_same_study_is_refused(tmp_path):
    run_search(quick(tmp_path, trials=1), tmp_path / "a")
    with pytest.raises(RunError, match="another space"):
        run_search(quick(tmp_path, trials=2, parameters=[LR]), tmp_path / "b")
    with pytest.raises(RunError, match="another spec"):
        run_search(quick(tmp_path, "model.feat_dim=64", trials=2), tmp_path / "c")
    _, seen, _ = run_search(quick(tmp_path, trials=3), tmp_path / "d")  # more of the same is welcome
    assert [job.number for job in seen] == [1, 2]


def test_a_small_space_is_not_trained_twice_and_ends_the_search(tmp_path):
    experiment = quick(tmp_path, trials=100, parameters=["train.smooth_loss"])
    outcome, seen, _ = run_search(experiment, tmp_path / "run")
    assert 2 <= len(seen) <= 3 and outcome.record["counts"]["repeat"] >= 10


def test_less_can_be_better(tmp_path):
    outcome, _, _ = run_search(quick(tmp_path, trials=4, direction="minimize"), tmp_path / "run")
    worst = min(t["value"] for t in outcome.record["trials"])
    assert outcome.record["best"]["value"] == worst and outcome.record["best"]["best_epoch"] == 0
    assert (
        yaml.safe_load((tmp_path / "run/trial_000/trial_spec.yaml").read_text())["train"]["checkpointer"]["mode"]
        == "min"
    )


ALONE = """
import os, signal, sys
from pathlib import Path
from tests.support.searching import FakePlace, Run, settle, spec
from unalike.training.search.search import search

def curve(job):
    if job.number == 2:
        (job.folder / "model_epoch_000_step_00001.pth").write_text("a checkpoint")
        os.kill(os.getpid(), signal.SIGKILL)
    return [0.5, 0.6]

run = Run(Path(sys.argv[1]))
search(spec(trials=6, seed=1, storage=sys.argv[2], pruner="none"), run, places=[FakePlace(curve, [])], settle=settle, pace=0.0)
"""


def test_a_killed_search_loses_no_finished_trial_while_another_process_shares_its_study(tmp_path):
    """One process dies by kill -9 in its third trial; one in another folder goes on; the first is then resumed."""
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    here = os.environ["PYTHONPATH"]
    done = subprocess.run([sys.executable, "-c", ALONE, tmp_path / "a", storage], env={**os.environ, "PYTHONPATH": here},
                          capture_output=True, text=True, timeout=240, check=False)  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert [r["state"] for r in lines(tmp_path / "a")] == ["complete", "complete"]
    experiment = spec(trials=6, seed=1, storage=storage, pruner="none")
    _, other, _ = run_search(experiment, tmp_path / "b")
    assert [job.number for job in other] == [3, 4, 5]  # the dead one's trial is not its to take
    outcome, again, _ = run_search(experiment, tmp_path / "a")
    assert [job.number for job in again] == [2] and again[0].resume
    rows = lines(tmp_path / "a")
    assert [(r["trial"], r["state"], r["attempt"]) for r in rows[2:]] == [(2, "killed", 1), (2, "complete", 2)]
    assert outcome.record["counts"] == {"complete": 6}
    assert sorted(p.name for p in (tmp_path / "b").glob("trial_*")) == ["trial_003", "trial_004", "trial_005"]


def test_a_trial_that_takes_the_search_down_thrice_is_given_up(tmp_path):
    class Fatal(Exception):
        pass

    def curve(job):
        if job.number == 1:
            raise Fatal
        return [0.5]

    experiment, folder = quick(tmp_path, trials=3), tmp_path / "run"
    for _ in range(3):
        with pytest.raises(Fatal):
            run_search(experiment, folder, curve)
    _, seen, _ = run_search(experiment, folder, curve)
    assert [job.number for job in seen] == [2]
    assert "killed during each of 3" in next(r for r in lines(folder) if r["state"] == "failed")["reason"]


# ---- trials ----


def test_figures_are_read_as_they_come_and_torn_lines_wait(tmp_path):
    tail = StatusTail(tmp_path)
    assert tail.validations() == []
    row = json.dumps({"message": "validation", "epoch": 4, "kpi": {"a": 0.5, "b": None}})
    (tmp_path / "status.json").write_text("torn{\n" + row + "\n" + row[:20])
    assert tail.validations() == [(4, {"a": 0.5})] and tail.validations() == []
    with open(tmp_path / "status.json", "a") as file:
        file.write(row[20:] + "\n")
    assert tail.validations() == [(4, {"a": 0.5})]


def test_a_failed_process_says_why(tmp_path):
    assert ending(tmp_path, 0).ok
    assert "SIGKILL" in ending(tmp_path, -9).reason and "memory" in ending(tmp_path, -9).reason
    (tmp_path / "train.log").write_text("settled\nerror: no spec file x\n")
    assert ending(tmp_path, 2).reason == "no spec file x"
    (tmp_path / "status.json").write_text(json.dumps({"status": "FAILURE", "message": "the loss is nan"}) + "\n")
    assert ending(tmp_path, 1).reason == "the loss is nan"


def test_a_finished_trial_keeps_its_best_and_latest(tmp_path):
    for name in ("model_epoch_000_step_00001.pth", "model_epoch_001_step_00002.pth", "ml_model_best.pth"):
        (tmp_path / name).write_text(name)
    (tmp_path / "ml_model_latest.pth").symlink_to("model_epoch_001_step_00002.pth")
    drop_checkpoints(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ml_model_best.pth", "ml_model_latest.pth", "model_epoch_001_step_00002.pth",
    ]  # fmt: skip


def test_a_place_runs_a_process_that_can_be_stopped_and_is_not_left_behind(tmp_path, monkeypatch):
    def starts(program):
        monkeypatch.setattr(workers, "command", lambda job: [sys.executable, "-S", "-c", program])
        place = LocalPlace({"WHERE": "here"})
        place.start(Job(0, tmp_path, tmp_path, {}))
        return place

    def wait(place):
        while (done := place.poll()) is None:
            time.sleep(0.01)
        return done

    place = starts("import os, sys; print(os.environ['WHERE']); sys.exit(3)")
    assert wait(place) == Ending(False, "here")
    place.close()
    place = starts("import os; print('up', flush=True); os.read(0, 1)")
    while "up" not in (tmp_path / "train.log").read_text():
        time.sleep(0.01)
    assert place.poll() is None
    place.stop()
    assert "SIGTERM" in wait(place).reason
    place.close()
    place = starts(
        "import signal, os; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); os.read(0, 1)"
    )
    while "deaf" not in (tmp_path / "train.log").read_text():
        time.sleep(0.01)
    place.close(patience=0.1)
    assert place.process.returncode == -signal.SIGKILL


def test_devices_and_threads_are_shared_out():
    base = load_spec("train", {})
    assert cut_devices(base, None, gpus=[], threads=8) == [{}]
    assert [e["OMP_NUM_THREADS"] for e in cut_devices(base, 3, gpus=[], threads=8)] == ["2", "2", "2"]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in cut_devices(base, None, gpus=["0", "2", "5"], threads=8)] == [
        "0",
        "2",
        "5",
    ]
    assert cut_devices(base, 1, gpus=["0", "1"], threads=8) == [{}]
    base.train.num_gpus = 2
    assert [e["CUDA_VISIBLE_DEVICES"] for e in cut_devices(base, None, gpus=list("01234"), threads=8)] == ["0,1", "2,3"]


# ---- the space and the spec ----


def test_what_may_not_be_searched_is_refused_by_name():
    for override, part in [
        ("automl.parameters=[dataset.validation.seed]", "how a trial is judged"),
        ("automl.parameters=[train.optim.trunk.base_rl]", "did you mean 'train.optim.trunk.base_lr'"),
        ("automl.parameters=[train.optim]", "a section"),
        ("automl.ranges.train.optim.trunk.base_lr=[1, 0.1]", "the least first"),
        ("automl.ranges.train.optim.trunk.base_lr=[-1, 0.1]", "no value of this field"),
        ("automl.ranges={train.optim.name: [Adam, Adamx]}", "no value of this field"),
        ("automl.ranges={train.optim.trunk.base_lr: {lowest: 1}}", "lowest"),
        ("automl.algorithm=llm", "language model"),
        ("automl.algorithm=hyperbnad", "did you mean 'hyperband'"),
        ("automl.address=here", "ray"),
    ]:
        with pytest.raises(SpecError) as caught:
            load_spec("train", None, [override])
        assert part in str(caught.value), (override, str(caught.value))
    experiment = load_spec("train", {}, ["automl.parameters=[dataset.crop.scale]"])
    with pytest.raises(SpecError, match="give it values"):
        build_space(experiment.automl, experiment)


def test_taos_settings_are_other_spellings():
    tree = {"automl_algorithm": "asha", "automl_max_recommendations": 7, "automl_max_epochs": 9, "direction": "maximize",
            "automl_reduction_factor": 4, "automl_max_concurrent": 2, "automl_hyperparameters": f'["{LR}"]',
            "custom_param_ranges": {LR: {"valid_min": 1e-5, "valid_max": 1e-3}}}  # fmt: skip
    automl = load_spec("train", tree).automl
    assert (automl.algorithm, automl.trials, automl.max_epochs, automl.direction) == ("asha", 7, 9, "maximize")
    assert (automl.reduction_factor, automl.concurrent, automl.parameters) == (4, 2, [LR])
    axis = build_space(automl, load_spec("train", {})).axes[0]
    assert (axis.distribution.low, axis.distribution.high, axis.distribution.log) == (1e-5, 1e-3, True)
    assert load_spec("train", None, ["automl_max_recommendations=3"]).automl.trials == 3
    with pytest.raises(SpecError, match="given twice"):
        load_spec("train", {"automl_max_recommendations": 3, "automl": {"trials": 3}})
    assert load_spec("train", {"automl": {"seed": 3}}).automl.names_a_search() is False


@pytest.mark.parametrize(
    "name",
    [
        "bayesian",
        "asha",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("bfbo", "bohb", "dehb", "hyperband_es", "qmc")),
    ],
)
def test_every_algorithm_draws_and_is_seeded(tmp_path, name):
    def draws(folder, seed):
        (tmp_path / folder).mkdir()
        experiment = spec(
            trials=6, algorithm=name, seed=seed, storage=journal(tmp_path / folder), parameters=[LR, "train.optim.name"]
        )
        _, seen, _ = run_search(experiment, tmp_path / folder / "run")
        return [tuple(job.values.values()) for job in seen]

    first = draws("a", 5)
    assert first == draws("b", 5) and len(set(first)) > 3


def test_of_equal_epochs_the_one_whose_checkpoint_is_kept_counts(tmp_path):
    """A trial's figures are those of its ml_model_best.pth, which goes by MAP where R@1 is equal."""
    rows = [{"val Precision at Rank 1": 1.0, "val Mean Average Precision": m} for m in (0.5, 0.7, 0.7, 0.6)]
    rows.append({"val Precision at Rank 1": 0.9, "val Mean Average Precision": 0.9})
    keeper = Checkpointer(tmp_path, load_spec("train").train)
    lines = []
    for epoch, kpi in enumerate(rows):
        payload = {"model": {}, "spec": {}, "training": {}}
        keeper.save(payload, epoch=epoch, step=epoch, due=False, last=False, kpis=kpi)
        lines.append(json.dumps({"message": "validation", "epoch": epoch, "kpi": kpi}) + "\n")
    (tmp_path / "status.json").write_text("".join(lines))
    figures = TrialFigures(tmp_path, "val Precision at Rank 1", 1.0)
    figures.fresh()
    best = figures.best()
    assert best is not None and best[0] == keeper.best_epoch == 1
