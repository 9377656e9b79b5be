"""A search over trainings: asks Optuna for trials, sees them through, keeps what is best. Read ``Search.run`` first.

Trial 0 is the user's own spec. Each trial is a plain training in its own process and folder (``trials``); what it measures
while it trains may end it early; the best epoch counts. Everything that is known of a trial lies in Optuna's storage, so
that a search which was killed goes on where it was, and several machines may share one.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from unalike.errors import Interrupted, RunError, SpecError, TrainingError, UnalikeError
from unalike.progress import say
from unalike.runs.filenames import trial_folder
from unalike.training.search.results import (
    COUNTED,
    TrialRecord,
    append_trial,
    best_of,
    importances,
    keep_best,
    write_best_spec,
    write_page,
    write_record,
)
from unalike.training.search.samplers import OwnFirst, algorithm, build_pruner, build_sampler, suggest_value
from unalike.training.search.study import (
    HEARTBEAT_S,
    Plan,
    discard_lost_trials,
    earlier_seconds,
    heartbeat,
    open_study,
    settle_terms,
)
from unalike.training.search.trial import Ending, Job, TrialFigures, drop_checkpoints
from unalike.training.search.workers import Place

PACE_S = 0.5  # between looks at the trials
KILLS = 3  # a trial during which the search died so often is given up
FAILURES = 5  # so many failures from the start, and nothing else: the search stops
REPEATS = 10  # so many draws in a row of what was tried already: the space is exhausted


@dataclass(frozen=True)
class SearchOutcome:
    """What a search leaves: the winner's checkpoint (None where it lies on a machine out of sight), figures, record."""

    checkpoint: Path | None
    best: Mapping[str, float]
    record: Mapping[str, Any]


@dataclass
class Active:
    """A trial at work."""

    trial: Any
    job: Job
    figures: TrialFigures
    began: float
    attempt: int
    ending: str = ""  # why it was asked to stop: pruned, stopped, out of time


