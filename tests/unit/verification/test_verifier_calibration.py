"""Calibration of small sets: one asset, twins, and too few trials for the rate."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.marks import VIEW, ThumbnailEngine, mark, render_mark
from unalike.errors import DataError, SpecError
from unalike.verification import verifier_calibration
from unalike.verification.tampering import tamper
from unalike.verification.verifier import Verifier

pytest.importorskip("cv2")


def test_a_set_of_one_asset() -> None:
    verifier = Verifier.of([mark(1)], ThumbnailEngine(), VIEW)
    with pytest.raises(DataError, match="calibrate first"):
        verifier.verify(render_mark(1, 0))
    with pytest.raises(DataError, match="cannot support"):
        verifier.calibrate(0.3, trials=2)
    with pytest.raises(SpecError, match="rate is 1e-320"):
        verifier.calibrate(1e-320)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(verifier_calibration, "render_trials", lambda *_, **__: pytest.fail("rendered in vain"))
        with pytest.raises(DataError, match="cannot support a false-accept rate of 1e-05"):
            verifier.calibrate(1e-5)
    thresholds = verifier.calibrate(0.3, trials=9)
    assert thresholds.assets == 1 and thresholds.false_accept.trials == 9
    assert verifier.verify(render_mark(1, 0)).answer == "same"
    tampered = tamper(mark(1), "recoloured", np.random.default_rng(3))
    assert verifier.verify(render_mark(1, 9, tampered.layer_HW4)).answer == "altered"


def test_twins_are_found() -> None:
    verifier = Verifier.of([mark(1), mark(1), mark(2)], ThumbnailEngine(), VIEW, names=["a", "b", "c"])
    verifier.calibrate(0.3, trials=3)
    assert verifier.approved.twins == (("a", "b"),)
    result = verifier.verify(render_mark(1, 0))
    assert result.answer == "same" and {result.asset, *result.twins} == {"a", "b"}
