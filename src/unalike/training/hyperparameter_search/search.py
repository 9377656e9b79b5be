"""Run a hyperparameter search: plan, study and workers, then the results.

Trial 0 is the user's own spec. Each trial is a plain training in its own process and folder; the metrics that it writes
while it trains may end it early; its best epoch counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.errors import Interrupted, RunError, TrainingError, UnalikeError
from unalike.progress import say
from unalike.runs.filenames import BEST_SPEC_FILE, REPORT_FILE
from unalike.spec import settle
from unalike.training.hyperparameter_search.results import (
    best_trial,
    copy_best_checkpoint,
    field_importances,
    format_monitored,
    monitored_on_query,
    write_best_spec,
    write_record,
    write_report,
)
from unalike.training.hyperparameter_search.samplers import build_pruner, find_algorithm
from unalike.training.hyperparameter_search.scheduler import POLL_INTERVAL_S, TrialScheduler
from unalike.training.hyperparameter_search.study import SearchPlan, open_study, plan_search, read_spent_seconds
from unalike.training.hyperparameter_search.workers import Worker, open_workers

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment

Evaluate = Callable[[Path], Mapping[str, float]]  # from a checkpoint to its metrics


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search.

    Attributes:
        checkpoint: the winner's; None where it is on a machine whose disk this one cannot see.
        best: the winner's metrics.
        record: the content of ``search.json``.
    """

    checkpoint: Path | None
    best: Mapping[str, float]
    record: Mapping[str, Any]


def run_search(
    experiment: Experiment, run: Run, *, workers: Sequence[Worker] | None = None,
    plan: Callable[[Experiment, Path], SearchPlan] = plan_search, evaluate: Evaluate | None = None,
    clock: Callable[[], float] = time.monotonic, poll_interval: float = POLL_INTERVAL_S, start: float | None = None,
) -> SearchResult:  # fmt: skip
    """Search as ``experiment.automl`` says, into ``run.dir``.

    Args:
        experiment: the user's spec.
        run: the run.
        workers: train the trials; by default processes of this machine or a Ray cluster.
        plan: makes the plan of the search.
        evaluate: measures the winner on the user's own query set, once, at the end.
        clock: seconds since an arbitrary moment.
        poll_interval: seconds between polls of the trials.
        start: the clock's time when the program began, from which the time limit counts; by default now.

    Raises:
        RunError: the search was started as one of several processes, or the study belongs to another search.
        TrainingError: no trial was measured.
        Interrupted: a signal asked to stop; everything is written before.
    """
    if workers is None:
        from unalike.training.devices import launched_processes

        if (launched_processes() or 1) > 1:
            raise RunError("a search was started as one of several processes", expected="one process, which starts its trials",
                           remedy="start it without torchrun or srun, and set automl.concurrent")  # fmt: skip
    start = clock() if start is None else start
    folder = Path(run.dir).resolve()
    search_plan = plan(experiment, folder)
    run.write_experiment(_settled_as(experiment, search_plan.template.base))
    name, algorithm = find_algorithm(experiment.automl.algorithm)
    _print_plan(search_plan, name, algorithm.note)
    pruner = build_pruner(
        experiment.automl.pruner or algorithm.pruner, epochs=search_plan.template.base.train.num_epochs,
        reduction_factor=experiment.automl.reduction_factor,
    )  # fmt: skip
    study, storage = open_study(experiment.automl, folder, search_plan, pruner)
    if workers is None:
        workers, search_plan = open_workers(search_plan)
    scheduler = TrialScheduler(
        search_plan, run, study, storage, workers, clock=clock, poll_interval=poll_interval,
        seconds_spent=read_spent_seconds(folder) + clock() - start,
    )  # fmt: skip
    scheduler.run()
    return _conclude(scheduler, run, evaluate)


def _settled_as(experiment: Experiment, base: Experiment) -> Experiment:
    """The user's spec with what was settled for the trials, so that experiment.yaml gives the same search again."""
    settled = experiment.model_copy(deep=True)
    for path, value, reason in base.settled:
        settle(settled, path, value, reason)
    return settled


def _print_plan(plan: SearchPlan, name: str, note: str) -> None:
    """Print the budget, the algorithm and the search space."""
    budget = [f"{plan.trials} trials"] if plan.trials is not None else []
    budget += [f"{plan.seconds / 60:g} minutes"] if plan.seconds is not None else []
    say(f"search: {' or '.join(budget)} (change with --trials N, --minutes N), {name}{f' ({note})' if note else ''}, over "
        f"{', '.join(axis.path for axis in plan.space.axes)}; selected by {plan.monitor} on {plan.selected_on}")  # fmt: skip
    for axis in plan.space.axes:
        say(f"  {axis.path}: {axis.describe()} (yours: {axis.base})", level=2)
    parameters = plan.template.experiment.automl.parameters
    for path, why in plan.space.left_out.items():
        say(f"{path} is not searched: {why}", level=1 if path in parameters else 2)
    if plan.excluded:
        say(f"{plan.excluded} takes no part in the selection; validation is held out of the training classes")


def _conclude(scheduler: TrialScheduler, run: Run, evaluate: Evaluate | None) -> SearchResult:
    """Write the results of a search; raise where it was interrupted or nothing was measured."""
    folder, plan = scheduler.folder, scheduler.plan
    records = scheduler.records()
    best = best_trial(records, plan.sign)
    record = scheduler.record(records) | {"importance": field_importances(scheduler.study, plan.template.seed)}
    checkpoint = None
    if best is not None:
        checkpoint = copy_best_checkpoint(folder, best)
        write_best_spec(folder, best, is_user_spec=best.trial == 0, exclusion=plan.excluded)
        if checkpoint is None:
            say(f"the best trial, {best.trial}, lies on {best.host} in {best.folder}, which this machine does not see")
        elif evaluate is not None and not run.stop_requested():
            record["on_your_query"] = _evaluate_winner(evaluate, checkpoint)
            record["monitored"] = monitored_on_query(record["on_your_query"], plan.monitor)
    write_record(folder, record)
    write_report(folder, record, records)
    if best is not None:
        say(f"best: trial {best.trial}, {format_monitored(record)}; {folder / BEST_SPEC_FILE}, {folder / REPORT_FILE}")
    run.stop(
        f"best so far: trial {best.trial}; --resume goes on" if best else "no trial was measured; --resume goes on"
    )
    if best is None:
        reasons = list(dict.fromkeys(r.reason for r in records if r.reason))
        raise TrainingError(f"none of {len(records)} trials was measured", expected="a trial that trains and validates",
                            remedy="; ".join(reasons[:3]) or f"see {folder}/trial_*/train.log")  # fmt: skip
    return SearchResult(checkpoint, best.kpi, record)


def _evaluate_winner(evaluate: Evaluate, checkpoint: Path) -> dict[str, float]:
    """Evaluate the winner on the user's query set; an error there is a warning, so that the search is not lost."""
    try:
        return {name: float(value) for name, value in evaluate(checkpoint).items() if isinstance(value, int | float)}
    except Interrupted:
        raise
    except UnalikeError as error:
        say(f"warning: the winner could not be measured on your query set: {error}")
        return {}
