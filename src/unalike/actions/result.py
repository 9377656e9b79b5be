"""The result of an action (folder, main file, figures), and that of a check with its faults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """The result of an action.

    Attributes:
        results_dir: Folder of the action's files.
        path: The main file, if there is one.
        figures: Numbers by flat name.
    """

    results_dir: Path
    path: Path | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return {"results_dir": str(self.results_dir), "path": None if self.path is None else str(self.path),
                "figures": dict(self.figures)}  # fmt: skip


@dataclass(frozen=True)
class CheckResult(Result):
    """The result of ``check``: ``figures`` holds the facts of the spec, ``faults`` one line for each fault."""

    faults: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there are no faults."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return super().to_dict() | {"ok": self.ok, "faults": list(self.faults)}
