"""The trials of a search as jobs of their own, from what the search writes into its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unalike.jobs.database import ACTIVE_STATUSES, Job, JobStore
from unalike.runs.filenames import SEARCH_FILE, STATUS_FILE, TRIAL_FOLDERS, TRIAL_SPEC_FILE, TRIALS_FILE
from unalike.runs.record import read_json

# State of a trial in the search's records -> status of a job. A trial that was ended early is no failure.
STATUS_OF_STATE = {"complete": "Complete", "repeat": "Complete", "pruned": "Canceled", "out of time": "Canceled",
          "failed": "Error", "lost": "Error", "killed": "Error", "stopped": "Paused"}  # fmt: skip
# Status of a search -> status of its trials that were running.
STATUS_OF_RUNNING = {"Paused": "Paused", "Canceled": "Canceled", "Pending": "Paused", "Running": "Running"}


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
    records: dict[int, dict[str, Any]] = {}
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("trial"), int):
            earlier = records.get(row["trial"])
            if earlier is None or _order_of_records(row) >= _order_of_records(earlier):
                records[row["trial"]] = row
    return records


def _order_of_records(row: Mapping[str, Any]) -> tuple[int, bool]:
    """Records of one trial in time: by attempt, the end after the start."""
    return row.get("attempt", 1), row.get("state") != "running"


def _read_spec(folder: Path) -> Mapping[str, Any] | None:
    try:
        spec = yaml.safe_load((folder / TRIAL_SPEC_FILE).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    return spec if isinstance(spec, dict) else None


def _trial_job(search: Job, number: int, folder: Path, record: Mapping[str, Any], earlier: Job | None) -> Job:
    """A trial as a job, from its record and from what the store holds of it."""
    state = str(record.get("state", "running"))
    has_started = (folder / STATUS_FILE).exists()
    status = STATUS_OF_STATE.get(state) or STATUS_OF_RUNNING.get(search.status, "Error")
    if state in ("running", "killed") and search.status == "Running" and has_started:
        status = "Running"  # resumed
    error = str(record.get("reason", "")) if status in ("Error", "Canceled") else ""
    if status == "Error" and not error:
        error = "its search ended"
    seconds = record.get("seconds")
    start_time = earlier.started if earlier and earlier.started else _modified(folder / TRIAL_SPEC_FILE, search.created)
    end_time = (
        None
        if status in ACTIVE_STATUSES
        else earlier.ended
        if earlier and earlier.ended
        else start_time + (seconds or 0.0)
    )
    where = Path(str(record.get("folder") or folder))
    return Job(
        id=f"{search.id}.{number}", action="train", status=status, results_dir=str(where), run_dir=str(where),
        parent_job_id=search.id, policy="off", spec=(earlier.spec if earlier else None) or _read_spec(folder),
        where=search.where, cwd=search.cwd, created=search.created, started=start_time, ended=end_time,
        attempt=int(record.get("attempt", 1)), error=error, note=str(record.get("reason", "")) if not error else "",
        figures=dict(record.get("kpi") or {}), boot=search.boot, trial=number,
    )  # fmt: skip


def _modified(path: Path, default: float) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return default


def register_trials(store: JobStore, jobs: Sequence[Job]) -> bool:
    """Bring the trials of every search up to date in the store.

    Args:
        store: The job store.
        jobs: All its jobs.

    Returns:
        Whether anything was changed.
    """
    has_changes = False
    for search in jobs:
        if search.action != "train" or search.trial is not None:
            continue
        run_dir = Path(search.run_dir)
        jobs_by_trial = {job.trial: job for job in jobs if job.parent_job_id == search.id and job.trial is not None}
        folders = {int(path.name[6:]): path for path in run_dir.glob(TRIAL_FOLDERS) if path.name[6:].isdigit()}
        over = search.status not in ACTIVE_STATUSES and not any(
            job.status in ACTIVE_STATUSES for job in jobs_by_trial.values()
        )
        if not folders or (over and set(jobs_by_trial) == set(folders)):
            continue
        records = trial_records(run_dir)
        for number, folder in sorted(folders.items()):
            job = _trial_job(search, number, folder, records.get(number, {}), jobs_by_trial.get(number))
            if job != jobs_by_trial.get(number):
                store.insert(job, replace=True)
                has_changes = True
    return has_changes
