"""A folder within a run in which a part of it trains; signals and status lines are the run's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unalike.errors import redact
from unalike.runs.filenames import EXPERIMENT_FILE
from unalike.storage.atomic import write_text


class Part:
    """Stands for the run ``run`` with the folder ``folder`` as its own."""

    def __init__(self, run: Any, folder: Path) -> None:
        self._run, self.dir = run, folder
        folder.mkdir(parents=True, exist_ok=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def write_experiment(self, experiment: Any) -> None:
        """The part's own resolved spec."""
        write_text(self.dir / EXPERIMENT_FILE, redact(experiment.to_yaml()))

    def record(self, **facts: Any) -> None:
        """Facts of the part are facts of the run."""
        self._run.record(**facts)

    def own(self, *paths: Any) -> None:
        """Files of the part lie in its folder; the run need not know them."""
