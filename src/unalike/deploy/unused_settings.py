"""Settings of a conversion that its number format or its network does not use; they are named where the user changed them."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from unalike.progress import say
from unalike.spec.fields import declared_fields

if TYPE_CHECKING:
    from unalike.spec import Experiment

# What INT8 alone uses, and what decides how many layers return to higher precision.
_OF_INT8 = (
    *(f"calibration.{name}" for name in ("cal_batch_size", "cal_batches", "cal_cache_file", "method", "percentile")),
    "backend", "target", "per_channel",
)  # fmt: skip
_GOAL = ("goal.worst_cosine", "goal.recall_loss", "goal.most_layers")


def say_unused(experiment: Experiment, section: str, data_type: str, *, quantized: bool, labeled: bool) -> None:
    """Name the settings that the user changed and that a conversion does not use.

    Args:
        experiment: the spec.
        section: dotted path of the section with ``data_type``: ``quantize``, ``gen_engine`` or ``gen_trt_engine.tensorrt``.
        data_type: the format that is written.
        quantized: whether the network is quantized already.
        labeled: whether there are labeled images, on which retrieval is measured.
    """
    for names, reason in _unused(attrgetter(section)(experiment), section, data_type, quantized, labeled):
        paths = [path for path in (f"{section}.{name}" for name in names) if path in declared_fields()]
        if in_vain := experiment.changed(paths):
            say(f"settings that are not used: {', '.join(in_vain)} ({reason})")


def _unused(
    settings: Any, section: str, data_type: str, quantized: bool, labeled: bool
) -> Iterator[tuple[tuple[str, ...], str]]:
    """(names of fields below the section, why they are not used)."""
    if quantized:
        other_type = ("data_type",) if settings.data_type != data_type else ()
        yield (*other_type, *_OF_INT8, *_GOAL, "layers_precision"), "the network is quantized already"
        return
    if data_type != "INT8":
        yield _OF_INT8, f"{data_type} needs no ranges: INT8 alone uses them"
    elif getattr(settings.calibration, "method", "percentile") != "percentile":
        yield ("calibration.percentile",), f"calibration.method is {settings.calibration.method}"
    if section == "gen_engine" and data_type in ("FP32", "FP16"):
        yield (*_GOAL,), f"no layer of {data_type} returns to higher precision"
    elif not labeled:
        yield ("goal.recall_loss",), "dataset.val_dataset names no images to measure R@1 on"
