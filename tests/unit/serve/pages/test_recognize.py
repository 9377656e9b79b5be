"""The page Recognize as the server renders it: by batch, by decision, by page, after feedback; hostile names as text."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

from tests.support.serving import files, picture, run, running
from unalike.serve.pages.answer_list import PAGE_SIZE
from unalike.serve.pages.batch import new_batch
from unalike.serve.pages.recognize import MAX_CHOICES

MARKUP = "<img src=x onerror=alert(1)>\"'&"


async def identify(it: Any, color: Any = "red", batch: str = "") -> str:
    headers = {"x-request-id": batch} if batch else {}
    response = await it.client.post("/v1/identify", files=files(picture(color)), headers=headers)
    return str(response.json()["answers"][0]["id"])


def test_the_page_shows_the_answers_of_its_batch_or_the_latest(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            batch = new_batch()
            own, other = await identify(it, "red", batch), await identify(it, "blue")
            text = (await it.client.get("/recognize")).text
            assert own in text and other in text and text.index(other) < text.index(own)
            text = (await it.client.get("/recognize", params={"gallery": "colors", "batch": batch})).text
            assert own in text and other not in text and f'data-batch="{batch}"' in text
            assert (
                text.count("Not calibrated: no threshold is set") == 1
                and "Set a threshold on the page Classes" in text
                and "1.000" in text
            )
            text = (await it.client.get("/recognize", params={"decision": other})).text
            assert other in text and own not in text
            assert (await it.client.get("/recognize/answer", params={"id": own})).text.count("<article") == 1
            assert (await it.client.get("/recognize/answer", params={"id": "none"})).status_code == 404

    run(scenario())


def test_the_name_of_the_file_stands_beside_the_answer_as_text(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            upload = {"content": b64encode(picture()).decode(), "name": f"C:\\Ann\\{MARKUP}\u202e.png"}
            identifier = (await it.client.post("/v1/identify", json={"image": upload})).json()["answers"][0]["id"]
            raw = {"content": picture(), "headers": {"content-type": "image/png"}}
            nameless = (await it.client.post("/v1/identify", **raw)).json()["answers"][0]["id"]
            name = '<p class="small file">&lt;img src=x onerror=alert(1)&gt;&#34;&#39;&amp;\\u202e.png</p>'
            for path in ("/recognize", f"/recognize?decision={identifier}", f"/recognize/answer?id={identifier}"):
                text = (await it.client.get(path)).text
                assert name in text and "Ann" not in text and "<img src=x" not in text, path
            assert "small file" not in (await it.client.get(f"/recognize/answer?id={nameless}")).text

    run(scenario())


def test_answers_of_other_galleries_stand_on_their_own_pages(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, names=("colors", "others")) as it:
            identifier = await identify(it)
            assert identifier not in (await it.client.get("/recognize?gallery=others")).text
            for path in ("/recognize/answer?gallery=others&id=", "/recognize?gallery=others&decision="):
                assert (await it.client.get(path + identifier)).status_code == 404

    run(scenario())


def test_older_answers_are_a_page_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            ids = [await identify(it) for _ in range(PAGE_SIZE + 1)]
            text = (await it.client.get("/recognize")).text
            assert text.count("<article") == PAGE_SIZE and ids[0] not in text
            assert f"after={ids[1]}" in text
            text = (await it.client.get("/recognize/answers", params={"after": ids[1]})).text
            assert text.count("<article") == 1 and ids[0] in text and "<html" not in text
            assert (await it.client.get("/recognize?after=x")).status_code == 422

    run(scenario())


def test_feedback_is_shown_until_it_is_withdrawn(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            identifier = await identify(it)
            path, page = f"/v1/decisions/{identifier}/feedback", f"/recognize/answer?id={identifier}"
            await it.client.post(path, json={"verdict": "wrong", "label": MARKUP})
            text = (await it.client.get(page)).text
            assert (
                'data-verdict="wrong"' in text
                and "Corrected by anonymous; the answer was red." in text
                and "Wrong: &lt;img src=x" in text
                and "<img src=x" not in text
            )
            await it.client.post(path, json={"verdict": "withdrawn"})
            text = (await it.client.get(page)).text
            assert 'data-verdict=""' in text and "says anonymous" not in text

    run(scenario())


def test_classes_are_chosen_by_a_part_of_their_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            rename = {"label": "blue", "new": MARKUP}
            await it.client.post("/v1/classes/rename", json=rename)
            labels = [f"red {number:02}" for number in range(MAX_CHOICES + 5)]
            import base64

            images = [base64.b64encode(picture((9, 9, number))).decode() for number in range(len(labels))]
            assert (await it.client.post("/v1/references", json={"image": images, "labels": labels})).status_code == 201
            text = (await it.client.get("/recognize/choices", params={"search": " RED"})).text
            assert text.count('data-kind="old"') == MAX_CHOICES and "and 6 more" in text
            assert text.index('data-label="red"') < text.index('data-label="red 00"')
            assert 'data-label="RED" data-kind="new"' in text
            assert 'data-kind="new"' not in (await it.client.get("/recognize/choices", params={"search": "red"})).text
            text = (await it.client.get("/recognize/choices", params={"search": "<IMG"})).text
            assert "<img" not in text and "&lt;img src=x onerror=alert(1)&gt;&#34;&#39;&amp;" in text
        async with running(tmp_path / "empty", filled=False) as it:
            assert "no classes yet" in (await it.client.get("/recognize/choices")).text

    run(scenario())


def test_doubtful_answers_come_first_where_the_address_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            doubtful, clear = await identify(it, (128, 128, 0)), await identify(it, "red")
            text = (await it.client.get("/recognize")).text
            assert "2 pictures: 1 not calibrated, 1 doubtful</span>" in text and text.index(clear) < text.index(
                doubtful
            )
            text = (await it.client.get("/recognize?order=doubtful")).text
            assert text.index(doubtful) < text.index(clear) and 'aria-pressed="true">Doubtful first' in text
            assert (await it.client.get("/recognize?order=x")).status_code == 422

    run(scenario())


def test_the_likely_class_is_offered_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            text = (await it.client.get("/recognize/choices", params={"first": "green"})).text
            labels = [text.index(f'data-label="{label}"') for label in ("green", "blue", "red")]
            assert labels == sorted(labels)
            text = (await it.client.get("/recognize/choices", params={"first": "green", "search": "b"})).text
            assert "green" not in text

    run(scenario())


def test_an_empty_gallery_says_what_the_product_does_and_the_first_step(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, filled=False) as it:
            for path in ("/recognize", "/classes"):
                text = (await it.client.get(path)).text
                assert (
                    "comparing it with example pictures" in text and 'href="/classes?gallery=colors#new-class"' in text
                ), path
                assert 'href="/classes/import?gallery=colors"' in text and "No answers yet" not in text, path
                assert "Not calibrated" not in text, path
        async with running(tmp_path / "filled") as it:
            for path in ("/recognize", "/classes"):
                assert "example pictures" not in (await it.client.get(path)).text, path

    run(scenario())


def test_pictures_that_were_not_kept_are_said_to_be(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, keep_images=False) as it:
            identifier = await identify(it)
            text = (await it.client.get("/recognize")).text
            assert (
                "keeps no pictures" in text and "The picture was not kept" in text and f"{identifier}/image" not in text
            )
            assert 'data-has-image="no"' in text and 'data-act="heat"' not in text

    run(scenario())
