"""unalike: teach a computer to tell look-alikes apart.

``train``, ``evaluate``, ``infer``, ``export``, ``embed`` do what the command line does; ``Recogniser`` is what a program
holds. All are loaded when first used: ``import unalike`` costs next to nothing and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from unalike.api import (
        Result,
        bench_engine,
        check,
        discover,
        embed,
        evaluate,
        export,
        export_maps,
        gen_engine,
        gen_trt_engine,
        infer,
        quantize,
        train,
    )
    from unalike.errors import UnalikeError
    from unalike.tasks.comparer import Comparer
    from unalike.tasks.explainer import Explainer
    from unalike.tasks.inspector import Inspector
    from unalike.tasks.recogniser import Recogniser
    from unalike.tasks.verifier import Verifier

_PLACES = {
    **dict.fromkeys(
        (
            "Result",
            "bench_engine",
            "check",
            "discover",
            "embed",
            "evaluate",
            "export",
            "export_maps",
            "gen_engine",
            "gen_trt_engine",
            "infer",
            "quantize",
            "train",
        ),
        "unalike.api",
    ),
    "UnalikeError": "unalike.errors",
    "Comparer": "unalike.tasks.comparer",
    "Inspector": "unalike.tasks.inspector",
    "Explainer": "unalike.tasks.explainer",
    "Recogniser": "unalike.tasks.recogniser",
    "Verifier": "unalike.tasks.verifier",
}
__all__ = [
    "Comparer", "Explainer", "Inspector", "Recogniser", "Result", "UnalikeError", "Verifier", "bench_engine",
    "check", "discover", "embed", "evaluate", "export", "export_maps", "gen_engine", "gen_trt_engine", "infer",
    "quantize", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'unalike' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
