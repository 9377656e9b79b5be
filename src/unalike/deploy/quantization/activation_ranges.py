"""Choose calibration images; measure, store and read the INT8 ranges of activations.

Shape letters: N images, H height, W width.
"""

from __future__ import annotations

import importlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from unalike import progress
from unalike.data.decode import MAX_PIXELS
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.engines.metadata import NetworkFacts
from unalike.engines.normalization import network_input
from unalike.engines.onnx_engine import import_onnxruntime
from unalike.errors import DataError, SpecError, UnreadableImage, missing_extra
from unalike.storage.atomic import write_text
from unalike.storage.digests import content_sha256, text_sha256
from unalike.storage.outside_files import read_bytes, reader_errors

FORMAT_VERSION = 1
METHODS = ("min-max", "percentile", "entropy")


@dataclass(frozen=True)
class CalibrationImages:
    """Images of a quantization, uint8.

    Attributes:
        calibration_NHWC: the ranges of activations are measured on these.
        validation_NHWC: the result is compared with fp32 on these; the calibration images where there are no others.
    """

    calibration_NHWC: np.ndarray
    validation_NHWC: np.ndarray

    def key(self) -> str:
        """64 hex digits of the pixels of the calibration images, in their order."""
        return content_sha256(np.ascontiguousarray(self.calibration_NHWC).tobytes())


def sample_calibration_images(
    paths: Sequence[Path], view: View, *, count: int, validation_count: int, seed: int, notices: Notices | None = None,
    max_pixels: int = MAX_PIXELS,
) -> CalibrationImages:  # fmt: skip
    """Read a random sample of images through the evaluation view; unreadable ones are skipped.

    Args:
        paths: files to choose from.
        view: evaluation view of the network.
        count: number of calibration images. Where fewer can be read, a message says so. 0: none are needed.
        validation_count: largest number of images to compare on: further ones, where there are any.
        seed: of the random order.
        notices: collects the unreadable files.
        max_pixels: larger files are refused.

    Raises:
        DataError: no image can be read.
    """
    order = np.random.default_rng(seed).permutation(len(paths))
    images: list[np.ndarray] = []
    for index in order:
        if len(images) == count + validation_count:
            break
        try:
            images.append(view(paths[index], max_pixels=max_pixels))
        except UnreadableImage as error:
            if notices is not None:
                notices.add("unreadable", str(paths[index]), str(error))
    if not images:
        raise DataError("no image to calibrate on can be read", remedy="check calibration.cal_image_dir")
    if len(images) < count:
        progress.say(f"calibration: {len(images)} images can be read, {count} were requested")
    calibration, rest = images[:count] or images, images[count:]
    return CalibrationImages(np.stack(calibration), np.stack(rest or calibration[:validation_count]))


