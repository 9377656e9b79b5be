"""Section ``inference``: naming images by their nearest references."""

from __future__ import annotations

from typing import Literal

from unalike.spec.declare import Text, field
from unalike.spec.retrieval import Retrieval


class Inference(Retrieval):
    batch_size: int = field(
        1,
        "Images at once through the network; left out, the engine's own.",
        ge=1,
        le=65536,
        units="images",
        settled=True,
    )
    input_path: Text = field(None, "Image, folder or archive to be recognized.")
    inference_input_type: Literal["image", "image_folder", "classification_folder"] = field(
        "classification_folder", "What input_path is: one image, a plain folder of images, or class folders."
    )
    explain: bool = field(
        False, "Show why each image matched its nearest reference: pictures, JSON and one HTML file.", ours=True
    )
