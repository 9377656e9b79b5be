"""Schedule the trials of a hyperparameter search: draw them, train them on workers, prune and record them.

All state of a trial is in Optuna's storage, so that a killed search can continue and several machines can share one.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from unalike.errors import SpecError
from unalike.progress import say
from unalike.runs.filenames import trial_folder
from unalike.runs.kpi_names import short_name
from unalike.training.hyperparameter_search.results import (
    FINISHED,
    TrialRecord,
    append_trial,
    best_trial,
    copy_best_checkpoint,
    write_record,
)
from unalike.training.hyperparameter_search.samplers import build_sampler, find_algorithm, suggest_value
from unalike.training.hyperparameter_search.study import (
    HEARTBEAT_S,
    SearchPlan,
    fail_lost_trials,
    find_trial_id,
    is_duplicate_user_spec,
    record_heartbeat,
)
from unalike.training.hyperparameter_search.trial import TrialExit, TrialJob, TrialMetrics, delete_periodic_checkpoints
from unalike.training.hyperparameter_search.workers import Worker, describe_checkpoint

if TYPE_CHECKING:
    from unalike.runs.run import Run

POLL_INTERVAL_S = 0.5
MAX_ATTEMPTS = 3  # a trial is given up after the search was killed during so many attempts in a row that got no further
MAX_FAILURES = 5  # so many failed trials and no finished one end the search
CLOSING_SHARE = 0.03  # of the time limit, for stopping trials and writing the results
MAX_REPEATS = 10  # so many draws in a row that had been tried already: the space is exhausted


@dataclass
class ActiveTrial:
    """A trial that is being trained.

    Attributes:
        trial: Optuna's trial.
        job: what its worker trains.
        metrics: its validations so far.
        start: the scheduler's clock when it was started.
        attempt: 1, or more after the search was killed during the trial.
        stop_reason: why it was asked to stop: pruned, stopped or out of time.
    """

    trial: optuna.Trial
    job: TrialJob
    metrics: TrialMetrics
    start: float
    attempt: int
    stop_reason: str = ""


class TrialScheduler:
    """Draws, starts, prunes and records the trials of one process; start at ``run``.

    Args:
        plan: the plan of the search.
        run: the run; its folder holds the trials' folders, and its signals stop the search.
        study: Optuna's study.
        storage: the study's storage.
        workers: train one trial each at a time.
        clock: seconds since an arbitrary moment.
        poll_interval: seconds between polls of the trials.
        spent: seconds that earlier sessions of this search spent.
    """

    def __init__(
        self, plan: SearchPlan, run: Run, study: optuna.Study, storage: BaseStorage, workers: Sequence[Worker], *,
        clock: Callable[[], float] = time.monotonic, poll_interval: float = POLL_INTERVAL_S, seconds_spent: float = 0.0,
    ) -> None:  # fmt: skip
        self.plan, self.study, self.workers, self._run = plan, study, list(workers), run
        self.storage = storage
        self.automl, self.folder = plan.template.experiment.automl, Path(run.dir).resolve()
        self.name, self.algorithm = find_algorithm(self.automl.algorithm)
        self.clock, self.poll_interval, self.start, self.spent = clock, poll_interval, clock(), seconds_spent
        self.active: dict[int, ActiveTrial] = {}  # by worker
        self.last_heartbeat = float("-inf")
        self.repeats, self.exhausted, self.halted = 0, False, False
        self.interrupted = self._find_interrupted()

    # -- the main loop --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train trials until the budget is spent, a signal asks to stop, or no further trial is worth starting."""
        try:
            with self._run.graceful():
                while True:
                    has_progress = self._poll_trials()
                    reason = (
                        "stopped" if self._run.stop_requested() else "out of time" if self._seconds_left() <= 0 else ""
                    )
                    if reason and not self.halted:
                        self._halt(reason)
                    has_progress = (not self.halted and self._start_trials()) or has_progress
                    if not self.active:
                        break
                    if not has_progress:
                        time.sleep(self.poll_interval)
        finally:
            for worker in self.workers:
                worker.close()

    def seconds(self) -> float:
        """Return the time spent so far, in earlier sessions too."""
        return self.spent + self.clock() - self.start

    def _seconds_left(self) -> float:
        """Return the seconds that are left for trials, without those for the closing report."""
        limit = self.plan.seconds
        return float("inf") if limit is None else (1 - CLOSING_SHARE) * limit - self.seconds()

    def _halt(self, reason: str) -> None:
        """Stop all trials and start no more."""
        self.halted = True
        for index, active in self.active.items():
            active.stop_reason = active.stop_reason or reason
            self.workers[index].stop()

    # -- trials are started ---------------------------------------------------------------------------------------

    def _start_trials(self) -> bool:
        """Start trials on idle workers while the budget lasts; return whether any was started."""
        has_started = False
        for index, worker in enumerate(self.workers):
            if index in self.active:
                continue
            active = self._next_trial()
            if active is None:
                break
            has_started = True
            worker.start(active.job)
            self.active[index] = active
        return has_started

    def _next_trial(self) -> ActiveTrial | None:
        """Return an interrupted trial, else a new one; None where there is none to start."""
        if self.interrupted:
            return self._resume(self.interrupted.pop(0))
        while self._can_start_trial():
            trial = self._ask()
            if trial is None:
                return None
            active = self._begin(trial)
            if active is not None:
                return active
            if self.repeats >= MAX_REPEATS:
                say(f"the last {MAX_REPEATS} draws had been tried already: the space is exhausted")
                self.exhausted = True
        return None

    def _can_start_trial(self) -> bool:
        """Whether the budget allows another trial, and it is worth starting."""
        if self.exhausted:
            return False
        records = self.records()
        finished_trials = [r for r in records if r.state in FINISHED]
        failed_trials = [r for r in records if r.state == "failed"]
        if len(failed_trials) >= MAX_FAILURES and not finished_trials and not self.active:
            return False
        if self.plan.trials is not None and len(records) >= self.plan.trials:
            return False
        durations = [r.seconds for r in finished_trials if r.seconds]
        # A trial that cannot be finished is not started.
        return not durations or self._seconds_left() > 0.7 * statistics.median(durations)

    def _set_sampler(self, number: int) -> None:
        """Give the study the sampler of this trial."""
        seed = self.plan.template.seed
        self.study.sampler = build_sampler(self.algorithm.sampler, seed=seed, number=number, trials=self.plan.trials)

    def _ask(self) -> optuna.Trial | None:
        """Ask the study for an enqueued or a new trial; None where another machine took the last one."""
        fail_lost_trials(self.study)
        trials = self.study.get_trials(deepcopy=False)
        number = next((t.number for t in trials if t.state == TrialState.WAITING), len(trials))
        self._set_sampler(number)
        trial = self.study.ask()
        if trial.number != number:  # another machine took that number
            trial = self._open_trial(trial.number)
        if is_duplicate_user_spec(trial):
            self._discard(trial)
            return self._ask()
        if self.plan.trials is not None and sum(r.trial < trial.number for r in self.records()) >= self.plan.trials:
            self._discard(trial)
            return None
        return trial

    def _open_trial(self, number: int) -> optuna.Trial:
        """Open a running trial with its own sampler."""
        self._set_sampler(number)
        return optuna.trial.Trial(self.study, find_trial_id(self.study, self.storage, number))

    def _discard(self, trial: optuna.Trial) -> None:
        """End a trial that is not trained and does not count."""
        trial.set_user_attr("state", "surplus")
        self.study.tell(trial, state=TrialState.FAIL)

    def _begin(self, trial: optuna.Trial) -> ActiveTrial | None:
        """Draw a new trial's values and write its spec; None where the values were tried before or are not valid."""
        folder = self.folder / trial_folder(trial.number)
        for key, value in {"run": str(self.folder), "folder": str(folder), "host": socket.gethostname()}.items():
            trial.set_user_attr(key, value)
        values = self.plan.space.draw(partial(suggest_value, trial), user_spec=trial.number == 0)
        trial.set_user_attr("values", values)
        twin = next(
            (r for r in self.records() if r.state in FINISHED and r.values == values and trial.number > 0), None
        )
        if twin is not None:
            self._record_repeat(trial, twin)
            return None
        self.repeats = 0
        return self._activate(trial, values, attempt=1)

    def _activate(self, trial: optuna.Trial, values: Mapping[str, Any], *, attempt: int) -> ActiveTrial | None:
        """Write a trial's spec; where the values do not go together, end it as failed and return None."""
        folder = self.folder / trial_folder(trial.number)
        metrics = TrialMetrics(folder, self.plan.monitor, self.plan.sign)
        trial.set_user_attr("attempts", attempt)
        trial.set_user_attr("began_with", describe_checkpoint(folder))
        try:
            job = self.plan.template.write_job(trial.number, values, folder)
        except SpecError as error:
            job = TrialJob(trial.number, folder, folder, dict(values))
            active = ActiveTrial(trial, job, metrics, self.clock(), attempt)
            self._end(active, TrialExit(False, " ".join(str(error).split())))
            return None
        values_text = ", ".join(f"{path}={value}" for path, value in values.items())
        say(f"trial {trial.number}{f', attempt {attempt}' if attempt > 1 else ''}: {values_text or 'your own spec'}")
        seconds_left = self._seconds_left()
        minutes = max(seconds_left, 1.0) / 60 if seconds_left < float("inf") else None
        return ActiveTrial(trial, replace(job, resume=attempt > 1, minutes=minutes), metrics, self.clock(), attempt)

    def _record_repeat(self, trial: optuna.Trial, twin: TrialRecord) -> None:
        """End a trial of the same values as ``twin``, with its result: training is deterministic."""
        self.repeats += 1
        attrs = {"state": "repeat", "value": twin.value, "best_epoch": twin.best_epoch, "kpi": dict(twin.kpi),
                 "folder": twin.folder, "reason": f"the same as trial {twin.trial}"}  # fmt: skip
        for key, value in attrs.items():
            trial.set_user_attr(key, value)
        self.study.tell(trial, twin.value)
        self._write_results(trial.number)

    # -- trials of a session that was killed ----------------------------------------------------------------------

    def _find_interrupted(self) -> list[FrozenTrial]:
        """Find trials that an earlier session in this folder left running; the folder's lock says that it has ended."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        own_storage = self.automl.storage is None
        return [t for t in running if t.user_attrs.get("run") == str(self.folder) or own_storage]

    def _resume(self, frozen: FrozenTrial) -> ActiveTrial | None:
        """Resume an interrupted trial from its checkpoint; give it up after ``MAX_ATTEMPTS`` that left no newer one."""
        trial = self._open_trial(frozen.number)
        attempt = int(frozen.user_attrs.get("attempts", 0)) + 1
        record = TrialRecord.from_trial(frozen)
        if attempt > 1 and record.state != "stopped":
            append_trial(self.folder, replace(record, state="killed", reason="the search ended in mid-trial"))
        if "values" not in frozen.user_attrs:
            return self._begin(trial) or self._next_trial()
        got_further = describe_checkpoint(self.folder / trial_folder(frozen.number)) != frozen.user_attrs.get(
            "began_with", ""
        )
        stalled = 0 if got_further else int(frozen.user_attrs.get("stalled", 0)) + 1
        trial.set_user_attr("stalled", stalled)
        if stalled >= MAX_ATTEMPTS and record.state != "stopped":
            job = TrialJob(frozen.number, self.folder / trial_folder(frozen.number), Path(), record.values)
            metrics = TrialMetrics(job.folder, self.plan.monitor, self.plan.sign)
            reason = f"the search was killed during each of {MAX_ATTEMPTS} attempts, which got no further"
            self._end(ActiveTrial(trial, job, metrics, self.clock(), attempt - 1), TrialExit(False, reason))
            return self._next_trial()
        trial.set_user_attr("state", "running")
        return self._activate(trial, record.values, attempt=attempt) or self._next_trial()

    # -- running trials, and their end ----------------------------------------------------------------------------

    def _poll_trials(self) -> bool:
        """Report new metrics, prune trials, record those that ended; return whether any ended."""
        any_ended = False
        heartbeat_due = self.clock() - self.last_heartbeat >= HEARTBEAT_S
        for index, active in list(self.active.items()):
            # Before the metrics are read, so that those of a trial that ended are complete.
            exit_ = self.workers[index].poll()
            self._report_metrics(active, self.workers[index], is_over=exit_ is not None)
            if heartbeat_due:
                record_heartbeat(self.study, self.storage, active.trial.number)
            if exit_ is not None:
                del self.active[index]
                self._end(active, exit_)
                any_ended = True
        if heartbeat_due:
            self.last_heartbeat = self.clock()
        return any_ended

    def _report_metrics(self, active: ActiveTrial, worker: Worker, *, is_over: bool) -> None:
        """Report new values to Optuna and stop the trial if its pruner says so."""
        new = active.metrics.read_new()
        earlier = self.study.get_trials(deepcopy=False)[active.trial.number].intermediate_values if new else {}
        for epoch, value in new:
            if epoch not in earlier:
                active.trial.report(value, epoch)
            # The user's own spec is the baseline of the search: it is trained to its end.
            if not is_over and not active.stop_reason and active.trial.number > 0 and active.trial.should_prune():
                active.stop_reason = "pruned"
                worker.stop()

    def _end(self, active: ActiveTrial, exit_: TrialExit) -> None:
        """Record the end of a trial in the study and in the search's files."""
        best = active.metrics.best()
        state = "complete" if exit_.ok else active.stop_reason or "failed"
        if state == "out of time" and best is None:
            state = "stopped"  # with more time it can be resumed and measured
        reason = "" if exit_.ok else exit_.reason
        if state == "pruned":
            reason = "it did worse than the others at the same epoch"
        if state == "complete" and best is None:
            state, reason = "failed", f"nothing was measured under the name {self.plan.monitor}"
        attrs: dict[str, Any] = {
            "state": state, "reason": reason, "seconds": round(self.clock() - active.start, 2),
            "epochs": max(active.metrics.by_epoch, default=-1) + 1,
        }  # fmt: skip
        if best is not None:
            attrs |= {"best_epoch": best[0], "kpi": best[1], "value": best[1][self.plan.monitor]}
        for key, value in attrs.items():
            active.trial.set_user_attr(key, value)
        if state == "complete":
            self.study.tell(active.trial, attrs["value"], skip_if_finished=True)
        elif state in ("pruned", "out of time"):
            self.study.tell(active.trial, state=TrialState.PRUNED, skip_if_finished=True)
        elif state == "failed":
            self.study.tell(active.trial, state=TrialState.FAIL, skip_if_finished=True)
        if state != "stopped" and not self.automl.keep_checkpoints:  # a stopped trial is resumed from them
            delete_periodic_checkpoints(active.job.folder)
        self._write_results(active.trial.number)

    # -- what is written ------------------------------------------------------------------------------------------

    def records(self) -> list[TrialRecord]:
        """Return every trial of the study that was started, those of other machines too."""
        trials = (t for t in self.study.get_trials(deepcopy=False) if t.state != TrialState.WAITING)
        return [TrialRecord.from_trial(t) for t in trials if t.user_attrs.get("state") != "surplus"]

    def _write_results(self, number: int) -> None:
        """Write ``trials.jsonl``, ``search.json`` and the best checkpoint after trial ``number`` ended, and report it."""
        records = self.records()
        record = next(r for r in records if r.trial == number)
        append_trial(self.folder, record)
        best = best_trial(records, self.plan.sign)
        if best is not None and Path(best.folder).parent == self.folder:
            copy_best_checkpoint(self.folder, best)
        write_record(self.folder, self.record(records))
        count = sum(r.state != "running" for r in records)
        value = (
            "nothing measured"
            if record.value is None
            else f"{short_name(self.plan.monitor)} {record.value:.4f} in epoch {(record.best_epoch or 0) + 1}"
        )
        leader = f"; best {best.value:.4f}, trial {best.trial}" if best is not None else ""
        line = f"trial {number} {record.state}: {value}{': ' + record.reason if record.reason else ''}{leader}"
        say(line)
        kpi = {} if best is None else {self.plan.monitor: best.value}
        self._run.status("RUNNING", line, kpi=kpi, step=count, max_step=self.plan.trials)

    def record(self, records: Sequence[TrialRecord]) -> dict[str, Any]:
        """Return the content of ``search.json``."""
        best = best_trial(records, self.plan.sign)
        counts: dict[str, int] = {}
        for r in records:
            counts[r.state] = counts.get(r.state, 0) + 1
        return {
            "algorithm": self.name, "sampler": self.algorithm.sampler,
            "pruner": self.automl.pruner or self.algorithm.pruner, "seed": self.plan.template.seed,
            "monitor": self.plan.monitor, "sign": self.plan.sign, "selected_on": self.plan.selected_on,
            "budget": {"trials": self.plan.trials, "seconds": self.plan.seconds}, "seconds": round(self.seconds(), 2),
            "space": {a.path: {"base": a.base, "range": a.describe()} for a in self.plan.space.axes},
            "left_out": dict(self.plan.space.left_out), "counts": counts,
            "best": None if best is None else {"trial": best.trial, "value": best.value, "best_epoch": best.best_epoch,
                                               "values": dict(best.values), "folder": best.folder, "host": best.host},
            "trials": [vars(r) for r in records],
        }  # fmt: skip
