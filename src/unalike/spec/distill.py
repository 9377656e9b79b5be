"""Section ``distill``: teaching a small network what a larger one, or several, know."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from unalike.spec import value_schemas
from unalike.spec.automl import MAX_MINUTES
from unalike.spec.declare import IMAGES, MODEL, EnginePrecision, Paths, Runtime, Section, Text, field


class Distill(Section):
    source: Text = field(
        None, "Images: a folder, an archive or a manifest. Labels are not needed.", mandatory=True, takes=IMAGES
    )
    teachers: Paths = field(
        None,
        "Networks whose vectors are learned: .pth, .onnx, .xml or .engine, or pretrained[:NAME]. Of several the vectors are joined.",
        mandatory=True, takes=MODEL, schema=value_schemas.PATHS,
    )  # fmt: skip
    student: str = field(
        "pretrained:tf_efficientnet_lite0",
        "Network that learns: pretrained:NAME for a pretrained trunk, or a checkpoint (.pth), from whose trunk it starts.",
        min_length=1, takes=MODEL,
    )  # fmt: skip
    further: Text = field(None, "Further images to learn from, without labels; none of them is held out.", takes=IMAGES)
    results_dir: Text = field(
        None, "Results folder; unset, `distill` below the top results_dir, or runs/<date-time>-distill."
    )
    minutes: float = field(10.0, "Time budget of the whole distillation.", gt=0, le=MAX_MINUTES, units="minutes")
    labeled: bool = field(
        False, "The folders of the source are classes: R@1 of teacher and student on held-out images is measured too."
    )
    dim: Annotated[int, Ge(2)] | None = field(
        None, "Width of the student's vectors; unset, that of the teachers', or as many as the student's trunk has features."
    )  # fmt: skip
    max_unreadable: float = field(
        0.05, "Share of files that may be unreadable (they are named and skipped) before that is an error.", ge=0, le=1
    )
    workers: Annotated[int, Ge(1)] | None = field(None, "Threads that decode and augment; unset, one a core.")
    seed: int = field(0, "Seed of the held-out images and of the training.", ge=0, le=2**32 - 1)
    runtime: Runtime = field("auto", "Runtime of the teachers.")
    precision: EnginePrecision = field("auto", "Number format of the teachers.")
