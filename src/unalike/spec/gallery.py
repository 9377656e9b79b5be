"""Sections ``gallery_build``, ``gallery_add`` and the other edits, ``calibrate`` and ``identify``: a gallery of reference images."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt, Lt

from unalike.spec import value_schemas
from unalike.spec.declare import (
    CLASS_FORM,
    FILE,
    IMAGES,
    MODEL,
    ClassName,
    EnginePrecision,
    Names,
    Pairs,
    Paths,
    Runtime,
    Section,
    Text,
    field,
)

LabelRule = Literal["nearest", "prototype", "vote"]
Share = Annotated[float, Gt(0), Lt(1)]
# Attributes of the references that are enrolled.
_ATTRIBUTES = "Attributes of all the images, NAME=VALUE each, by which searches are filtered, such as site=berlin."
_ATTRIBUTE_COLUMNS = (
    "Columns of the manifest that hold further attributes of each image, by their names; empty cells give none."
)


class GalleryBuild(Section):
    gallery: Text = field(
        None,
        "File of the gallery, or postgresql://HOST/DATABASE?gallery=NAME, or milvus://HOST?gallery=NAME; unset, images.gallery in the results folder.",
    )
    source: Text = field(
        None, "Images to enroll: one folder a class, an archive or a manifest.", mandatory=True, takes=IMAGES
    )
    results_dir: Text = field(
        None, "Results folder; unset, `gallery_build` below the top results_dir, or none: the gallery's file alone."
    )
    model: Text = field(
        None,
        "Network: a .onnx or .pth model, the folder of a run, or pretrained: the best pretrained trunk that is installed, "
        "without training.",
        mandatory=True, takes=MODEL,
    )  # fmt: skip
    rate: Share | None = field(
        0.01,
        "Share of unknown images that may be taken for known ones; unset, the lowest of 1 to 20 % at which no more known images "
        "than max_refused are called unknown; null: not calibrated, always the nearest class.",
        settled=True,
    )
    max_refused: Share = field(0.05, "Share of images of enrolled classes that may be called unknown.")
    rule: LabelRule = field("nearest", "Rule that labels an image.")
    half: bool = field(False, "Store vectors in half precision.")
    attributes: Pairs = field(None, _ATTRIBUTES, schema=value_schemas.PAIRS)
    attribute_columns: Names | None = field(
        None, _ATTRIBUTE_COLUMNS, schema=value_schemas.any_of(value_schemas.NAMES, value_schemas.NULL)
    )
    runtime: Runtime = field("auto", "Runtime of the network.")
    precision: EnginePrecision = field("auto", "Number format of the network.")


class GalleryAdd(Section):
    gallery: Text = field(
        None,
        "File of the gallery, or postgresql://HOST/DATABASE?gallery=NAME, or milvus://HOST?gallery=NAME.",
        mandatory=True,
        takes=FILE,
    )
    source: Text = field(
        None, "Images to enroll: one folder a class, an archive or a manifest; with a label, images in any arrangement.",
        mandatory=True, takes=IMAGES,
    )  # fmt: skip
    label: ClassName = field(
        None,
        "Class of all the images; unset, each folder is a class.",
        form=CLASS_FORM,
        schema=value_schemas.CLASS_NAME,
    )
    attributes: Pairs = field(None, _ATTRIBUTES, schema=value_schemas.PAIRS)
    attribute_columns: Names | None = field(
        None, _ATTRIBUTE_COLUMNS, schema=value_schemas.any_of(value_schemas.NAMES, value_schemas.NULL)
    )
    model: Text = field(None, "Network: a .onnx or .pth model; unset, the gallery's own.", takes=MODEL)
    runtime: Runtime = field("auto", "Runtime of the network.")
    precision: EnginePrecision = field("auto", "Number format of the network.")


class GalleryRemove(Section):
    gallery: Text = field(
        None,
        "File of the gallery, or postgresql://HOST/DATABASE?gallery=NAME, or milvus://HOST?gallery=NAME.",
        mandatory=True,
        takes=FILE,
    )
    labels: Paths = field(None, "Classes to remove.", schema=value_schemas.PATHS)
    names: Paths = field(
        None, "Single images to remove, by the paths under which they were enrolled.", schema=value_schemas.PATHS
    )


class GalleryRename(Section):
    gallery: Text = field(
        None,
        "File of the gallery, or postgresql://HOST/DATABASE?gallery=NAME, or milvus://HOST?gallery=NAME.",
        mandatory=True,
        takes=FILE,
    )
    label: ClassName = field(None, "Class to rename.", mandatory=True, form=CLASS_FORM, schema=value_schemas.CLASS_NAME)
    new: ClassName = field(
        None, "New name of the class.", mandatory=True, form=CLASS_FORM, schema=value_schemas.CLASS_NAME
    )


class GalleryMerge(Section):
    gallery: Text = field(
        None,
        "File of the gallery, or postgresql://HOST/DATABASE?gallery=NAME, or milvus://HOST?gallery=NAME.",
        mandatory=True,
        takes=FILE,
    )
    labels: Paths = field(None, "Classes to merge.", mandatory=True, schema=value_schemas.PATHS)
    into: ClassName = field(
        None,
        "Name of the merged class, new or existing.",
        mandatory=True,
        form=CLASS_FORM,
        schema=value_schemas.CLASS_NAME,
    )


class GalleryCopy(Section):
    gallery: Text = field(
        None,
        "File of the gallery, or postgresql://HOST/DATABASE?gallery=NAME, or milvus://HOST?gallery=NAME.",
        mandatory=True,
        takes=FILE,
    )
    target: Text = field(
        None,
        "Where the copy is kept: a file, postgresql://HOST/DATABASE?gallery=NAME, or milvus://HOST?gallery=NAME.",
        mandatory=True,
    )


class GalleryList(Section):
    gallery: Text = field(
        None,
        "File of the gallery, or postgresql://HOST/DATABASE?gallery=NAME, or milvus://HOST?gallery=NAME.",
        mandatory=True,
        takes=FILE,
    )
    verify: bool = field(
        False, "Read the complete file and verify its checksums; in PostgreSQL, compare counters with tables."
    )


class Calibrate(Section):
    gallery: Text = field(
        None,
        "File of the gallery, or postgresql://HOST/DATABASE?gallery=NAME, or milvus://HOST?gallery=NAME.",
        mandatory=True,
        takes=FILE,
    )
    rate: Share = field(0.01, "Share of unknown images that may be taken for known ones.")
    wrong: Share | None = field(None, "Share of known images that may get a wrong label; unset, the same as rate.")
    images: Text = field(
        None, "Class folders of further images; those whose class is not in the gallery are unknown ones.", takes=IMAGES
    )
    trials_from: Literal["auto", "gallery", "images", "both"] = field(
        "auto", "Where unknown images come from; gallery leaves out each class in turn."
    )
    rule: LabelRule = field("nearest", "Rule that labels an image.")
    k: int = field(10, "Neighbors that vote.", ge=1)
    confidence: Share = field(0.95, "Confidence of the intervals.")
    seed: int = field(0, "Seed of the sample of trials from a large gallery.", ge=0)
    model: Text = field(None, "Network: a .onnx or .pth model; unset, the gallery's own.", takes=MODEL)
    runtime: Runtime = field("auto", "Runtime of the network.")
    precision: EnginePrecision = field("auto", "Number format of the network.")


class Identify(Section):
    gallery: Text = field(
        None,
        "File of the gallery, or postgresql://HOST/DATABASE?gallery=NAME, or milvus://HOST?gallery=NAME.",
        mandatory=True,
        takes=FILE,
    )
    images: Paths = field(
        None, "Images, or folders of images.", mandatory=True, schema=value_schemas.PATHS, takes=IMAGES
    )
    k: int = field(3, "Neighbors to list for each image.", ge=1)
    rule: LabelRule | None = field(None, "Rule that labels an image; unset, that of the calibration.")
    where: Pairs = field(
        None,
        "Compare with references that have these attributes alone, exactly: NAME=VALUE each; several values of one name are "
        "alternatives.",
        schema=value_schemas.PAIRS,
    )
    approximate: bool = field(False, "Search through an index: faiss (extra ann), or HNSW in PostgreSQL and Milvus.")
    model: Text = field(None, "Network: a .onnx or .pth model; unset, the gallery's own.", takes=MODEL)
    runtime: Runtime = field("auto", "Runtime of the network.")
    precision: EnginePrecision = field("auto", "Number format of the network.")
