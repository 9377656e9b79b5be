"""CUDA memory, copies and streams through the runtime library that comes with TensorRT, by ctypes.

A deployed recognizer needs eight functions of it; a binding package or torch would be the larger dependency.
Signatures: CUDA Runtime API, sections Device, Memory and Stream Management.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from unalike.errors import DeviceError

TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost
NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so", "cudart64_13.dll", "cudart64_12.dll")


def _candidates() -> list[str]:
    """Names for the loader, then files of NVIDIA's wheels (nvidia/cuda_runtime/lib, nvidia/cu13/lib)."""
    names = [*NAMES, *filter(None, [ctypes.util.find_library("cudart")])]
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        names += sorted(str(path) for path in Path(root).glob("*/lib/libcudart.so*"))
    return names


def _load_library() -> ctypes.CDLL:
    for name in _candidates():
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise DeviceError(
        "the CUDA runtime library (libcudart) cannot be loaded",
        remedy="install NVIDIA's driver and CUDA runtime, or run the ONNX model on the CPU: runtime openvino",
    )


class CudaMemory:
    """Memory and one stream of one GPU.

    Args:
        device: number of the GPU.

    Raises:
        DeviceError: there is no such GPU, or a call fails.
    """

    def __init__(self, device: int = 0) -> None:
        self._library = _load_library()
        for name in ("cudaMalloc", "cudaFree", "cudaMemcpyAsync", "cudaStreamCreate", "cudaStreamSynchronize",
                     "cudaStreamDestroy", "cudaSetDevice", "cudaGetDeviceCount"):  # fmt: skip
            getattr(self._library, name).restype = ctypes.c_int
        count = ctypes.c_int()
        status = self._library.cudaGetDeviceCount(ctypes.byref(count))
        if status or count.value <= device:
            available = 0 if status else count.value
            raise DeviceError(f"GPU {device} of {available}", expected="an NVIDIA GPU with that number",
                              remedy="check the driver with nvidia-smi, or run the ONNX model on the CPU")  # fmt: skip
        self.device = device
        self.use()
        stream = ctypes.c_void_p()
        self._check("cudaStreamCreate", ctypes.byref(stream))
        self.stream = int(stream.value or 0)

    def _check(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise DeviceError(
                f"{name} failed with CUDA error {status}", remedy="is the GPU's memory full? lower the batch"
            )

    def use(self) -> None:
        """Select this GPU for the calling thread; CUDA keeps the choice for each thread."""
        self._check("cudaSetDevice", ctypes.c_int(self.device))

    def allocate(self, count: int) -> int:
        """Allocate ``count`` bytes on the GPU and return their address."""
        address = ctypes.c_void_p()
        self._check("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(max(count, 1)))
        return int(address.value or 0)

    def free(self, address: int) -> None:
        """Free memory of ``allocate``."""
        self._check("cudaFree", ctypes.c_void_p(address))

    def upload(self, address: int, values: np.ndarray) -> None:
        """Queue a copy of a contiguous array to the GPU."""
        self._copy(address, values.ctypes.data, values.nbytes, TO_DEVICE)

    def download(self, values: np.ndarray, address: int) -> None:
        """Queue a copy from the GPU into a contiguous array; ``wait`` before reading it."""
        self._copy(values.ctypes.data, address, values.nbytes, TO_HOST)

    def _copy(self, target: int, source: int, count: int, direction: int) -> None:
        self._check("cudaMemcpyAsync", ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(count),
                    ctypes.c_int(direction), ctypes.c_void_p(self.stream))  # fmt: skip

    def wait(self) -> None:
        """Wait until everything queued is done."""
        self._check("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    def close(self) -> None:
        """Destroy the stream."""
        self._check("cudaStreamDestroy", ctypes.c_void_p(self.stream))
