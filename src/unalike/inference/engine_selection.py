"""The fastest engine that this machine has for a network in memory, and new weights into it.

A GPU belongs to torch. On a CPU OpenVINO stands before ONNX Runtime and torch until a race on this machine says
otherwise (``engines.race``): with bf16 units OpenVINO bf16 made 140 images/s where ONNX Runtime made 62, with AVX2 alone
both are within a few percent of each other (EfficientNet-Lite0 at 224, two cores, 2026-11-23). What cannot be had falls
to the next one, and that is said.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike import progress
from unalike.engines.protocol import Engine
from unalike.errors import DeviceError, ExportError, MissingExtra, ModelError, closest
from unalike.inference import runtime_benchmark

if TYPE_CHECKING:
    import onnx

    from unalike.data.preprocessing import Preprocessing

RUNTIMES = ("auto", "torch", "onnxruntime", "openvino")
# Tracing costs 5 to 30 s; below this many images torch has finished by then.
WORTH_TRACING = 200
# How near a refreshed engine's vectors must be to the network's own: wide enough for bf16, far from a wrong weight.
REFRESH_COSINE = 0.995


class RefreshableEngine:
    """An engine made from a network in memory, which ``refresh`` can give newer weights. Acts as its inner engine."""

    def __init__(self, inner: Any, proto: onnx.ModelProto | None, remake: Callable[[Any], RefreshableEngine]) -> None:
        self.inner, self.proto, self._remake = inner, proto, remake

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) -> float32 (B, D)."""
        vectors: np.ndarray = self.inner(images_BHWC)
        return vectors


def create_engine(
    embedder: Any,
    preprocessing: Preprocessing,
    *,
    runtime: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    images: int | None = None,
    quiet: bool = False,
) -> RefreshableEngine:
    """An engine for ``embedder``; the choice is printed unless ``quiet``.

    ``runtime``: auto, torch, onnxruntime or openvino; ``precision``: auto, fp32, bf16 or fp16. ``auto`` takes torch on
    a GPU and for few ``images`` (where known), otherwise the fastest of OpenVINO and ONNX Runtime, so far as it is known
    here (many ``images`` find it out), else the first that works. One asked for by name is obeyed or an
    error (MissingExtra, DeviceError, ExportError).
    """
    if runtime not in RUNTIMES:
        raise DeviceError(f"runtime {runtime!r}", expected=" or ".join(RUNTIMES), remedy=closest(runtime, RUNTIMES))
    order = _order(embedder, precision, images) if runtime == "auto" else [runtime]

    def remake(newer: Any) -> RefreshableEngine:
        return create_engine(
            newer, preprocessing, runtime=runtime, precision=precision, threads=threads, images=images, quiet=True
        )

    measure = (images or 0) >= runtime_benchmark.MIN_IMAGES
    if runtime == "auto" and precision in ("auto", "fp32") and order[0] == "openvino":
        raced = _race(embedder, preprocessing, precision, threads, measure)
        if raced is not None:
            _tell(raced[0], quiet)
            return RefreshableEngine(*raced, remake)
    for number, name in enumerate(order):
        try:
            inner, proto = _make(name, embedder, preprocessing, precision, threads)
        except (MissingExtra, ExportError, ModelError) as error:
            if number + 1 == len(order):
                raise
            progress.say(f"{name} is passed over: {error}", once=True)
            continue
        _tell(inner, quiet)
        return RefreshableEngine(inner, proto, remake)
    raise AssertionError("the order of engines is never empty")


def _tell(engine: Any, quiet: bool) -> None:
    if not quiet:
        told = engine.describe()
        progress.say(f"engine: {told['runtime']} {told['precision']} on {told['device']}", once=True)


def _race(
    embedder: Any, preprocessing: Preprocessing, precision: str, threads: int | None, measure: bool
) -> tuple[Any, onnx.ModelProto] | None:
    """OpenVINO or ONNX Runtime, whichever was or is found faster here; None when that is not known, or one is missing."""
    names = ["openvino", "onnxruntime"]
    if any(importlib.util.find_spec(name) is None for name in names):
        return None
    from unalike.deploy.onnx_export import facts_of, trace

    try:
        facts = facts_of(embedder, preprocessing)
        proto = trace(embedder, preprocessing.input_size, facts, optimize=False)
        network, content = _topology(proto), proto.SerializeToString()
        rates = runtime_benchmark.load_rates(network)
        if not runtime_benchmark.fastest(rates, names):
            if not measure:
                return _open(names[0], content, precision, threads), proto
            engines = {name: _open(name, content, precision, threads) for name in names}
            rates = runtime_benchmark.measure_rates(engines)
            runtime_benchmark.save_rates(network, rates)
            return engines[runtime_benchmark.fastest(rates, names)], proto
        return _open(runtime_benchmark.fastest(rates, names), content, precision, threads), proto
    except (ExportError, ModelError):
        return None  # the order is walked, and says what fails


