"""Settings of a conversion that its number format or its network does not use are named, where the user changed them."""

from __future__ import annotations

import pytest

from unalike.deploy.unused_settings import say_unused
from unalike.spec import load_spec

RANGES = ["cal_batches=3", "method=percentile", "percentile=99"]
GOAL = ["goal.worst_cosine=0.5", "goal.most_layers=0.1"]


def said(capsys: pytest.CaptureFixture[str], section: str, overrides: list[str], data_type: str, **facts: bool) -> str:
    action = section.partition(".")[0]
    experiment = load_spec(action, None, [f"{section}.{override}" for override in overrides])
    say_unused(experiment, section, data_type, **{"quantized": False, "labeled": True, **facts})
    return capsys.readouterr().err


@pytest.mark.parametrize("data_type", ["FP16", "BF16"])
def test_what_int8_alone_uses(data_type: str, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [*(f"calibration.{each}" for each in RANGES), "target=vnni", "per_channel=false", *GOAL]
    line = said(capsys, "quantize", overrides, data_type)
    for name in ("calibration.cal_batches", "calibration.method", "calibration.percentile", "target", "per_channel"):
        assert f"quantize.{name}" in line
    assert "goal" not in line and f"{data_type} needs no ranges" in line
    assert said(capsys, "quantize", overrides, "INT8") == ""


def test_a_goal_that_nothing_is_held_against(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(capsys, "gen_engine", GOAL, "FP16")
    assert "gen_engine.goal.worst_cosine, gen_engine.goal.most_layers" in line
    assert said(capsys, "gen_engine", GOAL, "BF16") == said(capsys, "gen_engine", GOAL, "INT8") == ""
    assert "goal.recall_loss (dataset.val_dataset" in said(
        capsys, "quantize", ["goal.recall_loss=1"], "INT8", labeled=False
    )
    assert said(capsys, "quantize", ["goal.recall_loss=1"], "INT8") == ""


def test_a_network_that_is_quantized_already(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["data_type=FP16", *(f"calibration.{each}" for each in RANGES), *GOAL]
    line = said(capsys, "gen_engine", overrides, "INT8", quantized=True)
    assert "gen_engine.data_type" in line and "gen_engine.goal.most_layers" in line and "quantized already" in line
    assert said(capsys, "gen_trt_engine.tensorrt", ["layers_precision=[a:fp16]"], "INT8", quantized=True)
    assert said(capsys, "gen_engine", ["data_type=INT8"], "INT8", quantized=True) == ""


def test_a_percentile_of_another_method(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(capsys, "quantize", ["calibration.percentile=90"], "INT8")
    assert "quantize.calibration.percentile (calibration.method is min-max)" in line
    assert said(capsys, "quantize", ["calibration.percentile=90", "calibration.method=percentile"], "INT8") == ""


def test_defaults_are_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "quantize", ["target=cpu", "calibration.percentile=99.99"], "FP16", labeled=False) == ""
