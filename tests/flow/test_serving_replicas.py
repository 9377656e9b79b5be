"""Two services over one PostgreSQL: what one enrolls the other sees, and both keep one record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx

from tests.support.postgres import new_database
from tests.support.serving import COLORS, VIEW, StandInEngine, files, make_resources, picture, run, settings_for, until
from unalike.recognition.backends.address import open_gallery, save_gallery
from unalike.recognition.recognizer import Recogniser
from unalike.serve.app import create_app
from unalike.serve.resources import GalleryResource
from unalike.serve.service import Service
from unalike.serve.store import open_store

COUNT = 30


@asynccontextmanager
async def replica(folder: Path, database: str, address: str) -> AsyncIterator[SimpleNamespace]:
    """A started service whose store and gallery are in the database, and whose images are in a shared folder."""
    engine, settings = StandInEngine(), settings_for(folder)
    resources = make_resources(folder, engine, settings, filled=False)
    network = resources.gallery().network
    recognizer = Recogniser(engine, VIEW, open_gallery(address), source="standin.onnx", network="standin")
    resources.galleries = {"colors": GalleryResource("colors", address, network, recognizer)}
    service = Service(settings, resources, store=open_store(database, folder / "serve", folder.parent / "images"))
    await service.start()
    transport = httpx.ASGITransport(app=create_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:
        yield SimpleNamespace(client=client, service=service)
    await service.stop()


def test_replicas_see_each_others_changes_and_decisions(tmp_path: Path) -> None:
    database = new_database()
    address = f"{database}{'&' if '?' in database else '?'}gallery=colors"
    first = Recogniser(StandInEngine(), VIEW, source="standin.onnx", network="standin")
    first.enrol([picture(color) for color in COLORS], list(COLORS))
    save_gallery(first.gallery, address)  # type: ignore[arg-type]
    for name in "ab":
        (tmp_path / name).mkdir()

    async def scenario() -> None:
        async with replica(tmp_path / "a", database, address) as a, replica(tmp_path / "b", database, address) as b:
            gold = files(picture((200, 180, 20)))
            calls = [
                (a, b)[n % 2].client.post("/v1/references", files=gold, data={"label": f"gold-{n % 3}"})
                for n in range(COUNT)
            ]
            responses = await asyncio.gather(*calls)
            assert {response.status_code for response in responses} == {201}
            ids = [response.json()["references"][0]["id"] for response in responses]
            assert len(set(ids)) == COUNT
            for it in (a, b):
                await until(lambda: len(it.service.resources.gallery().gallery) == COUNT + 3)  # noqa: B023
                counts = {
                    entry["label"]: entry["images"] for entry in (await it.client.get("/v1/classes")).json()["classes"]
                }
                assert counts == {"red": 1, "green": 1, "blue": 1, "gold-0": 10, "gold-1": 10, "gold-2": 10}
            answer = (await b.client.post("/v1/identify", files=gold)).json()["answers"][0]
            assert answer["label"].startswith("gold")
            record = (await a.client.get(f"/v1/decisions/{answer['id']}")).json()
            assert record["label"] == answer["label"]
            assert (await a.client.get(f"/v1/decisions/{answer['id']}/image")).status_code == 200
            await b.client.delete("/v1/classes?label=gold-1")
            await until(lambda: "gold-1" not in a.service.resources.gallery().gallery.counts())
            key = {"idempotency-key": "one"}
            both = await asyncio.gather(*(
                it.client.post("/v1/classes/rename", json={"label": "red", "new": "crimson"}, headers=key) for it in (a, b)
            ))  # fmt: skip
            assert sorted(response.status_code for response in both) in ([200, 200], [200, 409])

    run(scenario())