class Search:
    """One process's part in a search."""

    def __init__(
        self, plan: Plan, run: Any, study: Any, places: Sequence[Place], *, clock: Callable[[], float] = time.monotonic,
        pace: float = PACE_S, spent: float = 0.0,
    ) -> None:  # fmt: skip
        self.plan, self.run_, self.study, self.places = plan, run, study, list(places)
        self.automl, self.folder = plan.terms.experiment.automl, Path(run.dir).resolve()
        self.name, self.algorithm = algorithm(self.automl.algorithm)
        self.clock, self.pace, self.began, self.spent = clock, pace, clock(), spent
        self.active: dict[int, Active] = {}
        self.beat = float("-inf")
        self.repeats, self.exhausted, self.halted = 0, False, False
        self.orphans = self._orphans()

    # -- the whole way --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until the budget is spent, the user stops it, or nothing but failures came. Raises TrainingError."""
        try:
            with self.run_.graceful():
                while True:
                    moved = self._look()
                    why = "stopped" if self.run_.stop_requested() else "out of time" if self._left() <= 0 else ""
                    if why and not self.halted:
                        self._halt(why)
                    moved = (not self.halted and self._fill()) or moved
                    if not self.active:
                        break
                    if not moved:
                        time.sleep(self.pace)
        finally:
            for place in self.places:
                place.close()

    def seconds(self) -> float:
        """Time spent so far, sessions that were killed included."""
        return self.spent + self.clock() - self.began

    def _left(self) -> float:
        return float("inf") if self.plan.seconds is None else self.plan.seconds - self.seconds()

    def _halt(self, why: str) -> None:
        self.halted = True
        for index, active in self.active.items():
            active.ending = active.ending or why
            self.places[index].stop()

    # -- trials begin ---------------------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Give idle places trials while the budget lasts; whether anything was done."""
        moved = False
        for index, place in enumerate(self.places):
            if index in self.active:
                continue
            active = self._next()
            if active is None:
                break
            moved = True
            place.start(active.job)
            self.active[index] = active
        return moved

    def _next(self) -> Active | None:
        if self.orphans:
            return self._go_on(self.orphans.pop(0))
        while self._affordable():
            trial = self._ask()
            if trial is None:
                return None
            active = self._begin(trial)
            if active is not None:
                return active
            if self.repeats >= REPEATS:
                say(f"the last {REPEATS} draws had been tried already: the space is exhausted")
                self.exhausted = True
        return None

    def _affordable(self) -> bool:
        if self.exhausted:
            return False
        records = self.records()
        counted = [r for r in records if r.state in COUNTED]
        failed = [r for r in records if r.state == "failed"]
        if len(failed) >= FAILURES and not counted and not self.active:
            return False
        if self.plan.trials is not None and len(records) >= self.plan.trials:
            return False
        durations = [r.seconds for r in counted if r.seconds]
        # A trial that cannot be finished would only be thrown away.
        return not durations or self._left() > 0.7 * statistics.median(durations)

    def _ask(self) -> Any | None:
        discard_lost_trials(self.study)
        number = len(self.study.get_trials(deepcopy=False))
        seed = self.plan.terms.seed
        inner = build_sampler(self.algorithm.sampler, seed=seed, number=number, trials=self.plan.trials)
        self.study.sampler = OwnFirst(inner, self.plan.space.own())
        trial = self.study.ask()
        if self.plan.trials is not None and trial.number >= self.plan.trials:  # another machine was quicker
            trial.set_user_attr("state", "surplus")
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        return trial

    def _begin(self, trial: Any) -> Active | None:
        folder = self.folder / trial_folder(trial.number)
        for key, value in {"run": str(self.folder), "folder": str(folder), "host": socket.gethostname()}.items():
            trial.set_user_attr(key, value)
        values = self._draw(trial)
        twin = next((r for r in self.records() if r.state in COUNTED and r.values == values and trial.number > 0), None)
        if twin is not None:
            self._repeat(trial, twin)
            return None
        self.repeats = 0
        return self._activate(trial, values, attempt=1)

    def _draw(self, trial: Any) -> dict[str, Any]:
        values = self.plan.space.draw(partial(suggest_value, trial), own=trial.number == 0)
        trial.set_user_attr("values", values)
        return values

    def _activate(self, trial: Any, values: Mapping[str, Any], *, attempt: int) -> Active | None:
        folder = self.folder / trial_folder(trial.number)
        figures = TrialFigures(folder, self.plan.monitor, self.plan.sign)
        trial.set_user_attr("attempts", attempt)
        try:
            job = self.plan.terms.write(trial.number, values, folder)
        except SpecError as error:
            job = Job(trial.number, folder, folder, dict(values))
            active = Active(trial, job, figures, self.clock(), attempt)
            self._end(active, Ending(False, " ".join(str(error).split())))
            return None
        drawn = ", ".join(f"{path}={value}" for path, value in values.items())
        say(f"trial {trial.number}{f', attempt {attempt}' if attempt > 1 else ''}: {drawn or 'your own spec'}")
        return Active(trial, replace(job, resume=attempt > 1), figures, self.clock(), attempt)

    def _repeat(self, trial: Any, twin: TrialRecord) -> None:
        """The same values give the same figure: there is nothing to train."""
        self.repeats += 1
        told = {"state": "repeat", "value": twin.value, "best_epoch": twin.best_epoch, "kpi": dict(twin.kpi),
                "folder": twin.folder, "reason": f"the same as trial {twin.trial}"}  # fmt: skip
        for key, value in told.items():
            trial.set_user_attr(key, value)
        self.study.tell(trial, twin.value)
        self._write(trial.number)

    # -- trials of a session that was killed ------------------------------------------------------------------------

    def _orphans(self) -> list[Any]:
        """Trials that this folder's former session left at work; the lock on the folder says that it is gone."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        alone = self.automl.storage is None
        return [t for t in running if t.user_attrs.get("run") == str(self.folder) or alone]

    def _go_on(self, frozen: Any) -> Active | None:
        """Take up an unfinished trial: from its checkpoint if it has one, given up when it took the search down thrice."""
        trial = optuna.trial.Trial(self.study, frozen._trial_id)
        attempt = int(frozen.user_attrs.get("attempts", 0)) + 1
        killed = TrialRecord.of(frozen)
        if attempt > 1 and killed.state != "stopped":
            append_trial(self.folder, replace(killed, state="killed", reason="the search ended in mid-trial"))
        if "values" not in frozen.user_attrs:
            self.study.sampler = OwnFirst(
                build_sampler(self.algorithm.sampler, seed=self.plan.terms.seed, number=frozen.number,
                              trials=self.plan.trials), self.plan.space.own())  # fmt: skip
            return self._begin(trial) or self._next()
        if attempt > KILLS and killed.state != "stopped":
            job = Job(frozen.number, self.folder / trial_folder(frozen.number), Path(), killed.values)
            figures = TrialFigures(job.folder, self.plan.monitor, self.plan.sign)
            reason = f"the search was killed during each of {KILLS} attempts"
            self._end(Active(trial, job, figures, self.clock(), attempt - 1), Ending(False, reason))
            return self._next()
        trial.set_user_attr("state", "running")
        return self._activate(trial, killed.values, attempt=attempt) or self._next()

    # -- trials at work and at their end ----------------------------------------------------------------------------

    def _look(self) -> bool:
        """Read what the trials measured, end those that fall behind, take in those that ended."""
        moved = False
        beats = self.clock() - self.beat >= HEARTBEAT_S
        for index, active in list(self.active.items()):
            done = self.places[index].poll()  # before the figures: what was written before the end is then all there
            self._report(active, self.places[index], over=done is not None)
            if beats:
                heartbeat(self.study, active.trial)
            if done is not None:
                del self.active[index]
                self._end(active, done)
                moved = True
        if beats:
            self.beat = self.clock()
        return moved

    def _report(self, active: Active, place: Place, *, over: bool) -> None:
        news = active.figures.fresh()
        known = self.study.get_trials(deepcopy=False)[active.trial.number].intermediate_values if news else {}
        for epoch, value in news:
            if epoch not in known:
                active.trial.report(value, epoch)
            # The user's own spec is what the others are measured by: it is trained to its end.
            if not over and not active.ending and active.trial.number > 0 and active.trial.should_prune():
                active.ending = "pruned"
                place.stop()

    def _end(self, active: Active, done: Ending) -> None:
        best = active.figures.best()
        state = "complete" if done.ok else active.ending or "failed"
        if state == "out of time" and best is None:
            state = "stopped"  # with more time it can go on and be measured
        reason = "" if done.ok else done.reason
        if state == "pruned":
            reason = "it did worse than the others at the same epoch"
        if state == "complete" and best is None:
            state, reason = "failed", f"nothing was measured under the name {self.plan.monitor}"
        told: dict[str, Any] = {
            "state": state, "reason": reason, "seconds": round(self.clock() - active.began, 2),
            "epochs": max(active.figures.rows, default=-1) + 1,
        }  # fmt: skip
        if best is not None:
            told |= {"best_epoch": best[0], "kpi": best[1], "value": best[1][self.plan.monitor]}
        for key, value in told.items():
            active.trial.set_user_attr(key, value)
        if state == "complete":
            self.study.tell(active.trial, told["value"], skip_if_finished=True)
        elif state in ("pruned", "out of time"):
            self.study.tell(active.trial, state=TrialState.PRUNED, skip_if_finished=True)
        elif state == "failed":
            self.study.tell(active.trial, state=TrialState.FAIL, skip_if_finished=True)
        if state != "stopped" and not self.automl.keep_checkpoints:  # a stopped one will go on from them
            drop_checkpoints(active.job.folder)
        self._write(active.trial.number)

    # -- what is written --------------------------------------------------------------------------------------------

    def records(self) -> list[TrialRecord]:
        """Every trial of the study, other machines' included."""
        trials = self.study.get_trials(deepcopy=False)
        return [TrialRecord.of(t) for t in trials if t.user_attrs.get("state") != "surplus"]

    def _write(self, number: int) -> None:
        records = self.records()
        mine = next(r for r in records if r.trial == number)
        append_trial(self.folder, mine)
        best = best_of(records, self.plan.sign)
        if best is not None and Path(best.folder).parent == self.folder:
            keep_best(self.folder, best)
        write_record(self.folder, self.record(records))
        over = sum(r.state != "running" for r in records)
        shown = (
            "nothing measured"
            if mine.value is None
            else f"{self.plan.monitor} {mine.value:.4f} at epoch {mine.best_epoch}"
        )
        leader = f"; best {best.value:.4f}, trial {best.trial}" if best is not None else ""
        line = f"trial {number} {mine.state}: {shown}{': ' + mine.reason if mine.reason else ''}{leader}"
        say(line)
        kpi = {} if best is None else {self.plan.monitor: best.value}
        self.run_.status("RUNNING", line, kpi=kpi, step=over, max_step=self.plan.trials)

    def record(self, records: Sequence[TrialRecord]) -> dict[str, Any]:
        """The content of ``search.json``."""
        best = best_of(records, self.plan.sign)
        counts: dict[str, int] = {}
        for r in records:
            counts[r.state] = counts.get(r.state, 0) + 1
        return {
            "algorithm": self.name, "sampler": self.algorithm.sampler,
            "pruner": self.automl.pruner or self.algorithm.pruner, "seed": self.plan.terms.seed,
            "monitor": self.plan.monitor, "sign": self.plan.sign, "selected_on": self.plan.selected_on,
            "budget": {"trials": self.plan.trials, "seconds": self.plan.seconds}, "seconds": round(self.seconds(), 2),
            "space": {a.path: {"base": a.base, "range": a.in_words()} for a in self.plan.space.axes},
            "left_out": dict(self.plan.space.left_out), "counts": counts,
            "best": None if best is None else {"trial": best.trial, "value": best.value, "best_epoch": best.best_epoch,
                                               "values": dict(best.values), "folder": best.folder, "host": best.host},
            "trials": [vars(r) for r in records],
        }  # fmt: skip


