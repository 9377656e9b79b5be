"""Section ``verify``: checking that images show an approved asset, unaltered."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from unalike.spec import value_schemas
from unalike.spec.declare import (
    GROUND_FORM,
    IMAGES,
    IMAGES_OR_FILE,
    MODEL,
    RANGE_FORM,
    REGION_BOX_FORM,
    EnginePrecision,
    Ground,
    Names,
    Paths,
    RegionBox,
    Runtime,
    Section,
    Text,
    ValueRange,
    field,
)


class Verify(Section):
    reference: Text = field(
        None, "Approved assets: a folder, an archive or a manifest with one image an asset; or a file that was saved.",
        mandatory=True, takes=IMAGES_OR_FILE)  # fmt: skip
    images: Paths = field(None, "Images to verify, or folders of them.", schema=value_schemas.PATHS, takes=IMAGES)
    results_dir: Text = field(
        None,
        "Folder for pictures, verdicts.jsonl and report.html; unset, no folder, or `verify` below the top results_dir.",
    )
    asset: Text = field(None, "Name of the asset that each image should show; unset, any of them.")
    box: RegionBox | None = field(
        None, "Box in which each image shows the mark, which is looked for there alone; unset, all of the image.",
        form=REGION_BOX_FORM, schema=value_schemas.REGION_BOX)  # fmt: skip
    save: Text = field(None, "File to save the assets and their calibration to.")
    rate: Annotated[float, Gt(0), Lt(1)] | None = field(
        None, "Share of altered images that may pass as the same; unset, the saved calibration's, or 0.01."
    )
    trials: Annotated[int, Ge(1), Le(10**6)] | None = field(
        None, "Tampered copies of each asset to calibrate with; unset, as many as the rate asks for."
    )
    kinds: Names | None = field(
        None,
        "Kinds of tampering to calibrate with; unset, all.",
        form="a list of names, also as a,b",
        schema=value_schemas.any_of(value_schemas.NAMES, value_schemas.NULL),
    )
    confidence: float = field(0.95, "Confidence of the calibration.", gt=0, lt=1)
    seed: int = field(0, "Seed of the calibration's trials.", ge=0, le=2**32 - 1)
    model: Text = field(
        None,
        "Network that finds the assets: a .onnx, .xml or .pth; unset, the saved one or a pretrained trunk.",
        takes=MODEL,
    )
    ground: Ground | None = field(
        None, "Color behind transparent pixels: white, black, gray or #rrggbb; unset, chosen from the assets.",
        form=GROUND_FORM)  # fmt: skip
    range: ValueRange | None = field(
        None, "Lowest and highest value of images of more than 8 bits, such as 0,4095; unset, chosen from the assets.",
        form=RANGE_FORM, schema=value_schemas.RANGE)  # fmt: skip
    runtime: Runtime = field("auto", "Runtime of the network.")
    precision: EnginePrecision = field("auto", "Number format of the network.")
