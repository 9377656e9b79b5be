"""Sections of ``inspect``: fitting an inspector to good images, learning further ones, and finding defects with it."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from unalike.spec import value_schemas
from unalike.spec.declare import (
    FILE,
    GROUND_FORM,
    IMAGES,
    MODEL,
    RANGE_FORM,
    Boxes,
    EnginePrecision,
    Ground,
    Paths,
    Runtime,
    Section,
    Size,
    Stages,
    Text,
    ValueRange,
    field,
)
from unalike.spec.ignored_regions import ignore_boxes_field, ignore_mask_field

Search = Literal["exact", "ann"]
THREADS_HELP = "CPU cores that the network may use; unset, all that the process has."


class InspectFit(Section):
    good: Text = field(None, "Images of good parts: a folder, an archive or a manifest.", mandatory=True, takes=IMAGES)
    inspector: Text = field(
        None, "File of the inspector; unset, part.inspector in the results folder.",
    )  # fmt: skip
    results_dir: Text = field(
        None, "Results folder; unset, `inspect_fit` below the top results_dir, or none: the inspector's file alone."
    )
    model: str = field(
        "pretrained",
        "Network: a checkpoint (.pth), a file that export-maps wrote, or pretrained[:NAME].",
        min_length=1,
        takes=MODEL,
    )
    size: Size | None = field(
        None, "Height and width of the network's input; unset, the model's own.", units="pixels",
        form="one side, or height x width, such as 320 or 320x256",
        schema=value_schemas.any_of(value_schemas.SIZE, value_schemas.NULL),
    )  # fmt: skip
    stages: Stages = field(
        "auto", "Feature maps by stride or name; auto: strides 8 and 16, middle: stride 16 alone.",
        form="auto, middle, or strides and names such as 8,16", schema=value_schemas.STAGES,
    )  # fmt: skip
    fit: Literal["auto", "scale", "whole"] = field(
        "auto", "How images are brought to the network's size; scale: in tiles, all images by one factor."
    )
    scale: Annotated[float, Gt(0), Le(8)] | None = field(
        None, "Factor by which images are resized before they are cut into tiles; unset, chosen by their sizes."
    )
    light: Literal["as-is", "even"] = field("as-is", "Lighting; even: each image's median is made the same.")
    ground: Ground | None = field(
        None, "Color behind transparent pixels: white, black, gray or #rrggbb; unset, chosen from the images.",
        form=GROUND_FORM)  # fmt: skip
    range: ValueRange | None = field(
        None, "Lowest and highest value of images of more than 8 bits, such as 0,4095; unset, chosen from the images.",
        form=RANGE_FORM, schema=value_schemas.RANGE)  # fmt: skip
    rate: Annotated[float, Gt(0), Lt(1)] | None = field(
        0.01, "Share of good images that may be called defective; null: no threshold, scores alone."
    )
    defects: Text = field(None, "Folder of a few defective images, where there are any.", takes=IMAGES)
    masks: Text = field(None, "Folder of the masks of the defective images.")
    parts: Text = field(
        None,
        "Regular expression that matches, in an image's path, the part that it shows, where several show the same.",
    )
    ignore_mask: Text = ignore_mask_field("anomalies are ignored", images="the good images'")
    ignore_boxes: Boxes | None = ignore_boxes_field(
        "anomalies are ignored; all images show one frame", image="the first good image"
    )
    patches: int = field(
        20_000, "Patches of good images from which the memory bank is chosen; at least as many as it holds.",
        ge=1, le=10**8, settled=True,
    )  # fmt: skip
    memory: int = field(2_000, "Patches in the memory bank.", ge=1, le=10**8)
    whiten: float = field(0.0, "Share of the covariance of good patches that is undone.", ge=0, le=1)
    local: float = field(
        1.0, "How far the spread of good patches around each patch of the memory bank is undone.", ge=0, le=1
    )
    smooth: float = field(
        1.0, "Standard deviation of the Gaussian that smooths the anomaly map.", ge=0, units="patches"
    )
    top_share: float = field(
        0.01, "Share of an image's patches, the most anomalous ones, whose mean is its score.", ge=0, le=1
    )
    localize_by: Literal["distance", "score"] = field(
        "distance",
        "What the anomaly map shows: plain distances, brought to the image's score, or the scores of its patches.",
    )
    fixture: float = field(
        0.0,
        "For parts that always lie in the same place: how far a patch may move, as a share of the longer side.",
        ge=0,
    )
    border: float = field(
        48.0, "Distance from the image's border up to which it is part of a patch, so that rims are compared with rims.",
        ge=0, units="pixels",
    )  # fmt: skip
    folds: int = field(4, "Folds for the scores of good images by models fitted without them.", ge=2, le=1000)
    search: Search = field("exact", "Search in the memory bank; ann: faiss (extra ann).")
    synthetic_defects: int = field(
        0, "Tiles with synthetic defects that a patch classifier is fitted to, such as 500; 0: none.", ge=0, le=10**6
    )
    seed: int = field(0, "Seed of sampling and folds.", ge=0, le=2**32 - 1)
    runtime: Runtime = field("auto", "Runtime of the network.")
    precision: EnginePrecision = field("fp32", "Number format of the network.")
    threads: Annotated[int, Ge(1)] | None = field(None, THREADS_HELP)


class InspectLearn(Section):
    inspector: Text = field(None, "File of the inspector, which stays as it is.", mandatory=True, takes=FILE)
    images: Paths = field(
        None,
        "Further images of good parts, or folders of them.",
        mandatory=True,
        schema=value_schemas.PATHS,
        takes=IMAGES,
    )
    output: Text = field(None, "File of the inspector that has learned them.", mandatory=True)
    rate: Annotated[float, Gt(0), Lt(1)] | None = field(
        None, "Share of good images that may be called defective; unset, as in the inspector."
    )
    parts: Text = field(
        None,
        "Regular expression that matches, in a further image's path, the part that it shows, where several show the same.",
    )
    runtime: Runtime = field("auto", "Runtime of the network.")
    threads: Annotated[int, Ge(1)] | None = field(None, THREADS_HELP)


class InspectRun(Section):
    inspector: Text = field(None, "File of the inspector that inspect fit wrote.", mandatory=True, takes=FILE)
    images: Paths = field(
        None, "Images to inspect, or folders of them.", mandatory=True, schema=value_schemas.PATHS, takes=IMAGES
    )
    results_dir: Text = field(
        None, "Folder for result.json, overlays and report.html; unset, no folder, or `inspect_run` below the top "
        "results_dir.",
    )  # fmt: skip
    overlays: Literal["all", "defective", "none"] = field("defective", "Images of which overlays are written.")
    good: Text = field(
        None, "The truth, to measure by: images in folders of this name are good, others defective; unset, good where truth "
        "is set.",
    )  # fmt: skip
    truth: Text = field(None, "Folder of masks to measure by: FOLDER/NAME.png or FOLDER/NAME_mask.png.")
    ignore_mask: Text = ignore_mask_field("anomalies are ignored too", images="the good images'")
    ignore_boxes: Boxes | None = ignore_boxes_field(
        "anomalies are ignored too; all images show one frame", image="the first good image"
    )
    search: Search | None = field(None, "Search in the memory bank; unset, as in the fit.")
    runtime: Runtime = field("auto", "Runtime of the network.")
    precision: EnginePrecision = field("auto", "Number format of the network; auto: that of the fit.")
    threads: Annotated[int, Ge(1)] | None = field(None, THREADS_HELP)
