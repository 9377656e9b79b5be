"""Decoded images, kept: each file is decoded once and stays as uint8 at a stated size.

Decoding JPEGs anew every epoch is most of what a loader does. Kept at a shorter side of 1.5 x the input size, a random
crop (scale 0.08 to 1) still finds about the pixels it needs, and the images stay small enough for memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F

from unalike.data.decode import decode
from unalike.errors import DataError, UnreadableImage
from unalike.progress import say

if TYPE_CHECKING:
    from unalike.data.imageset import ImageSet
    from unalike.data.notices import Notices

MODES = ("memory", "disk", "none")
_STRIPES = 64


class PixelCache:
    """The pixels of an image set, decoded at most once while the bound allows. Thread-safe.

    ``get(i)`` gives image i as uint8 (H, W, 3), its shorter side min(its own, ``shorter_side``), aspect kept. What is
    kept and what is decoded again are equal, pixel for pixel.

    mode: "memory" keeps arrays; "disk" appends to one unnamed file in ``directory`` (or the system's temporary folder),
    which vanishes with the process; "none" keeps nothing. ``limit_bytes`` bounds what this process keeps; once an image
    does not fit, nothing more is kept and the rest is decoded every epoch, said once with the count.
    ``max_unreadable`` is the share of files that may fail to decode before it is a DataError; unless it is 0, one always
    may.
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
    ) -> None:
        if mode not in MODES:
            raise DataError(f"cache mode {mode!r}", expected=f"one of {', '.join(MODES)}")
        if shorter_side < 1:
            raise DataError(f"a stored shorter side of {shorter_side}", expected="at least 1 pixel")
        self.images, self.shorter_side, self.mode = images, int(shorter_side), mode
        self.limit_bytes, self.max_unreadable, self.max_pixels = int(limit_bytes), max_unreadable, max_pixels
        self.notices = notices
        self.decodes = 0  # how many times a file was decoded, failures included
        self.kept = 0
        self.kept_bytes = 0
        self._full = mode == "none"
        self._kept: dict[int, np.ndarray] = {}
        self._placed: dict[int, tuple[int, tuple[int, int, int]]] = {}
        self._failures: dict[int, str] = {}
        # One lock an image would be wasteful; striped locks make sure that two threads never decode one file twice.
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._books = threading.Lock()
        self._file = self._open_file(directory) if mode == "disk" else None

    @staticmethod
    def _open_file(directory: Path | str | None):  # type: ignore[no-untyped-def]  # tempfile's class is private
        try:
            if directory is not None:
                Path(directory).mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryFile(prefix="unalike-pixels-", dir=directory)
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
        with self._books:
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
        found = self._find(index)
        if found is not None:
            return found
        with self._stripes[index % _STRIPES]:
            found = self._find(index)
            if found is not None:
                return found
            if index in self._failures:
                raise UnreadableImage(self._failures[index])
            pixels = self._decode(index)
            self._keep(index, pixels)
            return pixels

    def _find(self, index: int) -> np.ndarray | None:
        if self._file is None:
            return self._kept.get(index)
        placed = self._placed.get(index)
        if placed is None:
            return None
        offset, shape = placed
        count = shape[0] * shape[1] * shape[2]
        data = os.pread(self._file.fileno(), count, offset)
        if len(data) != count:
            raise DataError(f"the image cache holds {len(data)} bytes of {count} for {self.images.paths[index]}")
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)

    def _decode(self, index: int) -> np.ndarray:
        with self._books:
            self.decodes += 1
        side = self.shorter_side
        try:
            pixels = decode(self.images.paths[index], min_size=(side, side), max_pixels=self.max_pixels)
        except UnreadableImage as error:
            self._note_failure(index, str(error))
            raise
        pixels = downscale(pixels, side)
        pixels.setflags(write=False)
        return pixels

    def _note_failure(self, index: int, reason: str) -> None:
        with self._books:
            self._failures[index] = reason
            failed, total = len(self._failures), len(self)
            if self.notices is not None:
                self.notices.add("unreadable", str(self.images.paths[index]), reason)
        # the rule of engines.files.embed_files, so that a set good enough to be measured is good enough to learn from
        allowed = 0 if self.max_unreadable <= 0 else max(1, int(self.max_unreadable * total))
        if failed > allowed:
            raise DataError(
                f"{failed} of {total} training images cannot be read (the latest: {reason})",
                expected=f"at most {allowed} ({self.max_unreadable:.1%})",
                remedy="repair or remove the files, or raise dataset.max_unreadable",
            )

    def _keep(self, index: int, pixels: np.ndarray) -> None:
        with self._books:
            if self._full:
                return
            if self.kept_bytes + pixels.nbytes > self.limit_bytes:
                self._full = True
                self._say_full()
                return
            offset = self.kept_bytes
            self.kept_bytes += pixels.nbytes
            self.kept += 1
        if self._file is None:
            self._kept[index] = pixels
            return
        try:
            written = os.pwrite(self._file.fileno(), pixels.data.cast("B"), offset)
        except OSError as error:
            self._stop_keeping(f"the disk of the image cache took no more ({error})")
            return
        if written == pixels.nbytes:
            self._placed[index] = (offset, pixels.shape)  # type: ignore[assignment]
        else:
            self._stop_keeping("the disk of the image cache took no more")

    def _stop_keeping(self, reason: str) -> None:
        with self._books:
            self.kept -= 1
            if not self._full:
                self._full = True
                say(f"{reason}: the images beyond it are decoded every epoch")

    def _say_full(self) -> None:
        rest = len(self) - self.kept - len(self._failures)
        say(
            f"image cache full at {self.kept_bytes / 2**30:.2f} of {self.limit_bytes / 2**30:.2f} GiB: "
            f"{self.kept} images kept, the other {rest} are decoded every epoch "
            f"(more room: dataset.cache.limit_gb, or dataset.cache.mode: disk)"
        )

    def close(self) -> None:
        """Give back memory and disk; what is asked for later is decoded and no longer kept."""
        with self._books:
            self._full = True
            self._kept, self._placed = {}, {}
            file, self._file = self._file, None
        if file is not None:
            file.close()


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


def build_pixel_cache(spec: Any, images: ImageSet, notices: Notices, *, processes: int) -> PixelCache:
    """The store that ``spec.dataset.cache`` describes, for one of so many ``processes`` of this machine."""
    cache = spec.dataset.cache
    sides = (spec.dataset.train_height or spec.model.input_height, spec.dataset.train_width or spec.model.input_width)
    directory = Path(cache.directory) if cache.directory else None
    limit = cache.limit_gb
    if limit is None:
        limit = (_free_disk_gb(directory) if cache.mode == "disk" else free_memory_gb()) / 2
    return PixelCache(
        images, shorter_side=int(max(sides) * cache.ratio), mode=cache.mode, limit_bytes=int(limit / processes * 1e9),
        directory=directory, max_unreadable=spec.dataset.max_unreadable,
        max_pixels=spec.dataset.max_pixels, notices=notices,
    )  # fmt: skip


def free_memory_gb() -> float:
    """What the system calls available, and no more than the limit of the container that this process may live in."""
    free = psutil.virtual_memory().available / 1e9
    try:
        bound = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return free
    return min(free, int(bound) / 1e9) if bound.isdigit() else free


def _free_disk_gb(directory: Path | None) -> float:
    """Free space where the cache's file will lie; its folder may be yet to be made."""
    place = (directory or Path(tempfile.gettempdir())).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free / 1e9
