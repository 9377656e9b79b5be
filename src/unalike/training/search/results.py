"""What a search leaves behind: search.json, trials.jsonl, the best spec and checkpoint, and one page to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
import yaml

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
from unalike.storage.atomic import copy_file, write_text
from unalike.training.checkpoints import TIE_BREAKER

FORMAT_VERSION = 1
# Fewer measured trials say nothing about what mattered.
ENOUGH_FOR_IMPORTANCE = 4
COUNTED = ("complete", "repeat")


@dataclass(frozen=True)
class TrialRecord:
    """One trial, as files and tables show it. ``state``: complete, pruned, failed, repeat, stopped, killed, running."""

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
    def of(cls, trial: Any) -> TrialRecord:
        """From Optuna's record of a trial."""
        told = trial.user_attrs
        state = told.get("state", "running")
        if state == "running" and trial.state == optuna.trial.TrialState.FAIL:
            state = "lost"  # with its machine
        return cls(
            trial.number, state, told.get("value"), told.get("best_epoch"),
            told.get("epochs", 0), told.get("seconds"), told.get("values", {}), told.get("kpi", {}),
            told.get("reason", ""), told.get("folder", ""), told.get("host", ""), told.get("attempts", 1),
            dict(sorted(trial.intermediate_values.items())),
        )  # fmt: skip


def best_of(records: Sequence[TrialRecord], sign: float) -> TrialRecord | None:
    """The winner: of the trials that were trained to their end if there are any, else of all that were measured.

    Ties (small validation sets have many) go to the higher mean average precision, then to the earlier trial.
    """
    measured = [r for r in records if r.value is not None and r.state not in ("failed", "running")]
    whole = [r for r in measured if r.state in COUNTED] or measured
    return max(whole, key=lambda r: (sign * (r.value or 0.0), r.kpi.get(TIE_BREAKER, 0.0), -r.trial), default=None)


def importances(study: Any, seed: int) -> dict[str, float]:
    """Share of each field in how the figure varied (fANOVA), largest first; empty where too few trials tell."""
    done = [t for t in study.get_trials(deepcopy=False) if t.state == optuna.trial.TrialState.COMPLETE]
    if len(done) < ENOUGH_FOR_IMPORTANCE or len({t.value for t in done}) < 2:
        return {}
    try:
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=seed)
        )
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}  # no field was drawn in every trial, or the forest found nothing to split on
    return {name: round(float(share), 4) for name, share in found.items()}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """``search.json``, whole or not at all."""
    whole = json.dumps({"format_version": FORMAT_VERSION, **record}, indent=1, ensure_ascii=False)
    write_text(folder / SEARCH_FILE, whole + "\n")


def append_trial(folder: Path, record: TrialRecord) -> None:
    """One line of ``trials.jsonl``; a trial that was killed and went on has a line for each ending."""
    with open(folder / TRIALS_FILE, "ab") as file:
        file.write(json.dumps(asdict(record), ensure_ascii=False).encode() + b"\n")


def keep_best(folder: Path, best: TrialRecord) -> Path | None:
    """The winner's checkpoint in the search's folder (a hard link where the disk allows it), or None where it is not
    to be had: another machine's trial in a folder that this one does not see."""
    source, target = Path(best.folder) / BEST_CHECKPOINT, folder / BEST_CHECKPOINT
    if not source.exists():
        return None
    copy_file(source, target, link=True)
    for name in (MODEL_CARD_FILE, MODEL_CARD_PAGE):
        if (Path(best.folder) / name).exists():
            copy_file(Path(best.folder) / name, folder / name)
    return target


def write_best_spec(folder: Path, best: TrialRecord, *, own: bool, kept_out: str) -> Path | None:
    """The winner's resolved spec, which trains it again with ``automl_policy: off``; None where it is not to be had."""
    resolved = Path(best.folder) / EXPERIMENT_FILE
    source = resolved if resolved.exists() else Path(best.folder) / TRIAL_SPEC_FILE
    if not source.exists():
        return None
    values = yaml.safe_load(source.read_text(encoding="utf-8"))
    values["automl_policy"] = "off"
    values.pop("automl", None)
    values.get("train", {}).pop("results_dir", None)
    values.pop("results_dir", None)
    head = [f"Trial {best.trial} of a search: {best.value:.6g} in validation, at epoch {best.best_epoch} (counted from 0).",
            "It is your own spec." if own else "Drawn: " + json.dumps(dict(best.values)),
            "Training it again: unalike train -e best_spec.yaml -r NEW_FOLDER"]  # fmt: skip
    if best.state not in COUNTED:
        head.append("This trial was ended early; trained again it goes on to its last epoch.")
    if kept_out:
        head.append(f"Validation is held out of the training classes, as in the search; {kept_out} was kept out of it.")
    text = "".join(f"# {line}\n" for line in head) + yaml.safe_dump(
        values, sort_keys=False, allow_unicode=True, width=120
    )
    write_text(folder / BEST_SPEC_FILE, text)
    return folder / BEST_SPEC_FILE


