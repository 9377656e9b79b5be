"""PyTorch engine, for GPUs, and where no other runtime can run a network.

Shape letters: B images, H height, W width, D width of an embedding, C channels of a feature map, h, w its sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.engines.metadata import MapFacts
from unalike.engines.openvino_precision import EARLY_SHARE
from unalike.engines.process_local import ForkCheck
from unalike.engines.protocol import check_images, require_maps, require_vector
from unalike.errors import DeviceError, missing_extra

if TYPE_CHECKING:
    import torch

CPU_BATCH, GPU_BATCH = 16, 128


class TorchEngine:
    """Runs a torch module.

    The module is used in place: it is in eval mode while it runs and gets its modes back afterwards, so that an engine may
    share the network that is being trained.

    Args:
        module: maps normalized float (B, 3, H, W) to (B, D), or to a tuple where it has ``maps`` (``model.feature_maps``).
        mean, std: normalization, per channel, on the scale 0..1.
        input_size: height and width, in pixels.
        device: where the module is moved to; its own device when None.
        precision: ``auto`` (bf16 on a GPU that computes in it, else fp32), ``fp32``, ``bf16`` or ``fp16`` (not on a CPU),
            by autocast. In bf16 the early layers of networks with depthwise convolutions stay in fp32
            (``openvino_precision`` says why).
        batch: number of images that are computed at once.

    Raises:
        DeviceError: the precision is not available.
        MissingExtra: torch is not installed.
    """

    name = "torch"

    def __init__(
        self,
        module: torch.nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: tuple[int, int],
        device: str | None = None,
        precision: str = "fp32",
        batch: int | None = None,
    ) -> None:
        try:
            import torch
        except ImportError as error:
            raise missing_extra("torch", "train", "runtime torch") from error
        self._torch, self._forked = torch, ForkCheck()
        self.module = module
        parameter = next(module.parameters(), None)
        own_device = torch.device("cpu") if parameter is None else parameter.device
        self.device = torch.device(device) if device else own_device
        self.precision = self._resolve_precision(precision)
        self.input_size = input_size
        self._mean_C = torch.tensor([255.0 * value for value in mean], device=self.device).view(1, -1, 1, 1)
        self._std_C = torch.tensor([255.0 * value for value in std], device=self.device).view(1, -1, 1, 1)
        self.batch = batch or (CPU_BATCH if self.device.type == "cpu" else GPU_BATCH)
        # torch's stubs lack memory_format.
        self.module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.map_facts: tuple[MapFacts, ...] = tuple(getattr(module, "maps", ()))
        outputs = self._outputs(np.zeros((1, *input_size, 3), np.uint8))
        self._shapes = [output.shape[1:] for output in outputs]
        self.dim = int(self._shapes[0][0]) if len(outputs) > len(self.map_facts) else 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_torch", "_forked")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import torch

        self.__dict__.update(state, _torch=torch, _forked=ForkCheck())

    def _resolve_precision(self, precision: str) -> str:
        on_cpu = self.device.type == "cpu"
        if precision == "auto":
            fast = not on_cpu and self.device.type == "cuda" and self._torch.cuda.is_bf16_supported()
            return "bf16" if fast else "fp32"
        if precision not in ("fp32", "bf16", "fp16"):
            raise DeviceError(f"precision {precision!r}", expected="auto, fp32, bf16 or fp16")
        if precision == "fp16" and on_cpu:
            raise DeviceError("precision fp16 on a CPU", remedy="use bf16 or fp32")
        return precision

    def describe(self) -> dict[str, Any]:
        """Runtime, version, precision, device and threads."""
        return {
            "runtime": self.name,
            "version": self._torch.__version__,
            "precision": self.precision,
            "device": str(self.device),
            "threads": self._torch.get_num_threads(),
        }

    def _first_lowered(self) -> torch.nn.Module | None:
        """The module from which on the network computes in fewer bits; None: from its start."""
        nn = self._torch.nn
        weighted = [module for module in self.module.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
        depthwise = any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in weighted)
        return weighted[int(EARLY_SHARE * len(weighted))] if depthwise and self.precision == "bf16" else None

    def _forward(self, pixels_BCHW: torch.Tensor) -> Any:
        if self.precision == "fp32":
            return self.module(pixels_BCHW)
        dtype = self._torch.bfloat16 if self.precision == "bf16" else self._torch.float16
        first = self._first_lowered()
        with ExitStack() as stack:

            def enable_autocast(*_: Any) -> None:
                if not self._torch.is_autocast_enabled(self.device.type):
                    stack.enter_context(self._torch.autocast(self.device.type, dtype=dtype))

            if first is None:
                enable_autocast()
            else:
                stack.callback(first.register_forward_pre_hook(enable_autocast).remove)
            return self.module(pixels_BCHW)

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        """Compute embeddings: uint8 (B, H, W, 3) -> float32 (B, D)."""
        require_vector(self.dim)
        return self._outputs(images_BHWC)[0]

    def maps(self, images_BHWC: np.ndarray) -> list[np.ndarray]:
        """Compute feature maps: uint8 (B, H, W, 3) -> one float32 (B, C, h, w) each."""
        require_maps(self.map_facts)
        return self._outputs(images_BHWC)[-len(self.map_facts) :]

    def vectors_and_maps(self, images_BHWC: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Compute embeddings and feature maps in one pass."""
        require_vector(self.dim)
        require_maps(self.map_facts)
        outputs = self._outputs(images_BHWC)
        return outputs[0], outputs[1:]

    def _outputs(self, images_BHWC: np.ndarray) -> list[np.ndarray]:
        images_BHWC = check_images(images_BHWC, self.input_size)
        if self._forked and self._torch.get_num_threads() > 1:
            self._torch.set_num_threads(
                1
            )  # a forked process lacks the threads of OpenMP, and would wait for them for ever
        if not len(images_BHWC):
            return [np.empty((0, *shape), np.float32) for shape in self._shapes]
        batches = []
        modes = [(module, module.training) for module in self.module.modules()]
        self.module.eval()
        try:
            with self._torch.inference_mode():
                for start in range(0, len(images_BHWC), self.batch):
                    batches.append(self._run(images_BHWC[start : start + self.batch]))
        finally:
            for module, training in modes:
                module.training = training
        return [np.concatenate(output) for output in zip(*batches, strict=True)]

    def _run(self, images_BHWC: np.ndarray) -> list[np.ndarray]:
        pixels = self._torch.from_numpy(np.ascontiguousarray(images_BHWC)).to(self.device, non_blocking=True)
        # NHWC memory permuted to NCHW is channels_last already: no copy.
        pixels_BCHW = (pixels.permute(0, 3, 1, 2).float() - self._mean_C) / self._std_C
        outputs = self._forward(pixels_BCHW)
        if not isinstance(outputs, tuple):
            outputs = (outputs,)
        return [output.float().contiguous().cpu().numpy() for output in outputs]
