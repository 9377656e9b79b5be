"""Cache of decoded images: each file is decoded once and stays, as uint8 of a given size, in memory or on disk.

Decoding JPEGs anew every epoch is most of what a loader does. Cached at a shorter side of 1.5 x the input size, a random
crop (scale 0.08 to 1) still finds about the pixels it needs, and the images stay small enough for memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
import psutil
import torch
import torch.nn.functional as F

from unalike.data.decode import DEFAULT, decode, decoded_once
from unalike.data.decoding import Decoding
from unalike.data.regions import image_file, split_region
from unalike.errors import DataError, UnreadableImage
from unalike.progress import say

if TYPE_CHECKING:
    from unalike.data.imageset import ImageSet
    from unalike.data.notices import Notices
    from unalike.spec import Experiment

MODES = ("memory", "disk", "none")
_STRIPES = 64


class PixelCache:
    """The pixels of an image set, decoded at most once while the limit allows. Thread-safe.

    ``get(i)`` returns image i as uint8 (H, W, 3), its shorter side min(its own, ``shorter_side``), aspect kept. What is
    cached and what is decoded again are equal, pixel for pixel. Once an image does not fit into the limit, nothing more is
    cached and the rest is decoded every epoch, which is reported once with the count. Regions of one file are decoded and
    cached together, while there is room.

    Args:
        images: whose files are read.
        shorter_side: of the cached images, in pixels.
        mode: ``memory`` keeps arrays; ``disk`` appends to one unnamed file, which vanishes with the process; ``none``
            caches nothing.
        limit_bytes: largest size of this process's cache.
        directory: of the file; None means the system's temporary folder.
        max_unreadable: share of files, 0..1, that may fail to decode; unless it is 0, one always may.
        max_pixels: largest image that is decoded.
        notices: collects files that cannot be decoded.
        decoding: how files become 8-bit RGB.

    Raises:
        DataError: for a mode or side that does not exist, or a directory that cannot be written to.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        shorter_side: int,
        mode: str = "memory",
        limit_bytes: int = 4 << 30,
        directory: Path | str | None = None,
        max_unreadable: float = 0.05,
        max_pixels: int = 200_000_000,
        notices: Notices | None = None,
        decoding: Decoding = DEFAULT,
    ) -> None:
        if mode not in MODES:
            raise DataError(f"cache mode {mode!r}", expected=f"one of {', '.join(MODES)}")
        if shorter_side < 1:
            raise DataError(f"a stored shorter side of {shorter_side}", expected="at least 1 pixel")
        self.images, self.shorter_side, self.mode = images, int(shorter_side), mode
        self.limit_bytes, self.max_unreadable, self.max_pixels = int(limit_bytes), max_unreadable, max_pixels
        self.notices, self.decoding = notices, decoding
        self.decodes = 0  # how many times a file was decoded, failures included
        self.cached = 0
        self.cached_bytes = 0
        self._full = mode == "none"
        self._arrays: dict[int, np.ndarray] = {}
        self._offsets: dict[int, tuple[int, tuple[int, int, int]]] = {}  # of the disk's file: offset and shape
        self._failures: dict[int, str] = {}
        self._regions = _regions_by_file(images.paths)
        # One lock an image would be wasteful; striped locks make sure that two threads never decode one file twice.
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._lock = threading.Lock()
        self._file = self._open_file(directory) if mode == "disk" else None

    @staticmethod
    def _open_file(directory: Path | str | None) -> BinaryIO:
        try:
            if directory is not None:
                Path(directory).mkdir(parents=True, exist_ok=True)
            return cast(BinaryIO, tempfile.TemporaryFile(prefix="unalike-pixels-", dir=directory))
        except OSError as error:
            raise DataError(
                f"cannot write the image cache to {directory or tempfile.gettempdir()}: {error}",
                remedy="set dataset.cache.directory to a folder with room, or dataset.cache.mode to memory or none",
            ) from error

    def __len__(self) -> int:
        return len(self.images.paths)

    @property
    def failures(self) -> dict[int, str]:
        """Index -> reason of every file that could not be decoded so far."""
        with self._lock:
            return dict(self._failures)

    def unreadable(self, index: int) -> bool:
        """Whether image ``index`` was tried and could not be decoded."""
        return int(index) in self._failures

    def get(self, index: int) -> np.ndarray:
        """Image ``index`` as uint8 (H, W, 3), not to be written to.

        Raises UnreadableImage when its file cannot be decoded (again at every later call, without another attempt), and
        DataError when more than the permitted share of the files failed.
        """
        index = int(index)
        pixels = self._find(index)
        if pixels is not None:
            return pixels
        siblings = self._regions.get(image_file(self.images.paths[index]), [index]) if self._regions else [index]
        with self._stripes[siblings[0] % _STRIPES], decoded_once():
            pixels = self._find(index)
            if pixels is not None:
                return pixels
            if index in self._failures:
                raise UnreadableImage(self._failures[index])
            with self._lock:
                self.decodes += 1
            for other in siblings:
                if other != index and not self._full and other not in self._failures and self._find(other) is None:
                    with suppress(UnreadableImage):  # counted, and raised when it is asked for
                        self._store(other, self._decode(other))
            pixels = self._decode(index)
            self._store(index, pixels)
            return pixels

    def _find(self, index: int) -> np.ndarray | None:
        if self._file is None:
            return self._arrays.get(index)
        entry = self._offsets.get(index)
        if entry is None:
            return None
        offset, shape = entry
        count = shape[0] * shape[1] * shape[2]
        data = os.pread(self._file.fileno(), count, offset)
        if len(data) != count:
            raise DataError(f"the image cache holds {len(data)} bytes of {count} for {self.images.paths[index]}")
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)

    def _decode(self, index: int) -> np.ndarray:
        side = self.shorter_side
        try:
            pixels = decode(
                self.images.paths[index], decoding=self.decoding, min_size=(side, side), max_pixels=self.max_pixels
            )
        except UnreadableImage as error:
            self._note_failure(index, str(error))
            raise
        pixels = downscale(pixels, side)
        pixels.setflags(write=False)
        return pixels

    def _note_failure(self, index: int, reason: str) -> None:
        with self._lock:
            self._failures[index] = reason
            failures, total = len(self._failures), len(self)
            if self.notices is not None:
                self.notices.add("unreadable", str(self.images.paths[index]), reason)
        # The rule of inference.embedding.embed_files, so that a set good enough to be measured is good enough to train on.
        limit = 0 if self.max_unreadable <= 0 else max(1, int(self.max_unreadable * total))
        if failures > limit:
            raise DataError(
                f"{failures} of {total} training images cannot be read (the latest: {reason})",
                expected=f"at most {limit} ({self.max_unreadable:.1%})",
                remedy="repair or remove the files, or raise dataset.max_unreadable",
            )

    def _store(self, index: int, pixels: np.ndarray) -> None:
        """Cache an image while there is room."""
        with self._lock:
            if self._full:
                return
            if self.cached_bytes + pixels.nbytes > self.limit_bytes:
                self._full = True
                self._report_full()
                return
            offset = self.cached_bytes
            self.cached_bytes += pixels.nbytes
            self.cached += 1
        if self._file is None:
            self._arrays[index] = pixels
            return
        try:
            size = os.pwrite(self._file.fileno(), pixels.data.cast("B"), offset)
        except OSError as error:
            self._stop_caching(f"the disk of the image cache took no more ({error})")
            return
        if size == pixels.nbytes:
            height, width, channels = pixels.shape
            self._offsets[index] = offset, (height, width, channels)
        else:
            self._stop_caching("the disk of the image cache took no more")

    def _stop_caching(self, reason: str) -> None:
        with self._lock:
            self.cached -= 1
            if not self._full:
                self._full = True
                say(f"{reason}: the images beyond it are decoded every epoch")

    def _report_full(self) -> None:
        rest = len(self) - self.cached - len(self._failures)
        say(
            f"image cache full at {self.cached_bytes / 2**30:.2f} of {self.limit_bytes / 2**30:.2f} GiB: "
            f"{self.cached} images cached, the other {rest} are decoded every epoch "
            f"(more room: dataset.cache.limit_gb, or dataset.cache.mode: disk)"
        )

    def close(self) -> None:
        """Release memory and disk; what is read later is decoded and no longer cached."""
        with self._lock:
            self._full = True
            self._arrays, self._offsets = {}, {}
            file, self._file = self._file, None
        if file is not None:
            file.close()


