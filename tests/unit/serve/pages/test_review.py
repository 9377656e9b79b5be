"""The page Review as the server renders it: a question and its buttons for each kind, names as text, and what a role may do."""

from __future__ import annotations

from pathlib import Path

from tests.support.reviewing import MIXED, YELLOW, identify, review, set_threshold
from tests.support.serving import run, running

MARKUP = "<img src=x onerror=alert(1)>\"'&"


def test_entries_are_shown_with_their_buttons_and_progress(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            await identify(it, *YELLOW, MIXED)
            document = await review(it)
            names = [decision["file"] for entry in document["entries"] for decision in entry["decisions"]]
            assert sorted(names) == ["0.png", "1.png", "2.png", "3.png"]
            text = (await it.client.get("/review")).text
            assert all(f'<small class="file">{name}</small>' in text for name in names)
            assert text.count("<article") == 2 and "3 unknown pictures that are alike" in text
            assert (
                "0 answered on this page within 24 hours, 2 open" in text
                and "Done looking: 3 of 3 references" in text
                and 'data-complete="yes"' in text
            )
            assert (
                text.count('type="checkbox" checked') == 3
                and 'data-act="name"' in text
                and 'data-act="confirm"' in text
            )
            part = (await it.client.get("/review/entries?kind=doubtful")).text
            assert part.count("<article") == 1 and "<html" not in part and "Ambiguous: " in part
            for query in ("?kind=x", "?other=1"):
                assert (await it.client.get(f"/review{query}")).status_code == 422
            assert (await it.client.get("/review?gallery=none")).status_code == 404

    run(scenario())


def test_names_are_text_and_readers_have_no_buttons(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            with it.service.resources.gallery().gallery.change() as gallery:
                gallery.rename("red", MARKUP)
                gallery.rename("blue", "photo\u202egnp.exe")
            it.service.resources.gallery().refresh()
            set_threshold(it)
            await identify(it, *YELLOW, MIXED)
            await review(it)
            key = {"x-api-key": it.service.store.keys.add("reader", "view")[1]}
            it.service.access.refresh()
            text = (await it.client.get("/review", headers=key)).text
            assert text.count("<article") == 2 and "data-act" not in text and 'type="checkbox"' not in text
            assert "<img src=x" not in text and "\u202e" not in text and "&lt;img src=x" in text

    run(scenario())


def test_nothing_to_look_at_is_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, filled=False) as it:
            await review(it)
            text = (await it.client.get("/review")).text
            assert "Done: nothing is left to look at." in text and "<article" not in text

    run(scenario())
