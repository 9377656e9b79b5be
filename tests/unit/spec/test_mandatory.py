"""Mandatory fields: marked as TAO does, named by check, and refused when a job is created."""

from __future__ import annotations

from pathlib import Path

import pytest

import unalike
from unalike.errors import SpecError
from unalike.jobs.database import Job
from unalike.jobs.parent_fields import refuse_incomplete
from unalike.jobs.workspace import Workspace
from unalike.runs.vector_folder import PLAN_FILE
from unalike.spec import load_spec
from unalike.spec.actions import ACTIONS
from unalike.spec.fields import declared_fields
from unalike.spec.mandatory import has_value, mandatory_fields, missing_fields


@pytest.mark.parametrize("mark", ["???", "<required>"])
def test_both_marks_mean_unset(mark: str) -> None:
    experiment = load_spec("evaluate", {"evaluate": {"checkpoint": mark}, "dataset": {"val_dataset": {"query": mark}}},
                           [f"dataset.train_dataset={mark}"])  # fmt: skip
    assert experiment.evaluate.checkpoint is None and not has_value(experiment, "dataset.train_dataset")
    assert load_spec("quantize", {"quantize": {"calibration": {"cal_image_dir": [mark]}}}).to_dict()


@pytest.mark.parametrize("action", ACTIONS)
def test_every_mandatory_field_is_declared(action: str) -> None:
    groups = mandatory_fields(action)
    assert (groups or action in ("demo", "serve", "improve")) and all(
        path in declared_fields() for group in groups for path in group
    )
    assert len(missing_fields(action, lambda path: False)) == len(groups)
    assert not missing_fields(action, lambda path: True)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"evaluate": {"checkpoint": "???"}}, ["evaluate.checkpoint", "dataset.val_dataset.reference"]),
        ({"inference": {"topk": 3}}, ["inference.checkpoint", "inference.input_path"]),
        ({"export": {"checkpoint": "<required>"}}, ["export.checkpoint"]),
        ({"gen_trt_engine": {"onnx_file": "???"}}, ["gen_trt_engine.onnx_file"]),
        ({"gen_trt_engine": {"onnx_file": "nowhere.onnx"}}, ["there is no file nowhere.onnx"]),
        ({"quantize": {"onnx_file": "nowhere.onnx"}}, ["there is no file nowhere.onnx"]),
    ],
)
def test_check_names_what_is_missing(spec: dict, named: list[str], tmp_path: Path) -> None:
    data = tmp_path / "x"
    faults = "\n".join(unalike.check({**spec, "results_dir": str(data)}).faults)
    assert all(name in faults for name in named), faults


def test_a_job_without_its_data_is_not_created(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for action, overrides, named in (
        ("train", {"num_epochs": 3}, r"dataset\.train_dataset is not set"),
        ("evaluate", {}, r"evaluate\.checkpoint .* and dataset\.val_dataset\.reference .* are not set"),
        ("inference", {"inference.checkpoint": "x.pth"}, r"reference and inference\.input_path are not set"),
        ("gen_trt_engine", {}, r"gen_trt_engine\.onnx_file is not set"),
        ("discover", {}, r"discover\.source is not set"),
    ):
        with pytest.raises(SpecError, match=named):
            workspace.create(action, overrides)
    assert not workspace.jobs()


def test_a_job_on_vectors_needs_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = tmp_path / "vectors"
    vectors.mkdir()
    (vectors / PLAN_FILE).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    job = Job("1", "evaluate", cwd=str(tmp_path), spec={"dataset": {"val_dataset": {"reference": "vectors"}}})
    refuse_incomplete(job, None)
    (vectors / PLAN_FILE).unlink()
    with pytest.raises(SpecError, match=r"evaluate\.checkpoint"):
        refuse_incomplete(job, None)
