"""Section ``gen_trt_engine``: building a TensorRT engine from an ONNX file."""

from __future__ import annotations

from typing import Annotated, Literal

from unalike.spec import value_schemas
from unalike.spec.declare import Capitals, Paths, Section, Text, field, section, spelt_both_ways


class Calibration(Section):
    cal_image_dir: Paths = field(
        None,
        "Folders or archives of images that INT8 ranges are measured on; needed for INT8 only.",
        automl_enabled=False,
        schema=value_schemas.PATHS,
    )
    cal_cache_file: Text = field(
        None,
        "File of the measured ranges, used again for the same model and images; INT8 only. Unset: in the results folder.",
    )
    cal_batch_size: int = field(1, "Calibration images at once.", ge=1, le=65536, low=1, popular=True, units="images")
    cal_batches: int = field(1, "How many batches are used for calibration.", ge=1, low=1, popular=True)


class TensorRT(Section):
    workspace_size: int = field(1024, "Scratch memory that the builder may use.", ge=0, low=0, units="MB")
    min_batch_size: int = field(1, "Smallest batch that the engine takes.", ge=1, le=65536, low=1, popular=True)
    opt_batch_size: int = field(
        1, "Batch that the engine is tuned for.", ge=1, le=65536, low=1, popular=True, settled=True
    )
    max_batch_size: int = field(
        1, "Largest batch that the engine takes; left out, the largest batch in use.", ge=1, le=65536, low=1, popular=True,
        settled=True,
    )  # fmt: skip
    layers_precision: list[str] = field(
        [],
        "Layers kept at a precision of their own, each as `layer:precision`; * stands for any letters.",
        automl_enabled=False,
    )
    data_type: Annotated[Literal["FP32", "FP16", "INT8", "BF16"], Capitals] = field(
        "FP32", "Number format that the engine computes in.", schema=spelt_both_ways("FP32", "FP16", "INT8", "BF16")
    )
    calibration: Calibration = section(
        Calibration, "Images behind the ranges of an INT8 engine.", popular=["cal_batch_size", "cal_batches"]
    )


class GenTrtEngine(Section):
    results_dir: Text = field(None, "Folder of the output; unset means `gen_trt_engine` below the top results_dir.")
    gpu_id: int = field(0, "GPU that the engine is built on and for.", ge=0, le=1023, low=0, popular=True)
    onnx_file: Text = field(None, "ONNX file to build from; there is no engine without one.")
    trt_engine: Text = field(
        None, "Engine file to write; unset means the model's name with .engine in the results folder."
    )
    timing_cache: Text = field(None, "File that keeps kernel timings, so that a second build is quick.")
    batch_size: int = field(
        -1, "Fixed batch of the ONNX file; -1 when it is open.", ge=-1, le=65536, low=-1, popular=True
    )
    verbose: bool = field(False, "Say what the builder does.")
    tensorrt: TensorRT = section(
        TensorRT, "Settings of the TensorRT builder.",
        popular=["calibration", "max_batch_size", "min_batch_size", "opt_batch_size"],
    )  # fmt: skip
