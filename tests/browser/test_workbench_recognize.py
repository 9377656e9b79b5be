"""The page Recognize in a browser: pictures come in by four ways, are judged by one key each, and nothing is lost by a reload."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.actions import GIVE, PATIENCE_MS, message, until, upload, wait_for
from tests.browser.view import SHAPES, Visit
from tests.support.workbench import BIDI, MARKUP, NAMES, Workbench, mark_picture, noise_picture, workbench

HOSTILE_FILE = "<b onclick=alert(1)>\u202egnp.png"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    with workbench(tmp_path_factory.mktemp("recognize")) as running:
        yield running


def clear(page: Any) -> None:
    """Close all messages, so that the next one is a new one."""
    page.evaluate("document.getElementById('messages').replaceChildren()")


def decisions(service: Workbench) -> list[dict[str, Any]]:
    return list(service.call("GET", "/v1/decisions")["decisions"])


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_the_page_is_shown_whole_and_follows_wcag_with_its_dialogs_open(browser, service, width, scheme):
    for number in range(len(NAMES)):
        service.call("POST", "/v1/identify", files={"image": (HOSTILE_FILE, mark_picture(number, 3), "image/png")})
    service.call(
        "POST", f"/v1/decisions/{decisions(service)[0]['id']}/feedback", json={"verdict": "wrong", "label": MARKUP}
    )
    with Visit(browser, width, scheme) as visit:
        page = visit.page
        page.goto(service.address)
        page.wait_for_load_state("networkidle")
        assert page.url.endswith("/recognize") and page.locator("article").count() >= len(NAMES)
        assert not visit.faults(), "\n".join(visit.faults())
        page.keyboard.press("?")
        assert page.get_by_role("dialog", name="Shortcuts of this page").is_visible()
        assert not visit.faults(), "\n".join(visit.faults())
        page.keyboard.press("Escape")
        page.keyboard.press("h")
        page.locator(".heat img").first.wait_for(timeout=PATIENCE_MS)
        page.keyboard.press("w")
        page.locator("#choices [role=option]").first.wait_for()
        page.keyboard.type("no such class")
        page.locator("#choice-new").wait_for()
        assert not visit.faults(), "\n".join(visit.faults())


def test_pictures_are_dropped_pasted_and_chosen_and_a_reload_shows_their_answers(browser, service):
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/recognize")
        upload(page, *(mark_picture(number, 5) for number in range(4)), mark_picture(0, -5))
        wait_for(page, 5)
        for count, kind in ((7, "drop"), (9, "paste")):
            contents = [base64.b64encode(mark_picture(number, 6)).decode() for number in range(2)]
            page.evaluate(GIVE, [kind, "#drop", contents])
            wait_for(page, count)
        assert "batch=" in page.url and page.locator("#pending li").count() == 0
        ids = set(page.eval_on_selector_all("article", "all => all.map(one => one.dataset.id)"))
        assert ids == {entry["id"] for entry in decisions(service)[:9]}
        page.reload()
        assert set(page.eval_on_selector_all("article", "all => all.map(one => one.dataset.id)")) == ids
        headlines = set(page.locator("article h3").all_inner_texts())
        assert headlines <= {name.replace("\u202e", "\\u202e") for name in NAMES} and len(headlines) >= 2
        assert not visit.messages


def test_the_name_of_its_file_stands_beside_each_answer_also_after_a_reload(browser, service):
    shown = HOSTILE_FILE.replace("\u202e", "\\u202e")
    with Visit(browser, 390) as visit:
        page = visit.page
        page.goto(f"{service.address}/recognize")
        upload(page, mark_picture(0, 1), name=HOSTILE_FILE)
        wait_for(page, 1)
        for count, kind in ((2, "drop"), (3, "paste")):
            page.evaluate(GIVE, [kind, "#drop", [base64.b64encode(mark_picture(1, count)).decode()]])
            wait_for(page, count)
        expected = {shown, "drop-0.png", "paste-0.png"}
        assert set(page.locator("article .file").all_inner_texts()) == expected
        page.reload()
        assert set(page.locator("article .file").all_inner_texts()) == expected
        assert not visit.faults(), "\n".join(visit.faults())
    assert {entry["file"] for entry in decisions(service)[:3]} == expected


def test_a_file_that_is_no_picture_is_named_with_what_to_do_and_the_others_go_on(browser, service):
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/recognize")
        upload(page, b"no picture", name=HOSTILE_FILE)
        upload(page, mark_picture(1))
        wait_for(page, 1)
        line = page.locator("#pending .bad")
        line.wait_for()
        assert (
            line.inner_text().startswith("<b onclick=alert(1)>\\u202egnp.png: not an image of a known format")
            and page.locator("#pending b").count() == 0
        )
        line.get_by_role("button", name="Close").click()
        upload(page, b"", name="0.png")
        line.wait_for()
        assert line.inner_text().startswith("0.png: an empty file")
        line.get_by_role("button", name="Close").click()
        assert page.locator("#pending li").count() == 0
        assert all("422" in text for text in visit.messages)  # the browser's own line about the refused request


def test_answers_are_judged_by_keys_and_corrected_pictures_become_references(browser, service):
    counts = service.counts()
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/recognize")
        upload(page, *(mark_picture(number, 12) for number in range(4)))
        wait_for(page, 4)
        ids = page.eval_on_selector_all("article", "all => all.map(one => one.dataset.id)")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("y")
        message(page, "Noted: right")
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.dataset.id") == ids[1]
        page.keyboard.press("w")  # the class is found by a part of its name
        page.keyboard.type("PHOTO")
        page.locator("#choice-1").wait_for()
        page.keyboard.press("Enter")
        message(page, "is now a reference of")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("n")
        page.keyboard.type("a new one")
        page.keyboard.press("Enter")
        message(page, "is now a reference of a new one")
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.dataset.id") == ids[3]
        page.keyboard.press("u")
        message(page, "Noted: unusable")
        assert not visit.messages
    service.restart()
    expected = [("confirmed", None), ("wrong", BIDI), ("new class", "a new one"), ("unusable", None)]
    feedback = [service.call("GET", f"/v1/decisions/{identifier}")["feedback"][-1] for identifier in ids]
    assert [(remark["verdict"], remark["label"]) for remark in feedback] == expected
    assert service.counts() == {**counts, BIDI: counts[BIDI] + 1, "a new one": 1}
    with Visit(browser) as visit:
        visit.page.goto(f"{service.address}/recognize?decision={ids[2]}")
        assert "New class: a new one" in visit.page.locator(".said").inner_text()


def test_a_correction_is_undone_by_its_button_and_by_its_key(browser, service):
    counts = service.counts()
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/recognize")
        upload(page, noise_picture(3))
        wait_for(page, 1)
        identifier = page.locator("article").get_attribute("data-id")
        path = f"/v1/decisions/{identifier}"
        for way in ("button", "key"):
            page.keyboard.press("w")
            page.keyboard.type("anchor")
            page.locator("#choice-1[data-label=anchor]").wait_for()
            page.keyboard.press("Enter")
            place = message(page, "is now a reference of anchor")
            assert service.counts()["anchor"] == counts["anchor"] + 1
            if way == "button":
                place.get_by_role("button", name="Undo").click()
            else:
                page.keyboard.press("z")
            message(page, "Undone")
            assert service.counts() == counts
            assert service.call("GET", path)["feedback"][-1]["verdict"] == "withdrawn"
            page.locator("article[data-verdict='']").wait_for()
            clear(page)
        # What is undone after an earlier verdict leaves that one.
        page.keyboard.press("y")
        message(page, "Noted: right")
        page.keyboard.press("u")
        message(page, "Noted: unusable")
        page.keyboard.press("z")
        message(page, "Undone")
        page.locator("article[data-verdict=confirmed]").wait_for()
        assert service.call("GET", path)["feedback"][-1]["verdict"] == "confirmed"
        assert not visit.messages


def test_doubtful_answers_come_first_and_stay_so_after_a_reload(browser, service):
    with Visit(browser, 390) as visit:
        page = visit.page
        page.goto(f"{service.address}/recognize")
        upload(page, *(mark_picture(number, 4) for number in range(4)), noise_picture(7))
        wait_for(page, 5)
        until(lambda: page.locator("#count").inner_text().startswith("5 pictures: "), page)
        times = page.eval_on_selector_all("article", "all => all.map(one => one.dataset.time)")
        page.get_by_role("button", name="Doubtful first").click()

        def ranks() -> list[int]:
            states = page.eval_on_selector_all("article", "all => all.map(one => one.dataset.state)")
            return [{"doubtful": 0, "unknown": 1}.get(state, 2) for state in states]

        assert ranks() == sorted(ranks()) and "order=doubtful" in page.url
        page.reload()
        assert ranks() == sorted(ranks()) and page.locator("#doubtful-first").get_attribute("aria-pressed") == "true"
        assert not visit.faults(), "\n".join(visit.faults())
        page.get_by_role("button", name="Doubtful first").click()
        assert page.eval_on_selector_all("article", "all => all.map(one => one.dataset.time)") == sorted(times)[::-1]
        first = page.locator("article").first
        runner_up = first.get_attribute("data-runner-up")
        first.get_by_role("button", name="Wrong").click()
        page.locator("#choice-1").wait_for()
        assert page.locator("#choice-1").get_attribute("data-label") == runner_up
        page.keyboard.press("Enter")
        message(page, "is now a reference of")
        page.locator("article.state-corrected").wait_for()
        until(lambda: "1 corrected" in page.locator("#count").inner_text(), page)
        assert "Corrected by" in page.locator("article.state-corrected").inner_text()


def test_an_empty_gallery_leads_to_the_first_class(browser, tmp_path):
    with workbench(tmp_path, names=()) as service, Visit(browser, 390) as visit:
        page = visit.page
        page.goto(f"{service.address}/recognize")
        assert "by comparing it with example pictures of your classes" in page.locator(".first-step").inner_text()
        assert not visit.faults(), "\n".join(visit.faults())
        page.get_by_role("link", name="New class").click()
        page.locator("#name-dialog[open]").wait_for()
        page.locator("#name-text").fill("   ")
        page.keyboard.press("Enter")
        assert page.locator("#name-text").evaluate("field => field.validationMessage") == "Give a name"
        page.keyboard.press("Escape")
        page.get_by_role("link", name="New class").click()
        page.locator("#name-dialog[open]").wait_for()
        page.locator("#name-text").fill("anchor")
        page.keyboard.press("Enter")
        page.wait_for_url("**/classes/view?*label=anchor*")
        assert not visit.messages


def test_two_browsers_see_the_same_answers_and_verdicts(browser, service):
    with Visit(browser) as first, Visit(browser, 390, "dark") as second:
        first.page.goto(f"{service.address}/recognize")
        upload(first.page, mark_picture(2, 2))
        wait_for(first.page, 1)
        second.page.goto(first.page.url)
        second.page.get_by_role("button", name="Right").click()
        message(second.page, "Noted: right")
        first.page.reload()
        assert "Right, says" in first.page.locator(".said").inner_text()


def test_the_camera_takes_a_picture(browser, service):
    with Visit(browser, permissions=["camera"]) as visit:
        page = visit.page
        page.goto(f"{service.address}/recognize")
        page.keyboard.press("c")
        until(lambda: page.evaluate("document.getElementById('video').videoWidth > 0"), page)
        assert not visit.faults(), "\n".join(visit.faults())
        page.get_by_role("button", name="Take the picture").click()
        wait_for(page, 1)
        page.get_by_role("button", name="Close").first.click()
        until(lambda: page.evaluate("document.getElementById('video').srcObject === null"), page)


def test_without_a_camera_api_the_phones_own_camera_is_offered(browser, service):
    with Visit(browser, 390) as visit:
        visit.page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
        visit.page.goto(f"{service.address}/recognize")
        assert visit.page.locator("label", has_text="Take a picture").is_visible()
        assert not visit.page.get_by_role("button", name="Use the camera").is_visible()
        capture = {"name": "c.png", "mimeType": "image/png", "buffer": mark_picture(0)}
        visit.page.set_input_files("#capture", [capture])
        wait_for(visit.page, 1)
        assert not visit.faults(), "\n".join(visit.faults())


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_signing_in_with_a_key_and_out_again(browser, tmp_path, width, scheme):
    with workbench(tmp_path, with_key=True, names=("anchor",)) as service, Visit(browser, width, scheme) as visit:
        page = visit.page
        page.goto(f"{service.address}/recognize?gallery=marks")
        assert "/sign-in" in page.url
        assert not visit.faults(), "\n".join(visit.faults())
        page.get_by_label("API key").fill("unalike_wrong")
        page.keyboard.press("Enter")
        page.locator("#sign-in-problem", has_text="not valid").wait_for()
        visit.messages.clear()  # the browser's own line about the 401
        page.get_by_label("API key").fill(service.secret)
        page.keyboard.press("Enter")
        page.wait_for_url("**/recognize?gallery=marks")
        assert page.evaluate("document.cookie") == "", "no script can read the session"
        upload(page, mark_picture(0))
        wait_for(page, 1)
        page.keyboard.press("y")
        message(page, "Noted: right")
        assert decisions(service)[0]["actor"] == "chief"
        visit.restart(service)
        page.reload()
        assert page.locator("article").count() == 1, "the session outlives the server"
        assert not visit.faults(), "\n".join(visit.faults())
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/sign-in")
        page.goto(f"{service.address}/recognize")
        assert "/sign-in" in page.url


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_an_error_is_a_page(browser, service, width, scheme):
    with Visit(browser, width, scheme) as visit:
        visit.page.goto(f"{service.address}/<img src=x onerror=alert(1)>")
        assert visit.page.get_by_role("heading", name="This page does not exist").is_visible()
        visit.messages = [text for text in visit.messages if "404" not in text]  # the browser's own line
        assert not visit.faults(), "\n".join(visit.faults())


def test_files_of_a_stylesheet_or_script_come_from_this_service_alone(browser, service):
    with Visit(browser) as visit:
        addresses: list[str] = []
        visit.page.on("request", lambda request: addresses.append(request.url))
        visit.page.goto(f"{service.address}/recognize")
        visit.page.wait_for_load_state("networkidle")
        assert addresses and all(address.startswith((service.address, "blob:", "data:")) for address in addresses)


def test_the_service_writes_no_traceback(service):
    assert "Traceback" not in (Path(service.folder) / "log.txt").read_text()
