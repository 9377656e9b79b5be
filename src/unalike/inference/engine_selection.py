"""Selection of the fastest engine for a network, and update of its weights while the network is trained.

A GPU is used through torch. On a CPU OpenVINO comes before ONNX Runtime and torch until a benchmark on this machine shows
otherwise (``runtime_benchmark``): with bf16 units OpenVINO bf16 made 140 images/s where ONNX Runtime made 62, with AVX2 alone
both are within a few percent of each other (EfficientNet-Lite0 at 224, two cores, 2026-11-23). Where an engine cannot be
created the next one is taken, with a message.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike import progress
from unalike.engines.protocol import Engine
from unalike.errors import DeviceError, ExportError, MissingExtra, ModelError, closest
from unalike.inference import runtime_benchmark
from unalike.inference.model_files import NETWORK_RUNTIMES, ONNX_RUNTIMES

if TYPE_CHECKING:
    import onnx
    import torch

    from unalike.data.preprocessing import Preprocessing
    from unalike.engines.onnx_engine import OnnxEngine
    from unalike.engines.openvino_engine import OpenVinoEngine

# Tracing takes 5 to 30 s; below this many images torch has finished by then.
MIN_IMAGES_TO_TRACE = 200
# Cosine of a refreshed engine's embeddings to the network's own: low enough for bf16, far above that of wrong weights.
REFRESH_COSINE = 0.995


class RefreshableEngine:
    """An engine of a network in memory, which ``refresh_engine`` gives newer weights; otherwise its inner engine.

    Args:
        inner: the engine.
        proto: the traced network, or None where torch runs it.
        create_again: creates such an engine for a network.
    """

    def __init__(
        self,
        inner: Any,
        proto: onnx.ModelProto | None,
        create_again: Callable[[torch.nn.Module], RefreshableEngine],
    ) -> None:
        self.inner, self.proto, self.create_again = inner, proto, create_again

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.inner, self.proto, self.create_again)

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        """Compute embeddings: uint8 (B, H, W, 3) -> float32 (B, D)."""
        vectors_BD: np.ndarray = self.inner(images_BHWC)
        return vectors_BD


def create_engine(
    embedder: torch.nn.Module,
    preprocessing: Preprocessing,
    *,
    runtime: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    images: int | None = None,
    quiet: bool = False,
) -> RefreshableEngine:
    """Create an engine for a network in memory.

    Args:
        embedder: the network, where it is to run.
        preprocessing: of its images.
        runtime: ``torch``, ``onnxruntime`` or ``openvino``; or ``auto``: torch on a GPU and for few images, otherwise the
            faster of OpenVINO and ONNX Runtime where that is known (for many images it is measured), else the first that
            works.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        threads: of OpenVINO or ONNX Runtime.
        images: how many will be embedded, where that is known.
        quiet: do not print which engine was chosen.

    Raises:
        MissingExtra, DeviceError, ExportError: a runtime was named and cannot be had.
    """
    runtimes = ("auto", *NETWORK_RUNTIMES)
    if runtime not in runtimes:
        raise DeviceError(f"runtime {runtime!r}", expected=" or ".join(runtimes), remedy=closest(runtime, runtimes))
    order = _order(embedder, precision, images) if runtime == "auto" else [runtime]

    create_again = partial(
        create_engine, preprocessing=preprocessing, runtime=runtime, precision=precision, threads=threads, images=images,
        quiet=True,
    )  # fmt: skip
    measure = (images or 0) >= runtime_benchmark.MIN_IMAGES
    if runtime == "auto" and precision in ("auto", "fp32") and order[0] == "openvino":
        engine = _create_fastest(embedder, preprocessing, precision, threads, measure)
        if engine is not None:
            log_engine(engine[0], quiet)
            return RefreshableEngine(*engine, create_again)
    for number, name in enumerate(order):
        try:
            inner, proto = _create(name, embedder, preprocessing, precision, threads)
        except (MissingExtra, ExportError, ModelError) as error:
            if number + 1 == len(order):
                raise
            progress.say(f"{name} is skipped: {error}", once=True)
            continue
        log_engine(inner, quiet)
        return RefreshableEngine(inner, proto, create_again)
    raise AssertionError("the order of engines is never empty")


def log_engine(engine: Engine, quiet: bool = False) -> None:
    """Print runtime, precision and device of an engine, once; nothing where ``quiet``."""
    if not quiet:
        description = engine.describe()
        progress.say(
            f"engine: {description['runtime']} {description['precision']} on {description['device']}", once=True
        )


def move_to_gpu(embedder: torch.nn.Module, runtime: str, gpu: int = 0) -> None:
    """Move the network to a GPU where there is one and ``runtime`` lets torch run it; else leave it on the CPU."""
    import torch

    if runtime in ("auto", "torch") and torch.cuda.is_available():
        embedder.to(f"cuda:{gpu}")


def engine_from_onnx(
    content: bytes, runtime: str = "auto", precision: str = "auto", threads: int | None = None,
    device: str | None = None,
) -> OnnxEngine | OpenVinoEngine:  # fmt: skip
    """Create an engine for the content of an ONNX file.

    Args:
        content: the file's bytes.
        runtime: ``openvino`` or ``onnxruntime``; or ``auto``: OpenVINO where it is installed, else ONNX Runtime.
        precision, threads, device: of the engine.

    Raises:
        DeviceError: there is no such runtime.
        MissingExtra: the runtime is not installed.
    """
    if runtime in ("auto", "openvino"):
        from unalike.engines.openvino_engine import OpenVinoEngine

        try:
            return OpenVinoEngine(content, precision, threads, device=device)
        except MissingExtra:
            if runtime != "auto":
                raise
    elif runtime != "onnxruntime":
        raise DeviceError(f"runtime {runtime!r} for an exported network", expected="auto, openvino or onnxruntime")
    from unalike.engines.onnx_engine import OnnxEngine

    return OnnxEngine(content, threads=threads, precision=precision, device=device)


def _order(embedder: torch.nn.Module, precision: str, images: int | None) -> list[str]:
    """Runtimes to try, the preferred one first."""
    weight = next(embedder.parameters(), None)
    if weight is not None and weight.device.type != "cpu":
        return ["torch"]
    if images is not None and images < MIN_IMAGES_TO_TRACE:
        return ["torch"]
    if precision == "bf16":
        return ["openvino", "torch"] if _openvino_has_bf16() else ["torch"]
    return ["torch"] if precision == "fp16" else [*ONNX_RUNTIMES, "torch"]


def _openvino_has_bf16() -> bool:
    from unalike.engines.openvino_engine import has_fast_bf16

    try:
        return has_fast_bf16()
    except MissingExtra:
        return False


def _create_fastest(
    embedder: torch.nn.Module, preprocessing: Preprocessing, precision: str, threads: int | None, measure: bool
) -> tuple[Any, onnx.ModelProto] | None:
    """Engine and traced network in OpenVINO or ONNX Runtime, whichever is known, or is measured, to be faster here.

    Where neither is known and nothing is to be measured, OpenVINO is taken. None where one of both is not installed or
    cannot run the network.
    """
    if any(importlib.util.find_spec(name) is None for name in ONNX_RUNTIMES):
        return None
    try:
        proto = _trace(embedder, preprocessing)
        network, content = _graph_key(proto), proto.SerializeToString()
        rates = runtime_benchmark.load_rates(network)
        name = runtime_benchmark.fastest(rates, ONNX_RUNTIMES)
        if name or not measure:
            return _create_from_onnx(name or ONNX_RUNTIMES[0], content, precision, threads), proto
        engines = {name: _create_from_onnx(name, content, precision, threads) for name in ONNX_RUNTIMES}
        rates = runtime_benchmark.measure_rates(engines)
        runtime_benchmark.save_rates(network, rates)
        return engines[runtime_benchmark.fastest(rates, ONNX_RUNTIMES)], proto
    except (ExportError, ModelError):
        return None  # the runtimes are tried one by one then, and messages say which fail


def _create(
    name: str, embedder: torch.nn.Module, preprocessing: Preprocessing, precision: str, threads: int | None
) -> tuple[Any, onnx.ModelProto | None]:
    """Engine and traced network in one runtime."""
    if name == "torch":
        from unalike.engines.torch_engine import TorchEngine

        mean, std = preprocessing.mean, preprocessing.std
        return TorchEngine(embedder, mean, std, preprocessing.input_size, precision=precision), None
    if name == "onnxruntime" and precision not in ("auto", "fp32"):
        raise DeviceError(f"precision {precision} with onnxruntime", expected="fp32", remedy="or use runtime openvino")
    proto = _trace(embedder, preprocessing)
    return _create_from_onnx(name, proto.SerializeToString(), precision, threads), proto


def _trace(embedder: torch.nn.Module, preprocessing: Preprocessing) -> onnx.ModelProto:
    from unalike.deploy.onnx_export import build_facts
    from unalike.deploy.trace_cache import cached_trace

    # Not optimized: initializers keep the parameters' names, and each runtime folds constants itself.
    return cached_trace(embedder, preprocessing.input_size, build_facts(embedder, preprocessing))


def _create_from_onnx(name: str, content: bytes, precision: str, threads: int | None) -> Engine:
    # ONNX Runtime takes the precision that the network was traced in.
    return engine_from_onnx(content, name, precision if name == "openvino" else "auto", threads)


def _graph_key(proto: onnx.ModelProto) -> str:
    """Key of a graph without its weights: they change in training, its speed does not."""
    text = json.dumps([[node.op_type for node in proto.graph.node], [list(i.dims) for i in proto.graph.initializer]])
    return runtime_benchmark.content_key(text.encode())


def refresh_engine(engine: RefreshableEngine, embedder: torch.nn.Module) -> RefreshableEngine:
    """Give an engine the present weights of a network: about a second for a traced one, nothing for torch.

    Args:
        engine: of ``create_engine``.
        embedder: the network that it was created for, or another of the same architecture.

    Returns:
        The engine. It is compared with the network on two images; where they differ, because the exchange of weights
        missed some, an engine created again.
    """
    if engine.proto is None:
        engine.inner.module = embedder
        return engine
    if _swap_weights(engine.proto, embedder):
        engine.inner.load(engine.proto.SerializeToString())
        if _agrees(engine, embedder):
            return engine
    progress.say("the network changed its shape: its engine is created again", once=True)
    return engine.create_again(embedder)


def _swap_weights(proto: onnx.ModelProto, embedder: torch.nn.Module) -> bool:
    """Copy the network's parameters into the initializers of the same names; False when one has another shape."""
    from onnx import numpy_helper

    state = {f"embedder.{name}": tensor for name, tensor in embedder.state_dict().items()}
    for initializer in proto.graph.initializer:
        tensor = state.get(initializer.name)
        if tensor is None:
            continue
        if tuple(tensor.shape) != tuple(initializer.dims):
            return False
        dtype = numpy_helper.to_array(initializer).dtype
        values = tensor.detach().cpu().float().numpy().astype(dtype)
        initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    return True


def _agrees(engine: RefreshableEngine, embedder: torch.nn.Module) -> bool:
    """Whether the engine's embeddings of two random images are those of the network."""
    from unalike.engines.torch_engine import TorchEngine

    height, width = engine.input_size
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    facts = engine.facts
    reference = TorchEngine(embedder, facts.mean, facts.std, (height, width), precision="fp32")(images)
    actual = engine(images)
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(actual, axis=1)
    return bool(((reference * actual).sum(1) >= REFRESH_COSINE * norms).all())
