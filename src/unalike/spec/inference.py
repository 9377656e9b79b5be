"""Section ``inference``: naming images by their nearest references."""

from __future__ import annotations

from typing import Literal

from unalike.spec.declare import Section, Text, field
from unalike.spec.evaluate import EnginePrecision, Runtime
from unalike.spec.train import DEVICE_HELP


class Inference(Section):
    num_gpus: int = field(
        1,
        "GPUs that inference may use; it runs on the first of them, or on the CPU where there is none.",
        ge=1,
        le=1024,
        low=1,
        popular=True,
    )
    gpu_ids: list[int] = field([0], DEVICE_HELP, automl_enabled=False, popular=True, settled=True)
    num_nodes: int = field(
        1, "Accepted for TAO's sake and not used: inference runs on one machine.", ge=1, le=65536, low=1, popular=True
    )
    checkpoint: Text = field(None, "Checkpoint to use; needed unless an ONNX file or an engine is given.")
    trt_engine: Text = field(None, "TensorRT engine to use in place of a checkpoint.")
    results_dir: Text = field(None, "Folder of the output; unset means `inference` below the top results_dir.")
    input_path: Text = field(None, "Image, folder or archive to be recognised.")
    inference_input_type: Literal["image", "image_folder", "classification_folder"] = field(
        "classification_folder", "What input_path is: one image, a plain folder of images, or class folders."
    )
    batch_size: int = field(
        1,
        "Images at once through the network; left out, the engine's own.",
        ge=1,
        le=65536,
        units="images",
        settled=True,
    )
    topk: int = field(1, "How many nearest references are listed for each image.", ge=1, le=65536)
    onnx_file: Text = field(None, "ONNX file to use in place of a checkpoint.", ours=True)
    runtime: Runtime = field("auto", "What runs the network; `auto` takes the fastest on this machine.", ours=True)
    precision: EnginePrecision = field(
        "auto", "Number format of the network; `auto` takes the fastest that is safe.", ours=True
    )
