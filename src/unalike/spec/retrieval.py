"""Options that the sections evaluate and inference share: model file, devices, batch size, top k."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from unalike.spec.declare import EnginePrecision, Runtime, Section, Text, field
from unalike.spec.train import DEVICE_HELP


class Retrieval(Section):
    """Images embedded by a finished model and compared with references."""

    num_gpus: int = field(
        1, "GPUs that share the images, each with a copy of the network; 1 without a GPU runs on the CPU.", ge=1, le=1024,
        low=1, popular=True,
    )  # fmt: skip
    gpu_ids: list[int] = field([0], DEVICE_HELP, automl_enabled=False, popular=True, settled=True)
    num_nodes: int = field(
        1, "Accepted for TAO's sake and not used: this action runs on one machine.", ge=1, le=65536, low=1, popular=True
    )
    checkpoint: Text = field(None, "Checkpoint to use; needed unless an ONNX file or an engine is given.")
    trt_engine: Text = field(None, "TensorRT engine to use in place of a checkpoint.")
    results_dir: Text = field(None, "Folder of the output; unset means this action's own below the top results_dir.")
    batch_size: int = field(
        4,
        "Images at once through the network; left out, the engine's own.",
        ge=1,
        le=65536,
        units="images",
        settled=True,
    )
    topk: int = field(1, "How many nearest references are listed for each image.", ge=1, le=65536)
    onnx_file: Text = field(None, "ONNX file to use in place of a checkpoint.", ours=True)
    engine: Text = field(
        None,
        "Engine of gen_engine (.xml, .onnx) or gen_trt_engine (.engine) to use in place of a checkpoint.",
        ours=True,
    )
    threads: Annotated[int, Ge(1)] | None = field(
        None, "CPU cores that an exported network may use; unset, all that the process has.", ours=True
    )
    streams: Annotated[int, Ge(1)] | None = field(
        None, "Requests that OpenVINO runs at once; unset, what it finds best.", ours=True
    )
    device: Text = field(
        None, "Device of an exported network or engine: `CPU`, OpenVINO's `GPU`, `cuda:1`; unset, the runtime's own.",
        ours=True,
    )  # fmt: skip
    runtime: Runtime = field("auto", "What runs the network; `auto` takes the fastest on this machine.", ours=True)
    precision: EnginePrecision = field(
        "auto", "Number format of the network; `auto` takes the fastest that is safe.", ours=True
    )
