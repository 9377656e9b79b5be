"""Loader of training batches: threads read, crop, augment and collate while the network trains on the batch before.

Threads and not processes: decoding, resizing and torch work outside Python's lock, and the decoded images are shared
without copies. The content of a batch never depends on the number of threads.
Shape letters: B images of a batch, H height, W width, S steps of an epoch, N images of the set, D random numbers.
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

from unalike.data.batches.augment import Augmentation
from unalike.data.batches.pixel_cache import PixelCache
from unalike.data.batches.sampler import ClassBalancedSampler
from unalike.errors import DataError, UnreadableImage
from unalike.runs.environment import usable_cores

if TYPE_CHECKING:
    from unalike.data.imageset import ImageSet

PREFETCH = 3  # batches being made or waiting
_SLICE = 4  # images that one task of a thread handles at least


@dataclass(frozen=True)
class Batch:
    """One rank's batch.

    Attributes:
        images_BCHW: float32, normalized, channels-last in memory.
        labels_B: int64 class indices.
        indices_B: int64 rows of the images in their set.
    """

    images_BCHW: torch.Tensor
    labels_B: torch.Tensor
    indices_B: torch.Tensor


class TrainingLoader:
    """Batches of an image set, epoch by epoch.

    A file that cannot be decoded is replaced by the next readable image of its class, or where the class has none by the
    next of the set; the cache counts and names it, and raises DataError beyond its limit. ``indices_B`` and ``labels_B``
    are those of the images that a batch really holds.

    Args:
        images: paths and labels.
        cache: their decoded pixels.
        augmentation: makes the views of the network's size.
        sampler: which images make which batch.
        workers: threads that read and crop; 0 or less means one a core. On a CPU they also augment, on another device the
            whole batch is augmented there.
        device: of the batches.
    """

    def __init__(
        self,
        images: ImageSet,
        cache: PixelCache,
        augmentation: Augmentation,
        sampler: ClassBalancedSampler,
        *,
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.images, self.cache, self.augmentation, self.sampler = images, cache, augmentation, sampler
        self.workers = int(workers) if workers > 0 else usable_cores()
        self.device = torch.device(device)
        self.labels_N = np.asarray(images.labels_N, dtype=np.int64)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.sampler)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from ``start_step`` on; those before are neither decoded nor augmented.

        Closing the iterator early (break, an exception, ``close()``) stops the threads.
        """
        index_SB, occurrence_SB = self.sampler.plan(epoch)
        pool = ThreadPoolExecutor(
            self.workers, "batches", initializer=_one_torch_thread, initargs=(torch.get_num_threads(),)
        )
        pending: deque[_PendingBatch] = deque()
        try:
            for step in range(start_step, len(index_SB)):
                pending.append(_PendingBatch(self, pool, epoch, index_SB[step], occurrence_SB[step]))
                if len(pending) == PREFETCH:
                    yield pending.popleft().batch()
            while pending:
                yield pending.popleft().batch()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def read(self, index: int) -> tuple[int, np.ndarray]:
        """Index and pixels of an image, or of the next readable one in order of index, of its class if there is one."""
        try:
            return index, self.cache.get(index)
        except UnreadableImage:
            others = np.roll(np.arange(len(self.labels_N)), -index)[1:]
        of_class = self.labels_N[others] == self.labels_N[index]
        # A class may have lost its only image: what the cache's limit lets pass must not end the training.
        for other in np.concatenate([others[of_class], others[~of_class]]).tolist():
            try:
                return other, self.cache.get(other)
            except UnreadableImage:
                continue  # counted and named by the cache; the next one is tried
        raise DataError(f"none of the {len(self.labels_N)} training images can be read", remedy="repair the files")


class _PendingBatch:
    """A batch whose slices are collated by the pool, each into its own rows of one tensor."""

    def __init__(
        self,
        loader: TrainingLoader,
        pool: ThreadPoolExecutor,
        epoch: int,
        index_B: np.ndarray,
        occurrence_B: np.ndarray,
    ) -> None:
        self.loader, self.epoch, self.index_B, self.occurrence_B = loader, epoch, index_B, occurrence_B
        self.used_B = index_B.copy()
        size = len(index_B)
        height, width = loader.augmentation.height, loader.augmentation.width
        on_cpu = loader.device.type == "cpu"
        # Planes, so that augment_batch need not transpose them; it takes the (B, H, W, 3) view of them.
        self.planes = torch.empty((size, 3, height, width), dtype=torch.uint8, pin_memory=loader.device.type == "cuda")
        self.augmented = torch.empty((size, 3, height, width), memory_format=torch.channels_last) if on_cpu else None
        share = max(_SLICE, -(-size // loader.workers))
        self.slices: list[Future[None]] = [
            pool.submit(self._collate, slice(start, min(start + share, size))) for start in range(0, size, share)
        ]

    def _collate(self, rows: slice) -> None:
        """Read, crop and, on a CPU, augment the images of these rows."""
        augmentation = self.loader.augmentation
        index, occurrence = self.index_B[rows], self.occurrence_B[rows]
        draws_BD = augmentation.draw_crops(self.epoch, index, occurrence)
        for i, position in enumerate(index.tolist()):
            self.used_B[rows.start + i], pixels = self.loader.read(position)
            self.planes[rows.start + i] = augmentation.apply_crop(pixels, draws_BD[i])
        if self.augmented is not None:
            crops = self.planes[rows].permute(0, 2, 3, 1)
            augmentation.augment_batch(crops, self.epoch, index, occurrence, out=self.augmented[rows])

    def batch(self) -> Batch:
        """Wait for all slices; an exception of a thread is raised here."""
        for part in self.slices:
            part.result()
        loader = self.loader
        images = self.augmented
        if images is None:
            crops = self.planes.to(loader.device, non_blocking=True).permute(0, 2, 3, 1)
            images = loader.augmentation.augment_batch(crops, self.epoch, self.index_B, self.occurrence_B)
        labels = torch.from_numpy(loader.labels_N[self.used_B]).to(loader.device)
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
