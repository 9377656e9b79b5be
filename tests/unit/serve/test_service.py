"""What endpoints share."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.support.serving import files, picture, run, running, until
from unalike.errors import DataError
from unalike.recognition.gallery import Gallery
from unalike.serve.file_watch import FileWatch, read_status
from unalike.serve.service import REFRESH_S, display_name, json_response
from unalike.serve.store.purge import Retention
from unalike.storage.digests import content_sha256


def test_a_change_of_another_process_is_seen_without_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            resource = it.service.resources.gallery()
            with Gallery.edit(resource.address) as other:
                other.rename("red", "crimson")
            await until(lambda: "crimson" in resource.gallery.classes)
            assert set(resource.gallery.classes) == {"crimson", "green", "blue"}

    run(scenario())


def test_a_gallery_that_cannot_be_read_leaves_the_old_state_in_use(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            resource = it.service.resources.gallery()
            Path(resource.address).write_bytes(b"damaged")
            await asyncio.sleep(0.4)
            assert len(resource.gallery) == 3
            assert not any(task.done() for task in it.service._tasks)

    run(scenario())


def test_a_gallery_that_cannot_be_read_delays_no_other_and_is_reported_once(tmp_path: Path, caplog: Any) -> None:
    async def scenario() -> None:
        async with running(tmp_path, names=("broken", "good")) as it:
            resource = it.service.resources.gallery("good")
            Path(it.service.resources.gallery("broken").address).write_bytes(b"damaged")
            await until(lambda: "gallery broken cannot be read" in caplog.text)
            with Gallery.edit(resource.address) as other:
                other.rename("red", "crimson")
            await until(lambda: "crimson" in resource.gallery.classes)
            await asyncio.sleep(11 * REFRESH_S)
            assert caplog.text.count("gallery broken cannot be read") == 1 and "Traceback" not in caplog.text

    run(scenario())


def test_a_file_that_changes_is_loaded_again_while_the_service_runs(tmp_path: Path, caplog: Any) -> None:
    async def scenario() -> None:
        reloads = []

        async def reload() -> None:
            reloads.append(path.read_bytes())
            if path.read_bytes() == b"damaged":
                raise DataError("damaged")

        path = tmp_path / "part.inspector"
        path.write_bytes(b"old")
        watch = FileWatch(str(path), read_status(str(path)), reload)
        async with running(tmp_path, watches={"inspector part": watch}):
            path.write_bytes(b"newer")
            await until(lambda: reloads == [b"newer"])
            path.write_bytes(b"damaged")
            await until(lambda: "former one stays in service" in caplog.text)

    caplog.set_level(logging.INFO)
    run(scenario())
    assert "the inspector part changed, and was loaded again" in caplog.text


def test_what_is_past_its_retention_is_removed_and_references_keep_their_pictures(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            await it.client.post("/v1/references", files=files(picture("red")), data={"label": "red"})
            await it.client.post("/v1/identify", files=files(picture("blue")))
            images = it.service.store.images
            assert len(list(images.hashes())) == 2
            await asyncio.to_thread(it.service.purge, Retention(timedelta(0), timedelta(0)))
            assert list(images.hashes()) == [content_sha256(picture("red"))]
            assert not it.service.store.decisions.count()

    run(scenario())


def test_bodies_that_come_too_slowly_or_too_many_at_once_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, deadline=0.2, queue=1) as it:
            gone = asyncio.Event()

            async def slow() -> AsyncIterator[bytes]:
                yield picture("red")[:10]
                await gone.wait()

            def request() -> Any:
                return it.client.post("/v1/identify", content=slow(), headers={"content-type": "image/png"})

            first = asyncio.create_task(request())
            await until(lambda: it.service._reading == 1)
            assert (await request()).status_code == 503
            assert (await first).status_code == 504
            assert it.service._reading == 0

    run(scenario())


def test_json_is_ascii_and_hides_secrets_of_addresses() -> None:
    body = json_response({"path": "s3://key:secret@bucket/ü.png", "b": [1.5]}).body
    assert b"secret" not in body and json.loads(body)["b"] == [1.5] and body.isascii()


def test_names_of_clients_are_one_line_and_short() -> None:
    assert display_name("a\nb\x1b") == "a\\nb\\x1b" and len(display_name("x" * 1000)) == 300
