"""OpenVINO engine, on the CPU by default, where it is the fastest of those measured so far.

Images are submitted one by one, so that a batch of one is never padded and a last partial batch costs nothing extra
(EfficientNet-Lite0 at 224, two cores, fp32, 2026-11-23: 91 images/s at batch 1 beside 69 and 74 at static batches 8 and 16,
and 48 with a dynamic batch of 16). Twice as many requests are in flight as can run, or a stream idles while Python submits
the next: files to vectors in bf16 226 images/s with the number that OpenVINO calls optimal, 265 with twice and 264 with four
times as many; with early layers in fp32 164, 216 and 224 (2026-11-26).

Shape letters: B images, H height, W width, D width of an embedding, C channels of a feature map, h, w its sides.
"""

from __future__ import annotations

import importlib
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from unalike.engines.metadata import KEY, NetworkFacts, read_facts
from unalike.engines.openvino_precision import has_depthwise_convolutions, lower_late_layers
from unalike.engines.process_local import ModelSource, ProcessLocal, restore_engine
from unalike.engines.protocol import check_images, require_maps, require_vector
from unalike.errors import DeviceError, ModelError, missing_extra
from unalike.runs.environment import usable_cores
from unalike.storage.outside_files import reader_errors
from unalike.telemetry import disable_telemetry


def import_openvino() -> ModuleType:
    """Import OpenVINO with its telemetry off. Raises MissingExtra."""
    disable_telemetry()
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise missing_extra("openvino", "openvino", "runtime openvino") from error


def thread_settings(threads: int) -> dict[str, Any]:
    """Settings of a network that may use so many cores.

    OpenVINO pins its threads to the machine's first cores: of two processes with half of the cores each, both would compute on the
    same half, at little more than half of the rate (measured 2026-12-01). Where a network has less than all cores, nothing is pinned.
    """
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
    if threads < usable_cores():
        settings["ENABLE_CPU_PINNING"] = False
    return settings


