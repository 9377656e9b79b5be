"""Embedding of image files: threads decode while the engine computes.

Every file is decoded once (D26), also for several regions of it, none is dropped (D32), fewer files than a batch are fine (D28), and unreadable ones are
counted and named up to a limit (D20).

Shape letters: N images, B images of a batch, H, W their height and width, C channels, D width of an embedding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from unalike import progress
from unalike.data.decode import MAX_PIXELS
from unalike.data.regions import group_by_file
from unalike.engines.protocol import Engine
from unalike.errors import DataError, UnreadableImage
from unalike.inference.decode_ahead import decode_ahead
from unalike.runs.environment import usable_cores
from unalike.source_names import source_name

if TYPE_CHECKING:
    from unalike.data.notices import Notices

# Share of files that may be unreadable, for commands without an option.
MAX_UNREADABLE = 0.05
# Regions of one file that are held in memory at once; a file of more is decoded again.
MAX_REGIONS = 512


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of image files.

    Attributes:
        vectors_ND: float32, of the readable files.
        kept_N: indices of these files in the paths that were given.
        failures: (name, reason) of each unreadable file; of an archive's member ``archive!member``.
        attempt_N: indices of the files that were read or could not be read.
    """

    vectors_ND: np.ndarray
    kept_N: np.ndarray
    failures: tuple[tuple[str, str], ...] = field(default=())
    attempt_N: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def embed_files(
    engine: Engine | Sequence[Engine],
    paths: Sequence[str | Path],
    view: Callable[..., np.ndarray],
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    max_unreadable: float | None = None,
    max_pixels: int = MAX_PIXELS,
    notices: Notices | None = None,
    describe: str = "embedding",
    stop: Callable[[int, int], bool] | None = None,
) -> Embeddings:
    """Compute the embeddings of image files, in their order.

    Args:
        engine: one engine; or copies of one network on several devices, each of which takes the next batch as soon as it
            is free (D15).
        paths: the files.
        view: ``view(path, max_pixels=...)`` gives one uint8 (H, W, 3) image of the engine's size (``data.view.View``).
        batch_size: number of images of a batch; the engine's own when None.
        workers: number of decoding threads; the usable cores, at least 2, when None.
        max_unreadable: the spec's ``dataset.max_unreadable``: share of the files (0..1) that may be unreadable; one of
            several always may, unless it is 0. None for commands without that option: 0.05, and no error names it.
        max_pixels: larger images count as unreadable.
        notices: collects the unreadable files.
        describe: what the progress bar says.
        stop: called after every batch with the number of files read so far and of all files; true leaves the rest out.

    Raises:
        DataError: too many files are unreadable, or all are.
    """
    engines = list(engine) if isinstance(engine, Sequence) else [engine]
    batch = batch_size or engines[0].batch
    share = MAX_UNREADABLE if max_unreadable is None else max_unreadable
    limit = 0 if share <= 0 else max(1, int(share * len(paths)))
    vectors_ND = np.empty((len(paths), engines[0].dim), np.float32)
    rows: list[int] = []
    failures: list[tuple[str, str]] = []
    attempts: list[int] = []
    waiting: list[np.ndarray] = []

    def submit_batch() -> None:
        submit(vectors_ND[len(rows) - len(waiting) : len(rows)], np.stack(waiting))
        waiting.clear()

    with progress.progress(describe, len(paths)) as advance, _distributed(engines) as submit:
        ahead = 2 * batch * len(engines)
        decoded = decode_ahead(
            group_by_file(paths, MAX_REGIONS), lambda index: view(paths[index], max_pixels=max_pixels),
            workers=workers or max(2, usable_cores()), ahead=ahead,
        )  # fmt: skip
        for index, image in decoded:
            advance(1)
            attempts.append(index)
            if isinstance(image, UnreadableImage):
                failures.append((source_name(paths[index]), str(image)))
                if notices is not None:
                    notices.add("unreadable", paths[index], str(image))
                if len(failures) > limit:
                    # Those that are being decoded anyway may fail for another reason, which is said in one message.
                    for other, result in islice(decoded, ahead):
                        if isinstance(result, UnreadableImage):
                            failures.append((source_name(paths[other]), str(result)))
                    raise _too_many_unreadable(failures, limit, len(paths), adjustable=bool(max_unreadable))
                continue
            rows.append(index)
            waiting.append(image)
            if len(waiting) == batch:
                submit_batch()
                if stop is not None and stop(len(attempts), len(paths)):
                    decoded.close()
                    break
        if waiting:
            submit_batch()
    if paths and not rows:
        raise _too_many_unreadable(failures, 0, len(paths), adjustable=False)
    rows_N, vectors_ND = np.asarray(rows, np.int64), vectors_ND[: len(rows)]
    if (np.diff(rows_N) < 0).any():  # regions of one file were read together
        order_N = np.argsort(rows_N)
        rows_N, vectors_ND = rows_N[order_N], vectors_ND[order_N]
    return Embeddings(vectors_ND, rows_N, tuple(failures), np.sort(np.asarray(attempts, np.int64)))


@contextmanager
def _distributed(engines: Sequence[Engine]) -> Iterator[Callable[[np.ndarray, np.ndarray], None]]:
    """Give ``submit(target_BD, images_BHWC)``, which fills ``target_BD``.

    One engine computes at once; of several the next free one does, with at most two batches an engine under way. Leaving
    the context waits for all of them and raises what one of them raised.
    """

    def compute(target_BD: np.ndarray, images_BHWC: np.ndarray) -> None:
        engine = free.get()
        try:
            target_BD[:] = engine(images_BHWC)
        finally:
            free.put(engine)

    def submit(target_BD: np.ndarray, images_BHWC: np.ndarray) -> None:
        if len(under_way) >= 2 * len(engines):
            under_way.popleft().result()
        under_way.append(pool.submit(compute, target_BD, images_BHWC))

    free: SimpleQueue[Engine] = SimpleQueue()
    for engine in engines:
        free.put(engine)
    if len(engines) == 1:
        yield compute
        return
    under_way: deque[Future[None]] = deque()
    pool = ThreadPoolExecutor(len(engines), thread_name_prefix="engine")
    try:
        yield submit
        for future in under_way:
            future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _too_many_unreadable(failures: Sequence[tuple[str, str]], limit: int, total: int, *, adjustable: bool) -> DataError:
    by_format = {Path(path).suffix.lower(): path for path, _ in reversed(failures)}  # the first of each
    examples = list(dict.fromkeys([*reversed(by_format.values()), *(path for path, _ in failures[:3])]))[
        : max(3, len(by_format))
    ]
    names = ", ".join(examples) + (", ..." if len(failures) > len(examples) else "")
    return DataError(
        f"{len(failures)} or more of {total} images cannot be read ({names}; the first: {failures[0][1]})",
        expected=f"at most {limit}",
        remedy="repair or remove them" + (", or raise dataset.max_unreadable" if adjustable else ""),
    )
