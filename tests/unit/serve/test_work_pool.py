"""Work outside of batches."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.support.serving import PATIENCE_S, run, until
from unalike.serve.batching import Overloaded
from unalike.serve.work_pool import WorkPool


def test_results_come_in_order_and_calls_that_did_not_begin_are_dropped() -> None:
    async def scenario() -> None:
        pool, gate, calls = WorkPool(1, 10), threading.Event(), []

        def call(number: int) -> int:
            calls.append(number)
            assert gate.wait(PATIENCE_S)
            return number

        first = asyncio.create_task(pool.run_all([lambda: call(1)]))
        await until(lambda: calls == [1])
        second = asyncio.create_task(pool.run_all([lambda: call(2), lambda: call(3)]))
        await until(lambda: pool.occupied == 3)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        gate.set()
        assert await first == [1] and await pool.run_all([lambda: call(4), lambda: call(5)]) == [4, 5]
        assert calls == [1, 4, 5] and pool.occupied == 0
        pool.close()

    run(scenario())


def test_beyond_its_limit_it_refuses_and_an_error_frees_the_place() -> None:
    async def scenario() -> None:
        pool, gate = WorkPool(1, 2), threading.Event()
        task = asyncio.create_task(pool.run_all([lambda: gate.wait(PATIENCE_S)] * 2))
        await until(lambda: pool.occupied == 2)
        with pytest.raises(Overloaded):
            pool.refuse_overload()
        with pytest.raises(Overloaded):
            await pool.run_all([lambda: True])
        gate.set()
        await task
        with pytest.raises(ZeroDivisionError):
            await pool.run_all([lambda: 1 / 0])
        assert pool.occupied == 0
        pool.close()

    run(scenario())
