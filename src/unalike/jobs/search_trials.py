"""The trials of a search as jobs of their own, by what the search writes into its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unalike.jobs.database import AT_WORK, Job, Store
from unalike.jobs.outputs import read_json
from unalike.runs.filenames import SEARCH_FILE, STATUS_FILE, TRIAL_FOLDERS, TRIAL_SPEC_FILE, TRIALS_FILE

# A search's words for how a trial ended -> ours. One that was ended early is no failure.
STATES = {"complete": "Complete", "repeat": "Complete", "pruned": "Canceled", "out of time": "Canceled",
          "failed": "Error", "lost": "Error", "killed": "Error", "stopped": "Paused"}  # fmt: skip
# What becomes of a trial that was at work when its search ended so.
LEFT = {"Paused": "Paused", "Canceled": "Canceled", "Pending": "Paused", "Running": "Running"}


def trial_records(folder: Path) -> dict[int, dict[str, Any]]:
    """The last record of each trial of a search's folder, by its number."""
    rows = [row for row in read_json(folder / SEARCH_FILE).get("trials", []) if isinstance(row, dict)]
    try:
        lines = (folder / TRIALS_FILE).read_bytes().splitlines()
    except OSError:
        lines = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        rows.append(row)
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("trial"), int):
            held = found.get(row["trial"])
            if held is None or (row.get("attempt", 1), row.get("state") != "running") >= (
                held.get("attempt", 1), held.get("state") != "running"):  # fmt: skip
                found[row["trial"]] = row
    return found


def _spec_of(folder: Path) -> Mapping[str, Any] | None:
    try:
        found = yaml.safe_load((folder / TRIAL_SPEC_FILE).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict) else None


def _trial_job(search: Job, number: int, folder: Path, record: Mapping[str, Any], held: Job | None) -> Job:
    state = str(record.get("state", "running"))
    begun = (folder / STATUS_FILE).exists()
    status = STATES.get(state) or LEFT.get(search.status, "Error")
    if state in ("running", "killed") and search.status == "Running" and begun:
        status = "Running"  # taken up again
    error = str(record.get("reason", "")) if status in ("Error", "Canceled") else ""
    if status == "Error" and not error:
        error = "its search ended"
    seconds = record.get("seconds")
    started = held.started if held and held.started else _time(folder / TRIAL_SPEC_FILE, search.created)
    ended = None if status in AT_WORK else held.ended if held and held.ended else started + (seconds or 0.0)
    where = Path(str(record.get("folder") or folder))
    return Job(
        id=f"{search.id}.{number}", action="train", status=status, results_dir=str(where), run_dir=str(where),
        parent_job_id=search.id, policy="off", spec=(held.spec if held else None) or _spec_of(folder),
        where=search.where, cwd=search.cwd, created=search.created, started=started, ended=ended,
        attempt=int(record.get("attempt", 1)), error=error, note=str(record.get("reason", "")) if not error else "",
        figures=dict(record.get("kpi") or {}), boot=search.boot, trial=number,
    )  # fmt: skip


def _time(path: Path, otherwise: float) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return otherwise


def register_trials(store: Store, jobs: Sequence[Job]) -> bool:
    """Bring the trials of every search up to date in the store; whether anything changed."""
    changed = False
    for search in jobs:
        if search.action != "train" or search.trial is not None:
            continue
        run_dir = Path(search.run_dir)
        held = {job.trial: job for job in jobs if job.parent_job_id == search.id and job.trial is not None}
        folders = {int(path.name[6:]): path for path in run_dir.glob(TRIAL_FOLDERS) if path.name[6:].isdigit()}
        over = search.status not in AT_WORK and not any(job.status in AT_WORK for job in held.values())
        if not folders or (over and set(held) == set(folders)):
            continue
        records = trial_records(run_dir)
        for number, folder in sorted(folders.items()):
            job = _trial_job(search, number, folder, records.get(number, {}), held.get(number))
            if job != held.get(number):
                store.insert(job, replace=True)
                changed = True
    return changed
