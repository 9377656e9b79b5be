"""Section ``evaluate``: what is measured and how surely."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge

from unalike.spec.declare import Section, Text, field
from unalike.spec.train import DEVICE_HELP

Runtime = Literal["auto", "torch", "onnxruntime", "openvino"]
EnginePrecision = Literal["auto", "fp32", "bf16", "fp16"]


class Evaluate(Section):
    num_gpus: int = field(
        1,
        "GPUs that evaluation may use; it runs on the first of them, or on the CPU where there is none.",
        ge=1,
        le=1024,
        low=1,
        popular=True,
    )
    gpu_ids: list[int] = field([0], DEVICE_HELP, automl_enabled=False, popular=True, settled=True)
    num_nodes: int = field(
        1, "Accepted for TAO's sake and not used: evaluation runs on one machine.", ge=1, le=65536, low=1, popular=True
    )
    checkpoint: Text = field(None, "Checkpoint to measure; needed unless an ONNX file or an engine is given.")
    trt_engine: Text = field(None, "TensorRT engine to measure in place of a checkpoint.")
    results_dir: Text = field(
        None, "Folder of this evaluation's output; unset means `evaluate` below the top results_dir."
    )
    batch_size: int = field(
        4,
        "Images at once through the network; left out, the engine's own.",
        ge=1,
        le=65536,
        units="images",
        settled=True,
    )
    topk: int = field(1, "How many nearest references of each query are listed in the predictions.", ge=1, le=65536)
    report_accuracy_per_class: bool = field(True, "Write accuracy class by class too.")
    onnx_file: Text = field(None, "ONNX file to measure in place of a checkpoint.", ours=True)
    runtime: Runtime = field("auto", "What runs the network; `auto` takes the fastest on this machine.", ours=True)
    precision: EnginePrecision = field(
        "auto", "Number format of the network; `auto` takes the fastest that is safe.", ours=True
    )
    ks: list[Annotated[int, Ge(1)]] = field(
        [1, 5, 10], "Recall is reported among this many nearest.", min_length=1, ours=True, automl_enabled=False
    )
    bootstrap: int = field(1000, "Resamples behind each interval; 0 gives none.", ge=0, le=1_000_000, ours=True)
    confidence: float = field(0.95, "Confidence of the intervals.", gt=0, lt=1, ours=True)
    resample: Literal["auto", "queries", "classes"] = field(
        "auto", "What the intervals resample: queries, or whole classes when the claim is about unseen ones.", ours=True
    )
    seed: int = field(0, "Seed of the resampling and of k-means.", ge=0, le=2**32 - 1, ours=True)
