"""Batching: images of many requests share calls of one engine.

An idle engine takes the first image at once, and decodes it in the same thread. While it runs, images collect; the next call
begins when the engine is free again, or, where the engine computes several images at once and has room, when a full batch or the
wait has come together.
The number of images in the service is bounded: what would exceed it, or would miss its deadline by the measured rate, is
refused at once. An image whose request was cancelled or is past its deadline is dropped before it reaches the engine.

Shape letters: N images of a batch, H, W height and width of the engine's input, D width of an embedding.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from unalike.engines.protocol import Engine
from unalike.errors import UnreadableImage

SMOOTHING = 0.2  # weight of the newest batch in the mean time of an image
MIN_RETRY_S = 1.0
# The rate varies: requests are refused that would be late at this many times the mean time of an image.
SAFETY = 1.25
WARM_UP_IMAGES = 4
_NO_IMAGE = np.empty((0, 0, 3), np.uint8)  # of an image that is still to be decoded


class Overloaded(Exception):
    """More images wait than may; ``retry_after`` says in how many seconds there should be room."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("the service is overloaded")
        self.retry_after = retry_after


class DeadlinePassed(Exception):
    """The request's time was over before its image reached the engine."""


class Finish(Protocol):
    """What follows the network, once for all images of a batch that share it (equal objects share it)."""

    def __call__(self, vectors_ND: np.ndarray, contexts: Sequence[Any]) -> Sequence[Any]:
        """One result for each embedding; ``contexts`` are those that came with the images."""
        ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class BatchReport:
    """What one call of an engine took.

    Attributes:
        images: number of images.
        network_s: seconds in the engine.
        finish_s: seconds in what follows it.
        queue_s: how long each image waited, in seconds.
    """

    images: int
    network_s: float
    finish_s: float
    queue_s: tuple[float, ...]


@dataclass(slots=True, eq=False)
class _Waiting:
    image_HWC: np.ndarray
    finish: Finish
    context: Any
    deadline: float
    since: float
    future: asyncio.Future[Any]


@dataclass(frozen=True)
class EmbedFinish:
    """Gives the embeddings as they are."""

    def __call__(self, vectors_ND: np.ndarray, contexts: Sequence[Any]) -> Sequence[np.ndarray]:
        """One embedding (D,) for each image."""
        return list(vectors_ND)


