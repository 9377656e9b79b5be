"""TensorRT engine (10 and 11): a serialized engine file on an NVIDIA GPU.

An engine file holds no metadata of ours: it is in ``<engine>.json`` beside it, written by ``gen_trt_engine``. For an engine
built elsewhere mean and std are arguments. Any number of images runs within an engine's batch limits: larger calls are
split, smaller ones padded with copies whose embeddings are dropped.

Shape letters: B images, H height, W width, D width of an embedding.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.engines.cuda_memory import CudaMemory
from unalike.engines.metadata import NetworkFacts, read_facts
from unalike.engines.normalization import network_input
from unalike.engines.process_local import ForkCheck
from unalike.engines.protocol import check_images
from unalike.errors import DeviceError, MissingExtra, ModelError
from unalike.installation import install_command
from unalike.storage.digests import file_sha256

if TYPE_CHECKING:
    import tensorrt

ENGINE_CHECKSUM = "engine_sha256"  # of the engine file, in ``extra`` of its metadata
ON_THE_CPU = "on a CPU use the ONNX model instead: unalike gen_engine"


def import_tensorrt() -> ModuleType:
    """Import TensorRT. Raises MissingExtra with the command that installs it."""
    try:
        module = importlib.import_module("tensorrt")
    except ImportError:
        module = None
    # Packages that hold type stubs alone leave an importable, empty folder of that name.
    if module is None or not hasattr(module, "Builder"):
        raise MissingExtra("TensorRT is not installed", remedy=f"install it with: {install_command('tensorrt')} "
                           f"(NVIDIA GPU needed); {ON_THE_CPU}")  # fmt: skip
    return module


def major_version(trt: Any) -> int:
    """Return 10 or 11. Raises ModelError for older versions."""
    text = str(trt.__version__)
    major = int(text.split(".")[0]) if text.split(".")[0].isdigit() else 0
    if major < 10:
        raise ModelError(f"TensorRT {text}", expected="10 or 11", remedy="pip install -U tensorrt")
    return major


def sides(dims: Any) -> tuple[int, ...]:
    """TensorRT's Dims as plain numbers (-1: free)."""
    return tuple(int(dims[axis]) for axis in range(len(dims)))


def facts_file(engine: str | Path) -> Path:
    """Path of an engine's metadata."""
    return Path(f"{engine}.json")


