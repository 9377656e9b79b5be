"""Import timm beside a torch that lacks torchvision's compiled operators."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

from unalike.errors import missing_extra
from unalike.telemetry import disable_telemetry

_operators: list[torch.library.Library] = []


def import_timm() -> ModuleType:
    """timm, importable even where torchvision's compiled operators are missing.

    Raises MissingExtra when timm or torchvision is not installed.
    """
    disable_telemetry()
    try:
        _import_torchvision()
        import timm
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "timm", "train", "building a network") from error
    return timm


def _import_torchvision() -> None:
    """Import torchvision; where that fails for want of its operators, declare their schemas and try once more.

    torchvision's wheels are built for CUDA torches. Beside a CPU torch its library does not load, and importing it
    stops with "operator torchvision::nms does not exist" while it registers shapes for operators that we never call
    (seen with torch 2.13.0+cpu and torchvision 0.28.0). Schemas without kernels let that registration pass.
    """
    if "torchvision" in sys.modules:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
        _operators.append(library)  # the schemas live as long as this object
        importlib.import_module("torchvision")
