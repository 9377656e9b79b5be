"""The results of a hyperparameter search: search.json, trials.jsonl, best spec and checkpoint, and a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from unalike.report.html import Report
from unalike.runs.filenames import (
    BEST_CHECKPOINT,
    BEST_SPEC_FILE,
    EXPERIMENT_FILE,
    MODEL_CARD_FILE,
    MODEL_CARD_PAGE,
    REPORT_FILE,
    SEARCH_FILE,
    TRIAL_SPEC_FILE,
    TRIALS_FILE,
)
from unalike.runs.kpi_names import short_name
from unalike.storage.atomic import copy_file, write_text
from unalike.training.checkpoints import TIE_BREAKER

FORMAT_VERSION = 1
MIN_TRIALS_FOR_IMPORTANCE = 4
FINISHED = ("complete", "repeat")  # states of trials that were trained to their end


@dataclass(frozen=True)
class TrialRecord:
    """One trial, as files and tables show it; the field names are the keys of ``trials.jsonl``.

    Attributes:
        trial: its number.
        state: complete, pruned, failed, repeat, stopped, killed, lost, out of time or running.
        value: its best value of the monitored metric.
        best_epoch: the epoch of that value, from 0, as files count; pages and messages count from 1.
        epochs: number of epochs with a validation.
        seconds: duration.
        values: the drawn values by field.
        kpi: all metrics at the best epoch.
        reason: why it was stopped or failed.
        folder: its results folder.
        host: the machine that trained it.
        attempt: 1, or more after the search was killed during the trial.
        curve: the monitored metric by epoch.
    """

    trial: int
    state: str
    value: float | None
    best_epoch: int | None
    epochs: int
    seconds: float | None
    values: Mapping[str, Any]
    kpi: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    folder: str = ""
    host: str = ""
    attempt: int = 1
    curve: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def from_trial(cls, trial: FrozenTrial) -> TrialRecord:
        """Read Optuna's record of a trial."""
        attrs = trial.user_attrs
        state = attrs.get("state", "running")
        if state == "running" and trial.state == TrialState.FAIL:
            state = "lost"  # with its machine
        return cls(
            trial.number, state, attrs.get("value"), attrs.get("best_epoch"),
            attrs.get("epochs", 0), attrs.get("seconds"), attrs.get("values", {}), attrs.get("kpi", {}),
            attrs.get("reason", ""), attrs.get("folder", ""), attrs.get("host", ""), attrs.get("attempts", 1),
            dict(sorted(trial.intermediate_values.items())),
        )  # fmt: skip


def best_trial(records: Sequence[TrialRecord], sign: float) -> TrialRecord | None:
    """Return the winner among the trials that were trained to their end; if there is none, among all with a value.

    Ties (small validation sets have many) are decided by mean average precision, then by the lower number.

    Args:
        records: all trials.
        sign: 1 if more is better, -1 if less is.
    """
    trials = [r for r in records if r.value is not None and r.state not in ("failed", "running")]
    eligible = [r for r in trials if r.state in FINISHED] or trials
    return max(eligible, key=lambda r: (sign * (r.value or 0.0), r.kpi.get(TIE_BREAKER, 0.0), -r.trial), default=None)


def monitored_on_query(figures: Mapping[str, float], monitor: str) -> float | None:
    """Return the monitored metric on the user's own query set, where it could be measured.

    Args:
        figures: the metrics of ``evaluate`` by TAO's names, such as ``test Precision at Rank 1``.
        monitor: the metric by its name in training, such as ``val Precision at Rank 1``.
    """
    return figures.get(monitor.replace("val", "test", 1))


def format_monitored(record: Mapping[str, Any]) -> str:
    """Return the monitored metric of the best trial in words: on the user's own query set where that was measured.

    The metric that the trial was selected by stands beside it, since it was measured on other images and is optimistic.

    Args:
        record: the content of ``search.json``; ``best`` is not empty.
    """
    name, value = short_name(record["monitor"]), record["best"]["value"]
    if record.get("monitored") is None:
        return f"{name} {value:.4f}"
    return f"{name} {record['monitored']:.4f} on your query set, selected by {value:.4f} on {record['selected_on']}"


