"""Fields of regions in which differences or anomalies are ignored: a mask image and boxes."""

from __future__ import annotations

from typing import Any

from unalike.spec import value_schemas
from unalike.spec.declare import BOXES_FORM, FILE, field


def ignore_mask_field(purpose: str, *, images: str) -> Any:
    """Declare the file of a mask.

    Args:
        purpose: What is ignored, as the help states it: ``differences are ignored``.
        images: The images whose size the mask has, in the possessive: ``the reference's``.
    """
    text = (
        f"Image of {images} size that marks where {purpose}, such as a clock: white on black, or opaque on transparent."
    )
    return field(None, text, takes=FILE)


def ignore_boxes_field(purpose: str, *, image: str) -> Any:
    """Declare boxes in pixels.

    Args:
        purpose: What is ignored, as for the mask.
        image: The image in whose pixels the boxes are.
    """
    return field(None, f"Boxes of {image} in which {purpose}.", form=BOXES_FORM, schema=value_schemas.BOXES)
