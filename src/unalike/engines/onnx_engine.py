"""ONNX Runtime engine, on the CPU, or on a GPU through its CUDA provider.

Shape letters: B images, H height, W width, D width of an embedding, C channels of a feature map, h, w its sides.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.engines.checksum import ModelContent
from unalike.engines.metadata import KEY, read_facts
from unalike.engines.normalization import Normalization
from unalike.engines.process_local import ModelSource, ProcessLocal, restore_engine
from unalike.engines.protocol import check_images, require_maps, require_vector
from unalike.errors import DeviceError, ModelError, missing_extra
from unalike.runs.environment import usable_cores
from unalike.storage.outside_files import reader_errors
from unalike.telemetry import disable_telemetry

if TYPE_CHECKING:
    import onnxruntime

# Larger batches gain nothing on a CPU and need more cache.
CPU_BATCH = 8

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def import_onnxruntime(purpose: str = "runtime onnxruntime", extra: str = "onnx") -> ModuleType:
    """Import ONNX Runtime with its telemetry off. Raises MissingExtra, which names ``purpose`` and ``extra``."""
    disable_telemetry()
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise missing_extra("onnxruntime", extra, purpose) from error


def is_quantized(content: bytes) -> bool:
    """Whether the content of an ONNX file holds Q/DQ nodes: their operators' names are plain text in it."""
    return b"QuantizeLinear" in content


