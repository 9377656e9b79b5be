"""The result of an action: its folder, its main file and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """What an action leaves behind: its folder, its main file, its figures (flat names -> numbers)."""

    results_dir: Path
    path: Path | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return {"results_dir": str(self.results_dir), "path": None if self.path is None else str(self.path),
                "figures": dict(self.figures)}  # fmt: skip


@dataclass(frozen=True)
class Checked(Result):
    """What ``check`` found: ``figures`` says what is there, ``faults`` what is wrong, a line each."""

    faults: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return super().to_dict() | {"ok": self.ok, "faults": list(self.faults)}
