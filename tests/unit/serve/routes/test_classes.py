"""Classes: listed, renamed, merged, removed."""

from __future__ import annotations

import base64
import errno
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.serving import picture, run, running
from unalike.recognition import gallery_file
from unalike.recognition.gallery import Gallery
from unalike.serve.store import New


def test_classes_are_listed_by_name_in_pages(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            page = (await it.client.get("/v1/classes?limit=2")).json()
            assert (
                page["classes"] == [{"label": "blue", "images": 1}, {"label": "green", "images": 1}]
                and page["total"] == 3
            )
            rest = (await it.client.get(f"/v1/classes?after={page['next']}")).json()
            assert [entry["label"] for entry in rest["classes"]] == ["red"] and rest["next"] is None

    run(scenario())


def test_changes_are_in_the_file_when_they_are_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            resource = it.service.resources.gallery()

            def labels() -> set[str]:
                return set(Gallery.load(resource.address).counts())

            response = await it.client.post("/v1/classes/rename", json={"label": "red", "new": "crim/son"})
            assert response.json() == {"gallery": "colors", "label": "crim/son", "images": 1}
            assert labels() == {"crim/son", "green", "blue"}
            response = await it.client.post("/v1/classes/merge", json={"labels": ["green", "blue"], "into": "cold"})
            assert response.json()["images"] == 2 and labels() == {"crim/son", "cold"}
            response = await it.client.delete("/v1/classes", params={"label": "crim/son"})
            assert response.json()["images"] == 1 and labels() == {"cold"}

    run(scenario())


def test_classes_that_do_not_exist_or_are_taken_are_problems_and_change_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            for path, body in (
                ("rename", {"label": "red", "new": "blue"}), ("rename", {"label": "red"}),
                ("merge", {"labels": [], "into": "x"}), ("merge", {"labels": 5, "into": "x"}),
            ):  # fmt: skip
                response = await it.client.post(f"/v1/classes/{path}", json=body)
                assert response.status_code == 422, body
            for path, body in (
                ("rename", {"label": "rede", "new": "x"}), ("merge", {"labels": ["rede"], "into": "x"}),
                ("merge", {"labels": ["blue", "rede"], "into": "blue"}),
            ):  # fmt: skip
                response = await it.client.post(f"/v1/classes/{path}", json=body)
                assert response.status_code == 404 and response.json()["type"].endswith(":no-class"), body
                assert "red" in response.json()["remedy"]
            response = await it.client.delete("/v1/classes?label=rede")
            assert response.status_code == 404 and "red" in response.json()["remedy"]
            assert (await it.client.delete("/v1/classes")).status_code == 422
            assert set(it.service.resources.gallery().gallery.counts()) == {"red", "green", "blue"}

    run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "options", "classes"),
    [
        ("POST", "/v1/classes/rename", {"json": {"label": "red", "new": "crimson"}}, {"crimson", "green", "blue"}),
        ("POST", "/v1/classes/merge", {"json": {"labels": ["red", "green"], "into": "green"}}, {"green", "blue"}),
        ("DELETE", "/v1/classes", {"params": {"label": "red"}}, {"green", "blue"}),
        ("DELETE", "/v1/references/0", {}, {"green", "blue"}),
    ],
)
def test_after_a_kill_between_change_and_answer_the_repeated_request_succeeds(
    tmp_path: Path, method: str, path: str, options: dict[str, Any], classes: set[str]
) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            store, headers = it.service.store, {"idempotency-key": "k1"}
            complete = store.idempotency.complete
            store.idempotency.complete = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("killed"))
            assert (await it.client.request(method, path, headers=headers, **options)).status_code == 500
            store.idempotency.complete = complete
            # The claim of the killed process has ended, and this caller takes it over.
            store.idempotency.claim = lambda key, actor, digest: New(key, actor, "t", is_retry=True)
            assert (await it.client.request(method, path, headers=headers, **options)).status_code == 200
            assert set(it.service.resources.gallery().gallery.counts()) == classes

    run(scenario())


def test_a_name_is_the_same_class_however_its_accents_are_written(tmp_path: Path) -> None:
    name, decomposed = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")

    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = await it.client.post("/v1/classes/rename", json={"label": "red", "new": decomposed})
            assert response.json() == {"gallery": "colors", "label": name, "images": 1}
            response = await it.client.post(
                "/v1/classes/merge", json={"labels": [decomposed, "green"], "into": decomposed}
            )
            assert response.json()["label"] == name and response.json()["images"] == 1
            assert (await it.client.get("/v1/references", params={"label": decomposed})).status_code == 200
            assert (await it.client.delete("/v1/classes", params={"label": decomposed})).json()["images"] == 2

    run(scenario())


