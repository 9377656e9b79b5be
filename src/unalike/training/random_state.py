"""State of the random generators of torch, numpy and Python, as a checkpoint holds it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch


def read_random_state() -> dict[str, Any]:
    """Return the state of all generators, as tensors and plain data."""
    numpy_state = cast(tuple[str, np.ndarray, int, int, float], np.random.get_state(legacy=True))
    return {
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
        "numpy": [numpy_state[1].tolist(), int(numpy_state[2])],
        "python": list(random.getstate()[1]),
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Restore what ``read_random_state`` returned; of GPUs where there are as many as then."""
    torch.set_rng_state(state["torch"].cpu().to(torch.uint8))
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([t.cpu().to(torch.uint8) for t in state["cuda"]])
    np.random.set_state(("MT19937", np.array(state["numpy"][0], np.uint32), state["numpy"][1], 0, 0.0))
    random.setstate((3, tuple(state["python"]), None))
