"""The pages of Inspect in a browser: pictures are inspected, the threshold is moved, regions are drawn, an inspector is fitted; all lasts."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.actions import GIVE, PATIENCE_MS, message, undo, until, upload, wait_for
from tests.browser.view import SHAPES, Visit
from tests.support.inspected_parts import fitted_inspector
from tests.support.inspection_service import part_picture
from tests.support.workbench import Workbench, workbench

HOSTILE_FILE = "<b onclick=alert(1)>\u202egnp.png"
PATH = "/v1/inspectors/part"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    folder = tmp_path_factory.mktemp("inspect")
    fitted_inspector().save(folder / "part.inspector")
    with workbench(folder, names=(), options=("--inspector", f"part={folder / 'part.inspector'}")) as running:
        yield running


def inspect(service: Workbench, seed: int, *, is_scratched: bool = False, name: str = "a.png") -> dict[str, Any]:
    """One answer of the API."""
    sent = {"image": (name, part_picture(seed, is_scratched=is_scratched), "image/png")}
    return dict(service.call("POST", f"{PATH}/inspect", files=sent)["answers"][0])


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_the_pages_are_shown_whole_and_follow_wcag(browser, service, width, scheme):
    inspect(service, 100, is_scratched=True, name=HOSTILE_FILE)
    inspect(service, 300)
    service.call("POST", f"{PATH}/ignored-regions", json={"boxes": [[2, 3, 20, 30]]})
    with Visit(browser, width, scheme) as visit:
        page = visit.page
        page.goto(f"{service.address}/inspect")
        page.wait_for_load_state("networkidle")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("h")
        page.locator("article:nth-child(2) .layer:not([hidden])").wait_for(timeout=PATIENCE_MS)
        page.locator("article:nth-child(2) summary").click()
        assert (
            "<b onclick" in page.locator("article:nth-child(2) .kind").inner_text()
            and page.locator("article b").count() == 0
        )
        assert not visit.faults(), "\n".join(visit.faults())
        for path in ("/inspect/settings", "/inspect/fit"):
            page.goto(service.address + path)
            page.wait_for_load_state("networkidle")
            assert not visit.faults(), "\n".join(visit.faults())
    service.call("POST", f"{PATH}/ignored-regions", json={"boxes": []})


def test_pictures_come_in_by_all_ways_and_a_reload_shows_their_answers(browser, service):
    with Visit(browser) as visit:
        page = visit.page
        page.goto(service.address)
        page.goto(f"{service.address}/inspect")
        upload(page, part_picture(100, is_scratched=True), part_picture(300))
        wait_for(page, 2)
        for count, kind in ((3, "drop"), (4, "paste")):
            page.evaluate(GIVE, [kind, "#drop", [base64.b64encode(part_picture(count + 400)).decode()]])
            wait_for(page, count)
        ids = page.eval_on_selector_all("article", "all => all.map(one => one.dataset.id)")
        assert set(ids) == {entry["id"] for entry in service.call("GET", "/v1/decisions?kind=inspect")["decisions"][:4]}
        assert min(page.locator("article h3").all_inner_texts()) == "Defective"
        page.reload()
        assert set(page.eval_on_selector_all("article", "all => all.map(one => one.dataset.id)")) == set(ids)
        defective = page.locator("article", has_text="Defective")
        assert defective.locator(".boxes rect").count() >= 1 and "region" in defective.inner_text()
        defective.get_by_role("button", name="Heat map").click()
        layer = defective.locator(".layer")
        layer.wait_for()
        assert layer.evaluate("one => one.naturalWidth") == 64
        defective.get_by_role("button", name="Heat map").click()
        assert layer.is_hidden() and page.locator("#pending li").count() == 0
        assert not visit.messages


def test_the_camera_takes_a_picture_and_a_file_that_is_none_is_named(browser, service):
    with Visit(browser, permissions=["camera"]) as visit:
        page = visit.page
        page.goto(f"{service.address}/inspect")
        page.keyboard.press("c")
        until(lambda: page.evaluate("document.getElementById('video').videoWidth > 0"), page)
        page.get_by_role("button", name="Take the picture").click()
        count = page.locator("article").count
        until(lambda: count() == 1 and "batch=" in page.url, page)
        assert page.locator("article .kind").inner_text() == "camera.jpg" and not visit.messages
        page.get_by_role("button", name="Close").first.click()
        page.set_input_files("#files", [{"name": HOSTILE_FILE, "mimeType": "image/png", "buffer": b"no picture"}])
        line = page.locator("#pending .bad")
        line.wait_for()
        assert "<b onclick=alert(1)>" in line.inner_text() and page.locator("#pending b").count() == 0
        line.get_by_role("button", name="Close").click()
        assert page.locator("#pending li").count() == 0
        assert all("422" in text for text in visit.messages)  # the browser's own line about the refused request


def test_answers_are_judged_by_keys_and_it_is_undone(browser, service):
    answer = inspect(service, 100, is_scratched=True)

    def verdicts() -> list[str]:
        return [entry["verdict"] for entry in service.call("GET", f"/v1/decisions/{answer['id']}")["feedback"]]

    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/inspect?decision={answer['id']}")
        page.keyboard.press("w")
        undo(page, "Noted: wrong")
        page.keyboard.press("y")
        message(page, "Noted: right")
        page.get_by_text("Right, says").wait_for()
        visit.restart(service)
        assert verdicts() == ["wrong", "withdrawn", "confirmed"]
        assert not visit.messages


def test_the_threshold_is_moved_over_the_scores_used_and_undone(browser, service):
    for seed in (100, 101):
        inspect(service, seed, is_scratched=True)
    good = inspect(service, 300)
    recent = service.call("GET", "/v1/decisions?kind=inspect&limit=1000")["decisions"]  # of other tests too
    fitted = service.call("GET", PATH)["fitted"]["threshold"]
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/inspect/settings")
        high = 1.01 * max(decision["score"] for decision in recent)
        page.locator("#threshold-number").fill(f"{high:.6g}")
        until(lambda: f"Above {high:.4g}: 0 of 24 good images" in page.locator("#distribution-text").inner_text(), page)
        assert page.locator(".flagged li").count() == 0
        slider = page.locator("#threshold-range")
        slider.focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        until(lambda: "24 of 24 good images" in page.locator("#distribution-text").inner_text(), page)
        until(lambda: page.locator(f".flagged a[href*='{good['id']}']").count() == 1, page)
        tried = float(page.locator("#threshold-number").input_value())
        page.get_by_role("button", name="Use this threshold").click()
        message(page, "The threshold is now")
        assert service.call("GET", PATH)["threshold"] == pytest.approx(tried, rel=1e-5)
        assert inspect(service, 300)["decision"] == "defective"
        page.reload()
        assert float(page.locator("#threshold-number").input_value()) == pytest.approx(tried, rel=1e-3)
        visit.restart(service)
        assert inspect(service, 300)["decision"] == "defective"
        page.goto(f"{service.address}/inspect/settings")
        page.get_by_role("button", name="Use that of the fit").click()
        undo(page, "The threshold of the fit is in use")
        assert service.call("GET", PATH)["threshold"] == pytest.approx(tried, rel=1e-5)
        page.get_by_role("button", name="Use that of the fit").click()
        message(page, "The threshold of the fit is in use")
        assert service.call("GET", PATH)["alarm"]["threshold"] == fitted
        assert not visit.messages


def test_regions_are_drawn_typed_and_removed_and_last(browser, service):
    before = inspect(service, 100, is_scratched=True)
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/inspect/settings")
        area = page.locator(".boxes.drawn")
        area.scroll_into_view_if_needed()
        box = area.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] - 1, steps=4)
        page.mouse.up()
        assert page.locator("#region-list li").count() == 1
        page.get_by_role("button", name="Add a region").click()
        second = page.get_by_role("group", name="Region 2")
        for side, value in (("left", "0"), ("top", "0"), ("right", "10"), ("bottom", "8")):
            second.get_by_label(side).fill(value)
        page.get_by_role("button", name="Use these regions").click()
        message(page, "2 regions are ignored")
        boxes = service.call("GET", PATH)["ignore_boxes"]
        assert boxes[1] == [0, 0, 10, 8] and boxes[0] == pytest.approx([32, 32, 64, 64], abs=1)
        visit.restart(service)
        assert inspect(service, 100, is_scratched=True)["score"] < before["score"]
        page.reload()
        assert page.locator("#region-list li").count() == 2 == page.locator(".boxes.drawn rect").count()
        page.get_by_role("button", name="Remove region 1").click()
        page.get_by_role("button", name="Use these regions").click()
        undo(page, "1 region is ignored")
        assert service.call("GET", PATH)["ignore_boxes"] == boxes and page.locator("#region-list li").count() == 2
        assert not visit.messages
    service.call("POST", f"{PATH}/ignored-regions", json={"boxes": []})


def test_an_inspector_is_fitted_inspects_lasts_and_is_removed(browser, service):
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/inspect/fit")
        upload(page, *(part_picture(seed) for seed in range(20)))
        assert page.locator("#chosen").inner_text() == "20 pictures chosen"
        page.get_by_label("Name", exact=True).fill("taught-here")
        page.get_by_role("button", name="Fit", exact=True).click()
        message(page, "taught-here is being fitted to 20 pictures")
        page.reload()  # the service goes on, and the page shows how far it is
        link = page.get_by_role("link", name="Inspect with it")
        link.wait_for(timeout=PATIENCE_MS)
        page.goto("about:blank")  # the page looks again for a while after a fit
        visit.restart(service)
        described = service.call("GET", "/v1/inspectors/taught-here")
        assert described["is_own"] and described["images"] == 20
        assert service.call("GET", "/v1/tasks?kind=inspector.fit")["tasks"][0]["state"] == "done"
        page.goto(f"{service.address}/inspect/fit")
        page.get_by_role("link", name="Inspect with it").click()
        page.locator("#inspect").wait_for()
        page.wait_for_load_state("networkidle")
        upload(page, part_picture(100, is_scratched=True))
        wait_for(page, 1)
        assert page.locator("article h3").inner_text() == "Defective"
        page.goto(f"{service.address}/inspect/fit")
        page.get_by_role("button", name="Remove taught-here").click()
        page.locator("#confirm-yes").click()
        undo(page, "taught-here is removed")
        service.call("GET", "/v1/inspectors/taught-here")
        page.get_by_role("button", name="Remove taught-here").click()
        page.locator("#confirm-yes").click()
        message(page, "taught-here is removed")
        visit.restart(service)
        names = [entry["inspector"] for entry in service.call("GET", "/v1/models")["inspectors"]]
        assert names == ["part"] and not visit.messages


def test_an_inspector_is_fitted_to_answers_that_people_called_good(browser, service):
    ids = [inspect(service, seed, name=f"good-{seed}.png")["id"] for seed in range(21)]
    for identifier in ids[:20]:
        decision = service.call("GET", f"/v1/decisions/{identifier}")["decision"]
        verdict = "confirmed" if decision == "good" else "wrong"
        service.call("POST", f"/v1/decisions/{identifier}/feedback", json={"verdict": verdict})
    with Visit(browser, 390) as visit:
        page = visit.page
        page.goto(f"{service.address}/inspect/fit")
        page.get_by_label("Name", exact=True).fill("from-answers")
        page.get_by_label("Answers that people called good").select_option("part")
        count = page.locator("#source-count")
        until(lambda: count.inner_text() == "20 pictures", page)
        page.get_by_label("Up to and with").fill("2020-01-01")
        page.get_by_label("Up to and with").blur()
        until(lambda: count.inner_text() == "0 pictures", page)
        assert not visit.faults(), "\n".join(visit.faults())
        page.get_by_role("button", name="Fit", exact=True).click()
        message(page, "0 good images: 19 too few")
        page.locator("#messages").get_by_role(
            "button", name="Close"
        ).click()  # on a phone it lies over the end of the form
        page.get_by_label("Up to and with").fill("")
        page.get_by_label("Up to and with").blur()
        until(lambda: count.inner_text() == "20 pictures", page)
        page.get_by_role("button", name="Fit", exact=True).click()
        message(page, "from-answers is being fitted to 20 pictures")
        page.locator("li", has_text="from-answers").get_by_role("link", name="Inspect with it").wait_for(
            timeout=PATIENCE_MS
        )
        assert all("422" in text for text in visit.messages)
    service.restart()
    assert service.call("GET", "/v1/inspectors/from-answers")["images"] == 20
    service.call("DELETE", "/v1/inspectors/from-answers")


def test_a_fit_is_canceled_and_one_that_cannot_be_says_why(browser, service):
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/inspect/fit")
        page.get_by_label("Name", exact=True).fill("another")
        page.get_by_role("button", name="Fit", exact=True).click()
        message(page, "Choose good pictures first")
        upload(page, *(part_picture(seed) for seed in range(5)))
        page.get_by_role("button", name="Fit", exact=True).click()
        message(page, "5 good images: 14 too few for 5 % false alarms")
        page.get_by_role("button", name="Choose anew").click()
        upload(page, *(part_picture(seed) for seed in range(20)))
        page.get_by_role("button", name="Fit", exact=True).click()
        page.get_by_role("button", name="Cancel the fit of another").click()
        message(page, "The fit is canceled")
        until(lambda: service.call("GET", "/v1/tasks?kind=inspector.fit")["tasks"][0]["state"] == "canceled", page)
        assert all("422" in text for text in visit.messages)  # the browser's own line about the refused request


def test_a_key_that_may_only_look_sees_answers_and_no_buttons_of_changes(browser, tmp_path):
    fitted_inspector().save(tmp_path / "part.inspector")
    options = ("--inspector", f"part={tmp_path / 'part.inspector'}")
    with workbench(tmp_path, with_key=True, names=(), options=options) as running:
        inspect(running, 300)
        from unalike.serve.store import open_store

        with open_store(None, tmp_path / "serve") as store:
            secret = store.keys.add("eye", "view")[1]
        with Visit(browser) as visit:
            page = visit.page
            page.goto(f"{running.address}/inspect")
            page.get_by_label("API key").fill(secret)
            page.keyboard.press("Enter")
            page.locator("article").wait_for(timeout=PATIENCE_MS)
            assert page.locator("article [data-act]").count() == 1  # the heat map
            for path in ("/inspect/settings", "/inspect/fit"):
                page.goto(running.address + path)
                assert page.locator("main [data-act]").count() == 0 and not visit.faults(), visit.faults()
