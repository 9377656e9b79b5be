"""Training batches: read, cropped and finished by threads while the network learns from the batch before.

Threads and not processes: decoding, resizing and torch work outside Python's lock, and the decoded images are shared
without copies. What a batch holds never depends on the number of threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from unalike.data.training.augment import Augmentation
from unalike.data.training.pixel_cache import PixelCache
from unalike.data.training.sampler import ClassBalancedSampler
from unalike.errors import DataError, UnreadableImage
from unalike.storage.processes import usable_cores

if TYPE_CHECKING:
    from unalike.data.imageset import ImageSet

PREFETCH = 3  # batches under way or waiting
_SLICE = 4  # images that one task of a thread handles at least


@dataclass(frozen=True)
class Batch:
    """One rank's batch: images float32 (B, 3, H, W) normalised and channels-last, labels and image indices int64 (B,)."""

    images_BCHW: torch.Tensor
    labels_B: torch.Tensor
    indices_B: torch.Tensor


class TrainingLoader:
    """Batches of an image set, epoch by epoch.

    ``workers`` threads read and crop (0 or less: one a core); on a CPU they also finish, on another ``device`` the whole
    batch is finished there. A file that cannot be decoded is replaced by the next readable image of its class, or where
    the class has none by the next of the set; the store counts and names it, and raises DataError beyond its limit.
    ``indices_B`` and ``labels_B`` tell what a batch really holds.
    """

    def __init__(
        self,
        images: ImageSet,
        store: PixelCache,
        augmentation: Augmentation,
        sampler: ClassBalancedSampler,
        *,
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.images, self.store, self.augmentation, self.sampler = images, store, augmentation, sampler
        self.workers = int(workers) if workers > 0 else usable_cores()
        self.device = torch.device(device)
        self._labels = np.asarray(images.labels_N, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.sampler)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from ``start_step`` on; those before are neither decoded nor drawn.

        Closing the iterator early (break, an exception, ``close()``) stops the threads.
        """
        index_SB, occurrence_SB = self.sampler.plan(epoch)
        pool = ThreadPoolExecutor(
            self.workers, "batches", initializer=_one_torch_thread, initargs=(torch.get_num_threads(),)
        )
        under_way: deque[_Pending] = deque()
        try:
            for step in range(start_step, len(index_SB)):
                under_way.append(_Pending(self, pool, epoch, index_SB[step], occurrence_SB[step]))
                if len(under_way) == PREFETCH:
                    yield under_way.popleft().batch()
            while under_way:
                yield under_way.popleft().batch()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, index: int) -> tuple[int, np.ndarray]:
        """The image's pixels, or those of the next readable image in order of index, of its class if there is one."""
        try:
            return index, self.store.get(index)
        except UnreadableImage:
            others = np.roll(np.arange(len(self._labels)), -index)[1:]
        of_class = self._labels[others] == self._labels[index]
        # A class may have lost its only image: what the store's limit lets pass must not end the training.
        for other in np.concatenate([others[of_class], others[~of_class]]).tolist():
            try:
                return other, self.store.get(other)
            except UnreadableImage:
                continue  # counted and named by the store; the next one is tried
        raise DataError(f"none of the {len(self._labels)} training images can be read", remedy="repair the files")


class _Pending:
    """A batch whose slices are being made by the pool, each into its own rows of one tensor."""

    def __init__(
        self,
        owner: TrainingLoader,
        pool: ThreadPoolExecutor,
        epoch: int,
        index_B: np.ndarray,
        occurrence_B: np.ndarray,
    ) -> None:
        self.owner, self.epoch, self.index_B, self.occurrence_B = owner, epoch, index_B, occurrence_B
        self.used_B = index_B.copy()
        size = len(index_B)
        height, width = owner.augmentation.height, owner.augmentation.width
        self.on_cpu = owner.device.type == "cpu"
        # planes, so that finish need not turn them; it is handed the (B, H, W, 3) view of them
        self.planes = torch.empty((size, 3, height, width), dtype=torch.uint8, pin_memory=owner.device.type == "cuda")
        self.finished = (
            torch.empty((size, 3, height, width), memory_format=torch.channels_last) if self.on_cpu else None
        )
        share = max(_SLICE, -(-size // owner.workers))
        self.slices: list[Future[None]] = [
            pool.submit(self._make, slice(start, min(start + share, size))) for start in range(0, size, share)
        ]

    def _make(self, rows: slice) -> None:
        owner, augmentation = self.owner, self.owner.augmentation
        index, occurrence = self.index_B[rows], self.occurrence_B[rows]
        row_draws = augmentation.crop_draws(self.epoch, index, occurrence)
        for i, wanted in enumerate(index.tolist()):
            self.used_B[rows.start + i], pixels = owner._read(wanted)
            self.planes[rows.start + i] = augmentation.crop_drawn(pixels, row_draws[i])
        if self.finished is not None:
            views = self.planes[rows].permute(0, 2, 3, 1)
            augmentation.finish(views, self.epoch, index, occurrence, out=self.finished[rows])

    def batch(self) -> Batch:
        """Wait for all slices; an exception of a thread is raised here."""
        for made in self.slices:
            made.result()
        owner = self.owner
        images = self.finished
        if images is None:
            views = self.planes.to(owner.device, non_blocking=True).permute(0, 2, 3, 1)
            images = owner.augmentation.finish(views, self.epoch, self.index_B, self.occurrence_B)
        labels = torch.from_numpy(owner._labels[self.used_B]).to(owner.device)
        return Batch(images, labels, torch.from_numpy(self.used_B))


def _one_torch_thread(default: int) -> None:
    """Let this pool thread compute alone: a team of threads for each would only get in the way of the training step.

    torch keeps the count per thread but also as the default of threads yet to start; a short-lived thread puts that
    default back.
    """
    torch.set_num_threads(1)
    restore = threading.Thread(target=torch.set_num_threads, args=(default,))
    restore.start()
    restore.join()
