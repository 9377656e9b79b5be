"""Quantize: write a network in INT8, FP16 or BF16."""

from __future__ import annotations

from pathlib import Path

from unalike.actions.request import Overrides, Spec, run_to_file
from unalike.actions.result import Result


def quantize(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Write a network in INT8, FP16 or BF16 beside its comparison with fp32; ``path`` is the ONNX file."""
    from unalike.deploy.quantization.pipeline import run_quantization

    return run_to_file("quantize", run_quantization, spec, overrides, data, resume=resume, overwrite=overwrite)