def search(
    experiment: Any, run: Any, *, places: Sequence[Place] | None = None, settle: Callable[[Any, Path], Plan] | None = None,
    judge: Callable[[Path], Mapping[str, float]] | None = None, clock: Callable[[], float] = time.monotonic,
    pace: float = PACE_S,
) -> SearchOutcome:  # fmt: skip
    """Search as ``experiment.automl`` says into ``run.dir``; see ``SearchOutcome``.

    ``places`` train the trials (processes on this machine or a Ray cluster's by default); ``settle`` finds the settled spec,
    the space and the budget; ``judge`` measures the winner on the user's own query set, once, at the end. Raises the
    house's errors; Interrupted after everything was written when a signal asked to stop.
    """
    if places is None:
        from unalike.training.devices import launched_processes

        if (launched_processes() or 1) > 1:
            raise RunError("a search was started as one of several processes", expected="one process, which starts its trials",
                           remedy="start it without torchrun or srun, and set automl.concurrent")  # fmt: skip
    folder = Path(run.dir).resolve()
    plan = (settle or settle_terms)(experiment, folder)
    name, chosen = algorithm(experiment.automl.algorithm)
    _announce(plan, name, chosen.note)
    pruner = build_pruner(
        experiment.automl.pruner or chosen.pruner, epochs=plan.terms.base.train.num_epochs,
        reduction_factor=experiment.automl.reduction_factor,
    )  # fmt: skip
    study = open_study(experiment.automl, folder, plan, pruner)
    if places is None:
        from unalike.training.search.workers import open_places

        places, plan = open_places(plan)
    part = Search(plan, run, study, places, clock=clock, pace=pace, spent=earlier_seconds(folder))
    part.run()
    return _conclude(part, run, judge)


