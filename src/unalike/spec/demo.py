"""Section ``demo``: training on rendered brand marks and recognizing other brands."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from unalike.spec.declare import Section, Text, field


class Demo(Section):
    out: str = field("runs/demo", "Folder for the runs and the report.", min_length=1)
    keep: Text = field(None, "Folder of the rendered images; unset, images in the folder of the runs.")
    brands: int = field(200, "Number of brands to train on.", ge=2)
    unseen: int = field(120, "Number of other brands, to be recognized.", ge=2)
    epochs: Annotated[int, Ge(1)] | None = field(None, "Number of epochs; unset, 4.")
    seed: int = field(0, "Seed of the images and the training.", ge=0)
