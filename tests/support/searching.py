"""A search without training: workers that play given curves of a metric, a run in memory, a plan without data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unalike.errors import Interrupted
from unalike.runs.filenames import BEST_CHECKPOINT, STATUS_FILE
from unalike.spec import Experiment, load_spec
from unalike.training.checkpoints import MONITORED
from unalike.training.hyperparameter_search.search import SearchResult, run_search
from unalike.training.hyperparameter_search.space import build_space
from unalike.training.hyperparameter_search.study import SearchPlan
from unalike.training.hyperparameter_search.trial import TrialExit, TrialJob, TrialTemplate

# Values of the metric, one an epoch, or the reason of a failure.
Curve = Callable[[TrialJob], list[float] | str]
TRUNK_LR = "train.optim.trunk.base_lr"


def spec(*overrides: str, tree: dict[str, Any] | None = None, **automl: Any) -> Experiment:
    """A resolved spec of TAO's recipe with settings of a search."""
    tree = {"train": {"num_epochs": 4}, **(tree or {})}
    return load_spec(
        "train", tree, [*overrides, *(f"automl.{key}={json.dumps(value)}" for key, value in automl.items())]
    )


def journal_url(folder: Path) -> str:
    return f"journal://{folder / 'journal.log'}"


def journal_spec(folder: Path, *overrides: str, **automl: Any) -> Experiment:
    """A spec whose study is a journal file, which opens faster than SQLite."""
    return spec(*overrides, **{"storage": journal_url(folder), "seed": 3, "pruner": "none"} | automl)


def plan_without_data(experiment: Experiment, folder: Path) -> SearchPlan:
    """What ``plan_search`` makes, without reading images or building a network."""
    automl = experiment.automl
    seconds = None if automl.minutes is None else automl.minutes * 60
    sign = -1.0 if automl.direction == "minimize" else 1.0
    template = TrialTemplate(experiment, experiment, automl.seed or 0)
    space = build_space(automl, experiment)
    return SearchPlan(template, space, MONITORED, sign, automl.trials, seconds, "made-up figures")


class FakeRun:
    """What a search needs of a run; a signal comes after ``stop_after`` trials were started."""

    def __init__(self, folder: Path, *, stop_after: int | None = None) -> None:
        self.dir, self.signal, self.stop_after = folder, 0, stop_after
        self.lines: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def status(self, status: str, message: str = "", kpi: Any = None, **progress: Any) -> None:
        self.lines.append({"status": status, "message": message, "kpi": kpi, **progress})

    def write_experiment(self, experiment: Any) -> None:
        self.experiment = experiment

    @contextmanager
    def graceful(self) -> Iterator[None]:
        yield

    def stop_requested(self) -> int:
        return self.signal

    def stop(self, detail: str = "") -> None:
        if self.signal:
            raise Interrupted(self.signal, detail)


class FakeWorker:
    """Plays a curve; ``jobs`` gets every job, and ``tick`` is called at every poll."""

    def __init__(
        self, curve: Curve, jobs: list[TrialJob], run: FakeRun | None = None, tick: Callable[[], None] | None = None
    ) -> None:
        self.curve, self.jobs, self.run, self.tick = curve, jobs, run, tick
        self.closed = self.stopped = False

    def start(self, job: TrialJob) -> None:
        self.job, self.stopped, self.epoch = job, False, 0
        self.jobs.append(job)
        self.values = self.curve(job)
        if not job.resume:
            (job.folder / STATUS_FILE).unlink(missing_ok=True)
        if self.run is not None and self.run.stop_after is not None and len(self.jobs) > self.run.stop_after:
            self.run.signal = 2

    def poll(self) -> TrialExit | None:
        if self.tick is not None:
            self.tick()
        if isinstance(self.values, str):
            return TrialExit(False, self.values)
        if self.stopped:
            return TrialExit(False, "stopped by SIGTERM")
        if self.epoch < len(self.values):
            kpi = {MONITORED: self.values[self.epoch]}
            row = {"status": "RUNNING", "message": "validation", "epoch": self.epoch, "kpi": kpi}
            with open(self.job.folder / STATUS_FILE, "a") as file:
                file.write(json.dumps(row) + "\n")
            self.epoch += 1
            return None
        (self.job.folder / BEST_CHECKPOINT).write_text(f"trial {self.job.number}")
        return TrialExit(True)

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        self.closed = True


def play_search(
    experiment: Experiment, folder: Path, curve: Curve, *, workers: int = 1, stop_after: int | None = None,
    tick: Callable[[], None] | None = None, **options: Any,
) -> tuple[SearchResult, list[TrialJob], FakeRun]:  # fmt: skip
    """Run a search in ``folder`` whose trials play ``curve``; the result, the jobs that were started, and the run."""
    run, jobs = FakeRun(folder, stop_after=stop_after), list[TrialJob]()
    fakes = [FakeWorker(curve, jobs, run, tick) for _ in range(workers)]
    fake_run: Any = run
    result = run_search(experiment, fake_run, workers=fakes, plan=plan_without_data, poll_interval=0.0, **options)
    return result, jobs, run


def peak_curve(job: TrialJob) -> list[float]:
    """Values of four epochs, the best at the third; a learning rate of 1e-3 is the best."""
    rate = job.values.get(TRUNK_LR, 3.5e-4)
    height = 0.9 - 0.1 * abs(math.log10(rate) + 3)
    return [height - 0.2, height - 0.1, height, height - 0.05]


def read_trials(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
