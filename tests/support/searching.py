"""A search without training: places that play a given curve of figures, a run that writes nothing, a plan without data."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

from unalike.errors import Interrupted
from unalike.runs.filenames import BEST_CHECKPOINT
from unalike.spec import load_spec
from unalike.training.checkpoints import MONITORED
from unalike.training.search.space import build_space
from unalike.training.search.study import Plan
from unalike.training.search.trial import Ending, TrialTerms


def spec(*overrides, tree=None, **automl):
    """A resolved spec of TAO's recipe with settings of a search."""
    tree = {"train": {"num_epochs": 4}, **(tree or {})}
    return load_spec(
        "train", tree, [*overrides, *(f"automl.{key}={json.dumps(value)}" for key, value in automl.items())]
    )


def settle(experiment, folder):
    automl = experiment.automl
    seconds = None if automl.minutes is None else automl.minutes * 60
    sign = -1.0 if automl.direction == "minimize" else 1.0
    terms = TrialTerms(experiment, experiment, automl.seed or 0)
    return Plan(terms, build_space(automl, experiment), MONITORED, sign, automl.trials, seconds, "made-up figures")


class Run:
    """What a search needs of a run; ``stop_after`` trials begun, a signal comes."""

    def __init__(self, folder: Path, *, stop_after: int | None = None) -> None:
        self.dir, self.lines, self.signal, self.stop_after = folder, [], 0, stop_after
        folder.mkdir(parents=True, exist_ok=True)

    def status(self, status, message="", kpi=None, **progress):
        self.lines.append({"status": status, "message": message, "kpi": kpi, **progress})

    @contextmanager
    def graceful(self):
        yield

    def stop_requested(self):
        return self.signal

    def stop(self, detail=""):
        if self.signal:
            raise Interrupted(self.signal, detail)


class FakePlace:
    """Plays ``curve(job)``: a list of figures, one an epoch, or the reason of a failure. ``seen`` gets every job."""

    def __init__(self, curve, seen, run=None, tick=None):
        self.curve, self.seen, self.run, self.tick = curve, seen, run, tick
        self.closed = self.stopped = False

    def start(self, job):
        self.job, self.stopped, self.sent = job, False, 0
        self.seen.append(job)
        self.figures = self.curve(job)
        if not job.resume:
            (job.folder / "status.json").unlink(missing_ok=True)
        if self.run is not None and self.run.stop_after is not None and len(self.seen) > self.run.stop_after:
            self.run.signal = 2

    def poll(self):
        if self.tick is not None:
            self.tick()
        if isinstance(self.figures, str):
            return Ending(False, self.figures)
        if self.stopped:
            return Ending(False, "stopped by SIGTERM")
        if self.sent < len(self.figures):
            row = {
                "status": "RUNNING",
                "message": "validation",
                "epoch": self.sent,
                "kpi": {MONITORED: self.figures[self.sent]},
            }
            with open(self.job.folder / "status.json", "a") as file:
                file.write(json.dumps(row) + "\n")
            self.sent += 1
            return None
        (self.job.folder / BEST_CHECKPOINT).write_text(f"trial {self.job.number}")
        return Ending(True)

    def stop(self):
        self.stopped = True

    def close(self):
        self.closed = True
