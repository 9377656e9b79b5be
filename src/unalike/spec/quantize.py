"""Section ``quantize``: a network in fewer bits, proved beside its fp32 form."""

from __future__ import annotations

from typing import Annotated, Literal

from unalike.spec import value_schemas
from unalike.spec.declare import Capitals, Paths, Section, Text, field, section, spelt_both_ways


class Ranges(Section):
    """The images behind INT8's ranges, and how a range is taken from what was seen."""

    cal_image_dir: Paths = field(
        None, "Folders, archives or manifests of images that INT8 ranges are measured on; needed for INT8 only.",
        automl_enabled=False, ours=True, schema=value_schemas.PATHS,
    )  # fmt: skip
    cal_batch_size: int = field(8, "Calibration images at once.", ge=1, le=65536, units="images", ours=True)
    cal_batches: int = field(16, "How many batches are used for calibration.", ge=1, le=1_000_000, ours=True)
    cal_cache_file: Text = field(
        None, "File of the measured ranges; unset, `calibration.json` beside the output. One that another model, other "
        "images or other settings made is never used.", ours=True,
    )  # fmt: skip
    seed: int = field(0, "Seed of the choice of images.", ge=0, le=2**32 - 1, ours=True)
    method: Literal["min-max", "percentile", "entropy"] = field(
        "min-max", "How a range is taken: all that was seen, all but the outermost shares, or what loses least information.",
        ours=True,
    )  # fmt: skip
    percentile: float = field(
        99.99, "Share of the values that `percentile` keeps.", gt=50, lt=100, units="%", ours=True
    )


class Goal(Section):
    """What the quantized network must still give; layers go back to higher precision until it does."""

    worst_cosine: float | None = field(
        None,
        "Least cosine of any image's vector with its fp32 vector; unset: 0.95 for INT8, 0.999 for FP16, BF16.",
        ge=-1,
        le=1,
        ours=True,
    )
    recall_loss: float | None = field(
        0.5, "Most that R@1 may lose on dataset.val_dataset where that is set; null for no limit.", ge=0, le=100,
        units="percentage points", ours=True,
    )  # fmt: skip
    most_layers: float = field(
        0.5, "Share of the layers that may go back to higher precision before that is an error.", ge=0, le=1, ours=True
    )


Backend = Literal["auto", "nncf", "onnxruntime"]
Target = Literal["cpu", "vnni", "tensorrt"]


class Quantize(Section):
    results_dir: Text = field(
        None, "Folder of the output; unset means `quantize` below the top results_dir.", ours=True
    )
    onnx_file: Text = field(None, "ONNX file to quantize; needed unless a checkpoint is given.", ours=True)
    checkpoint: Text = field(None, "Checkpoint to quantize in place of an ONNX file.", ours=True)
    output: Text = field(
        None, "File to write; unset means the model's name with _int8, _fp16 or _bf16 in the results folder.", ours=True
    )
    data_type: Annotated[Literal["INT8", "FP16", "BF16"], Capitals] = field(
        "INT8", "Number format of the new file.", ours=True, schema=spelt_both_ways("INT8", "FP16", "BF16")
    )
    backend: Backend = field(
        "auto", "Quantizer for INT8: ONNX Runtime's. `nncf` is accepted and quantizes by ONNX Runtime.", ours=True,
    )  # fmt: skip
    target: Target = field(
        "cpu", "Where it will run: any `cpu` (uint8 activations, weights in 7 bits so that CPUs without VNNI do not overflow), "
        "CPUs with `vnni` alone (weights in 8 bits), or `tensorrt` (symmetric int8).", ours=True,
    )  # fmt: skip
    per_channel: bool = field(True, "A scale for each output channel of a weight, not one for all.", ours=True)
    layers_precision: list[str] = field(
        [], "Layers kept at a precision of their own, each as `layer:precision`; * stands for any letters.",
        automl_enabled=False, ours=True,
    )  # fmt: skip
    parity_images: int = field(
        64, "Images on which the vectors are compared with those of fp32 (others than those of the calibration where "
        "there are enough).", ge=1, le=1_000_000, units="images", ours=True,
    )  # fmt: skip
    calibration: Ranges = section(Ranges, "Images behind the ranges of INT8.", ours=True)
    goal: Goal = section(Goal, "What the result must still give.", ours=True)
