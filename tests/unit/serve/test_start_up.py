"""The start: probes while the service loads, then what it loaded."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import httpx
import pytest
from starlette.responses import PlainTextResponse

from tests.support.serving import PATIENCE_S, run, until
from unalike.errors import ModelError
from unalike.serve.start_up import LoadedService, StartUp


class Loading:
    """Loads when ``gate`` is set, and the rest when ``rest_gate`` is; keeps what happened in order."""

    def __init__(self, error: Exception | None = None, rest_error: Exception | None = None) -> None:
        self.gate, self.error, self.events = threading.Event(), error, []  # type: ignore[var-annotated]
        self.rest_gate, self.rest_error = threading.Event(), rest_error

    async def start(self) -> None:
        self.events.append("start")

    async def stop(self) -> None:
        self.events.append("stop")

    def __call__(self) -> LoadedService:
        assert self.gate.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return LoadedService(self, PlainTextResponse("loaded"), self.load_rest)

    def load_rest(self) -> Callable[[], None]:
        assert self.rest_gate.wait(PATIENCE_S)
        if self.rest_error is not None:
            raise self.rest_error
        return lambda: self.events.append("all")

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
    loading.rest_gate.set()


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
            assert loading.events == ["start", "ready"]
            loading.rest_gate.set()
            await until(lambda: "all" in loading.events)
            await it.stop()
        assert loading.events == ["start", "ready", "all", "stop"]

    run(scenario())


def test_a_stop_while_the_rest_loads_ends_what_was_started() -> None:
    async def scenario() -> None:
        loading = Loading()
        async with serving(loading) as it:
            loading.gate.set()
            await until(lambda: "ready" in loading.events)
            await it.stop()
        assert loading.events == ["start", "ready", "stop"]

    run(scenario())


def test_a_rest_that_cannot_be_loaded_is_reported() -> None:
    async def scenario() -> None:
        loading = Loading(rest_error=ModelError("no such page"))
        async with serving(loading) as it:
            loading.gate.set()
            loading.rest_gate.set()
            await until(lambda: len(loading.events) == 3)
            await it.stop()
        assert loading.events == ["start", "ready", "no such page", "stop"]

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
        await until(lambda: "start" in loading.events)
        await asyncio.sleep(0.05)
        assert answers.empty()
        loading.rest_gate.set()
        assert (await answers.get())["type"] == "lifespan.startup.complete"
        assert loading.events == ["start", "all", "ready"]
        await orders.put({"type": "lifespan.shutdown"})
        await life
        assert loading.events[-1] == "stop"

    run(scenario())


def test_a_start_imports_nothing_that_only_some_services_need() -> None:
    program = (
        "import sys, unalike.serve.server; early = 'sqlalchemy' in sys.modules; import unalike.serve.service, unalike.serve.front; "
        "needless = ('torch', 'scipy', 'alembic', 'unalike.inspection.inspector', 'unalike.training', 'sqlalchemy.dialects.postgresql', 'fastapi', 'jinja2', 'opentelemetry', 'httpx');"
        "print(early, [name for name in needless if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False []"
