"""`unalike serve` with a network that takes a fixed time an image: for overload without a large machine.

python benchmarks/service_standin.py SECONDS_AN_IMAGE [options of unalike serve]
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from unalike.cli import run_command
from unalike.engines.protocol import Engine
from unalike.serve import resources


class SlowEngine:
    """An engine that waits as long as a slow machine would take for its images, and then computes them."""

    def __init__(self, engine: Engine, seconds: float) -> None:
        self._engine, self._seconds = engine, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def describe(self) -> dict[str, Any]:
        return {**self._engine.describe(), "streams": 1}

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        start = time.monotonic()
        vectors_ND: np.ndarray = self._engine(images_BHWC)
        time.sleep(max(0.0, self._seconds * len(images_BHWC) - (time.monotonic() - start)))
        return vectors_ND


def main() -> None:
    seconds = float(sys.argv[1])
    load = resources.load_model

    def load_slow(*arguments: Any, **options: Any) -> Any:
        model = load(*arguments, **options)
        return replace(model, engine=SlowEngine(model.engine, seconds))

    resources.load_model = load_slow
    sys.exit(run_command(["serve", *sys.argv[2:]]))


if __name__ == "__main__":
    main()
