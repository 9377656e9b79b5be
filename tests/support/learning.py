"""A service's store with a gallery of colored pictures, and networks that tell colors well, badly or not at all."""

from __future__ import annotations

import asyncio
import functools
import io
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image
from torch import nn

from tests.support.serving import store_in
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.recognition.backends.address import save_gallery
from unalike.recognition.gallery import Gallery
from unalike.recognition.recognizer import Recogniser
from unalike.recognition.snapshot_view import SnapshotView
from unalike.serve.app import create_app
from unalike.serve.learning.gallery_models import LearningGallery
from unalike.serve.model_files import keep_model, relative_file
from unalike.serve.service import Service
from unalike.serve.sources import Sources
from unalike.serve.store import DecisionRecord, Feedback, Store, open_store
from unalike.serve.store.learning import ModelRecord
from unalike.serve.store.records import new_id, utc_now
from unalike.serve.store.references import reference_name
from unalike.spec.serve import Serve
from unalike.storage.digests import file_sha256

SIZE = (16, 16)
PREPROCESSING = Preprocessing(View(*SIZE, 1.0), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NAME = "colors"
# Tasks run at the lowest priority: on a busy machine one takes minutes.
TASK_PATIENCE_S = 300.0


class _Trunk(nn.Module):
    name = "colors"

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return images_BCHW.mean((2, 3))


class ColorEmbedder(nn.Module):
    """The mean color of an image through a matrix: identity tells colors, ``gray`` only how bright they are."""

    dim = 4

    def __init__(self, kind: str = "color") -> None:
        super().__init__()
        self.trunk, self.head = _Trunk(), nn.Linear(3, 4)
        weight, bias = torch.zeros(4, 3), torch.zeros(4)
        weight[:3] = {"color": torch.eye(3), "other": -2 * torch.eye(3), "gray": torch.full((3, 3), 0.2)}[kind]
        bias[3] = 0.2
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(images_BCHW))


@functools.cache
def network_bytes(kind: str) -> bytes:
    """The ONNX file of a ``ColorEmbedder``."""
    from unalike.deploy.onnx_export import build_facts, trace
    from unalike.model.checkpoint import network_key

    embedder = ColorEmbedder(kind)
    facts = build_facts(embedder, PREPROCESSING, metadata={"name": kind})
    if not facts.network:
        from dataclasses import replace

        facts = replace(facts, network=network_key(embedder, PREPROCESSING.mean, PREPROCESSING.std))
    proto = trace(embedder, SIZE, facts)
    content: bytes = proto.SerializeToString()
    return content


def hue_picture(number: int, shade: int = 0, side: int = 24) -> bytes:
    """A PNG of color ``number``, of equal brightness as the others; the shade makes its content another one."""
    angle = 2 * np.pi * number / 8
    wheel = np.array([np.cos(angle), np.cos(angle - 2.1), np.cos(angle + 2.1)])
    pixels = np.full((side, side, 3), 128 + 90 * wheel)
    pixels += np.random.default_rng([number, shade]).normal(0, 6, pixels.shape) + shade % 7
    stream = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@dataclass
class Scene:
    """A store, its gallery and where they are."""

    store: Store
    place: LearningGallery
    folder: Path

    def load(self) -> Gallery:
        """All that the gallery holds now, in memory."""
        with self.place.opened() as gallery, gallery.view() as view:
            return Gallery.of_state(SnapshotView(view.snapshot(), view.calibration, view.model_identity))

    def correct(
        self, number: int, shade: int, verdict: str = "wrong", label: str | None = None, days: float = 1.0
    ) -> str:
        """A decision on a new picture of a color, with what people said about it; its content hash."""
        sha = self.store.images.put(hue_picture(number, shade))
        record = DecisionRecord(
            "identify", NAME, "label", label=f"color {number}", image=sha, time=utc_now() + timedelta(days=days)
        )
        self.store.decisions.add([record])
        right = label or f"color {number}"
        remark = Feedback(verdict, None if verdict in ("confirmed", "unusable") else right)
        self.store.decisions.give_feedback(record.id, remark)
        return sha

    def add_candidate(self, kind: str, digests: frozenset[str] = frozenset()) -> ModelRecord:
        """A candidate of a made-up network that was trained on images of these digests."""
        model_id = new_id()
        file = self.folder / f"{kind}.candidate.onnx"
        file.write_bytes(network_bytes(kind))
        path = keep_model(self.store.folder, model_id, file, digests)
        network = Recogniser.load(path, runtime="onnxruntime").model_identity.network
        record = ModelRecord(
            NAME, kind, relative_file(self.store.folder, str(path)), file_sha256(path), network, id=model_id
        )
        self.store.learning.add_model(record)
        return record


def make_scene(
    folder: Path, *, kind: str = "gray", classes: int = 4, references: int = 3, calibrated: bool = False,
    address: str | None = None, store_url: str | None = None,
) -> Scene:  # fmt: skip
    """A gallery of so many colors, in a file or at an address, whose pictures are in the image store, served with a network of a kind."""
    store = store_in(folder) if store_url is None else open_store(store_url, folder / "serve")
    model = folder / "service.onnx"
    model.write_bytes(network_bytes(kind))
    recognizer = Recogniser.load(model, runtime="onnxruntime")
    for number in range(classes):
        contents = [hue_picture(number, 1000 + shade) for shade in range(references)]
        names = [reference_name(store.images.put(content), f"t{shade}") for shade, content in enumerate(contents)]
        recognizer.enrol(contents, f"color {number}", names)
    if calibrated:
        recognizer.set_threshold()
    gallery = recognizer.gallery
    assert isinstance(gallery, Gallery)
    address = address or str(folder / "colors.gallery")
    save_gallery(gallery, address)
    store.galleries.register({NAME: address})
    return Scene(store, LearningGallery(store, NAME, address, runtime="onnxruntime"), folder)


@asynccontextmanager
async def serving(scene: Scene, **values: Any) -> AsyncIterator[SimpleNamespace]:
    """A started service of a scene: ``client`` (httpx) and ``service``; tasks run in processes of their own."""
    settings = Serve(folder=str(scene.store.folder), runtime="onnxruntime", threads=1, **values)
    sources = Sources(galleries={NAME: scene.place.address}, folder=scene.store.folder)
    # One process opens a store once: closing SQLite's file beside SQLite would release its locks.
    service = Service(settings, sources=sources, store=scene.store)
    transport = httpx.ASGITransport(app=create_app(service), raise_app_exceptions=False)
    await service.start()
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:
            yield SimpleNamespace(client=client, service=service)
    finally:
        await service.stop()


async def finished(
    it: SimpleNamespace, answer: httpx.Response, state: str = "done", patience_s: float = TASK_PATIENCE_S
) -> dict[str, Any]:
    """The task of an answer when it is over, which it must be in a given state."""
    assert answer.status_code == 202, answer.text
    async with asyncio.timeout(patience_s):
        while True:
            task: dict[str, Any] = (await it.client.get(f"/v1/tasks/{answer.json()['id']}")).json()
            if task["state"] not in ("waiting", "running"):
                assert task["state"] == state, (task, it.service.learning.log(task["id"]))
                return task
            await asyncio.sleep(0.1)


def run_tasks(coroutine: Awaitable[Any]) -> Any:
    """Run a test's coroutine to its end; it waits for tasks at the lowest priority."""

    async def bounded() -> Any:
        async with asyncio.timeout(3 * TASK_PATIENCE_S):
            return await coroutine

    return asyncio.run(bounded())
