"""A service over a stand-in engine: three colors are three classes, and a gate decides when a batch ends."""

from __future__ import annotations

import asyncio
import atexit
import functools
import io
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
from PIL import Image

from unalike.data.decoding import Decoding
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.inference.loaded_model import LoadedModel
from unalike.recognition.recognizer import Recogniser
from unalike.serve.app import create_app
from unalike.serve.batching import Batcher
from unalike.serve.file_watch import FileWatch
from unalike.serve.resources import GalleryResource, Network, Resources
from unalike.serve.service import Service
from unalike.serve.store import Store, open_store
from unalike.spec.serve import Serve

SIDE = 8
VIEW = View(SIDE, SIDE, 1.0, decoding=Decoding(2, (255, 255, 255), (0.0, 255.0)))
COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210)}
PATIENCE_S = 20.0


class StandInEngine:
    """Gives the mean color of an image. With ``closed`` a call waits until ``release`` lets it end."""

    name, precision, dim, input_size = "standin", "fp32", 3, (SIDE, SIDE)

    def __init__(self, batch: int = 4, streams: int = 1, *, closed: bool = False) -> None:
        self.batch, self.streams, self.closed = batch, streams, closed
        self.calls: list[int] = []
        self.error: Exception | None = None
        self._entered, self._gate = threading.Semaphore(0), threading.Semaphore(0)

    def describe(self) -> dict[str, Any]:
        return {"runtime": self.name, "streams": self.streams}

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        self.calls.append(len(images_BHWC))
        if self.closed:
            self._entered.release()
            assert self._gate.acquire(timeout=PATIENCE_S)
        if self.error is not None:
            raise self.error
        return images_BHWC.reshape(len(images_BHWC), -1, 3).mean(axis=1).astype(np.float32) - 100

    def release(self, count: int = 1) -> None:
        """Let so many calls end."""
        self._gate.release(count)

    async def entered(self) -> None:
        """Return when one more call has begun."""
        assert await asyncio.to_thread(self._entered.acquire, timeout=PATIENCE_S)


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until a condition holds; an error when it never does."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


def picture(color: str | tuple[int, int, int] = "red", side: int = 24, kind: str = "PNG", shift: int = 0) -> bytes:
    """The content of an image file of one color."""
    values = COLORS[color] if isinstance(color, str) else color
    stream = io.BytesIO()
    Image.new("RGB", (side, side), tuple(value + shift for value in values)).save(stream, kind)
    return stream.getvalue()


def settings_for(folder: Path, **values: Any) -> Serve:
    """The section of a spec with the service's folder below ``folder``."""
    return Serve(folder=str(folder / "serve"), **values)


def make_resources(
    folder: Path, engine: StandInEngine, settings: Serve, *, names: tuple[str, ...] = ("colors",), filled: bool = True,
    report: Any = None,
) -> Resources:  # fmt: skip
    """Resources with galleries of the three colors, saved below ``folder``."""
    closed, engine.closed = engine.closed, False
    model = LoadedModel(
        engine, Preprocessing(VIEW, (0.5,) * 3, (0.5,) * 3), (), Path("standin.onnx"), network="standin"
    )
    batcher = Batcher(engine, wait_s=settings.wait_ms / 1000, limit=settings.queue, report=report)
    network = Network("standin.onnx", model, batcher)
    resources = Resources(networks={network.key: network})
    for name in names:
        recognizer = Recogniser(engine, VIEW, source="standin.onnx", network="standin")
        if filled:
            recognizer.enrol([picture(color) for color in COLORS], list(COLORS), [f"{color}.png" for color in COLORS])
        path = folder / f"{name}.gallery"
        recognizer.gallery.save(path)
        recognizer.gallery.reload()
        resources.galleries[name] = GalleryResource(name, str(path), network, recognizer)
    engine.closed, engine.calls = closed, []
    return resources


@functools.cache
def _empty_store() -> Path:
    """A store with its tables, made once."""
    folder = Path(tempfile.mkdtemp(prefix="unalike-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    open_store(None, folder).close()
    return folder


def store_in(folder: Path) -> Store:
    """The store of the service in ``folder``; a new one is a copy of an empty one."""
    own = folder / "serve"
    if not own.exists():
        shutil.copytree(_empty_store(), own)
    return open_store(None, own)


@asynccontextmanager
async def running(
    folder: Path, engine: StandInEngine | None = None, *, names: tuple[str, ...] = ("colors",), filled: bool = True,
    watches: dict[str, FileWatch] | None = None, **values: Any,
) -> AsyncIterator[SimpleNamespace]:  # fmt: skip
    """A started service: ``client`` (httpx), ``service``, ``engine``."""
    engine = engine or StandInEngine()
    settings = settings_for(folder, **values)
    resources = make_resources(folder, engine, settings, names=names, filled=filled)
    resources.watches.update(watches or {})
    service = Service(settings, resources, store=store_in(folder))
    transport = httpx.ASGITransport(app=create_app(service), raise_app_exceptions=False)
    await service.start()
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=PATIENCE_S) as client:
            yield SimpleNamespace(client=client, service=service, engine=engine)
    finally:
        engine.release(1000)
        await service.stop()


def run(coroutine: Awaitable[Any]) -> Any:
    """Run a test's coroutine to its end."""

    async def bounded() -> Any:
        async with asyncio.timeout(3 * PATIENCE_S):
            return await coroutine

    return asyncio.run(bounded())


def files(*contents: bytes, field: str = "image") -> list[tuple[str, tuple[str, bytes, str]]]:
    """Files of a multipart request: ``0.png``, ``1.png``, ..."""
    return [(field, (f"{number}.png", content, "image/png")) for number, content in enumerate(contents)]