class Batcher:
    """The one queue of an engine. All methods are called from the event loop.

    Args:
        engine: computes the embeddings.
        wait_s: how long an image waits for others while a batch runs and the engine has room.
        limit: most images in the service for this engine: being decoded, waiting and running.
        preferred: most images of a call; the engine's own batch when None.
        parallel: number of images that the engine computes at once (OpenVINO's streams); what it says of itself when None.
        report: called after every batch, from a thread.
    """

    def __init__(
        self, engine: Engine, *, wait_s: float = 0.003, limit: int = 256, preferred: int | None = None,
        parallel: int | None = None, report: Callable[[BatchReport], None] | None = None,
    ) -> None:  # fmt: skip
        self.engine, self.wait_s, self.limit = engine, wait_s, limit
        self.preferred = preferred or engine.batch
        self.parallel = parallel or int(engine.describe().get("streams") or 1)
        self._report = report
        self._queue: deque[_Waiting] = deque()
        self._occupied = self._in_flight = self._running = 0
        self._timer: asyncio.TimerHandle | None = None
        self._image_s = 0.0  # mean seconds an image
        self._last_end = 0.0
        # Threads beyond those that run the engine do what follows it.
        self._pool = ThreadPoolExecutor(2 * self.parallel + 2, thread_name_prefix="engine")

    @property
    def waiting(self) -> int:
        """Number of images that wait for the engine."""
        return len(self._queue)

    @property
    def occupied(self) -> int:
        """Number of images in the service for this engine."""
        return self._occupied

    def expected_s(self, count: int = 1) -> float:
        """How long the images of a new request would take at most by the measured rate, in seconds; 0 before there is one.

        They wait for all that are in the service, and for those that come later into their batch.
        """
        images = self._occupied + count
        return SAFETY * (images + min(images, self.preferred)) * self._image_s

    def warm_up(self) -> None:
        """Measure the rate, before any request is taken."""
        height, width = self.engine.input_size
        images = np.zeros((min(self.preferred, WARM_UP_IMAGES), height, width, 3), np.uint8)
        self.engine(images)  # the first call also allocates
        start = time.monotonic()
        self.engine(images)
        self._image_s = (time.monotonic() - start) / len(images)

    @contextmanager
    def reserve(self, count: int, deadline: float) -> Iterator[None]:
        """Take places for the images of a request, before anything is spent on them.

        Args:
            count: number of images.
            deadline: time of ``time.monotonic`` at which the request is over.

        Raises:
            Overloaded: there are not as many places, or the images would be late.
        """
        self.refuse_overload(count, deadline)
        self._occupied += count
        try:
            yield
        finally:
            self._occupied -= count

    def refuse_overload(self, count: int, deadline: float) -> None:
        """Raise Overloaded where ``reserve`` would."""
        if not self._occupied:
            return
        late = self.expected_s(count) - (deadline - time.monotonic())
        if self._occupied + count > self.limit or late > 0:
            surplus = max(late, (self._occupied + count - self.limit) * self._image_s)
            raise Overloaded(max(MIN_RETRY_S, float(math.ceil(surplus))))

    async def run(self, image_HWC: np.ndarray, finish: Finish, context: Any, deadline: float) -> Any:
        """Compute one image's result in a batch with others.

        Args:
            image_HWC: uint8 (H, W, 3), as the engine takes it.
            finish: what follows the network.
            context: given to ``finish`` with the image's embedding.
            deadline: time of ``time.monotonic`` after which it is dropped.

        Raises:
            DeadlinePassed: it was dropped.
            Exception: what the engine or ``finish`` raised.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(image_HWC, finish, context, deadline, time.monotonic(), future))
        self._start_batches()
        return await future

    @property
    def is_idle(self) -> bool:
        """Whether no image waits or runs."""
        return not self._running and not self._queue

    def run_alone(
        self, decode: Callable[[], np.ndarray | UnreadableImage], finish: Finish, context: Any, deadline: float
    ) -> asyncio.Future[Any]:
        """Begin to decode one image, and to compute its result, in one thread of an idle engine: what comes meanwhile is the
        next batch.

        Args:
            decode: gives the image as ``run`` takes it, or why it cannot be read, which is the result then.
            finish, context, deadline: as of ``run``.

        Returns:
            The result to come, or its error: DeadlinePassed where decoding took until then, or what ``decode``, the engine or
            ``finish`` raised. The image of one that is cancelled is dropped before it reaches the engine.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._running += 1
        self._in_flight += 1
        item = _Waiting(_NO_IMAGE, finish, context, deadline, time.monotonic(), future)
        self._pool.submit(self._decode_and_compute, decode, item, loop)
        return future

    def close(self) -> None:
        """End the threads; batches that run are finished."""
        if self._timer is not None:
            self._timer.cancel()
        self._pool.shutdown(wait=True)

    # ---- starting batches ----

    def _start_batches(self) -> None:
        while self._queue and self._may_start():
            items = self._take()
            if not items:
                break
            self._running += 1
            self._in_flight += len(items)
            self._pool.submit(self._compute, items, asyncio.get_running_loop())
        self._set_timer()

    def _may_start(self) -> bool:
        if not self._running:
            return True
        if self.parallel == 1:
            return False
        is_full = len(self._queue) >= self.preferred
        if self._in_flight < self.parallel:
            return is_full or time.monotonic() - self._queue[0].since >= self.wait_s
        return is_full and self._running < 2  # its images follow without a gap on those of the running batch

    def _take(self) -> list[_Waiting]:
        """The next images, without those that nobody waits for any more."""
        items: list[_Waiting] = []
        now = time.monotonic()
        while self._queue and len(items) < self.preferred:
            item = self._queue.popleft()
            if item.future.done():
                continue
            if now > item.deadline:
                item.future.set_exception(DeadlinePassed())
                continue
            items.append(item)
        return items

    def _set_timer(self) -> None:
        """Look again when the oldest image has waited long enough to join a running batch."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue and self._running and 1 < self.parallel > self._in_flight:
            delay = max(0.0, self._queue[0].since + self.wait_s - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._start_batches)

    # ---- in a thread ----

    def _decode_and_compute(
        self, decode: Callable[[], np.ndarray | UnreadableImage], item: _Waiting, loop: asyncio.AbstractEventLoop
    ) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            image = decode()
        except BaseException as failure:  # noqa: BLE001  the request gets it
            error = failure
        else:
            now = time.monotonic()
            if not isinstance(image, np.ndarray):
                result = image
            elif now > item.deadline:
                error = DeadlinePassed()
            elif not item.future.done():  # else its client hung up
                item.image_HWC, item.since = image, now
                self._compute([item], loop)
                return
        loop.call_soon_threadsafe(self._end_without_batch, item.future, result, error)

    def _end_without_batch(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._running -= 1
        self._in_flight -= 1
        _deliver([(future, result, error)])
        self._start_batches()

    def _compute(self, items: list[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        start = time.monotonic()
        outcome: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        vectors_ND: np.ndarray | None = None
        try:
            vectors_ND = self.engine(np.stack([item.image_HWC for item in items]))
        except BaseException as error:  # noqa: BLE001  each request gets it
            outcome = [(item.future, None, error) for item in items]
        end = time.monotonic()
        # Where nobody else is in the service, the event loop is left alone until the result is there.
        is_alone = self._occupied <= len(items) and not self._queue
        if not is_alone:
            loop.call_soon_threadsafe(self._end_of_batch, len(items), start, end)
        if vectors_ND is not None:
            outcome = _finish(items, vectors_ND)
        if is_alone:
            loop.call_soon_threadsafe(self._deliver_and_end, outcome, start, end)
        else:
            loop.call_soon_threadsafe(_deliver, outcome)
        if self._report is not None:
            queue_s = tuple(start - item.since for item in items)
            self._report(BatchReport(len(items), end - start, time.monotonic() - end, queue_s))

    def _deliver_and_end(
        self, outcome: Sequence[tuple[asyncio.Future[Any], Any, BaseException | None]], start: float, end: float
    ) -> None:
        _deliver(outcome)
        self._end_of_batch(len(outcome), start, end)

    def _end_of_batch(self, count: int, start: float, end: float) -> None:
        self._running -= 1
        self._in_flight -= count
        image_s = (end - max(start, self._last_end)) / count
        self._image_s = image_s if not self._image_s else (1 - SMOOTHING) * self._image_s + SMOOTHING * image_s
        self._last_end = end
        self._start_batches()


def _finish(
    items: Sequence[_Waiting], vectors_ND: np.ndarray
) -> list[tuple[asyncio.Future[Any], Any, BaseException | None]]:
    """What follows the network, once for all images that share it; an error of one group leaves the others alone."""
    groups: dict[Finish, list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault(item.finish, []).append(number)
    outcome: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
    for finish, numbers in groups.items():
        rows = vectors_ND if len(numbers) == len(items) else vectors_ND[numbers]
        try:
            results = finish(rows, [items[number].context for number in numbers])
        except BaseException as error:  # noqa: BLE001
            outcome += [(items[number].future, None, error) for number in numbers]
        else:
            outcome += [(items[n].future, result, None) for n, result in zip(numbers, results, strict=True)]
    return outcome


def _deliver(outcome: Sequence[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for future, result, error in outcome:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
