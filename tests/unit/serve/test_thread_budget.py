"""Cores of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from unalike.serve import thread_budget as module
from unalike.serve.thread_budget import thread_budget
from unalike.spec.serve import Serve


def test_several_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 8)
    assert thread_budget(Serve()) is None and thread_budget(Serve(workers=2)) == 4
    assert thread_budget(Serve(workers=100)) == 1 and thread_budget(Serve(workers=2, threads=3)) == 3


def test_opencv_and_openmp_keep_to_it() -> None:
    """In a process of its own: the libraries read their variables when they are loaded."""
    pytest.importorskip("cv2")
    code = (
        "import json, os; from unalike.serve.thread_budget import limit_libraries; limit_libraries(1); import cv2; "
        "first = cv2.getNumThreads(); os.environ['OPENCV_FOR_THREADS_NUM'] = '2'; limit_libraries(1); "
        "print(json.dumps([first, os.environ['OMP_NUM_THREADS'], cv2.getNumThreads()]))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in module.VARIABLES}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(result.stdout) == [1, "1", 2]