@dataclass(frozen=True)
class RangeSettings:
    """Everything that the ranges depend on.

    Attributes:
        model: digest of the network.
        images: digest of the calibration images' pixels.
        method: one of METHODS.
        percentile: percentage of the values inside the range, for that method.
        symmetric: whether ranges are symmetric around 0.
    """

    model: str
    images: str
    method: str = "min-max"
    percentile: float = 99.99
    symmetric: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it is written to the cache file beside the ranges."""
        settings: dict[str, Any] = {"model": self.model, "images": self.images, "method": self.method,
                                    "symmetric": self.symmetric}  # fmt: skip
        return settings | ({"percentile": self.percentile} if self.method == "percentile" else {})


MAX_BYTES = 64 << 20  # of a cache file
Ranges = dict[str, tuple[float, float]]


def read_ranges(path: Path, settings: RangeSettings) -> Ranges | None:
    """Read ranges from a cache file; None, with a message, where it was written with other settings or is no such file."""
    if not path.exists():
        return None
    try:
        with reader_errors(f"{path} is not a calibration file of unalike"):
            cache = json.loads(read_bytes(path, MAX_BYTES))
            if cache["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format version {cache['format_version']}")
            if cache.get("sha256", _digest(cache["ranges"])) != _digest(cache["ranges"]):  # none in earlier files
                raise ValueError("its checksum differs")
            source = dict(cache.get("made_from", {}))
            ranges = {str(name): (float(low), float(high)) for name, (low, high) in cache["ranges"].items()}
    except DataError as error:
        progress.say(f"{error.found}: calibrating again")
        return None
    stale = [name for name, value in settings.to_dict().items() if source.get(name) != value]
    if stale:
        progress.say(f"{path} was written for another {', '.join(stale)}: calibrating again")
        return None
    return ranges


def write_ranges(path: Path, settings: RangeSettings, ranges: Ranges) -> None:
    """Write the cache file atomically. Raises SpecError where the file exists and is not such a cache file."""
    if path.exists() and not _is_cache_file(path):
        raise SpecError(
            f"cal_cache_file: {path} exists and is not a calibration file of unalike", remedy="name another file"
        )
    cache = {"format_version": FORMAT_VERSION, "tool": "unalike", "made_from": settings.to_dict(), "ranges": ranges,
             "sha256": _digest(ranges)}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(cache, indent=1))


def _digest(ranges: Mapping[str, Any]) -> str:
    return text_sha256(json.dumps(ranges))


def _is_cache_file(path: Path) -> bool:
    try:
        with reader_errors(str(path)):
            return bool(json.loads(read_bytes(path, MAX_BYTES)).get("tool") == "unalike")
    except DataError:
        return False


def measure_ranges(
    content: bytes, facts: NetworkFacts, images_NHWC: np.ndarray, settings: RangeSettings, *, batch: int
) -> Ranges:
    """Measure the range of every float tensor of a network with ONNX Runtime's calibrators.

    Args:
        content: bytes of the ONNX file.
        facts: its metadata, which says how images are normalized.
        images_NHWC: uint8 images. Of a network with a fixed batch a last partial batch is left out.
        settings: method, percentile and symmetry.
        batch: images a pass, where the network has no fixed batch.

    Returns:
        Name of each tensor -> (lowest, highest).

    Raises:
        SpecError: there is no such method.
        DataError: there are fewer images than the fixed batch.
        MissingExtra: onnx or ONNX Runtime is not installed.
    """
    if settings.method not in METHODS:
        raise SpecError(f"calibration method {settings.method!r}", expected=" or ".join(METHODS))
    calibrate = import_calibrate()
    with tempfile.TemporaryDirectory(prefix="unalike-calibration-") as folder:
        source = Path(folder) / "network.onnx"
        source.write_bytes(content)
        collector = calibrate.create_calibrator(
            source, None, str(Path(folder) / "augmented.onnx"), calibrate_method=_method(calibrate, settings.method),
            extra_options=_options(settings),
        )  # fmt: skip
        name = collector.infer_session.get_inputs()[0].name
        fixed_batch = collector.infer_session.get_inputs()[0].shape[0]
        step = fixed_batch if isinstance(fixed_batch, int) else batch
        count = len(images_NHWC) - len(images_NHWC) % step if isinstance(fixed_batch, int) else len(images_NHWC)
        if not count:
            raise DataError(f"{len(images_NHWC)} calibration images", expected=f"at least {step}, the network's batch")
        with progress.progress("calibrating", count) as advance, suppress_stdout():
            # One call for each batch: the collector then reduces its outputs to ranges or histograms and frees them.
            for start in range(0, count, step):
                images = images_NHWC[start : start + step]
                collector.collect_data(_Reader({name: network_input(images, facts)}))
                advance(len(images))
        with suppress_stdout():
            calibration_data = collector.compute_data()
    return {
        tensor: (float(np.min(data.range_value[0])), float(np.max(data.range_value[1])))
        for tensor, data in calibration_data.items()
    }


def suppress_stdout() -> AbstractContextManager[Any]:
    """Suppress standard output, to which quantization libraries print: it is for results."""
    return redirect_stdout(io.StringIO())


def import_calibrate() -> ModuleType:
    """Import ONNX Runtime's calibration module with its telemetry off. Raises MissingExtra."""
    import_onnxruntime("quantizing", "train")
    try:
        import onnx  # noqa: F401

        return importlib.import_module("onnxruntime.quantization.calibrate")
    except ImportError as error:
        raise missing_extra(str(error.name), "train", "quantizing") from error


def _method(calibrate: ModuleType, name: str) -> Any:
    methods = calibrate.CalibrationMethod
    return {"min-max": methods.MinMax, "percentile": methods.Percentile, "entropy": methods.Entropy}[name]


def _options(settings: RangeSettings) -> dict[str, Any]:
    options: dict[str, Any] = {"symmetric": settings.symmetric}
    if settings.method == "percentile":
        options |= {"percentile": settings.percentile, "num_bins": 2048}
    if settings.method == "entropy":
        options |= {"num_bins": 512, "num_quantized_bins": 128}
    return options


class _Reader:
    """Data reader for ONNX Runtime's calibrators that gives one batch, once."""

    def __init__(self, batch: dict[str, np.ndarray]) -> None:
        self._batches = [batch]

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the batch, then None."""
        return self._batches.pop() if self._batches else None
