"""The page Verify in a browser: pictures are compared with approved assets, which are shown beside them; all lasts."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.browser.actions import GIVE, PATIENCE_MS, upload, wait_for
from tests.browser.view import SHAPES, Visit
from tests.support.inspection_service import png
from tests.support.marks import mark, render_mark
from tests.support.networks import write_model
from tests.support.workbench import MARKUP, Workbench, workbench
from unalike.verification.tampering import tamper
from unalike.verification.verifier import Verifier

HOSTILE_FILE = "<b onclick=alert(1)>\u202egnp.png"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """A service with a set of three marks, one of them of a hostile name."""
    pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("verify")
    assets = [mark(0), mark(1), replace(mark(2), name=MARKUP)]
    verifier = Verifier.build(assets, write_model(folder), runtime="onnxruntime")
    verifier.calibrate(0.25, trials=6)
    verifier.save(folder / "brand.set")
    with workbench(folder, names=(), options=("--assets", f"brand={folder / 'brand.set'}")) as running:
        yield running


def fine(number: int) -> bytes:
    """A picture of an asset as approved."""
    return png(render_mark(number, 0))


def altered(number: int) -> bytes:
    """A picture of an asset in another color."""
    return png(render_mark(number, 9, tamper(mark(number), "recoloured", np.random.default_rng(3)).layer_HW4))


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_the_page_is_shown_whole_and_follows_wcag(browser, service, width, scheme):
    for content in (fine(2), altered(1)):
        service.call("POST", "/v1/verify", files={"image": (HOSTILE_FILE, content, "image/png")})
    with Visit(browser, width, scheme) as visit:
        page = visit.page
        page.goto(f"{service.address}/verify")
        page.wait_for_load_state("networkidle")
        assert (
            page.locator("article b").count() == 0 and "<b onclick" in page.locator("article .kind").first.inner_text()
        )
        assert not visit.faults(), "\n".join(visit.faults())


def test_pictures_are_answered_with_the_approved_asset_beside_them_and_a_reload_shows_it(browser, service):
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/verify")
        upload(page, fine(0), altered(1))
        wait_for(page, 2)
        for count, kind in ((3, "drop"), (4, "paste")):
            page.evaluate(GIVE, [kind, "#drop", [base64.b64encode(fine(2)).decode()]])
            wait_for(page, count)
        records = service.call("GET", "/v1/decisions?kind=verify")["decisions"][:4]
        assert {entry["decision"] for entry in records} >= {"same", "altered"}
        visit.restart(service)
        page.reload()
        assert set(page.eval_on_selector_all("article", "all => all.map(one => one.dataset.id)")) == {
            e["id"] for e in records
        }
        page.wait_for_load_state("networkidle")
        one = page.locator("article", has_text="Altered").first
        one.scroll_into_view_if_needed()
        assert (
            "Approved: mark 1" in one.inner_text()
            and one.locator("rect").count() >= 1
            and one.locator("polygon").count() == 1
        )
        picture = one.locator(".asset img")
        picture.wait_for()
        page.wait_for_load_state("networkidle")
        height, width = mark(1).size
        assert picture.evaluate("one => [one.naturalWidth, one.naturalHeight]") == [width, height]
        hostile = page.locator("article", has_text=MARKUP).first
        assert f"Approved: {MARKUP}" in hostile.inner_text()
        assert not visit.messages


def test_the_asset_that_a_picture_should_show_is_chosen_and_answers_are_judged(browser, service):
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/verify")
        page.get_by_label("They should show").select_option("mark 1")
        upload(page, fine(0))
        wait_for(page, 1)
        assert (
            page.locator("article h3").inner_text() == "Different" and "mark 1" in page.locator(".asset").inner_text()
        )
        page.keyboard.press("w")
        place = page.locator(".message", has_text="Noted: wrong")
        place.wait_for(timeout=PATIENCE_MS)
        identifier = page.locator("article").get_attribute("data-id")
        visit.restart(service)
        assert [e["verdict"] for e in service.call("GET", f"/v1/decisions/{identifier}")["feedback"]] == ["wrong"]
        place.get_by_role("button", name="Undo").click()
        page.locator(".message", has_text="Undone").wait_for(timeout=PATIENCE_MS)
        verdicts = [e["verdict"] for e in service.call("GET", f"/v1/decisions/{identifier}")["feedback"]]
        assert verdicts == ["wrong", "withdrawn"] and not visit.messages


def test_a_service_without_assets_says_how_to_get_some(browser, tmp_path):
    with workbench(tmp_path, names=()) as running, Visit(browser, 390) as visit:
        visit.page.goto(running.address)
        visit.page.get_by_role("link", name="Verify").click()
        visit.page.get_by_text("unalike serve --assets FOLDER").wait_for()
        assert not visit.faults(), "\n".join(visit.faults())
