"""What a check of a spec collects: facts, and faults a line each."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from unalike.errors import UnalikeError, missing_extra


class Findings:
    """Facts and faults of a check.

    Attributes:
        facts: What is there, by name, in the order of the check.
        faults: What keeps the spec from running, a line each.
    """

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        self.facts: dict[str, Any] = {"spec": "valid" if not faults else f"{len(faults)} faults"}

    @contextmanager
    def collect(self, name: str) -> Iterator[None]:
        """Record an error that is raised inside as a fault of ``name``, and continue."""
        try:
            yield
        except (UnalikeError, OSError) as error:
            line = f"{name}: {' '.join(str(error).split())}"
            if line not in self.faults:
                self.faults.append(line)

    def require_modules(self, modules: Iterable[tuple[str, str, str]]) -> None:
        """Check that modules are installed, given as (module, extra, purpose)."""
        for module, extra, purpose in dict.fromkeys(modules):
            if importlib.util.find_spec(module) is None:
                with self.collect("extras"):
                    raise missing_extra(module, extra, purpose)
        self.facts["extras"] = "all there" if not any(f.startswith("extras: ") for f in self.faults) else "missing"
