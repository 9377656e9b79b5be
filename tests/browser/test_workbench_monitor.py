"""The page Monitor in a browser: shown whole at every width, with names as text, and what it says is what the API says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.browser.view import SHAPES, Visit
from tests.support.workbench import BIDI, MARKUP, NAMES, Workbench, mark_picture, workbench
from unalike.serve.store import DecisionRecord, open_store
from unalike.serve.store.records import utc_now


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    with workbench(tmp_path_factory.mktemp("monitor")) as running:
        for number in range(len(NAMES)):
            running.call("POST", "/v1/identify", files={"image": ("a.png", mark_picture(number, 3), "image/png")})
        with open_store(None, running.folder / "serve") as store:
            names = (MARKUP, BIDI, "w" * 120)
            store.decisions.add([
                DecisionRecord("inspect", name, name, time=utc_now() - timedelta(minutes=10)) for name in names
            ])  # fmt: skip
            store.decisions.add([
                DecisionRecord("identify", "marks", "label" if step % 3 else "unknown", score=0.5 + step / 100,
                               time=utc_now() - timedelta(hours=step)) for step in range(40)
            ])  # fmt: skip
        running.restart()
        yield running


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_the_page_is_shown_whole_and_follows_wcag(browser, service, width, scheme):
    with Visit(browser, width, scheme) as visit:
        page = visit.page
        page.goto(f"{service.address}/monitor?range=week")
        page.wait_for_load_state("networkidle")
        assert page.locator("svg.line-plot").count() >= 1
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert "\u202e" not in page.content() and MARKUP in page.locator("#monitor").inner_text()
        assert not visit.faults(), "\n".join(visit.faults())


def test_ranges_are_chosen_and_tell_what_the_api_tells(browser, service):
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/recognize")
        page.get_by_role("link", name="Monitor").click()
        for title, span in (("Last hour", "hour"), ("Last week", "week"), ("Last day", "day")):
            page.get_by_role("link", name=title).click()
            page.wait_for_url(f"**range={span}*")
            totals = service.call("GET", f"/v1/statistics?range={span}")["totals"]
            values = [page.locator(".card dd.value").nth(number).inner_text() for number in range(3)]
            assert values == [str(totals[name]) for name in ("label", "ambiguous", "unknown")]
            assert page.locator(".alarms li").count() == 3
        assert not visit.messages