def reported_figures(best: Mapping[str, float], record: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that a search reports by TAO's names: of the user's own query set where one was measured.

    Those of the selection then stand beside them as ``held-out ...``.

    Args:
        best: metrics of the best trial on the held-out images.
        record: the content of ``search.json``.
    """
    selection = {name: value for name, value in best.items() if name.startswith("val")}
    own = {name.replace("test", "val", 1): value for name, value in (record.get("on_your_query") or {}).items()}
    return own | {name.replace("val", "held-out", 1): value for name, value in selection.items()} if own else selection


def field_importances(study: optuna.Study, seed: int) -> dict[str, float]:
    """Return the share of each field in the variance of the metric (fANOVA), largest first; empty with too few trials.

    Args:
        study: the study.
        seed: of the random forest.
    """
    complete = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    if len(complete) < MIN_TRIALS_FOR_IMPORTANCE or len({t.value for t in complete}) < 2:
        return {}
    try:
        shares = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=seed)
        )
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}  # no field was drawn in every trial, or the forest has nothing to split on
    return {name: round(float(share), 4) for name, share in shares.items()}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``search.json`` atomically."""
    text = json.dumps({"format_version": FORMAT_VERSION, **record}, indent=1, ensure_ascii=False)
    write_text(folder / SEARCH_FILE, text + "\n")


def append_trial(folder: Path, record: TrialRecord) -> None:
    """Append a line to ``trials.jsonl``; a trial that was killed and resumed has a line for each attempt."""
    with open(folder / TRIALS_FILE, "ab") as file:
        file.write(json.dumps(asdict(record), ensure_ascii=False).encode() + b"\n")


def copy_best_checkpoint(folder: Path, best: TrialRecord) -> Path | None:
    """Copy the winner's checkpoint and model card to the search's folder (hard links where the disk allows them).

    Args:
        folder: the search's folder.
        best: the winner.

    Returns:
        The checkpoint; None where this machine cannot see the folder of another machine's trial.
    """
    source, target = Path(best.folder) / BEST_CHECKPOINT, folder / BEST_CHECKPOINT
    if not source.exists():
        return None
    copy_file(source, target, link=True)
    for name in (MODEL_CARD_FILE, MODEL_CARD_PAGE):
        if (Path(best.folder) / name).exists():
            copy_file(Path(best.folder) / name, folder / name)
    return target


def write_best_spec(folder: Path, best: TrialRecord, *, is_user_spec: bool, exclusion: str) -> Path | None:
    """Write the winner's resolved spec as a spec that trains it again, with ``automl_policy: off``.

    Args:
        folder: the search's folder.
        best: the winner.
        is_user_spec: whether it is the trial of the user's own spec.
        exclusion: description of the data that were not used for the selection; written as a comment.

    Returns:
        The file; None where this machine cannot see the trial's folder.
    """
    spec_file = Path(best.folder) / EXPERIMENT_FILE
    source = spec_file if spec_file.exists() else Path(best.folder) / TRIAL_SPEC_FILE
    if not source.exists():
        return None
    values = yaml.safe_load(source.read_text(encoding="utf-8"))
    values["automl_policy"] = "off"
    values.pop("automl", None)
    values.get("train", {}).pop("results_dir", None)
    values.pop("results_dir", None)
    head = [f"Trial {best.trial} of a search: {best.value:.6g} in validation, in epoch {(best.best_epoch or 0) + 1}.",
            "It is your own spec." if is_user_spec else "Drawn: " + json.dumps(dict(best.values)),
            "Training it again: unalike train -e best_spec.yaml -r NEW_FOLDER"]  # fmt: skip
    if best.state not in FINISHED:
        head.append("This trial was ended early; trained again it goes on to its last epoch.")
    if exclusion:
        head.append(
            f"Validation is held out of the training classes, as in the search; {exclusion} was kept out of it."
        )
    text = "".join(f"# {line}\n" for line in head) + yaml.safe_dump(
        values, sort_keys=False, allow_unicode=True, width=120
    )
    write_text(folder / BEST_SPEC_FILE, text)
    return folder / BEST_SPEC_FILE


# ---- the report ----


def write_report(folder: Path, record: Mapping[str, Any], records: Sequence[TrialRecord]) -> Path:
    """Write ``report.html``.

    Args:
        folder: the search's folder.
        record: the content of ``search.json``.
        records: all trials.

    Returns:
        The file.
    """
    monitor, best = record["monitor"], record.get("best")
    user_trial = next((r for r in records if r.trial == 0), None)
    counts = record["counts"]
    page = Report("Hyperparameter search", f"{record['algorithm']} over {len(record['space'])} fields; selected by "
                  f"{monitor} on {record['selected_on']}")  # fmt: skip
    for text in describe_search(record, records):
        page.sentence(text)
    page.figures(
        [*([(f"{monitor}, your query set", record["monitored"])] if record.get("monitored") is not None else []),
         ("best", best["value"] if best else None), ("your own spec", user_trial.value if user_trial else None),
         ("best trial", str(best["trial"]) if best else "none"), ("trials", _format_counts(counts)),
         ("minutes", f"{record['seconds'] / 60:.1f}")],
        note=f"The best of {len(records)} trials is selected by this metric, which is therefore slightly optimistic.",
    )  # fmt: skip
    if record.get("on_your_query"):
        page.figures(list(record["on_your_query"].items()), title="On your own query set",
                     note="Measured once, at the end, and not used for the selection.")  # fmt: skip
    page.curves("Progress", _progress(records, monitor, record["sign"]), x_name="trial")
    page.curves("The five best trials", {f"{monitor} by epoch": _best_curves(records, record["sign"])})
    shares = record.get("importance") or {}
    page.table("Importance of the fields", [{"field": name, "share": share} for name, share in shares.items()], folded=True,
               note="Share of each field in the variance of the metric between complete trials (fANOVA)." if shares
               else f"Not computed with fewer than {MIN_TRIALS_FOR_IMPORTANCE} complete trials that differ.")  # fmt: skip
    page.table("Search space: hyperparameters", folded=True, rows=[{"field": p, "your value": str(a["base"]), "drawn from": a["range"]}
                                     for p, a in record["space"].items()],
               note="; ".join(f"{path} left out: {why}" for path, why in record["left_out"].items()))  # fmt: skip
    page.table(
        "Trials", _trial_rows(records, record["sign"]), note="Best first; each has its folder trial_NNN.", folded=True
    )
    page.table(
        "Failed", [{"trial": r.trial, "reason": r.reason, **_drawn_column(r)} for r in records if r.state == "failed"]
    )
    return page.write(folder / REPORT_FILE)


def describe_search(record: Mapping[str, Any], records: Sequence[TrialRecord]) -> list[str]:
    """Say which trial is the best, and what it gains over the user's own spec.

    Args:
        record: the content of ``search.json``.
        records: all trials.
    """
    best, monitor, own = record.get("best"), record["monitor"], next((r for r in records if r.trial == 0), None)
    if not best:
        return [f"None of {len(records)} trials was measured."]
    rank = "highest" if record["sign"] > 0 else "lowest"
    name = "your own spec" if best["trial"] == 0 else f"trial {best['trial']}"
    texts = [f"Of {len(records)} trials, {name} has the {rank} {monitor}: {best['value']:.3f}."]
    if own is not None and own.value is not None and best["trial"] != 0:
        texts.append(f"Your own spec has {own.value:.3f} on the same images ({record['selected_on']}).")
    if record.get("monitored") is not None:
        texts.append(f"On your own query set, which had no part in the choice, it has {record['monitored']:.3f}.")
    return texts


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in counts.items())