class OnnxEngine:
    """Runs an ONNX network with ONNX Runtime.

    Args:
        model: an ONNX file, or its content.
        threads: number of threads; the usable cores when None.
        mean, std: normalization of a network without our metadata, per channel, on the scale 0..1.
        precision: ``auto``, or the one that the file is written in; another is an error.
        device: ``cpu``, or ``cuda:N`` (needs the GPU build of ONNX Runtime).

    Raises:
        ModelError: the file is missing, damaged or of an unsuitable form.
        DeviceError: there is no such device, or the file has another precision.
        MissingExtra: ONNX Runtime is not installed.
    """

    name = "onnxruntime"

    def __init__(
        self,
        model: str | Path | bytes,
        threads: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        precision: str = "auto",
        device: str | None = None,
    ) -> None:
        self.threads = threads or usable_cores()
        self._device, self._requested_precision = device or "cpu", precision
        self.precision = "fp32"
        self._local: ProcessLocal[onnxruntime.InferenceSession] = ProcessLocal()
        self.load(model, mean, std)

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = self.source.model, self.threads, self._mean, self._std, self._requested_precision, self._device
        return restore_engine, (type(self), arguments, self.source.sha256)

    @property
    def _session(self) -> onnxruntime.InferenceSession:
        """The session of this process; a forked process creates its own."""
        return self._local.get(self._open_again)

    def _open_again(self) -> onnxruntime.InferenceSession:
        return self._create_session(self.source.read())

    def load(
        self, model: str | Path | bytes, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        """Load another network in place of the present one; arguments as in the constructor."""
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise ModelError(f"there is no model file {model}")
        self.source, self._mean, self._std = ModelSource(model), mean, std
        content = self.source.read()
        self._local.set(self._create_session(content))
        with reader_errors(f"{self.source.name} cannot be used", error=ModelError):
            self._read_interface(content.graph)

    def _read_interface(self, content: bytes) -> None:
        """Read metadata, inputs and outputs of the network."""
        source, mean, std = self.source.name, self._mean, self._std
        metadata = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        self.facts = read_facts(metadata, source, mean, std)
        self.precision = "int8" if is_quantized(content) else self.facts.precision
        if self._requested_precision not in ("auto", self.precision):
            raise DeviceError(
                f"precision {self._requested_precision} with onnxruntime",
                expected=f"{self.precision}, in which {source} is written",
                remedy="use runtime openvino, or convert the model again: unalike quantize",
            )
        inputs = self._session.get_inputs()
        shape = list(inputs[0].shape)
        if len(inputs) != 1 or len(shape) != 4 or not all(isinstance(side, int) for side in shape[2:]):
            raise ModelError(
                f"{source} has input shape {shape}", expected="one input, batch x 3 x height x width, both fixed"
            )
        self._input_name, self._wants_uint8 = inputs[0].name, inputs[0].type == "tensor(uint8)"
        self._fixed_batch = shape[0] if isinstance(shape[0], int) else 0
        self.input_size: tuple[int, int] = (shape[2], shape[3])
        self._normalize = Normalization(self.facts)
        self.map_facts = self.facts.maps
        outputs = self._session.get_outputs()
        if self.map_facts and len(outputs) < len(self.map_facts):
            raise ModelError(f"{source} has {len(outputs)} outputs", expected=f"{len(self.map_facts)} maps or more")
        width = outputs[0].shape[-1]
        self.dim = int(width) if isinstance(width, int) else self.facts.dim
        if len(outputs) == len(self.map_facts):
            self.dim = 0
        self._output_names = [output.name for output in outputs[: int(self.dim > 0) + len(self.map_facts)]]
        self.batch = self._fixed_batch or CPU_BATCH

    def _create_session(self, content: ModelContent) -> onnxruntime.InferenceSession:
        source = self.source.name
        model = self.source.model if content.names_other_files else content.graph
        onnxruntime = import_onnxruntime()
        kind, _, number = self._device.lower().partition(":")
        if PROVIDERS.get(kind) not in onnxruntime.get_available_providers():
            raise DeviceError(
                f"device {self._device!r} with onnxruntime",
                expected="cpu, or cuda:0 with the GPU build",
                remedy="pip install onnxruntime-gpu in place of onnxruntime",
            )
        provider: Any = PROVIDERS[kind]
        if number:
            provider = (provider, {"device_id": int(number)})
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        # Threads that wait by spinning take the cores from those that decode, and from other programs: with two cores
        # in use by others EfficientNet-Lite0 made 78 images/s without and 24 with; on free ones 162 and 184 one by one,
        # 199 in both by eight, and from files 132 and 125 (own measurements, 2026-11-26, AMD EPYC with AVX-512).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # its warnings about unused initializers do not matter here
        try:
            return onnxruntime.InferenceSession(model, options, providers=[provider])
        except Exception as error:  # its exception classes derive directly from Exception
            raise ModelError(f"ONNX Runtime cannot read {source} ({str(error).splitlines()[0][:200]})") from error

    def describe(self) -> dict[str, Any]:
        """Runtime, version, precision, provider and threads."""
        return {
            "runtime": self.name,
            "version": import_onnxruntime().__version__,
            "precision": self.precision,
            "device": self._session.get_providers()[0],
            "threads": self.threads,
        }

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        """Compute embeddings: uint8 (B, H, W, 3) -> float32 (B, D)."""
        require_vector(self.dim)
        return self._run(images_BHWC, self._output_names[:1])[0]

    def maps(self, images_BHWC: np.ndarray) -> list[np.ndarray]:
        """Compute feature maps: uint8 (B, H, W, 3) -> one float32 (B, C, h, w) each."""
        require_maps(self.map_facts)
        return self._run(images_BHWC, self._output_names[-len(self.map_facts) :])

    def vectors_and_maps(self, images_BHWC: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Compute embeddings and feature maps in one pass."""
        require_vector(self.dim)
        require_maps(self.map_facts)
        outputs = self._run(images_BHWC, self._output_names)
        return outputs[0], outputs[1:]

    def _shape(self, name: str) -> tuple[int, ...]:
        """Shape of one output for one image."""
        number = self._output_names.index(name) - int(self.dim > 0)
        if number < 0:
            return (self.dim,)
        facts = self.map_facts[number]
        return facts.channels, facts.height, facts.width

    def _run(self, images_BHWC: np.ndarray, names: list[str]) -> list[np.ndarray]:
        images_BHWC = check_images(images_BHWC, self.input_size)
        outputs = [np.empty((len(images_BHWC), *self._shape(name)), np.float32) for name in names]
        for start in range(0, len(images_BHWC), self.batch):
            images = images_BHWC[start : start + self.batch]
            count = len(images)
            if self._fixed_batch and count < self._fixed_batch:  # padded with copies, whose outputs are dropped
                images = np.concatenate([images, np.repeat(images[-1:], self._fixed_batch - count, axis=0)])
            pixels = (
                np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if self._wants_uint8 else self._normalize(images)
            )
            batch_outputs = self._session.run(names, {self._input_name: pixels})
            for output, batch_output in zip(outputs, batch_outputs, strict=True):
                output[start : start + count] = batch_output[:count]
        return outputs
