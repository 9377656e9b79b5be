"""Section ``improve``: a candidate from old data and the corrections of a service, its verdict, and its promotion."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from unalike.spec.automl import MAX_MINUTES
from unalike.spec.declare import FILE, IMAGES, MODEL, EnginePrecision, Runtime, Section, Text, field


class Improve(Section):
    data: Text = field(
        None, "Old data: one folder a class, an archive or a manifest; unset, the references and corrections of the service alone.",
        takes=IMAGES,
    )  # fmt: skip
    folder: Text = field(None, "Folder of the service; unset, the one that exists of runs/serve and runs/demo/serve.")
    store: Text = field(None, "Address of the service's database: postgresql://...; unset, SQLite in the folder.")
    images: Text = field(None, "Folder or address (s3://...) of the service's images; unset, images in the folder.")
    gallery: Text = field(None, "Name of the gallery that gets the model; unset, the only one.")
    model: Text = field(None, "The model that the service is started with, if its options name one.", takes=MODEL)
    minutes: float = field(10.0, "Time of the training.", gt=0, le=MAX_MINUTES, units="minutes")
    goal: Literal["new-classes", "known-classes", "both"] = field(
        "both", "What the model is for: classes that it has never seen, the ones that it is trained on, or both."
    )
    share: Annotated[float, Gt(0), Lt(1)] = field(
        0.3, "Share of the images that the model in service has not seen, withheld to compare with it."
    )
    with_service: bool = field(True, "Train on the references and corrections of the service.")
    training_spec: Text = field(
        None, "Spec of the training, as of unalike train -e; minutes and goal are those of this section.", takes=FILE
    )
    name: Text = field(None, "What the candidate is called; unset, the time of its training.")
    candidate: Text = field(
        None, "Id of a model that was trained before: it is compared and promoted, and nothing is trained."
    )
    promote: bool = field(True, "Promote the candidate where the verdict allows it.")
    override: bool = field(False, "Promote it whatever the verdict says; the audit log keeps who did and why.")
    reason: Text = field(None, "Why, with an override.")
    source: Text = field(
        None, "Folder with pictures of references that are not at the path under which they were enrolled."
    )
    roll_back: bool = field(False, "Return to the model before the latest promotion; nothing is trained.")
    runtime: Runtime = field("auto", "Runtime of the networks.")
    precision: EnginePrecision = field("auto", "Number format of the networks.")
    threads: Annotated[int, Ge(1)] | None = field(None, "CPU cores that a network may use; unset, all.")
