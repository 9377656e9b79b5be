"""CPU cores of one process of the service: its share of all cores, for networks and for the libraries beside them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from unalike.runs.environment import usable_cores

if TYPE_CHECKING:
    from unalike.spec.serve import Serve

# OpenMP (torch, faiss) and OpenCV read these when they are loaded.
VARIABLES = ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def thread_budget(settings: Serve) -> int | None:
    """Cores that one process may use: as set, or its share where there are several; None: all of them."""
    if settings.threads is not None:
        return settings.threads
    return max(1, usable_cores() // settings.workers) if settings.workers > 1 else None


def limit_libraries(threads: int | None) -> None:
    """Let OpenMP and OpenCV start no more threads in this process; before they are loaded. A variable that is set stays."""
    if threads is None:
        return
    for name in VARIABLES:
        os.environ.setdefault(name, str(threads))
    if "cv2" in sys.modules and "OPENCV_FOR_THREADS_NUM" in os.environ:
        sys.modules["cv2"].setNumThreads(int(os.environ["OPENCV_FOR_THREADS_NUM"]))
