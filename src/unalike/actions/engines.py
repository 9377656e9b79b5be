"""Build OpenVINO, ONNX Runtime and TensorRT engines."""

from __future__ import annotations

from pathlib import Path

from unalike.actions.result import Result
from unalike.actions.results_folder import run_action
from unalike.actions.spec_resolution import Overrides, Spec


def gen_engine(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Write OpenVINO IR or an ONNX file optimized for this machine; ``path`` is the file."""
    from unalike.deploy.engine_build import run_gen_engine

    return run_action("gen_engine", run_gen_engine, spec, overrides, data, resume=resume, overwrite=overwrite)


def gen_trt_engine(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Build a TensorRT engine; ``path`` is the file. Raises MissingExtra without TensorRT, DeviceError without a GPU."""
    from unalike.deploy.engine_build import run_gen_trt_engine

    return run_action("gen_trt_engine", run_gen_trt_engine, spec, overrides, data, resume=resume, overwrite=overwrite)