def test_a_class_of_a_folder_keeps_its_name_and_gets_pictures(tmp_path: Path) -> None:
    """Its name has an override of the direction of writing, which no new class may get."""

    async def scenario() -> None:
        async with running(tmp_path) as it:
            gallery = it.service.resources.gallery().gallery
            gallery.rename("red", "a\u202eb")
            gallery.save()
            body = {"image": base64.b64encode(picture("red")).decode(), "label": "a\u202eb"}
            assert (await it.client.post("/v1/references", json=body)).status_code == 201
            moved = await it.client.post("/v1/references/move", json={"ids": [1], "label": "a\u202eb"})
            assert moved.status_code == 200 and gallery.counts() == {"a\u202eb": 3, "blue": 1}

    run(scenario())


@pytest.mark.parametrize(
    "name", ["a\0b", "a\nb", "a\x1b[2J", "\ud800", "a\u202eb", "a\u2066b", "\u200b", "\u3164", "a\u2028b"]
)
def test_a_new_name_is_visible_text(tmp_path: Path, name: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            text = json.dumps(name)
            for path, body in (
                ("/v1/classes/rename", f'{{"label": "red", "new": {text}}}'),
                ("/v1/classes/merge", f'{{"labels": ["red"], "into": {text}}}'),
                ("/v1/references/move", f'{{"ids": [0], "label": {text}}}'),
                ("/v1/references", f'{{"image": "{base64.b64encode(picture("red")).decode()}", "label": {text}}}'),
            ):
                response = await it.client.post(path, content=body, headers={"content-type": "application/json"})
                said = response.json()["found"]
                assert response.status_code == 422 and ("U+" in said or "without a visible character" in said), path
            assert set(it.service.resources.gallery().gallery.counts()) == {"red", "green", "blue"}

    run(scenario())


def test_a_key_belongs_to_all_of_many_names(tmp_path: Path) -> None:
    """Also to those that the audit log leaves out."""

    async def scenario() -> None:
        async with running(tmp_path) as it:
            gallery, headers = it.service.resources.gallery().gallery, {"idempotency-key": "key"}
            names = [f"c{number:03d}" for number in range(121)]
            gallery.enrol(np.eye(3)[[0] * len(names)], names)
            gallery.save()
            first = {"labels": names[:120], "into": "all"}
            assert (await it.client.post("/v1/classes/merge", json=first, headers=headers)).json()["images"] == 120
            other = {"labels": [*names[:119], names[120]], "into": "all"}
            response = await it.client.post("/v1/classes/merge", json=other, headers=headers)
            assert response.status_code == 422 and response.json()["type"].endswith("key-conflict")
            details = it.service.store.audit.find().items[0].details
            assert details["labels"][-1] == "and 20 more"

    run(scenario())


def test_classes_are_searched_by_a_part_of_their_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            page = (await it.client.get("/v1/classes", params={"search": "RE", "limit": 1})).json()
            assert [entry["label"] for entry in page["classes"]] == ["green"] and page["total"] == 2
            page = (await it.client.get("/v1/classes", params={"search": "re", "after": page["next"]})).json()
            assert [entry["label"] for entry in page["classes"]] == ["red"] and page["next"] is None
            assert (await it.client.get("/v1/classes", params={"search": "%"})).json()["total"] == 0

    run(scenario())


def test_a_gallery_that_cannot_be_read_or_written_is_no_mistake_of_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            resource = it.service.resources.gallery()
            file = Path(resource.address)
            body = {"label": "red", "new": "crimson"}
            file.rename(tmp_path / "away")
            response = await it.client.post("/v1/classes/rename", json=body)
            assert response.status_code == 503 and response.json()["type"].endswith(":gallery-unavailable")
            assert int(response.headers["retry-after"]) > 0 and str(tmp_path) not in response.text
            (tmp_path / "away").rename(file)

            def append(*_: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device", str(file))

            with monkeypatch.context() as patch:
                patch.setattr(gallery_file, "append_record", append)
                response = await it.client.post("/v1/classes/rename", json=body)
            assert response.status_code == 507 and response.json()["type"].endswith(":no-space")
            assert str(tmp_path) not in response.text and set(resource.gallery.counts()) == {"red", "green", "blue"}
            assert (await it.client.post("/v1/classes/rename", json=body)).status_code == 200

    run(scenario())
