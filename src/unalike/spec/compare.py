"""Section ``compare``: aligning two images of one thing and finding where they differ."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from unalike.spec import value_schemas
from unalike.spec.declare import (
    GROUND_FORM,
    IMAGE_OR_FOLDER,
    MODEL,
    RANGE_FORM,
    Boxes,
    EnginePrecision,
    Ground,
    Runtime,
    Section,
    Text,
    ValueRange,
    field,
)
from unalike.spec.ignored_regions import ignore_boxes_field, ignore_mask_field

Alignment = Literal["auto", "none", "shift", "rigid", "affine", "homography"]
Lighting = Literal["local", "global", "none"]
Preset = Literal["auto", "photo", "print", "screen", "scan"]
Level = Literal["pixels", "features", "both"]


class Compare(Section):
    reference: Text = field(
        None, "The reference: an image or a folder of images; or, without an image, a table of pairs (.csv) with the "
        "columns reference and image.",
        mandatory=True, takes=IMAGE_OR_FOLDER)  # fmt: skip
    image: Text = field(None, "The image to compare with the reference, or a folder of images.", takes=IMAGE_OR_FOLDER)
    results_dir: Text = field(
        None, "Folder for pictures, comparison.json and report.html; unset, no folder, or `compare` below the top "
        "results_dir.",
    )  # fmt: skip
    align: Alignment = field("auto", "Kind of motion by which the image is aligned with the reference.")
    lighting: Lighting = field("local", "Difference of lighting that does not count.")
    preset: Preset = field(
        "auto", "Kind of images, which sets tolerance, contrast and smallest area where they are unset; auto, chosen for each "
        "pair; screen compares without alignment and leaves antialiasing out.",
    )  # fmt: skip
    tolerance: Annotated[int, Ge(0), Le(32)] | None = field(
        None, "Largest edge displacement that counts as no difference; unset, measured in each pair.", units="pixels"
    )
    contrast: Annotated[float, Ge(1), Le(255)] | None = field(
        None,
        "Smallest difference that counts, in gray levels of 255; unset, the preset's, more beside edges and in noise.",
    )
    min_area: Annotated[int, Ge(1), Le(10**9)] | None = field(
        None, "Smallest area of a difference; unset, the preset's.", units="pixels"
    )
    margin: Annotated[int, Ge(0), Le(10**5)] | None = field(
        None, "Margin around each box; unset, 1/64 of the shorter side.", units="pixels"
    )
    min_compared: Annotated[float, Gt(0), Le(1)] = field(
        0.95, "Least share of both images that must have a counterpart in the other: with less they are not the same."
    )
    max_rotation: float = field(15.0, "Largest rotation that counts as no difference.", ge=0, le=180, units="degrees")
    max_scale: float = field(
        1.5, "Largest enlargement or reduction that counts as no difference; another resolution is none.", ge=1, le=8
    )
    max_shift: float = field(
        0.15, "Largest shift that counts as no difference, as a share of the reference's diagonal.", ge=0, le=1
    )
    any_pose: bool = field(False, "Lift the limits of rotation, scale and shift.")
    ignore_mask: Text = ignore_mask_field("differences are ignored", images="the reference's")
    ignore_boxes: Boxes | None = ignore_boxes_field("differences are ignored", image="the reference")
    mirror: bool = field(False, "Also accept a mirrored copy of the reference.")
    flexible: bool = field(True, "Correct small smooth deformations after the alignment.")
    level: Level = field("pixels", "What is compared; features are those of a network.")
    model: Text = field(
        None, "Network for the features: a checkpoint (.pth), a file that export-maps wrote, or pretrained[:NAME]; unset, "
        "pretrained.", takes=MODEL)  # fmt: skip
    ground: Ground | None = field(
        None, "Color behind transparent pixels: white, black, gray or #rrggbb; unset, chosen from the images.",
        form=GROUND_FORM)  # fmt: skip
    range: ValueRange | None = field(
        None, "Lowest and highest value of images of more than 8 bits, such as 0,4095; unset, chosen from the images.",
        form=RANGE_FORM, schema=value_schemas.RANGE)  # fmt: skip
    runtime: Runtime = field("auto", "Runtime of the network.")
    precision: EnginePrecision = field("auto", "Number format of the network.")
    threads: Annotated[int, Ge(1)] | None = field(
        None, "CPU cores that the network may use; unset, all that the process has."
    )