def has_fast_bf16() -> bool:
    """Whether this CPU computes bfloat16 natively (AVX-512 BF16 or AMX), as OpenVINO itself reports."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
LONG_NAMES = {"bf16": "bfloat16", "fp16": "half precision"}
NARROW = 256  # width of a layer up to which OpenVINO fuses the layers of a perceptron


class OpenVinoEngine:
    """Runs an ONNX or OpenVINO network with OpenVINO.

    Args:
        model: an ONNX file or its content, or an OpenVINO ``.xml``.
        precision: ``auto`` (what the file was written in; for fp32 files bf16 on a CPU that computes in it), ``fp32``,
            ``bf16`` (in networks with depthwise convolutions all but the early layers, see ``openvino_precision``),
            ``fp16`` (GPU) or ``int8`` (a quantized file).
        threads: cores that all streams share; OpenVINO's choice when None.
        mean, std: normalization of a network without our metadata, per channel, on the scale 0..1.
        streams: number of requests that run at once; OpenVINO's choice when None.
        device: OpenVINO's name of a device: ``CPU`` (default), ``GPU``, ``GPU.1``, ``NPU``.

    Raises:
        ModelError: the file is missing, damaged or of an unsuitable form.
        DeviceError: there is no such device, or it does not compute in that precision.
        MissingExtra: OpenVINO is not installed.
    """

    name = "openvino"

    def __init__(
        self,
        model: str | Path | bytes,
        precision: str = "auto",
        threads: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        streams: int | None = None,
        device: str | None = None,
    ) -> None:
        self._openvino = import_openvino()
        self._cores: ProcessLocal[Any] = ProcessLocal()
        self._local: ProcessLocal[_CompiledNetwork] = ProcessLocal()
        self.device = self._resolve_device(device)
        self._requested_precision = precision
        self.precision, self._hint = "fp32", "f32"
        self.threads, self.streams = threads, streams
        self.load(model, mean, std)

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (
            self.source.model, self._requested_precision, self.threads, self._mean, self._std, self.streams, self.device
        )  # fmt: skip
        return restore_engine, (type(self), arguments, self.source.sha256)

    @property
    def _core(self) -> Any:
        return self._cores.get(self._create_core)

    def _create_core(self) -> Any:
        core = self._openvino.Core()
        # Mapped weights end the process (SIGBUS) when somebody writes over the file in place (seen 2026-11-29).
        core.set_property({"ENABLE_MMAP": False})
        return core

    @property
    def _network(self) -> _CompiledNetwork:
        """The compiled network of this process; a forked process compiles it again."""
        return self._local.get(self._open)

    @property
    def _compiled(self) -> Any:
        return self._network.model

    def _resolve_device(self, device: str | None) -> str:
        available = list(self._core.available_devices)
        name = (device or "CPU").upper()
        if name not in available and f"{name}.0" not in available:
            raise DeviceError(f"device {device!r} with OpenVINO", expected=f"one of {', '.join(available)}")
        return name

    def _resolve_precision(self, quantized: bool, is_typed: bool, file_precision: str) -> tuple[str, str]:
        """Return what most of the network computes in, and the precision hint for whatever is not quantized.

        Args:
            quantized: whether the graph is in INT8.
            is_typed: whether bfloat16 is written into the graph. It is run layer by layer as written: under the hint
                f32
                OpenVINO keeps both types apart; under bf16 it would lower the layers that were kept in float32 too.
            file_precision: the precision in the file's metadata.
        """
        fast = set(self._core.get_property(self.device, "OPTIMIZATION_CAPABILITIES"))
        best = "fp16" if self.device != "CPU" and "FP16" in fast else "bf16" if "BF16" in fast else "fp32"
        precision = self._requested_precision
        if precision not in (*HINTS, "auto", "int8"):
            raise DeviceError(f"precision {precision!r} with OpenVINO", expected=f"auto, int8, {', '.join(HINTS)}")
        if (precision == "int8" and not quantized) or (precision in HINTS and quantized):
            raise DeviceError(
                f"precision {precision}: this network is {'' if quantized else 'not '}quantized",
                remedy="use precision auto" if quantized else "write a quantized one: unalike quantize",
            )
        if precision in ("bf16", "fp16") and precision.upper() not in fast:
            raise DeviceError(
                f"precision {precision}: this {self.device} does not compute in {LONG_NAMES[precision]}",
                remedy="use fp32 or auto",
            )
        if quantized:
            return "int8", HINTS[best]
        if is_typed and self.device == "CPU":
            if precision == "fp32" and "BF16" in fast:
                raise DeviceError("precision fp32: this network is written in bf16",
                                  expected="auto or bf16", remedy="give the float network before conversion")  # fmt: skip
            return ("bf16" if "BF16" in fast else "fp32"), "f32"
        if precision == "auto":
            usable = file_precision in ("bf16", "fp16") and file_precision.upper() in fast
            precision = file_precision if usable else best
        return precision, HINTS[precision]

    def load(
        self, model: str | Path | bytes, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        """Load and compile another network in place of the present one; arguments as in the constructor."""
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise ModelError(f"there is no model file {model}")
        self.source, self._mean, self._std = ModelSource(model), mean, std
        self._local.set(self._open())

    def _open(self) -> _CompiledNetwork:
        source, mean, std = self.source.name, self._mean, self._std
        graph = self._read()
        with reader_errors(f"OpenVINO cannot run {source}", remedy="try onnxruntime", error=ModelError):
            facts = read_facts(_metadata(graph), source, mean, std)
            self.precision, self._hint = self._resolve_precision(
                _is_quantized(graph), self._is_typed(graph), facts.precision
            )
            self.input_size, self._request_batch = _input_shape(graph, source)
            graph = self._with_preprocessing(graph, facts)
            graph = self._with_batch(graph)
            is_bf16 = self.precision == self._hint == "bf16"
            if is_bf16 and self.device == "CPU" and has_depthwise_convolutions(graph):
                graph, self._hint = lower_late_layers(graph, self._openvino), "f32"
            compiled = self._compile(graph)
            self.facts = facts
            self.map_facts = facts.maps
            outputs = compiled.outputs
            if self.map_facts and len(outputs) < len(self.map_facts):
                raise ModelError(f"{source} has {len(outputs)} outputs", expected=f"{len(self.map_facts)} maps or more")
            only_maps = len(outputs) == len(self.map_facts)
            self.dim = 0 if only_maps else int(outputs[0].get_partial_shape()[1].get_length())
            return _CompiledNetwork(compiled, 2 * int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")))

    def _is_typed(self, graph: Any) -> bool:
        """Whether any layer is written in bfloat16."""
        low = self._openvino.Type.bf16
        return any(node.get_output_element_type(0) == low for node in graph.get_ops() if node.get_output_size())

    def _read(self) -> Any:
        content = self.source.read()
        with reader_errors(f"OpenVINO cannot read {self.source.name}", error=ModelError):
            if content.names_other_files and not isinstance(self.source.model, bytes):
                return self._core.read_model(self.source.model)
            return self._core.read_model(model=content.graph, weights=content.weights)

    def read_graph(self) -> Any:
        """Read this engine's network once more, as an ``openvino.Model`` that takes uint8 NHWC.

        Raises:
            ModelError: its file is another one by now.
        """
        return self._with_preprocessing(self._read(), self.facts)

    def _with_preprocessing(self, graph: Any, facts: NetworkFacts) -> Any:
        """Make the graph take uint8 NHWC: the change of layout and the normalization become part of it."""
        from openvino.preprocess import PrePostProcessor

        steps = PrePostProcessor(graph)
        entry = steps.input(0)
        entry.tensor().set_element_type(self._openvino.Type.u8).set_layout(self._openvino.Layout("NHWC"))
        entry.model().set_layout(self._openvino.Layout("NCHW"))
        if facts.preprocessing == "none":
            convert = entry.preprocess().convert_element_type(self._openvino.Type.f32)
            convert.mean([255.0 * value for value in facts.mean]).scale([255.0 * value for value in facts.std])
        for number in range(len(graph.outputs)):
            steps.output(number).tensor().set_element_type(self._openvino.Type.f32)
        return steps.build()

    def _with_batch(self, graph: Any) -> Any:
        """Make all shapes static, which compiles to faster code: a free batch becomes 1, a fixed one stays."""
        height, width = self.input_size
        self._request_batch = self._request_batch or 1
        graph.reshape([self._request_batch, height, width, 3])
        return graph

    def _compile(self, graph: Any) -> Any:
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": self._hint,
        }
        if self.device == "CPU" and _has_narrow_perceptron(graph):
            # OpenVINO 2026.4 crashes where it fuses them (docs/experiments/engines.md)
            settings["SNIPPETS_MODE"] = "DISABLE"
        if self.threads and self.device == "CPU":
            settings |= thread_settings(int(self.threads))
        if self.streams:
            settings["NUM_STREAMS"] = int(self.streams)
        return self._core.compile_model(graph, self.device, settings)

    @property
    def batch(self) -> int:
        """Enough images a call that waiting for the last requests does not matter."""
        return max(32, self._request_batch)

    def describe(self) -> dict[str, Any]:
        """Runtime, version, precision, device, streams and requests in flight."""
        description = {
            "runtime": self.name,
            "version": self._openvino.get_version(),
            "precision": self.precision,
            "device": self._core.get_property(self.device, "FULL_DEVICE_NAME"),
            "streams": int(self._compiled.get_property("NUM_STREAMS")),
            "requests": self._network.requests,
            "request_batch": self._request_batch,
        }
        if self.device == "CPU":
            description["threads"] = self.threads or int(self._compiled.get_property("INFERENCE_NUM_THREADS"))
        return description

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        """Compute embeddings: uint8 (B, H, W, 3) -> float32 (B, D)."""
        require_vector(self.dim)
        return self._outputs(images_BHWC, [0])[0]

    def maps(self, images_BHWC: np.ndarray) -> list[np.ndarray]:
        """Compute feature maps: uint8 (B, H, W, 3) -> one float32 (B, C, h, w) each."""
        require_maps(self.map_facts)
        first = int(self.dim > 0)
        return self._outputs(images_BHWC, list(range(first, first + len(self.map_facts))))

    def vectors_and_maps(self, images_BHWC: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Compute embeddings and feature maps in one pass."""
        require_vector(self.dim)
        require_maps(self.map_facts)
        outputs = self._outputs(images_BHWC, list(range(1 + len(self.map_facts))))
        return outputs[0], outputs[1:]

    def _outputs(self, images_BHWC: np.ndarray, numbers: list[int]) -> list[np.ndarray]:
        images_BHWC = np.ascontiguousarray(check_images(images_BHWC, self.input_size))
        count, step = len(images_BHWC), self._request_batch
        network = self._network
        shapes = [tuple(network.model.output(number).get_shape())[1:] for number in numbers]
        outputs = [np.empty((count, *shape), np.float32) for shape in shapes]
        running: deque[tuple[Any, int]] = deque()

        def finish() -> None:
            request, start = running.popleft()
            try:
                request.wait()
                for number, output in zip(numbers, outputs, strict=True):
                    part = output[start : start + step]
                    part[...] = request.get_output_tensor(number).data[: len(part)]
            finally:
                network.give_back(request)

        try:
            for start in range(0, count, step):
                images = images_BHWC[start : start + step]
                if len(images) < step:  # a fixed batch is padded with copies, whose outputs are dropped
                    images = np.concatenate([images, np.repeat(images[-1:], step - len(images), axis=0)])
                # Requests are shared by all callers. One that has some running returns the oldest before it waits for
                # another: a caller with one image waits for one request of a caller with thousands, not for all.
                while (request := network.take(wait=not running)) is None:
                    finish()
                running.append((request, start))
                request.start_async({0: images})
        finally:
            while running:
                finish()
        return outputs


