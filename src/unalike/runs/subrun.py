"""A folder within a run in which one stage of it trains; its status lines and signals are the run's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.runs.filenames import EXPERIMENT_FILE
from unalike.runs.run import Run
from unalike.storage.atomic import write_text

if TYPE_CHECKING:
    from unalike.spec import Experiment


class Subrun(Run):
    """Passes for a run whose folder is ``folder``; all but the folder and its spec belongs to the run ``parent``."""

    def __init__(self, parent: Run, folder: Path) -> None:
        self._parent = parent
        self.action, self.resuming, self.rank = parent.action, parent.resuming, parent.rank
        self.dir = folder
        folder.mkdir(parents=True, exist_ok=True)

    def status(
        self, status: str, message: str = "", kpi: Mapping[str, Any] | None = None, *,
        verbosity: str = "INFO", **progress: Any,
    ) -> None:  # fmt: skip
        """Append a line to the run's ``status.json``."""
        self._parent.status(status, message, kpi, verbosity=verbosity, **progress)

    def conclude(
        self, message: str, kpi: Mapping[str, Any] | None = None, *, outputs: Sequence[str | Path] = ()
    ) -> None:
        """Set the run's closing line."""
        self._parent.conclude(message, kpi, outputs=outputs)

    def add_intervals(self, intervals: Mapping[str, tuple[float, float]]) -> None:
        """Set intervals of the run's metrics."""
        self._parent.add_intervals(intervals)

    def record(self, **facts: Any) -> None:
        """Add facts to the run's ``run.json``."""
        self._parent.record(**facts)

    def own(self, *paths: str | Path) -> None:
        """Do nothing: --overwrite finds the files of this folder by their names."""

    def write_experiment(self, experiment: Experiment) -> None:
        """Write the resolved spec of this stage into its folder."""
        if self.rank == 0:
            write_text(self.dir / EXPERIMENT_FILE, experiment.to_yaml(redacted=True))

    def stop_requested(self) -> int:
        """The number of the signal that asked the run to stop, or 0."""
        return self._parent.stop_requested()

    @contextmanager
    def graceful(self) -> Iterator[None]:
        """While inside, the first signal only sets ``stop_requested``."""
        with self._parent.graceful():
            yield

    def stop(self, detail: str = "") -> None:
        """Raise Interrupted when a signal asked for it."""
        self._parent.stop(detail)
