"""Section ``bench_engine``: latency and rate of a model in each runtime of this machine."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from unalike.spec import value_schemas
from unalike.spec.declare import IMAGES, MODEL, Names, Numbers, Section, Text, field


class BenchEngine(Section):
    model: Text = field(None, "Model: a .pth, .onnx, .xml or .engine.", mandatory=True, takes=MODEL)
    data: Text = field(None, "Images to decode; unset, synthetic JPEG files of 640 x 480.", takes=IMAGES)
    output: Text = field(
        None, "File for the figures (JSON); unset, benchmark.json in the results folder, if there is one."
    )
    results_dir: Text = field(
        None, "Results folder; unset, `bench_engine` below the top results_dir, or none: the figures are printed."
    )
    batches: Numbers = field(
        [1, 8, 32],
        "Images a call.",
        units="images",
        form="whole numbers >= 1, also as 1,8,32",
        schema=value_schemas.NUMBERS,
    )
    seconds: float = field(2.0, "Duration of each measurement.", ge=0.01, le=3600, units="seconds")
    runtimes: Names | None = field(
        None, "Runtimes to measure; unset, all that can run the model.", form="a list of names, also as a,b",
        schema=value_schemas.any_of(value_schemas.NAMES, value_schemas.NULL),
    )  # fmt: skip
    threads: Annotated[int, Ge(1)] | None = field(
        None, "CPU cores that a runtime may use; unset, all that the process has."
    )
