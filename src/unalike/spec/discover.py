"""Section ``discover``: grouping unlabeled images into folders of similar ones."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge

from unalike.spec.declare import IMAGES, MODEL, EnginePrecision, Runtime, Section, Text, field


class Discover(Section):
    source: Text = field(None, "Images: a folder, an archive or a manifest.", mandatory=True, takes=IMAGES)
    results_dir: Text = field(
        None,
        "New folder for the groups; unset, `discover` below the top results_dir, or <source>-groups here.",
        settled=True,
    )
    model: Text = field(None, "Network: a .onnx, .xml or .pth; unset, a pretrained trunk.", takes=MODEL)
    groups: Annotated[int, Ge(1)] | None = field(
        None, "About how many groups; unset, as many as the images tell apart."
    )
    kind: Literal["copy", "link", "table"] = field(
        "copy", "What is written: copies of the images, links to them, or groups.csv and the report alone (table)."
    )
    runtime: Runtime = field("auto", "Runtime of the network.")
    precision: EnginePrecision = field("auto", "Number format of the network.")
    seed: int = field(0, "Seed of the grouping.", ge=0, le=2**32 - 1)
