"""Section ``dataset``: where the images lie, how they are seen, and how training varies them."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt
from pydantic import BeforeValidator

from unalike.spec import value_schemas
from unalike.spec.declare import (
    GROUND_FORM,
    RANGE_FORM,
    Ground,
    Section,
    Text,
    ValueRange,
    field,
    section,
)

Positive = Annotated[float, Gt(0)]


class ValDataset(Section):
    """The two sides of a retrieval test."""

    reference: Text = field(None, "Images of known classes that a query is compared with: folder, archive or manifest.")
    query: Text = field(None, "Images to be recognized; unset (or empty) for inference.")


class GaussianBlur(Section):
    enabled: bool = field(True, "Blur training images at random.", settled=True)
    kernel: list[int] = field(
        [15, 15], "Height and width of the blur's window: odd, and not larger than the input allows.",
        automl_enabled=False, depends_on="model.input_height,model.input_width", units="pixels",
        schema=value_schemas.list_of({"type": "integer", "minimum": 1, "not": {"multipleOf": 2}}, 2, 2),
    )  # fmt: skip
    sigma: list[Positive] = field(
        [0.3, 0.7], "Least and greatest standard deviation of the blur.", automl_enabled=False, units="pixels",
        schema={"minItems": 2, "maxItems": 2},
    )  # fmt: skip


class ColorAugmentation(Section):
    enabled: bool = field(True, "Vary the colors of training images at random.", settled=True)
    brightness: float = field(
        0.5, "Brightness changes by up to this share.", ge=0, le=2, low=0.0, high=2.0, settled=True
    )
    contrast: float = field(0.3, "Contrast changes by up to this share.", ge=0, le=2, low=0.0, high=2.0, settled=True)
    saturation: float = field(
        0.1, "Saturation changes by up to this share.", ge=0, le=2, low=0.0, high=2.0, settled=True
    )
    hue: float = field(
        0.1, "Hue turns by up to this share of the color circle.", ge=0, le=0.5, low=0.0, high=0.5, settled=True
    )


class View(Section):
    mode: Literal["crop", "fit"] = field(
        "crop", "`crop` resizes both sides beyond the input size, whatever the aspect, and cuts out the middle; `fit` keeps "
        "the aspect: the image is resized until it just covers that size, then the middle is cut out.",
        ours=True,
    )  # fmt: skip
    resize_ratio: float = field(
        1.14,
        "Images are resized to this many times the input size before the middle is cut out.",
        ge=1,
        le=10,
        ours=True,
    )
    interpolation: Literal["bilinear", "bicubic"] = field("bilinear", "How pixels are resampled.", ours=True)


def _number(value: object) -> object:
    """A truth value is refused: Python takes true for 1."""
    if isinstance(value, bool):
        raise ValueError("a truth value")  # noqa: TRY004  what pydantic reports as a fault of the field
    return value


class Decoding(Section):
    version: Annotated[Literal[1, 2], BeforeValidator(_number)] = field(
        2, "Rule by which pixel formats other than 8-bit RGB are read; 1 is that of earlier versions (transparency over white, "
        "16-bit values by the full range, color profiles ignored).", ours=True, automl_enabled=False,
    )  # fmt: skip
    ground: Ground | None = field(
        None, "Color behind transparent pixels: white, black, gray or #rrggbb; unset, chosen from the images so that no "
        "drawing vanishes.", form=GROUND_FORM, settled=True, ours=True, automl_enabled=False,
    )  # fmt: skip
    range: ValueRange | None = field(
        None, "Lowest and highest value of images of more than 8 bits, which become 0 and 255, such as [0, 4095]; unset, "
        "chosen from the images.", form=RANGE_FORM, schema=value_schemas.RANGE, settled=True, ours=True, automl_enabled=False,
    )  # fmt: skip


class Crop(Section):
    scale: list[Positive] = field(
        [0.08, 1.0], "Least and greatest share of an image's area that a training crop covers.",
        settled=True, ours=True, automl_enabled=False,
        schema=value_schemas.list_of({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, 2, 2),
    )  # fmt: skip
    ratio: list[Positive] = field(
        [0.75, 1.3333], "Least and greatest width-to-height ratio of a training crop.",
        settled=True, ours=True, automl_enabled=False, schema={"minItems": 2, "maxItems": 2},
    )  # fmt: skip


class Cache(Section):
    mode: Literal["memory", "disk", "none"] = field(
        "memory", "Where decoded training images are kept between epochs.", ours=True
    )
    ratio: float = field(
        1.5, "Images are kept with their shorter side at this many times the training crop.", ge=1, le=16, ours=True
    )
    limit_gb: float | None = field(
        None, "Largest size of the cache; images that do not fit are decoded each epoch. Unset: a share of the free space.",
        gt=0, units="GB", settled=True, ours=True,
    )  # fmt: skip
    directory: Text = field(None, "Folder of the cache on disk; unset means the system's temporary folder.", ours=True)


class Validation(Section):
    by: Literal["class", "image", "group", "none"] = field(
        "class",
        "What is held out when no val_dataset is given: whole `class`es (measures unseen ones), single `image`s, `group`s of "
        "a manifest, or `none`.",
        ours=True,
    )
    fraction: float = field(0.2, "Share that is held out.", gt=0, lt=1, ours=True)
    seed: int = field(0, "Seed of the split.", ge=0, le=2**32 - 1, ours=True)


class ManifestColumns(Section):
    path: str = field("path", "Column with the image's path, relative to the manifest.", min_length=1, ours=True)
    label: str = field("label", "Column with the class.", min_length=1, ours=True)
    split: str = field("split", "Column that tells train, reference, query (optional).", min_length=1, ours=True)
    group: str = field(
        "group", "Column with what must not be torn apart by a split (optional).", min_length=1, ours=True
    )

    x: str = field("x", "Column with the left side of an object's box, in pixels; a row is then an object.",
                   min_length=1, ours=True)  # fmt: skip
    y: str = field("y", "Column with the upper side of an object's box.", min_length=1, ours=True)
    width: str = field("width", "Column with the width of an object's box.", min_length=1, ours=True)
    height: str = field("height", "Column with the height of an object's box.", min_length=1, ours=True)

    def to_names(self) -> tuple[str, ...]:
        """All column names."""
        return tuple(getattr(self, name) for name in type(self).model_fields)


class Dataset(Section):
    train_dataset: Text = field(None, "Training images: a folder of class folders, an archive of one, or a manifest.")
    val_dataset: ValDataset | None = field(
        None, "Reference and query images of validation and evaluation; unset, a part of train_dataset is held out.",
        automl_enabled=False,
    )  # fmt: skip
    workers: int = field(8, "Threads that decode and augment; 0 takes one a core.", ge=0, le=1024, settled=True)
    labels: Literal["given", "none"] = field(
        "given", "Where training's classes come from: `given` by folders or a manifest, or `none`: it learns from the images "
        "alone, and labels that they may have are not looked at.",
        ours=True, automl_enabled=False,
    )  # fmt: skip
    class_map: Text = field(None, "File that gives folder names their shown names: YAML, or one class a line.")
    pixel_mean: list[float] = field(
        [0.485, 0.456, 0.406], "Mean of each color channel on a scale of 0 to 1, taken off before the network.",
        automl_enabled=False, settled=True, trunk_fact=True,
        schema=value_schemas.list_of({"type": "number", "minimum": 0, "maximum": 1}, 3, 3),
    )  # fmt: skip
    pixel_std: list[Positive] = field(
        [0.226, 0.226, 0.226], "Standard deviation of each channel, by which it is divided.",
        automl_enabled=False, settled=True, trunk_fact=True,
        schema=value_schemas.list_of({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, 3, 3),
    )  # fmt: skip
    prob: float = field(0.5, "Probability of a mirror image in training.", ge=0, le=1, math_cond="> 0.0")
    re_prob: float = field(
        0.5, "Probability that a random rectangle of a training image is erased.", ge=0, le=1, math_cond="> 0.0",
        settled=True,
    )  # fmt: skip
    gaussian_blur: GaussianBlur = section(GaussianBlur, "Random blur of training images.")
    color_augmentation: ColorAugmentation = section(ColorAugmentation, "Random color changes of training images.")
    random_rotation: bool = field(False, "Turn training images by a random angle of 0 to 180 degrees.")
    num_instance: int = field(
        4, "Images of each class in a batch; fewer when a batch would hold less than two classes.", ge=1, le=65536,
        units="images", settled=True,
    )  # fmt: skip
    class_sampling: Literal["balanced", "sqrt"] = field(
        "balanced", "How often a class is drawn in training: balanced, as often as any other; sqrt, in proportion to the square "
        "root of its number of images.", ours=True, automl_enabled=False,
    )  # fmt: skip
    class_from: Literal["top", "leaf", "path"] = field(
        "top", "Which folder names the class: the first below the root, the last, or the whole path.", ours=True
    )
    max_unreadable: float = field(
        0.05, "Share of files that may be unreadable (they are named and skipped) before that is an error.", ge=0, le=1,
        ours=True,
    )  # fmt: skip
    max_pixels: int = field(200_000_000, "Larger images are refused unread.", ge=1, units="pixels", ours=True)
    view: View = section(View, "How an image is seen wherever it is not training.", ours=True)
    decoding: Decoding = section(Decoding, "How image files become 8-bit RGB, one rule for all.", ours=True)
    train_height: Annotated[int, Ge(8)] | None = field(
        None, "Height of training crops; unset means model.input_height.", units="pixels", settled=True, ours=True
    )
    train_width: Annotated[int, Ge(8)] | None = field(
        None, "Width of training crops; unset means model.input_width.", units="pixels", settled=True, ours=True
    )
    crop: Crop = section(Crop, "Bounds of random training crops.", settled=True, ours=True)
    cache: Cache = section(Cache, "Decoded training images kept between epochs.", ours=True)
    validation: Validation = section(Validation, "The automatic split when no val_dataset is given.", ours=True)
    manifest_columns: ManifestColumns = section(
        ManifestColumns, "Column names of a CSV or Parquet manifest.", ours=True
    )