class _CompiledNetwork:
    """A compiled network with its infer requests, which callers get in the order in which they ask for one.

    Without an order a caller that returns a request and asks for the next one is served before those that wait: they are
    still waking up.

    Attributes:
        idle: requests that nobody uses and nobody waits for.
    """

    def __init__(self, model: Any, requests: int) -> None:
        self.model, self.requests = model, requests
        self.idle: deque[Any] = deque(model.create_infer_request() for _ in range(requests))
        self._waiting: deque[_Turn] = deque()
        self._lock = threading.Lock()

    def take(self, *, wait: bool) -> Any:
        """An idle request; where there is none, wait for one, or return None."""
        with self._lock:
            if self.idle:
                return self.idle.popleft()
            if not wait:
                return None
            turn = _Turn()
            self._waiting.append(turn)
        try:
            turn.called.acquire()
        except BaseException:  # Ctrl-C while it waited
            with self._lock:
                if turn.request is None:
                    self._waiting.remove(turn)
                    raise
            self.give_back(turn.request)
            raise
        return turn.request

    def give_back(self, request: Any) -> None:
        """Return a request: to who has waited longest for one, else to those that are idle."""
        with self._lock:
            if not self._waiting:
                self.idle.append(request)
                return
            turn = self._waiting.popleft()
            turn.request = request
        turn.called.release()