def _topology(proto: onnx.ModelProto) -> str:
    """A key of the graph without its weights: they change while training, its speed does not."""
    text = json.dumps([[node.op_type for node in proto.graph.node], [list(i.dims) for i in proto.graph.initializer]])
    return runtime_benchmark.content_key(text.encode())


def move_to_gpu(embedder: Any, runtime: str, gpu: int = 0) -> None:
    """Move the network to a GPU where there is one and ``runtime`` lets torch run it; else leave it on the CPU."""
    import torch

    if runtime in ("auto", "torch") and torch.cuda.is_available():
        embedder.to(f"cuda:{gpu}")


def _order(embedder: Any, precision: str, images: int | None) -> list[str]:
    weight = next(embedder.parameters(), None)
    if weight is not None and weight.device.type != "cpu":
        return ["torch"]
    if images is not None and images < WORTH_TRACING:
        return ["torch"]
    if precision == "bf16":
        return ["openvino", "torch"] if _openvino_bf16() else ["torch"]
    return ["torch"] if precision == "fp16" else ["openvino", "onnxruntime", "torch"]


def _openvino_bf16() -> bool:
    from unalike.engines.openvino_engine import has_fast_bf16

    try:
        return has_fast_bf16()
    except MissingExtra:
        return False


def _make(
    name: str,
    embedder: Any,
    preprocessing: Preprocessing,
    precision: str,
    threads: int | None,
) -> tuple[Any, onnx.ModelProto | None]:
    if name == "torch":
        from unalike.engines.torch_engine import TorchEngine

        mean, std = preprocessing.mean, preprocessing.std
        return TorchEngine(embedder, mean, std, preprocessing.input_size, precision=precision), None
    if name == "onnxruntime" and precision not in ("auto", "fp32"):
        raise DeviceError(f"precision {precision} with onnxruntime", expected="fp32", remedy="or use runtime openvino")
    from unalike.deploy.onnx_export import facts_of, trace

    facts = facts_of(embedder, preprocessing)
    # Not optimised: initialisers keep the parameters' names, and each runtime folds constants itself.
    proto = trace(embedder, preprocessing.input_size, facts, optimize=False)
    return _open(name, proto.SerializeToString(), precision, threads), proto


def _open(name: str, content: bytes, precision: str, threads: int | None) -> Any:
    if name == "openvino":
        from unalike.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(content, precision=precision, threads=threads)
    from unalike.engines.onnx_engine import OnnxEngine

    return OnnxEngine(content, threads=threads)


def refresh_engine(engine: RefreshableEngine, embedder: Any) -> RefreshableEngine:
    """The engine with ``embedder``'s present weights: about a second for one that has been traced, nothing for torch.

    ``embedder`` must be the network that ``create_engine`` was given, or one of its architecture. The result is compared
    with the network on two images; should the swap not have caught everything, the engine is made anew.
    """
    if engine.proto is None:
        engine.inner.module = embedder
        return engine
    if _swap_weights(engine.proto, embedder):
        engine.inner.load(engine.proto.SerializeToString())
        if _agrees(engine, embedder):
            return engine
    progress.say("the network changed its shape: the engine is made anew", once=True)
    return engine._remake(embedder)


def _swap_weights(proto: onnx.ModelProto, embedder: Any) -> bool:
    """Put the state of ``embedder`` into the initialisers of its names; False when one has another shape."""
    from onnx import numpy_helper

    state = {f"embedder.{name}": tensor for name, tensor in embedder.state_dict().items()}
    for initialiser in proto.graph.initializer:
        tensor = state.get(initialiser.name)
        if tensor is None:
            continue
        if tuple(tensor.shape) != tuple(initialiser.dims):
            return False
        old = numpy_helper.to_array(initialiser)
        fresh = numpy_helper.from_array(tensor.detach().cpu().float().numpy().astype(old.dtype), initialiser.name)
        initialiser.CopyFrom(fresh)
    return True


def _agrees(engine: RefreshableEngine, embedder: Any) -> bool:
    from unalike.engines.torch_engine import TorchEngine

    height, width = engine.input_size
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    facts = engine.facts
    expected = TorchEngine(embedder, facts.mean, facts.std, (height, width), precision="fp32")(images)
    found = engine(images)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    return bool(((expected * found).sum(1) >= REFRESH_COSINE * norms).all())


def describe(engine: Engine) -> str:
    """One line for reports."""
    told = engine.describe()
    return f"{told['runtime']} {told['version']}, {told['precision']}, {told['device']}"
