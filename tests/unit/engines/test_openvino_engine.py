"""The engine of OpenVINO: which cores its threads may use."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import networks
from unalike.engines import openvino_engine
from unalike.engines.openvino_engine import OpenVinoEngine, thread_settings


def test_threads_of_a_share_of_the_cores_are_not_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinned threads of two processes would use the same cores, and leave the others idle."""
    monkeypatch.setattr(openvino_engine, "usable_cores", lambda: 2)
    assert thread_settings(2) == {"INFERENCE_NUM_THREADS": 2}
    assert thread_settings(1) == {"INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
    network, images = networks.exported_bytes(), networks.pictures(3)
    shared = OpenVinoEngine(network, "fp32", threads=1)
    assert shared._compiled.get_property("ENABLE_CPU_PINNING") is False and shared.describe()["threads"] == 1
    assert np.allclose(shared(images), OpenVinoEngine(network, "fp32")(images), atol=1e-5)
