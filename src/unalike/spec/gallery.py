"""Section ``gallery_build``: enrolling class folders in a new gallery."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt, Lt

from unalike.spec.declare import IMAGES, MODEL, Section, Text, field
from unalike.spec.retrieval import EnginePrecision, Runtime


class GalleryBuild(Section):
    gallery: Text = field(None, "File of the gallery; unset, images.gallery in the results folder.")
    source: Text = field(
        None, "Images to enroll: one folder a class, an archive or a manifest.", mandatory=True, takes=IMAGES
    )
    results_dir: Text = field(
        None, "Results folder; unset, `gallery_build` below the top results_dir, or none: the gallery's file alone."
    )
    model: Text = field(None, "Network: a .onnx or .pth model.", mandatory=True, takes=MODEL)
    rate: Annotated[float, Gt(0), Lt(1)] | None = field(
        0.01,
        "Share of unknown images that may be taken for known ones; null: not calibrated, always the nearest class.",
    )
    rule: Literal["nearest", "prototype", "vote"] = field("nearest", "Rule that labels an image.")
    half: bool = field(False, "Store vectors in half precision.")
    runtime: Runtime = field("auto", "Runtime of the network.")
    precision: EnginePrecision = field("auto", "Number format of the network.")
