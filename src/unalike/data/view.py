"""The evaluation view: how every image outside training's augmentation becomes an array of the network's size.

Training's validation, galleries, export checks, calibration and the deployed recogniser all call this one class, and
an exported model carries it as metadata, so that there is no second definition of the image.

``crop`` (TAO's, whose Resize is given both sides: its dataloader/transforms.py, read 2026-11-23): resize both sides to
``int(side * resize_ratio)``, then cut the centre; the aspect is not kept.
``fit``: resize so that the image just covers that size, its aspect kept, then cut the centre.
Resizing is antialiased. Sides are always (height, width).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from unalike.data.decode import MAX_PIXELS, open_image, upright_rgb
from unalike.errors import DataError, SpecError, closest

if TYPE_CHECKING:
    from unalike.spec import Experiment

MODES = ("crop", "fit")
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# A JPEG is decoded at no less than this many times the resized side: what the resize's own filter still has to
# shrink hides the difference between libjpeg's shrinking and ours.
DRAFT_MARGIN = 2


@dataclass(frozen=True)
class View:
    """``view(image)`` -> uint8 ``height`` x ``width`` x 3, RGB."""

    height: int
    width: int
    resize_ratio: float = 1.14
    mode: str = "crop"
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise SpecError(f"view of {self.height} x {self.width}", expected="sides of at least 1 pixel")
        if self.resize_ratio < 1:
            raise SpecError(f"view.resize_ratio {self.resize_ratio}", expected="1 or more")
        if self.mode not in MODES:
            raise SpecError(f"view.mode {self.mode!r}", expected=" or ".join(MODES), remedy=closest(self.mode, MODES))
        if self.interpolation not in INTERPOLATIONS:
            raise SpecError(f"view.interpolation {self.interpolation!r}", expected=" or ".join(INTERPOLATIONS))

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) before the centre is cut; rounding down is TAO's, and is defined here alone."""
        return int(self.height * self.resize_ratio), int(self.width * self.resize_ratio)

    @property
    def min_decode_size(self) -> tuple[int, int]:
        """(height, width) below which a JPEG is not shrunk while decoding."""
        return self.resized[0] * DRAFT_MARGIN, self.resized[1] * DRAFT_MARGIN

    def __call__(
        self, image: str | Path | bytes | Image.Image | np.ndarray, *, max_pixels: int = MAX_PIXELS
    ) -> np.ndarray:
        """A file's path or content, a PIL image, or a uint8 array (H x W, H x W x 3 RGB or x 4 RGBA) -> the view.

        The view of a file and of its decoded array are equal when the decoder had nothing to shrink (no JPEG, or one
        smaller than four times the resized sides), and differ by a few grey levels otherwise.
        Raises ``UnreadableImage`` for files, ``DataError`` for an array of another shape or type.
        """
        if isinstance(image, np.ndarray):
            picture = upright_rgb(_picture_of(image))
        elif isinstance(image, Image.Image):
            picture = upright_rgb(image)
        else:
            picture = open_image(image, min_size=self.min_decode_size, max_pixels=max_pixels)
        # Resizing only the part that the cut keeps gives the pixels of resize-then-cut (the filter still sees past
        # the box) and skips a quarter of the work.
        size, box = (self.width, self.height), self._box(picture.height, picture.width)
        return np.array(picture.resize(size, INTERPOLATIONS[self.interpolation], box=box), dtype=np.uint8, order="C")

    def _box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The part (left, top, right, bottom) of an image of this size that the view shows."""
        tall, wide = self.resized
        if self.mode == "fit":
            scale = max(tall / height, wide / width)
            tall, wide = max(tall, round(height * scale)), max(wide, round(width * scale))
        top, left = round((tall - self.height) / 2), round((wide - self.width) / 2)  # torchvision's centre
        y, x = height / tall, width / wide
        right, bottom = min((left + self.width) * x, width), min((top + self.height) * y, height)
        return left * x, top * y, right, bottom

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a model's metadata; ``from_dict`` gives the same view back."""
        return asdict(self)

    @classmethod
    def from_spec(cls, experiment: Experiment) -> View:
        """The evaluation view of a spec: ``model.input_height``, ``model.input_width`` and ``dataset.view``."""
        model, view = experiment.model, experiment.dataset.view
        return cls(model.input_height, model.input_width, view.resize_ratio, view.mode, view.interpolation)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> View:
        """Raises ``SpecError`` when the values are not those of a view."""
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(names))
        missing = sorted({"height", "width"} - set(values))
        if unknown or missing:
            raise SpecError(f"a view with {', '.join(sorted(values)) or 'nothing'}", expected=", ".join(names))
        return cls(**{**values, "height": int(values["height"]), "width": int(values["width"])})


def _picture_of(pixels: np.ndarray) -> Image.Image:
    shape_is_right = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not shape_is_right or 0 in pixels.shape:
        raise DataError(
            f"an array {pixels.dtype} of shape {pixels.shape}",
            expected="uint8 of shape (H, W), (H, W, 3) RGB or (H, W, 4) RGBA",
        )
    return Image.fromarray(np.ascontiguousarray(pixels))
