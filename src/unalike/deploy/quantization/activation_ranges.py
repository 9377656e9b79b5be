"""Choose calibration images; measure, store and read the INT8 ranges of activations.

Shape letters: N images, H height, W width.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unalike import progress
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.engines.metadata import NetworkFacts
from unalike.engines.normalization import network_input
from unalike.engines.onnx_engine import import_onnxruntime
from unalike.errors import DataError, SpecError, UnreadableImage, missing_extra
from unalike.storage.atomic import write_text

FORMAT_VERSION = 1
METHODS = ("min-max", "percentile", "entropy")


@dataclass(frozen=True)
class CalibrationImages:
    """``calibration_NHWC`` make the ranges, ``validation_NHWC`` are there to test them on (the chosen ones where none are left)."""

    calibration_NHWC: np.ndarray
    validation_NHWC: np.ndarray

    def key(self) -> str:
        """64 hex digits of the pixels of the calibration images, in their order."""
        return hashlib.sha256(np.ascontiguousarray(self.calibration_NHWC).tobytes()).hexdigest()


def sample_calibration_images(
    paths: Sequence[Path], view: View, *, count: int, others: int, seed: int, notices: Notices | None = None
) -> CalibrationImages:
    """``count`` images drawn by ``seed``, then up to ``others`` more of the rest; unreadable ones are skipped.

    Fewer than ``count`` are used as they are, and that is said. Raises DataError when none can be read.
    """
    order = np.random.default_rng(seed).permutation(len(paths))
    found: list[np.ndarray] = []
    for index in order:
        if len(found) == count + others:
            break
        try:
            found.append(view(paths[index]))
        except UnreadableImage as error:
            if notices is not None:
                notices.add("unreadable", str(paths[index]), str(error))
    if not found:
        raise DataError("no image to calibrate on can be read", remedy="check calibration.cal_image_dir")
    if len(found) < count:
        progress.say(f"calibration: {len(found)} images are there, {count} were asked for")
    chosen, rest = found[:count], found[count:]
    return CalibrationImages(np.stack(chosen), np.stack(rest or chosen))


@dataclass(frozen=True)
class RangeSettings:
    """Everything that the ranges depend on."""

    model: str  # digest of the network
    images: str  # digest of the pixels
    method: str = "min-max"
    percentile: float = 99.99
    symmetric: bool = False

    def to_dict(self) -> dict[str, Any]:
        """What stands in the cache file beside the ranges."""
        held: dict[str, Any] = {"model": self.model, "images": self.images, "method": self.method,
                                "symmetric": self.symmetric}  # fmt: skip
        return held | ({"percentile": self.percentile} if self.method == "percentile" else {})


Ranges = dict[str, tuple[float, float]]


def read_ranges(path: Path, request: RangeSettings) -> Ranges | None:
    """The ranges in a cache file, if it was made from exactly this; None otherwise, and why is said."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        progress.say(f"{path} is no calibration of ours: calibrating anew")
        return None
    if not isinstance(held, Mapping) or held.get("format_version") != FORMAT_VERSION:
        progress.say(f"{path} is no calibration of ours: calibrating anew")
        return None
    wanted = request.to_dict()
    stale = [name for name, value in wanted.items() if held.get("made_from", {}).get(name) != value]
    if stale:
        progress.say(f"{path} was made from another {', '.join(stale)}: calibrating anew")
        return None
    return {name: (float(low), float(high)) for name, (low, high) in held["ranges"].items()}


def write_ranges(path: Path, request: RangeSettings, ranges: Ranges) -> None:
    """Write the cache file whole or not at all; one that is not ours is an error, never overwritten."""
    if path.exists() and not _is_ours(path):
        raise SpecError(f"cal_cache_file: {path} exists and is no calibration of ours", remedy="name another file")
    held = {"format_version": FORMAT_VERSION, "tool": "unalike", "made_from": request.to_dict(), "ranges": ranges}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(held, indent=1))


def _is_ours(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")).get("tool") == "unalike")
    except (OSError, ValueError, AttributeError):
        return False


def measure_ranges(
    content: bytes, facts: NetworkFacts, images_NHWC: np.ndarray, request: RangeSettings, *, batch: int
) -> Ranges:
    """(least, greatest) of every float tensor over the images, by ONNX Runtime's collectors.

    ``content`` is the ONNX file. Raises MissingExtra; SpecError for a method that does not exist.
    """
    if request.method not in METHODS:
        raise SpecError(f"calibration method {request.method!r}", expected=" or ".join(METHODS))
    calibrate = import_calibrate()
    with tempfile.TemporaryDirectory(prefix="unalike-calibration-") as folder:
        source = Path(folder) / "network.onnx"
        source.write_bytes(content)
        collector = calibrate.create_calibrator(
            source, None, str(Path(folder) / "augmented.onnx"), calibrate_method=_method(calibrate, request.method),
            extra_options=_options(request),
        )  # fmt: skip
        name = collector.infer_session.get_inputs()[0].name
        fixed = collector.infer_session.get_inputs()[0].shape[0]
        step = fixed if isinstance(fixed, int) else batch
        whole = len(images_NHWC) - len(images_NHWC) % step if isinstance(fixed, int) else len(images_NHWC)
        if not whole:
            raise DataError(f"{len(images_NHWC)} calibration images", expected=f"at least {step}, the network's batch")
        with progress.progress("calibrating", whole) as advance, suppress_stdout():
            # A call a batch: what it has collected is then reduced to ranges or histograms and forgotten.
            for start in range(0, whole, step):
                part = images_NHWC[start : start + step]
                collector.collect_data(_Reader({name: network_input(part, facts)}))
                advance(len(part))
        with suppress_stdout():
            found = collector.compute_data()
    return {
        tensor: (float(np.min(data.range_value[0])), float(np.max(data.range_value[1])))
        for tensor, data in found.items()
    }


def suppress_stdout() -> AbstractContextManager[Any]:
    """Nothing on standard output, which belongs to results: quantizing libraries print to it."""
    return redirect_stdout(io.StringIO())


def import_calibrate() -> Any:
    """ONNX Runtime's calibration module, its telemetry off."""
    import_onnxruntime("quantizing", "train")
    try:
        import onnx  # noqa: F401
        from onnxruntime.quantization import calibrate
    except ImportError as error:
        raise missing_extra(str(error.name), "train", "quantizing") from error
    return calibrate


def _method(calibrate: Any, name: str) -> Any:
    kinds = calibrate.CalibrationMethod
    return {"min-max": kinds.MinMax, "percentile": kinds.Percentile, "entropy": kinds.Entropy}[name]


def _options(request: RangeSettings) -> dict[str, Any]:
    options: dict[str, Any] = {"symmetric": request.symmetric}
    if request.method == "percentile":
        options |= {"percentile": request.percentile, "num_bins": 2048}
    if request.method == "entropy":
        options |= {"num_bins": 512, "num_quantized_bins": 128}
    return options


class _Reader:
    """One batch, once: what ONNX Runtime's collectors read from."""

    def __init__(self, batch: dict[str, np.ndarray]) -> None:
        self._batches = [batch]

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The batch, then None."""
        return self._batches.pop() if self._batches else None
