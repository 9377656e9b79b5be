"""The evaluation view: resizing and center crop of images, everywhere but in training's augmentation.

Validation, galleries, export checks, calibration and the deployed model all use this class, and an exported model
carries it as metadata, so that there is only one definition of the network's input.

``crop`` (TAO's, whose Resize is given both sides: its dataloader/transforms.py, read 2026-11-23): resize both sides to
``int(side * resize_ratio)``, then crop the center; the aspect ratio is not kept.
``fit``: resize so that the image just covers that size, its aspect ratio kept, then crop the center.
Resizing is antialiased. Sides are always (height, width).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from unalike.data.decode import MAX_PIXELS, ImageInput, open_image
from unalike.data.decoding import Decoding
from unalike.data.decoding_fit import fit_decoding
from unalike.errors import SpecError, closest

if TYPE_CHECKING:
    from unalike.spec import Experiment

MODES = ("crop", "fit")
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# A JPEG is decoded at no less than this many times the resized side: the remaining resize hides the difference between
# libjpeg's scaling and Pillow's.
DRAFT_MARGIN = 2
MAX_SIDE = 1 << 16


@dataclass(frozen=True)
class View:
    """Transforms images to uint8 ``height`` x ``width`` x 3, RGB.

    Attributes:
        height, width: Size of the network's input, in pixels.
        resize_ratio: The image is resized to this many times that size, 1 or more, before the center crop.
        mode: ``crop`` or ``fit``, see above.
        interpolation: ``bilinear`` or ``bicubic``.
        decoding: How image files become 8-bit RGB.

    Raises:
        SpecError: A value out of range.
    """

    height: int
    width: int
    resize_ratio: float = 1.14
    mode: str = "crop"
    interpolation: str = "bilinear"
    decoding: Decoding = field(default_factory=Decoding)

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
        """(height, width) before the center crop; rounded down, as TAO does."""
        return int(self.height * self.resize_ratio), int(self.width * self.resize_ratio)

    @property
    def min_decode_size(self) -> tuple[int, int]:
        """(height, width) below which a JPEG is not shrunk while decoding."""
        return self.resized[0] * DRAFT_MARGIN, self.resized[1] * DRAFT_MARGIN

    def __call__(self, image: ImageInput, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
        """Transform an image.

        The view of a file and of its decoded array are equal unless a JPEG of four times the resized sides or more was
        decoded at a lower resolution; they then differ by a few gray levels.

        Args:
            image: As in ``data.decode.decode``.
            max_pixels: Larger files are refused.

        Returns:
            uint8 (height, width, 3), RGB.

        Raises:
            UnreadableImage: A file that cannot be decoded.
            DataError: An array of another shape or type.
        """
        decoded = open_image(image, decoding=self.decoding, min_size=self.min_decode_size, max_pixels=max_pixels)
        # Resizing only the part that the crop keeps gives the pixels of resize-then-crop (the filter still reads beyond
        # the box) and skips a quarter of the work.
        size, box = (self.width, self.height), self._box(decoded.height, decoded.width)
        return np.array(decoded.resize(size, INTERPOLATIONS[self.interpolation], box=box), dtype=np.uint8, order="C")

    def _box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The part (left, top, right, bottom) of an image of this size that the view keeps."""
        rows, columns = self.resized
        if self.mode == "fit":
            scale = max(rows / height, columns / width)
            rows, columns = max(rows, round(height * scale)), max(columns, round(width * scale))
        top, left = round((rows - self.height) / 2), round((columns - self.width) / 2)  # as torchvision's CenterCrop
        y, x = height / rows, width / columns
        right, bottom = min((left + self.width) * x, width), min((top + self.height) * y, height)
        return left * x, top * y, right, bottom

    @classmethod
    def whole_image(cls, height: int, width: int, mode: str = "crop", interpolation: str = "bilinear") -> View:
        """A view that cuts nothing off, as dense tasks need it (comparison, inspection, verification)."""
        return cls(height, width, 1.0, mode, interpolation)

    def fitted(self, images: Iterable[ImageInput], *, max_pixels: int = MAX_PIXELS, quiet: bool = False) -> View:
        """This view, with what its decoding leaves open chosen from a set of images (``decoding_fit.fit_decoding``)."""
        return replace(self, decoding=fit_decoding(images, self.decoding, max_pixels=max_pixels, quiet=quiet))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a model's metadata; a decoding of version 1 is not written, as in files of that time."""
        values = asdict(self)
        values["decoding"] = self.decoding.to_dict()
        if self.decoding.version == 1:
            del values["decoding"]
        return values

    @classmethod
    def from_spec(cls, experiment: Experiment) -> View:
        """The evaluation view of a spec: ``model.input_height``, ``model.input_width``, ``dataset.view`` and ``dataset.decoding``."""
        model, view = experiment.model, experiment.dataset.view
        decoding = Decoding.from_section(experiment.dataset.decoding)
        return cls(model.input_height, model.input_width, view.resize_ratio, view.mode, view.interpolation, decoding)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> View:
        """The inverse of ``to_dict``; without a decoding, version 1. Raises SpecError for missing or unknown keys."""
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(names))
        missing = sorted({"height", "width"} - set(values))
        if unknown or missing:
            raise SpecError(f"a view with {', '.join(sorted(values)) or 'nothing'}", expected=", ".join(names))
        for name, value in values.items():  # another program may have written the file that they come from
            if name in ("height", "width", "resize_ratio"):
                fits = isinstance(value, int | float) and 0 < value < MAX_SIDE
            else:
                fits = isinstance(value, str) if name in ("mode", "interpolation") else True
            if not fits:
                raise SpecError(f"view.{name} {value!r}", expected="a positive number, or a name")
        sides = {"height": int(values["height"]), "width": int(values["width"])}
        return cls(**{**values, **sides, "decoding": Decoding.from_dict(values.get("decoding"))})
