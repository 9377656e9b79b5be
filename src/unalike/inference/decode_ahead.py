"""Decoding of images by threads ahead of the network, in their order and with bounded memory.

Shape letters: H, W height and width of an image.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from unalike.data.decode import decoded_once
from unalike.errors import UnreadableImage

T = TypeVar("T")


def decode_ahead(
    groups: Iterable[Sequence[T]], read_image: Callable[[T], np.ndarray], *, workers: int, ahead: int
) -> Generator[tuple[T, np.ndarray | UnreadableImage]]:
    """Yield each item with its image, or with the error of one that cannot be read.

    Args:
        groups: Items that one thread reads one after the other, such as the regions of one file, which is decoded once.
            Drawn as they are needed.
        read_image: Gives the uint8 (H, W, 3) image of an item.
        workers: Number of threads.
        ahead: Images that are in memory at most, besides those of one group.

    Yields:
        (item, image or error), in the order of the items.
    """

    def read_group(group: Sequence[T]) -> list[np.ndarray | UnreadableImage]:
        with decoded_once():
            return [read_one(item) for item in group]

    def read_one(item: T) -> np.ndarray | UnreadableImage:
        try:
            return read_image(item)
        except UnreadableImage as error:
            return error

    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    queue: deque[tuple[Sequence[T], Future[list[np.ndarray | UnreadableImage]]]] = deque()
    waiting = 0
    try:
        for group in groups:
            queue.append((group, pool.submit(read_group, group)))
            waiting += len(group)
            while waiting >= ahead and queue:
                first_group, future = queue.popleft()
                waiting -= len(first_group)
                yield from zip(first_group, future.result(), strict=True)
        while queue:
            first_group, future = queue.popleft()
            yield from zip(first_group, future.result(), strict=True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
