"""Reading of what earlier runs left: the action of a folder's run, and whether it failed before it wrote results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unalike.runs.filenames import LOCK_FILE, RECORD_FILE, RUN_MARKS, STATUS_FILE, TRACEBACK_FILE


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where the file does not exist or cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def recorded_action(folder: Path) -> str | None:
    """The action of the run in a folder, by its ``run.json``; None where there is no record that this tool wrote."""
    action = read_json(folder / RECORD_FILE).get("action")
    return None if action is None else str(action)


def failed_without_results(folder: Path) -> bool:
    """Whether a folder holds only the record of a run that failed."""
    if {path.name for path in folder.iterdir()} - {*RUN_MARKS, TRACEBACK_FILE, LOCK_FILE}:
        return False
    try:
        last = json.loads((folder / STATUS_FILE).read_bytes().splitlines()[-1])
    except (OSError, ValueError, IndexError):
        return False
    return isinstance(last, dict) and last.get("status") == "FAILURE"