def _announce(plan: Plan, name: str, note: str) -> None:
    budget = [f"{plan.trials} trials"] if plan.trials is not None else []
    budget += [f"{plan.seconds / 60:g} minutes"] if plan.seconds is not None else []
    say(f"search: {' or '.join(budget)} (change with --trials N, --minutes N), {name}{f' ({note})' if note else ''}, over "
        f"{', '.join(axis.path for axis in plan.space.axes)}; selected by {plan.monitor} on {plan.selected_on}")  # fmt: skip
    for axis in plan.space.axes:
        say(f"  {axis.path}: {axis.in_words()} (yours: {axis.base})", level=2)
    named = plan.terms.experiment.automl.parameters
    for path, why in plan.space.left_out.items():
        say(f"{path} is not searched: {why}", level=1 if path in named else 2)
    if plan.kept_out:
        say(f"{plan.kept_out} takes no part in the selection; validation is held out of the training classes")


def _conclude(part: Search, run: Any, judge: Callable[[Path], Mapping[str, float]] | None) -> SearchOutcome:
    folder, plan = part.folder, part.plan
    records = part.records()
    best = best_of(records, plan.sign)
    record = part.record(records) | {"importance": importances(part.study, plan.terms.seed)}
    checkpoint = None
    if best is not None:
        checkpoint = keep_best(folder, best)
        write_best_spec(folder, best, own=best.trial == 0, kept_out=plan.kept_out)
        if checkpoint is None:
            say(f"the best trial, {best.trial}, lies on {best.host} in {best.folder}, which this machine does not see")
        elif judge is not None and not run.stop_requested():
            record["on_your_query"] = _judged(judge, checkpoint)
    write_record(folder, record)
    write_page(folder, record, records)
    if best is not None:
        say(
            f"best: trial {best.trial}, {plan.monitor} {best.value:.4f}; {folder / 'best_spec.yaml'}, {folder / 'report.html'}"
        )
    run.stop(
        f"best so far: trial {best.trial}; --resume goes on" if best else "no trial was measured; --resume goes on"
    )
    if best is None:
        reasons = list(dict.fromkeys(r.reason for r in records if r.reason))
        raise TrainingError(f"none of {len(records)} trials was measured", expected="a trial that trains and validates",
                            remedy="; ".join(reasons[:3]) or f"see {folder}/trial_*/train.log")  # fmt: skip
    return SearchOutcome(checkpoint, best.kpi, record)


def _judged(judge: Callable[[Path], Mapping[str, float]], checkpoint: Path) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in judge(checkpoint).items() if isinstance(value, int | float)}
    except Interrupted:
        raise
    except UnalikeError as error:  # hours of search are not lost to a query set that cannot be read
        say(f"warning: the winner could not be measured on your query set: {error}")
        return {}