def _regions_by_file(paths: Sequence[Path]) -> dict[str, list[int]]:
    """The indices of all regions of each file that has several."""
    by_file: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        file, box = split_region(path)
        if box is not None:
            by_file.setdefault(file, []).append(index)
    return {file: indices for file, indices in by_file.items() if len(indices) > 1}


def downscale(pixels_HWC: np.ndarray, shorter_side: int) -> np.ndarray:
    """uint8 (H, W, 3) with its shorter side at most ``shorter_side``, aspect kept to the nearest pixel; never enlarged."""
    height, width = pixels_HWC.shape[:2]
    shorter = min(height, width)
    if shorter <= shorter_side:
        return np.ascontiguousarray(pixels_HWC)
    size = (max(1, round(height * shorter_side / shorter)), max(1, round(width * shorter_side / shorter)))
    if not pixels_HWC.flags.writeable:
        pixels_HWC = pixels_HWC.copy()  # torch takes no read-only memory
    # Bicubic, because the crop's bilinear pass comes on top: it keeps 98 % of a Lanczos copy's pixel differences where
    # Hamming keeps 95 and bilinear 92; on bytes torch takes less than half the time of PIL's cheapest (2026-11-23).
    image = torch.from_numpy(pixels_HWC).permute(2, 0, 1)[None]
    small = F.interpolate(image, size=size, mode="bicubic", antialias=True)[0]
    return np.ascontiguousarray(small.permute(1, 2, 0).numpy())


def build_pixel_cache(experiment: Experiment, images: ImageSet, notices: Notices, *, processes: int) -> PixelCache:
    """The cache that ``dataset.cache`` describes, for one of so many ``processes`` of this machine."""
    dataset, model, cache = experiment.dataset, experiment.model, experiment.dataset.cache
    sides = (dataset.train_height or model.input_height, dataset.train_width or model.input_width)
    directory = Path(cache.directory) if cache.directory else None
    limit = cache.limit_gb
    if limit is None:
        limit = (_free_disk_gb(directory) if cache.mode == "disk" else free_memory_gb()) / 2
    return PixelCache(
        images, shorter_side=int(max(sides) * cache.ratio), mode=cache.mode, limit_bytes=int(limit / processes * 1e9),
        directory=directory, max_unreadable=dataset.max_unreadable,
        max_pixels=dataset.max_pixels, notices=notices, decoding=Decoding.from_section(dataset.decoding),
    )  # fmt: skip


def free_memory_gb() -> float:
    """Memory that the system calls available, in GB, and no more than the limit of the container around this process."""
    free = psutil.virtual_memory().available / 1e9
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return free
    return min(free, int(limit) / 1e9) if limit.isdigit() else free


def _free_disk_gb(directory: Path | None) -> float:
    """Free disk space, in GB, where the cache's file will be; its folder may not exist yet."""
    folder = (directory or Path(tempfile.gettempdir())).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e9
