"""The page Compare in a browser: a pair is compared, looked at over and beside each other; regions are drawn and kept; all lasts."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.actions import GIVE, PATIENCE_MS, message, undo, until
from tests.browser.view import SHAPES, Visit
from tests.support.inspected_parts import fitted_inspector
from tests.support.workbench import Workbench, workbench
from tests.unit.serve.routes.test_comparison import drawing

HOSTILE_FILE = "<b onclick=alert(1)>\u202egnp.png"
MARKUP = "<img src=x onerror=alert(1)>\"'&"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    with workbench(tmp_path_factory.mktemp("compare"), names=()) as running:
        yield running


def choose(page: Any, field: str, content: bytes, name: str = "") -> None:
    page.set_input_files(
        f"#file-{field}", [{"name": name or f"{field}.png", "mimeType": "image/png", "buffer": content}]
    )
    page.locator(f"#slot-{field} .preview").wait_for()


def compare(page: Any) -> None:
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator("#overlay:not([hidden])").wait_for(timeout=PATIENCE_MS)


def latest(service: Workbench) -> dict[str, Any]:
    return dict(service.call("GET", "/v1/decisions?kind=compare")["decisions"][0])


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_the_page_is_shown_whole_and_follows_wcag(browser, service, width, scheme):
    service.call("POST", "/v1/region-sets", json={"name": MARKUP, "frame": [120, 160], "boxes": [[1, 1, 20, 20]]})
    with Visit(browser, width, scheme) as visit:
        page = visit.page
        page.goto(f"{service.address}/compare")
        page.wait_for_load_state("networkidle")
        assert not visit.faults(), "\n".join(visit.faults())
        choose(page, "reference", drawing(), HOSTILE_FILE)
        choose(page, "image", drawing(altered=True), HOSTILE_FILE)
        compare(page)
        for summary in page.locator("summary").all():
            summary.click()
        page.get_by_role("button", name="Take").click()
        message(page, "1 region taken")
        assert "<b onclick" in page.locator(".comparison .kind").inner_text() and page.locator("#answer b").count() == 0
        assert not visit.faults(), "\n".join(visit.faults())
        page.keyboard.press("s")
        page.locator("#side:not([hidden])").wait_for()
        assert not visit.faults(), "\n".join(visit.faults())


def test_a_pair_is_compared_and_a_reload_shows_it_with_its_pictures(browser, service):
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/compare")
        choose(page, "reference", drawing())
        choose(page, "image", drawing(altered=True))
        compare(page)
        record = latest(service)
        assert record["decision"] == "different" and page.locator("#verdict-title").inner_text() == "Different"
        for _ in range(2):
            assert f"decision={record['id']}" in page.url and page.locator("#overlay .boxes rect").count() == 1
            assert page.locator("#overlay .of-image").evaluate("one => one.naturalWidth") == 160
            cut = page.locator("#overlay .of-reference")
            assert "50%" in cut.evaluate("one => one.style.clipPath")
            page.locator("#wipe").focus()
            page.keyboard.press("End")
            assert cut.evaluate("one => one.style.clipPath") in ("inset(0px)", "inset(0px 0% 0px 0px)")
            page.keyboard.press("Home")
            assert "100%" in cut.evaluate("one => one.style.clipPath")
            page.get_by_role("button", name="Heat map").click()
            assert page.locator(".of-heat").is_visible()
            page.get_by_role("button", name="Frames").click()
            assert not page.locator("#overlay .boxes").is_visible()
            visit.restart(service)
            page.reload()
            page.locator("#overlay:not([hidden])").wait_for(timeout=PATIENCE_MS)
        assert latest(service)["id"] == record["id"], "looking again is no decision"
        assert not visit.messages


def test_pictures_are_dropped_and_pasted_and_options_count(browser, service):
    pictures = [base64.b64encode(drawing(altered=altered)).decode() for altered in (False, True)]
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/compare")
        page.evaluate(GIVE, ["drop", "#slot-image", [pictures[1]]])
        until(lambda: page.locator("#slot-image .chosen").inner_text() == "drop-0.png", page)
        assert page.locator("#slot-reference .chosen").inner_text() == "None chosen"
        page.evaluate(GIVE, ["paste", "#main", [pictures[0]]])
        until(lambda: page.locator("#slot-reference .chosen").inner_text() == "paste-0.png", page)
        page.get_by_text("Options").click()
        page.get_by_label("Smallest area, in pixels").fill("3000")
        page.get_by_label("Alignment").select_option("none")
        page.get_by_label("Correct small deformations").uncheck()
        compare(page)
        record = latest(service)
        options = record["result"]["options"]
        assert record["decision"] == "same" and (options["min_area"], options["align"], options["flexible"]) == (
            3000,
            "none",
            False,
        )
        page.evaluate(GIVE, ["drop", "#main", [pictures[1], pictures[0]]])
        until(lambda: page.locator("#slot-image .chosen").inner_text() == "drop-1.png", page)
        assert page.locator("#slot-reference .chosen").inner_text() == "drop-0.png"
        assert not visit.messages


def test_features_are_compared_by_the_network_of_an_inspector(browser, service, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    fitted_inspector().save(folder / "part.inspector")
    options = ("--inspector", f"part={folder / 'part.inspector'}")
    with workbench(folder, names=(), options=options) as own, Visit(browser, 390) as visit:
        page = visit.page
        page.goto(f"{own.address}/compare")
        page.get_by_text("Options").click()
        network = page.get_by_label("Network of the features")
        assert network.is_disabled()
        page.get_by_label("What is compared").select_option("both")
        assert network.is_enabled()
        page.get_by_label("Alignment").select_option("none")
        choose(page, "reference", drawing())
        choose(page, "image", drawing(altered=True))
        compare(page)
        record = latest(own)
        assert (record["result"]["level"], record["result"]["options"]["network"]) == ("both", "part")
        first, second = (
            page.get_by_role("button", name=name, exact=True) for name in ("Heat map", "Heat map of features")
        )
        for button, shown, hidden in ((first, "heat", "heat_features"), (second, "heat_features", "heat")):
            button.click()
            assert page.locator(f".of-{shown}").is_visible() and not page.locator(f".of-{hidden}").is_visible()
            assert page.locator(f".of-{shown}").evaluate("one => one.naturalWidth") == 160
        assert first.get_attribute("aria-pressed") == "false" and second.get_attribute("aria-pressed") == "true"
        assert not visit.faults(), "\n".join(visit.faults())
        page.reload()
        second.click(timeout=PATIENCE_MS)
        assert page.locator(".of-heat_features").is_visible() and "--" not in page.locator("#answer").inner_text()


def test_regions_are_drawn_ignored_kept_taken_and_removed(browser, service):
    for entry in service.call("GET", "/v1/region-sets")["sets"]:
        service.call("DELETE", "/v1/region-sets", params={"name": entry["name"]})
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/compare")
        page.locator("#regions summary").click()
        choose(page, "reference", drawing())
        choose(page, "image", drawing(altered=True))
        area = page.locator(".boxes.drawn")
        area.scroll_into_view_if_needed()
        box = area.bounding_box()
        x, y = box["width"] / 160, box["height"] / 120
        page.mouse.move(box["x"] + 104 * x, box["y"] + 84 * y)
        page.mouse.down()
        page.mouse.move(box["x"] + 141 * x, box["y"] + 117 * y, steps=4)
        page.mouse.up()
        assert page.locator("#region-list li").count() == 1
        compare(page)
        assert page.locator("#verdict-title").inner_text() == "Same"
        boxes = latest(service)["result"]["options"]["ignore_boxes"]
        assert boxes[0] == pytest.approx([104, 84, 141, 117], abs=1)
        page.locator("#set-name").fill(MARKUP)
        page.get_by_role("button", name="Keep", exact=True).click()
        undo(page, "The regions are kept as")
        assert service.call("GET", "/v1/region-sets")["sets"] == []
        page.locator("#set-name").fill(MARKUP)
        page.get_by_role("button", name="Keep", exact=True).click()
        message(page, "The regions are kept as")
        visit.restart(service)
        assert service.call("GET", "/v1/region-sets")["sets"] == [{"name": MARKUP, "frame": [120, 160], "boxes": boxes}]
        page.goto(f"{service.address}/compare")
        page.locator("#regions summary").click()
        choose(page, "reference", drawing())
        page.get_by_role("button", name="Take").click()
        message(page, "1 region taken")
        assert page.get_by_role("group", name="Region 1").get_by_label("left").input_value() == str(boxes[0][0])
        page.get_by_role("button", name="Remove", exact=True).last.click()
        undo(page, "are removed")
        assert len(service.call("GET", "/v1/region-sets")["sets"]) == 1
        assert not visit.messages


def test_what_cannot_be_compared_is_said(browser, service):
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/compare")
        page.get_by_role("button", name="Compare", exact=True).click()
        message(page, "Choose a reference and an image first")
        choose(page, "reference", drawing())
        page.set_input_files("#file-image", [{"name": HOSTILE_FILE, "mimeType": "image/png", "buffer": b"no picture"}])
        page.get_by_role("button", name="Compare", exact=True).click()
        assert (
            "<b onclick=alert(1)>" in message(page, "gnp.png").inner_text() and page.locator("#messages b").count() == 0
        )
        assert all("422" in line for line in visit.messages)  # the browser's own line about the refused request