class _Turn:
    """A caller's place in the queue: the request that it gets, and the lock that it waits for."""

    def __init__(self) -> None:
        self.request: Any = None
        self.called = threading.Lock()
        self.called.acquire()


def _metadata(graph: Any) -> str | None:
    """Our metadata text: OpenVINO keeps ONNX metadata_props under ``framework`` of its runtime information."""
    if graph.has_rt_info(["framework", KEY]):
        return str(graph.get_rt_info(["framework", KEY]).astype(str))
    return None


def _is_quantized(graph: Any) -> bool:
    return any(node.get_type_name() == "FakeQuantize" for node in graph.get_ops())


def _input_shape(graph: Any, source: str) -> tuple[tuple[int, int], int]:
    """Return (height, width) and the fixed batch, 0 when it is free."""
    shape = graph.input(0).get_partial_shape()
    if len(graph.inputs) != 1 or shape.rank.is_dynamic or len(shape) != 4 or shape[2].is_dynamic or shape[3].is_dynamic:
        raise ModelError(
            f"{source} has input shape {shape}", expected="one input, batch x 3 x height x width, both fixed"
        )
    return (shape[2].get_length(), shape[3].get_length()), 0 if shape[0].is_dynamic else shape[0].get_length()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]


def _has_narrow_perceptron(graph: Any) -> bool:
    """Whether a GELU follows a matrix product of at most NARROW columns and rows, as in the heads of narrow trunks."""
    for node in graph.get_ops():
        if node.get_type_name() != "Gelu":
            continue
        before = node.input_value(0).get_node()
        while before.get_type_name() in ("Add", "Multiply"):  # bias and scale; the other operand is a constant
            operands = [entry.get_source_output().get_node() for entry in before.inputs()]
            before = next(
                (node for node in operands if node.get_type_name() in ("Add", "Multiply", "MatMul")), operands[0]
            )
        if before.get_type_name() == "MatMul":
            widths = [before.get_input_partial_shape(0)[-1], before.get_output_partial_shape(0)[-1]]
            if all(width.is_static and width.get_length() <= NARROW for width in widths):
                return True
    return False
