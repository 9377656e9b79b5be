"""Section ``export``: the ONNX file for other machines."""

from __future__ import annotations

from typing import Literal

from unalike.spec.declare import Section, Text, field


class Export(Section):
    batch_size: int = field(-1, "Fixed batch of the ONNX input; -1 leaves it open.", ge=-1, le=65536, units="images")
    checkpoint: Text = field(None, "Checkpoint to export; there is no export without one.")
    gpu_id: int = field(
        0, "GPU that runs the trained network while the written file is compared with it; the CPU where there is none.",
        ge=0, le=1023,
    )  # fmt: skip
    onnx_file: Text = field(None, "File to write; unset means the checkpoint's name with .onnx in the results folder.")
    on_cpu: bool = field(False, "Run the trained network on the CPU even where there is a GPU.")
    opset_version: int = field(
        14, "ONNX operator set. Left out, the exporter's own is taken; a lower one is converted to and checked.",
        ge=7, le=40, settled=True,
    )  # fmt: skip
    verbose: bool = field(True, "Say what the written graph holds: its input, its output and its operators.")
    results_dir: Text = field(None, "Folder of the output; unset means `export` below the top results_dir.")
    preprocessing: Literal["none", "embedded"] = field(
        "none", "`none`: the input is float32 and already normalized; `embedded`: uint8 RGB, mean and std in the graph.",
        ours=True,
    )  # fmt: skip
    unit_length: bool = field(False, "Scale the output vectors to length one in the graph.", ours=True)
    parity_images: int = field(
        64, "Real images on which ONNX Runtime must give the same vectors as torch.", ge=1, le=1_000_000, units="images",
        ours=True,
    )  # fmt: skip