class TensorRtEngine:
    """Runs a TensorRT engine file.

    Args:
        model: the ``.engine`` file.
        device: number of the GPU.
        mean, std: normalization of an engine without metadata beside it, per channel, on the scale 0..1.
        precision: ``auto``, or the one that the engine was built in; another is an error.

    Raises:
        ModelError: the file is missing, damaged or of an unsuitable form.
        DeviceError: there is no such GPU, its memory is full, or the engine has another precision.
        MissingExtra: TensorRT is not installed.
    """

    name = "tensorrt"

    def __init__(
        self,
        model: str | Path,
        device: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        precision: str = "auto",
    ) -> None:
        path = Path(model)
        if not path.is_file():
            raise ModelError(f"there is no engine file {path}")
        trt = import_tensorrt()
        self.version = str(trt.__version__)
        self.facts = _read_facts(path, mean, std)
        self.precision = self.facts.precision
        if precision not in ("auto", self.precision):
            raise DeviceError(f"precision {precision}", expected=f"{self.precision}, in which {path.name} was built")
        self._memory = CudaMemory(device)
        self._engine = _deserialize(path)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise DeviceError(f"no execution context for {path.name}", remedy="is the GPU's memory full?")
        self._lock, self._forked = threading.Lock(), ForkCheck()
        self._arguments = os.path.abspath(path), device, mean, std, precision
        self._read_tensors(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def _read_tensors(self, path: Path) -> None:
        import tensorrt as trt

        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        shape = sides(engine.get_tensor_shape(inputs[0])) if len(inputs) == 1 else ()
        if len(shape) != 4 or len(outputs) != 1 or min(shape[2:]) < 1:
            raise ModelError(f"{path.name} has inputs {inputs} of shape {shape} and outputs {outputs}",
                             expected="one input, batch x 3 x height x width, and one output of vectors")  # fmt: skip
        self._input, self._output = inputs[0], outputs[0]
        smallest, best, largest = engine.get_tensor_profile_shape(self._input, 0)
        self._min_batch, self.batch, self._max_batch = int(smallest[0]), int(best[0]), int(largest[0])
        self.input_size: tuple[int, int] = (int(shape[2]), int(shape[3]))
        self.dim = sides(engine.get_tensor_shape(self._output))[-1]
        self._input_type = np.dtype(trt.nptype(engine.get_tensor_dtype(self._input)))
        self._output_type = np.dtype(trt.nptype(engine.get_tensor_dtype(self._output)))
        pixels = int(np.prod(shape[1:]))
        self._input_address = self._memory.allocate(self._max_batch * pixels * self._input_type.itemsize)
        self._output_address = self._memory.allocate(self._max_batch * self.dim * self._output_type.itemsize)
        self._context.set_tensor_address(self._input, self._input_address)
        self._context.set_tensor_address(self._output, self._output_address)

    def describe(self) -> dict[str, Any]:
        """Runtime, version, precision, device and the batch sizes that the engine takes (smallest, best, largest)."""
        return {
            "runtime": self.name,
            "version": self.version,
            "precision": self.precision,
            "device": f"cuda:{self._memory.device}",
            "batches": [self._min_batch, self.batch, self._max_batch],
        }

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        """Compute embeddings: uint8 (B, H, W, 3) -> float32 (B, D)."""
        images_BHWC = check_images(images_BHWC, self.input_size)
        if self._forked:  # the driver's state is that of the parent
            raise DeviceError("a TensorRT engine in a forked process", expected="one that this process loaded",
                              remedy="load it in the new process, or start processes by spawn")  # fmt: skip
        vectors_BD = np.empty((len(images_BHWC), self.dim), np.float32)
        with self._lock:
            self._memory.use()
            for start in range(0, len(images_BHWC), self._max_batch):
                images = images_BHWC[start : start + self._max_batch]
                vectors_BD[start : start + len(images)] = self._run(images)[: len(images)]
        return vectors_BD

    def _run(self, images_BHWC: np.ndarray) -> np.ndarray:
        if len(images_BHWC) < self._min_batch:
            copies = np.repeat(images_BHWC[-1:], self._min_batch - len(images_BHWC), axis=0)
            images_BHWC = np.concatenate([images_BHWC, copies])
        pixels = np.ascontiguousarray(network_input(images_BHWC, self.facts), dtype=self._input_type)
        vectors = np.empty((len(pixels), self.dim), self._output_type)
        if not self._context.set_input_shape(self._input, tuple(pixels.shape)):
            raise ModelError(
                f"the engine refuses a batch of {len(pixels)}", expected=f"{self._min_batch} to {self._max_batch}"
            )
        self._memory.upload(self._input_address, pixels)
        if not self._context.execute_async_v3(self._memory.stream):
            raise DeviceError("TensorRT could not run the engine", remedy="its own messages are above")
        self._memory.download(vectors, self._output_address)
        self._memory.wait()
        return vectors

    def close(self) -> None:
        """Free the memory on the GPU."""
        self._memory.use()
        self._memory.free(self._input_address)
        self._memory.free(self._output_address)
        self._memory.close()


def _deserialize(path: Path) -> tensorrt.ICudaEngine:
    import tensorrt as trt

    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise ModelError(f"TensorRT {trt.__version__} cannot read {path}", expected="an engine that this version built on "
                         "this kind of GPU", remedy="build it here: unalike gen_trt_engine")  # fmt: skip
    return engine


def _read_facts(path: Path, mean: Sequence[float] | None, std: Sequence[float] | None) -> NetworkFacts:
    file = facts_file(path)
    text = file.read_text(encoding="utf-8") if file.is_file() else None
    facts = read_facts(text, str(file if text else path), mean, std)
    if ENGINE_CHECKSUM in facts.extra and file_sha256(path) != facts.extra[ENGINE_CHECKSUM]:
        raise ModelError(f"{path} is damaged, or not the engine that {file.name} belongs to",
                         remedy="take a copy of both files, or build the engine again")  # fmt: skip
    return facts
