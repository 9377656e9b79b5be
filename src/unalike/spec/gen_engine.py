"""Section ``gen_engine``: a network compiled ahead for a CPU runtime."""

from __future__ import annotations

from typing import Annotated, Literal

from unalike.spec.declare import Capitals, Section, Text, field, section, spelt_both_ways
from unalike.spec.quantize import Backend, Goal, Ranges


class GenEngine(Section):
    results_dir: Text = field(
        None, "Folder of the output; unset means `gen_engine` below the top results_dir.", ours=True
    )
    onnx_file: Text = field(None, "ONNX file to build from; needed unless a checkpoint is given.", ours=True)
    checkpoint: Text = field(None, "Checkpoint to build from in place of an ONNX file.", ours=True)
    engine: Text = field(
        None, "File to write; unset means the model's name with .xml (OpenVINO) or _optimised.onnx in the results folder.",
        ours=True,
    )  # fmt: skip
    runtime: Literal["openvino", "onnxruntime"] = field(
        "openvino", "For which runtime: OpenVINO's IR, or ONNX with ONNX Runtime's optimizations of this machine applied.",
        ours=True,
    )  # fmt: skip
    data_type: Annotated[Literal["FP32", "FP16", "BF16", "INT8"], Capitals] = field(
        "FP32", "Number format; INT8 calibrates on images unless the file is quantized already.", ours=True,
        schema=spelt_both_ways("FP32", "FP16", "BF16", "INT8"),
    )  # fmt: skip
    backend: Backend = field(
        "auto", "Quantizer for INT8: ONNX Runtime's. `nncf` is accepted and quantizes by ONNX Runtime.", ours=True
    )
    parity_images: int = field(
        64,
        "Images on which the vectors are compared with those of fp32.",
        ge=1,
        le=1_000_000,
        units="images",
        ours=True,
    )
    calibration: Ranges = section(Ranges, "Images behind the ranges of INT8.", ours=True)
    goal: Goal = section(Goal, "What an INT8 engine must still give.", ours=True)
