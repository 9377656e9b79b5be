"""The findings of a check of a spec: facts, and faults of one line each."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from unalike.errors import UnalikeError, missing_extra


class Findings:
    """Facts and faults of a check.

    Attributes:
        facts: Facts about the spec by name, in the order of the check.
        faults: What keeps the spec from running, one line for each fault.
    """

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        self.facts: dict[str, str] = {"spec": "valid" if not faults else f"{len(faults)} faults"}

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
        self.facts["extras"] = "installed" if not any(f.startswith("extras: ") for f in self.faults) else "missing"
