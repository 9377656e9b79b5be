"""The start: probes while the service loads, then what it loaded."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from tests.support.serving import PATIENCE_S, run, until
from unalike.errors import ModelError
from unalike.serve.start_up import StartUp


class Loading:
    """Loads when ``gate`` is set; keeps what happened in order."""

    def __init__(self, error: Exception | None = None) -> None:
        self.gate, self.error, self.events = threading.Event(), error, []  # type: ignore[var-annotated]

    async def start(self) -> None:
        self.events.append("start")

    async def stop(self) -> None:
        self.events.append("stop")

    def __call__(self) -> tuple[Loading, Any]:
        assert self.gate.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return self, PlainTextResponse("loaded")

    def application(self, *, waits: bool = False) -> StartUp:
        return StartUp(
            self, lambda: self.events.append("ready"), lambda error: self.events.append(str(error)),
            lambda code: self.events.append(f"end {code}"), waits=waits,
        )  # fmt: skip


@asynccontextmanager
async def serving(loading: Loading) -> AsyncIterator[SimpleNamespace]:
    """The application within its lifespan; ``stop`` ends that."""
    application, orders, answers = loading.application(), asyncio.Queue(), asyncio.Queue()  # type: ignore[var-annotated]
    life = asyncio.create_task(application({"type": "lifespan"}, orders.get, answers.put))

    async def stop() -> None:
        await orders.put({"type": "lifespan.shutdown"})
        assert (await answers.get())["type"] == "lifespan.shutdown.complete"
        await life

    await orders.put({"type": "lifespan.startup"})
    assert (await answers.get())["type"] == "lifespan.startup.complete"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=application), base_url="http://s") as client:
        yield SimpleNamespace(client=client, stop=stop)
    loading.gate.set()


def test_probes_are_answered_while_it_loads_and_all_else_is_refused() -> None:
    async def scenario() -> None:
        loading = Loading()
        async with serving(loading) as it:
            for method in ("GET", "HEAD"):
                assert (await it.client.request(method, "/healthz")).status_code == 200
            for method, path in (
                ("GET", "/readyz"),
                ("POST", "/v1/identify"),
                ("POST", "/healthz"),
                ("GET", "/metrics"),
            ):
                response = await it.client.request(method, path)
                assert response.status_code == 503 and int(response.headers["retry-after"]) > 0
                assert response.json()["type"].endswith(":starting") and response.headers["cache-control"] == "no-store"
            assert loading.events == []
            loading.gate.set()
            await until(lambda: "ready" in loading.events)
            assert (await it.client.get("/readyz")).text == "loaded"
            await it.stop()
        assert loading.events == ["start", "ready", "stop"]

    run(scenario())


@pytest.mark.parametrize("error", [ModelError("no such network"), RuntimeError("no such network")])
def test_what_cannot_be_loaded_is_reported_and_never_answers(error: Exception) -> None:
    async def scenario() -> None:
        loading = Loading(error)
        async with serving(loading) as it:
            loading.gate.set()
            await until(lambda: bool(loading.events))
            assert (await it.client.get("/readyz")).status_code == 503
            await it.stop()
        assert loading.events == ["no such network"]

    run(scenario())


def test_a_stop_while_it_loads_ends_the_process() -> None:
    async def scenario() -> None:
        loading = Loading()
        async with serving(loading) as it:
            await it.stop()
        assert loading.events == ["end 0"]

    run(scenario())


def test_one_of_several_processes_takes_no_request_before_it_is_loaded() -> None:
    async def scenario() -> None:
        loading, orders, answers = Loading(), asyncio.Queue(), asyncio.Queue()  # type: ignore[var-annotated]
        life = asyncio.create_task(loading.application(waits=True)({"type": "lifespan"}, orders.get, answers.put))
        await orders.put({"type": "lifespan.startup"})
        await asyncio.sleep(0.05)
        assert answers.empty()
        loading.gate.set()
        assert (await answers.get())["type"] == "lifespan.startup.complete" and loading.events == ["start", "ready"]
        await orders.put({"type": "lifespan.shutdown"})
        await life
        assert loading.events[-1] == "stop"

    run(scenario())


def test_a_start_imports_nothing_that_only_some_services_need() -> None:
    program = (
        "import sys, unalike.serve.server, unalike.serve.service, unalike.serve.app; "
        "needless = ('torch', 'scipy', 'alembic', 'unalike.inspection.inspector', 'unalike.training', 'sqlalchemy.dialects.postgresql');"
        "print([name for name in needless if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
