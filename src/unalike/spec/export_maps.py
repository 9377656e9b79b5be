"""Section ``export_maps``: writing a network that outputs its feature maps, as ONNX."""

from __future__ import annotations

from unalike.spec import value_schemas
from unalike.spec.declare import MODEL, Section, Size, Stages, Text, field


class ExportMaps(Section):
    source: Text = field(None, "Network: a checkpoint (.pth), or pretrained[:NAME].", mandatory=True, takes=MODEL)
    output: Text = field(None, "File to write, .onnx.", mandatory=True)
    stages: Stages = field(
        "auto", "Feature maps by stride or name; auto: strides 8 and 16, middle: stride 16.",
        form="auto, middle, or strides and names such as 8,16", schema=value_schemas.STAGES,
    )  # fmt: skip
    size: Size | None = field(
        None, "Height and width of the network's input; unset, the model's own.", units="pixels",
        form="one side, or height x width, such as 320 or 320x256",
        schema=value_schemas.any_of(value_schemas.SIZE, value_schemas.NULL),
    )  # fmt: skip
    vector: bool = field(True, "Keep the layers above the feature maps, which output the vector.")
