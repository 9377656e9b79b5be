"""Shared batches, by a stand-in engine whose calls end when the test says so; nothing here depends on time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.support.serving import SIDE, StandInEngine, run, until
from unalike.errors import UnreadableImage
from unalike.serve.batching import Batcher, BatchReport, DeadlinePassed, Overloaded

LATER = 3600.0


def image(value: int) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), value, np.uint8)


@dataclass(frozen=True)
class Pairs:
    """Gives (first value of the embedding, context); fails where ``fails``."""

    name: str = ""
    fails: bool = False

    def __call__(self, vectors_ND: np.ndarray, contexts: Sequence[Any]) -> list[Any]:
        if self.fails:
            raise ValueError(self.name)
        return [(float(vector[0]), context) for vector, context in zip(vectors_ND, contexts, strict=True)]


def start(
    batcher: Batcher, *values: int, finish: Pairs | None = None, deadline: float | None = None
) -> list[asyncio.Task[Any]]:
    end = time.monotonic() + LATER if deadline is None else deadline
    return [asyncio.create_task(batcher.run(image(value), finish or Pairs(), value, end)) for value in values]


def test_an_idle_engine_takes_the_first_image_at_once_and_the_others_share_the_next_batch() -> None:
    async def scenario() -> None:
        engine = StandInEngine(batch=4, closed=True)
        batcher = Batcher(engine, wait_s=LATER)
        tasks = start(batcher, 100, 101, 102, 103)
        await engine.entered()  # although the wait is an hour
        await until(lambda: batcher.waiting == 3)
        engine.release(2)
        assert await asyncio.gather(*tasks) == [(0.0, 100), (1.0, 101), (2.0, 102), (3.0, 103)]
        assert engine.calls == [1, 3]
        batcher.close()

    run(scenario())


def test_a_batch_is_no_larger_than_preferred() -> None:
    async def scenario() -> None:
        engine = StandInEngine(batch=3, closed=True)
        batcher = Batcher(engine, wait_s=LATER)
        tasks = start(batcher, *range(100, 108))
        await engine.entered()
        await until(lambda: batcher.waiting == 7)
        engine.release(100)
        results = await asyncio.gather(*tasks)
        assert [context for _, context in results] == list(range(100, 108)) and engine.calls == [1, 3, 3, 1]
        batcher.close()

    run(scenario())


def test_an_engine_with_streams_takes_what_has_waited_while_a_batch_runs() -> None:
    async def scenario() -> None:
        engine = StandInEngine(batch=4, streams=2, closed=True)
        batcher = Batcher(engine, wait_s=0.0)
        first = start(batcher, 100)
        await engine.entered()
        second = start(batcher, 101)
        await engine.entered()  # begins although the first batch has not ended
        third = start(batcher, 102)
        await until(lambda: batcher.waiting == 1)  # both streams are taken
        assert engine.calls == [1, 1]
        engine.release(3)
        await asyncio.gather(*first, *second, *third)
        batcher.close()

    run(scenario())


def test_while_a_batch_runs_an_image_waits_for_others() -> None:
    async def scenario() -> None:
        engine = StandInEngine(batch=2, streams=2, closed=True)
        batcher = Batcher(engine, wait_s=LATER)
        first = start(batcher, 100)
        await engine.entered()
        second = start(batcher, 101)
        await until(lambda: batcher.waiting == 1)
        assert engine.calls == [1]
        third = start(batcher, 102)  # a full batch: it begins beside the first
        await engine.entered()
        assert engine.calls == [1, 2]
        engine.release(2)
        await asyncio.gather(*first, *second, *third)
        batcher.close()

    run(scenario())


def test_an_image_that_nobody_waits_for_costs_no_time_of_the_engine() -> None:
    async def scenario() -> None:
        engine = StandInEngine(batch=4, closed=True)
        batcher = Batcher(engine)
        first = start(batcher, 100)
        await engine.entered()
        others = start(batcher, 101, 102)
        await until(lambda: batcher.waiting == 2)
        others[0].cancel()
        engine.release(2)
        assert await first[0] == (0.0, 100) and await others[1] == (2.0, 102)
        assert engine.calls == [1, 1] and others[0].cancelled()
        batcher.close()

    run(scenario())


def test_an_image_past_its_deadline_is_dropped_before_the_engine() -> None:
    async def scenario() -> None:
        engine = StandInEngine(batch=4, closed=True)
        batcher = Batcher(engine)
        first = start(batcher, 100)
        await engine.entered()
        late = start(batcher, 101, deadline=time.monotonic() - 1)
        await until(lambda: batcher.waiting == 1)
        engine.release(2)
        with pytest.raises(DeadlinePassed):
            await late[0]
        assert await first[0] == (0.0, 100) and engine.calls == [1]
        batcher.close()

    run(scenario())


def test_beyond_the_limit_a_request_is_refused_and_places_come_back() -> None:
    async def scenario() -> None:
        batcher = Batcher(StandInEngine(), limit=4)
        end = time.monotonic() + LATER
        with batcher.reserve(9, end):  # alone, a request may be larger than the limit
            pass
        with batcher.reserve(3, end):
            with batcher.reserve(1, end), pytest.raises(Overloaded) as caught, batcher.reserve(1, end):
                pass
            assert caught.value.retry_after >= 1
            assert batcher.occupied == 3
        assert batcher.occupied == 0
        batcher.close()

    run(scenario())


def test_a_request_that_would_be_late_by_the_measured_rate_is_refused() -> None:
    async def scenario() -> None:
        batcher = Batcher(StandInEngine(batch=4), limit=1000)
        batcher._running = batcher._in_flight = 1
        batcher._end_of_batch(1, 0.0, 2.0)  # two seconds an image
        with batcher.reserve(10, time.monotonic() + LATER):
            # Eleven images, and four that may come later into the batch of the last, each a quarter slower than the mean.
            assert batcher.expected_s() == pytest.approx(1.25 * 15 * 2)
            with batcher.reserve(1, time.monotonic() + 40):
                pass
            with pytest.raises(Overloaded) as caught, batcher.reserve(1, time.monotonic() + 27.5):
                pass
            assert caught.value.retry_after == pytest.approx(10, abs=1)
        batcher.close()

    run(scenario())


def test_the_rate_is_known_before_the_first_request() -> None:
    engine = StandInEngine(batch=4)
    batcher = Batcher(engine)
    assert batcher.expected_s() == 0.0
    batcher.warm_up()
    assert engine.calls == [4, 4] and batcher.expected_s() > 0.0
    batcher.close()


def test_an_error_of_the_engine_reaches_every_request_of_the_batch_and_the_next_batch_runs() -> None:
    async def scenario() -> None:
        engine = StandInEngine()
        engine.error = RuntimeError("broken")
        batcher = Batcher(engine)
        results = await asyncio.gather(*start(batcher, 100, 101), return_exceptions=True)
        assert [str(result) for result in results] == ["broken", "broken"]
        engine.error = None
        assert await start(batcher, 103)[0] == (3.0, 103)
        batcher.close()

    run(scenario())


def test_equal_ends_run_once_a_batch_and_an_error_of_one_leaves_the_others_alone() -> None:
    async def scenario() -> None:
        engine = StandInEngine(batch=8, closed=True)
        batcher = Batcher(engine)
        blocker = start(batcher, 100)
        await engine.entered()
        good, bad = start(batcher, 101, 102, finish=Pairs("good")), start(batcher, 103, finish=Pairs("bad", True))
        await until(lambda: batcher.waiting == 3)
        engine.release(2)
        await blocker[0]
        assert await asyncio.gather(*good) == [(1.0, 101), (2.0, 102)] and engine.calls == [1, 3]
        with pytest.raises(ValueError, match="bad"):
            await bad[0]
        batcher.close()

    run(scenario())


def test_batches_are_reported() -> None:
    async def scenario() -> None:
        reports: list[BatchReport] = []
        batcher = Batcher(StandInEngine(), report=reports.append)
        await start(batcher, 100)[0]
        await until(lambda: bool(reports))
        assert reports[0].images == 1 and len(reports[0].queue_s) == 1 and reports[0].network_s >= 0
        batcher.close()

    run(scenario())


def test_an_idle_engine_decodes_in_its_own_thread_and_what_comes_meanwhile_is_the_next_batch() -> None:
    async def scenario() -> None:
        engine = StandInEngine(batch=4, closed=True)
        batcher = Batcher(engine, wait_s=LATER)
        assert batcher.is_idle
        threads = []

        def decode() -> np.ndarray:
            threads.append(threading.current_thread())
            return image(100)

        alone = batcher.run_alone(decode, Pairs(), "alone", time.monotonic() + LATER)
        await engine.entered()
        assert not batcher.is_idle and threads[0] is not threading.main_thread()
        tasks = start(batcher, 101, 102)
        await until(lambda: batcher.waiting == 2)
        engine.release(2)
        assert await alone == (0.0, "alone")
        assert await asyncio.gather(*tasks) == [(1.0, 101), (2.0, 102)] and engine.calls == [1, 2]
        await until(lambda: batcher.is_idle)
        batcher.close()

    run(scenario())


def test_an_image_that_cannot_be_decoded_leaves_the_engine_to_the_others() -> None:
    async def scenario() -> None:
        engine = StandInEngine(batch=4)
        batcher = Batcher(engine)
        unreadable, end = UnreadableImage("unreadable"), time.monotonic() + LATER
        assert await batcher.run_alone(lambda: unreadable, Pairs(), None, end) is unreadable
        with pytest.raises(ZeroDivisionError):
            await batcher.run_alone(lambda: np.zeros(1 // 0), Pairs(), None, end)
        assert batcher.is_idle and not engine.calls
        assert await batcher.run_alone(lambda: image(103), Pairs(), "next", end) == (3.0, "next")
        with pytest.raises(ValueError, match="failing"):
            await batcher.run_alone(lambda: image(103), Pairs("failing", fails=True), None, end)
        await until(lambda: batcher.is_idle)
        batcher.close()

    run(scenario())


def test_an_image_whose_client_hung_up_or_whose_time_is_over_while_it_is_decoded_does_not_reach_the_engine() -> None:
    async def scenario() -> None:
        engine = StandInEngine(batch=4)
        batcher = Batcher(engine)
        is_decoding, may_end = threading.Event(), threading.Event()

        def decode() -> np.ndarray:
            is_decoding.set()
            may_end.wait(LATER)
            return image(100)

        task = batcher.run_alone(decode, Pairs(), None, time.monotonic() + LATER)
        await asyncio.to_thread(is_decoding.wait)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        may_end.set()
        await until(lambda: batcher.is_idle)
        with pytest.raises(DeadlinePassed):
            await batcher.run_alone(lambda: image(100), Pairs(), None, time.monotonic() - 1)
        assert batcher.is_idle and not engine.calls
        batcher.close()

    run(scenario())
