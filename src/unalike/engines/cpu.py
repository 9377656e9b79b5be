"""The processor: how many cores this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Number of cores that this process may run on: a container's share, not the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