# ---- the page ----


def write_page(folder: Path, record: Mapping[str, Any], records: Sequence[TrialRecord]) -> Path:
    """``report.html``: what was tried, what mattered, what came of it."""
    monitor, best = record["monitor"], record.get("best")
    own = next((r for r in records if r.trial == 0), None)
    counts = record["counts"]
    page = Report("Search for a better training", f"{record['algorithm']} over {len(record['space'])} fields; selected by "
                  f"{monitor} on {record['selected_on']}")  # fmt: skip
    page.figures(
        [("best", best["value"] if best else None), ("your own spec", own.value if own else None),
         ("best trial", str(best["trial"]) if best else "none"), ("trials", _counted(counts)),
         ("minutes", f"{record['seconds'] / 60:.1f}")],
        note=f"The best of {len(records)} is chosen by the figure shown, which therefore flatters it a little.",
    )  # fmt: skip
    if record.get("on_your_query"):
        page.figures(list(record["on_your_query"].items()), title="On your own query set",
                     note="Measured once, at the end; no choice was made by it.")  # fmt: skip
    page.curves("How it went", _curves(records, monitor, record["sign"]), x_name="trial, or epoch", note="")
    shares = record.get("importance") or {}
    page.table("What mattered", [{"field": name, "share": share} for name, share in shares.items()],
               note="Share of each field in how the figure varied between whole trials (fANOVA)." if shares
               else f"Not told with fewer than {ENOUGH_FOR_IMPORTANCE} whole trials that differ.")  # fmt: skip
    page.table("What was searched", [{"field": p, "your value": str(a["base"]), "drawn from": a["range"]}
                                     for p, a in record["space"].items()],
               note="; ".join(f"{path} left out: {why}" for path, why in record["left_out"].items()))  # fmt: skip
    page.table("Trials", _rows(records, record["sign"]), note="Best first; each has its folder trial_NNN.")
    page.table("Failed", [{"trial": r.trial, "reason": r.reason, **_drawn(r)} for r in records if r.state == "failed"])
    return page.write(folder / REPORT_FILE)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in counts.items())


def _drawn(record: TrialRecord) -> dict[str, str]:
    text = ", ".join(f"{path.removeprefix('train.')}={_short(value)}" for path, value in record.values.items())
    return {"drawn": text or "your own spec"}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _rows(records: Sequence[TrialRecord], sign: float) -> list[dict[str, Any]]:
    ranked = sorted(records, key=lambda r: (r.value is None, -sign * (r.value or 0.0), r.trial))
    return [
        {"trial": str(r.trial), "state": r.state, "figure": r.value, "best_epoch": None if r.best_epoch is None else str(r.best_epoch),
         "epochs": str(r.epochs), "seconds": None if r.seconds is None else f"{r.seconds:.0f}", **_drawn(r)}
        for r in ranked
    ]  # fmt: skip


def _curves(
    records: Sequence[TrialRecord], monitor: str, sign: float
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    reached: list[tuple[float, float]] = []
    for r in records:
        if r.value is not None and r.state in COUNTED:
            last = reached[-1][1] if reached else r.value
            reached.append((float(r.trial), sign * max(sign * last, sign * r.value)))
    each = [(float(r.trial), r.value) for r in records if r.value is not None]
    ranked = sorted((r for r in records if r.curve and r.value is not None), key=lambda r: -sign * (r.value or 0.0))
    learning = {f"trial {r.trial}": [(float(e), v) for e, v in r.curve.items()] for r in ranked[:5]}
    return {f"{monitor} by trial": {"each": each, "best so far": reached}, "five best, by epoch": learning}
