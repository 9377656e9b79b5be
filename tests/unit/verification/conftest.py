"""A calibrated verifier that the tests of this package share; they must not calibrate it again."""

from __future__ import annotations

import pytest

from tests.support.marks import VIEW, ThumbnailEngine, mark
from unalike.verification.verifier import Verifier


@pytest.fixture(scope="session")
def verifier() -> Verifier:
    """A verifier of three marks, calibrated with a few trials."""
    pytest.importorskip("cv2")
    calibrated = Verifier.of([mark(number) for number in range(3)], ThumbnailEngine(), VIEW)
    calibrated.calibrate(0.2, trials=5, seed=1)
    return calibrated
