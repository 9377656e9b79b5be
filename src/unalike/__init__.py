"""unalike: teach a computer to tell look-alikes apart.

``train``, ``evaluate``, ``infer``, ``export``, ``embed`` do what the command line does; ``Recogniser`` is what a program
holds. Every public name is imported when it is first used: ``import unalike`` is quick and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unalike.api import PUBLIC_NAMES

__version__ = "0.1.0"

if TYPE_CHECKING:
    from unalike.actions.benchmark import bench_engine
    from unalike.actions.check import check
    from unalike.actions.convert import convert
    from unalike.actions.discover import discover
    from unalike.actions.distill import distill
    from unalike.actions.embed import embed
    from unalike.actions.engines import gen_engine, gen_trt_engine
    from unalike.actions.evaluate import evaluate
    from unalike.actions.export import export, export_maps
    from unalike.actions.inference import infer
    from unalike.actions.quantize import quantize
    from unalike.actions.result import Result
    from unalike.actions.train import train
    from unalike.client.asynchronous import AsyncClient
    from unalike.client.sync import Client
    from unalike.comparison.comparer import Comparer
    from unalike.errors import UnalikeError
    from unalike.explanation.explainer import Explainer
    from unalike.inspection.inspector import Inspector
    from unalike.recognition.recognizer import Recogniser
    from unalike.verification.verifier import Verifier

__all__ = [
    "AsyncClient", "Client", "Comparer", "Explainer", "Inspector", "Recogniser", "Result", "UnalikeError", "Verifier", "bench_engine",
    "check", "convert", "discover", "distill", "embed", "evaluate", "export", "export_maps", "gen_engine", "gen_trt_engine",
    "infer", "quantize", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in PUBLIC_NAMES:
        raise AttributeError(f"module 'unalike' has no attribute {name!r}")
    return getattr(import_module(PUBLIC_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