def _drawn_column(record: TrialRecord) -> dict[str, str]:
    text = ", ".join(f"{path.removeprefix('train.')}={_format_value(value)}" for path, value in record.values.items())
    return {"drawn": text or "your own spec"}


def _format_value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _trial_rows(records: Sequence[TrialRecord], sign: float) -> list[dict[str, Any]]:
    by_value = sorted(records, key=lambda r: (r.value is None, -sign * (r.value or 0.0), r.trial))
    return [
        {"trial": str(r.trial), "state": r.state, "figure": r.value, "best_epoch": None if r.best_epoch is None else str(r.best_epoch + 1),
         "epochs": str(r.epochs), "seconds": None if r.seconds is None else f"{r.seconds:.0f}", **_drawn_column(r)}
        for r in by_value
    ]  # fmt: skip


def _progress(
    records: Sequence[TrialRecord], monitor: str, sign: float
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    best_so_far: list[tuple[float, float]] = []
    for r in records:
        if r.value is not None and r.state in FINISHED:
            last = best_so_far[-1][1] if best_so_far else r.value
            best_so_far.append((float(r.trial), sign * max(sign * last, sign * r.value)))
    values = [(float(r.trial), r.value) for r in records if r.value is not None]
    return {f"{monitor} by trial": {"each": values, "best so far": best_so_far}}


def _best_curves(records: Sequence[TrialRecord], sign: float) -> dict[str, list[tuple[float, float]]]:
    by_value = sorted((r for r in records if r.curve and r.value is not None), key=lambda r: -sign * (r.value or 0.0))
    return {f"trial {r.trial}": [(float(e), v) for e, v in r.curve.items()] for r in by_value[:5]}
