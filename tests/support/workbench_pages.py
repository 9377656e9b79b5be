"""The pages of the workbench over drawn marks and parts, each with something on it: for the screenshots of the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.inspected_parts import fitted_inspector
from tests.support.inspection_service import part_picture, png
from tests.support.marks import mark, render_mark
from tests.support.networks import write_model
from tests.support.workbench import Workbench, mark_picture, noise_picture, workbench
from unalike.verification.verifier import Verifier

NAMES = ("anchor", "beacon", "cedar", "dune")
# Name of a picture -> address.
PAGES = {
    "recognize": "/recognize",
    "classes": "/classes",
    "class": "/classes/view?label=anchor",
    "review": "/review",
    "inspect": "/inspect",
    "inspector": "/inspect/settings?inspector=part",
    "compare": "/compare",
    "verify": "/verify",
    "train": "/train",
    "monitor": "/monitor",
    "settings": "/settings",
}


@contextmanager
def shown_workbench(folder: Path) -> Iterator[Workbench]:
    """A running service with four classes, an inspector and a set of assets, which has answered about some pictures."""
    fitted_inspector().save(folder / "part.inspector")
    verifier = Verifier.build([mark(0), mark(1), mark(2)], write_model(folder), runtime="onnxruntime")
    verifier.calibrate(0.25, trials=6)
    verifier.save(folder / "brand.set")
    options = ("--inspector", f"part={folder / 'part.inspector'}", "--assets", f"brand={folder / 'brand.set'}")
    with workbench(folder, names=NAMES, options=options) as service:
        _ask(service)
        yield service


def _ask(service: Workbench) -> None:
    """Let the service answer, so that its pages have something to show."""
    marks = [(f"{name}.png", mark_picture(number, 5.0)) for number, name in enumerate(NAMES)]
    marks += [(f"noise {seed}.png", noise_picture(seed)) for seed in range(3)]
    for name, content in marks:
        service.call("POST", "/v1/identify", files={"image": (name, content, "image/png")})
    for seed in range(3):
        part = part_picture(40 + seed, is_scratched=seed == 2)
        service.call("POST", "/v1/inspectors/part/inspect", files={"image": (f"part {seed}.png", part, "image/png")})
    pair = {"reference": ("approved.png", png(render_mark(0, 0)), "image/png"), "image": ("seen.png", png(render_mark(1, 0)), "image/png")}  # fmt: skip
    service.call("POST", "/v1/compare", files=pair)
    service.call("POST", "/v1/assets/brand/verify", files={"image": ("seen.png", png(render_mark(0, 0)), "image/png")})
