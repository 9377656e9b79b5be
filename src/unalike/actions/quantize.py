"""Quantize: write a network in INT8, FP16 or BF16."""

from __future__ import annotations

from pathlib import Path

from unalike.actions.result import Result
from unalike.actions.results_folder import run_action
from unalike.actions.spec_resolution import Overrides, Spec


def quantize(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Write a network in INT8, FP16 or BF16 beside its comparison with fp32; ``path`` is the ONNX file."""
    from unalike.deploy.quantization.pipeline import run_quantization

    return run_action("quantize", run_quantization, spec, overrides, data, resume=resume, overwrite=overwrite)
