"""The page Settings in a browser: keys are made and revoked, retention is changed, and that is so after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser.actions import PATIENCE_MS, message
from tests.browser.view import SHAPES, Visit
from tests.support.workbench import BIDI, MARKUP, Workbench, workbench


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    with workbench(tmp_path_factory.mktemp("settings"), with_key=True, names=("anchor",)) as running:
        for name, role in ((MARKUP, "view"), (BIDI, "operate"), ("w" * 120, "view")):
            running.call("POST", "/v1/keys", json={"name": name, "role": role})
        yield running


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Workbench]:
    with workbench(tmp_path, names=("anchor",)) as running:
        yield running


def sign_in(page: Any, service: Workbench, path: str = "/settings") -> None:
    page.goto(service.address + path)
    page.get_by_label("API key").fill(service.secret)
    page.keyboard.press("Enter")
    page.locator("#settings").wait_for(timeout=PATIENCE_MS)


def status(service: Workbench, path: str, secret: str = "") -> int:
    headers = {"x-api-key": secret} if secret else {}
    return httpx.get(service.address + path, headers=headers, timeout=60).status_code


def create_key(page: Any, name: str, role: str, *, is_first: bool = False) -> str:
    """Make a key on the page; its secret."""
    page.locator("#key-name").fill(name)
    page.locator("#key-role").select_option(role)
    page.get_by_role("button", name="Create").click()
    if is_first:
        page.locator("#confirm[open]").wait_for(timeout=PATIENCE_MS)
        page.locator("#confirm-yes").click()
    page.locator("#secret").wait_for(timeout=PATIENCE_MS)
    secret: str = page.locator("#secret-text").input_value()
    page.keyboard.press("Escape")
    assert page.locator("#secret").is_visible(), "a secret is not lost by a key"
    return secret


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_the_page_is_shown_whole_and_follows_wcag_with_its_dialogs_open(browser, full, width, scheme):
    with Visit(browser, width, scheme) as visit:
        page = visit.page
        sign_in(page, full)
        page.wait_for_load_state("networkidle")
        assert (
            MARKUP in page.locator("#key-table").inner_text() and "\\u202e" in page.locator("#key-table").inner_text()
        )
        visit.messages.clear()  # the answer 401 of the sign-in, if any
        assert not visit.faults(), "\n".join(visit.faults())
        page.get_by_role("button", name="Revoke").first.click()
        page.locator("#confirm").wait_for()
        assert not visit.faults(), "\n".join(visit.faults())
        page.keyboard.press("Escape")
        create_key(page, f"key {width} {scheme}", "view")
        assert not visit.faults(), "\n".join(visit.faults())


def test_an_entry_of_the_audit_log_is_a_few_lines_in_a_narrow_window(browser, full):
    with Visit(browser, 390) as visit:
        page = visit.page
        sign_in(page, full)
        rows = page.get_by_role("table").last.get_by_role("row")
        heights = rows.evaluate_all("all => all.slice(1).map(row => row.getBoundingClientRect().height)")
        line = page.locator(".entries .what").first.evaluate(
            "cell => parseFloat(getComputedStyle(cell).lineHeight) || 24"
        )
        assert heights and sorted(heights)[len(heights) // 2] < 5 * line, heights
        cells = page.locator(".entries tbody tr").first
        boxes = [cells.locator(place).bounding_box() for place in ("th", ".what")]
        assert abs(boxes[0]["y"] - boxes[1]["y"]) < line, "when and what stand in one line"
        assert page.locator(".entries").get_by_role("columnheader").count() == 6
        page.locator("#audit-section").scroll_into_view_if_needed()
        page.set_viewport_size({"width": 1440, "height": 900})
        tops = cells.locator("th, td").evaluate_all("all => all.map(cell => cell.getBoundingClientRect().top)")
        assert max(tops) - min(tops) < 1, "in a wide window it is a row"


def test_the_first_key_signs_its_maker_in_and_keys_are_revoked(browser, service):
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/settings")
        secret = create_key(page, "chief", "admin", is_first=True)
        page.locator("#secret-close").click()
        page.get_by_role("button", name="Sign out").wait_for(timeout=PATIENCE_MS)
        assert secret not in page.content()
        service.secret = secret
        assert status(service, "/v1/classes") == 401 and status(service, "/v1/keys", secret) == 200
        till = create_key(page, MARKUP, "operate")
        page.locator("#secret-close").click()
        message(page, "is made")
        visit.restart(service)
        assert status(service, "/v1/classes", till) == 200
        assert [key["name"] for key in service.call("GET", "/v1/keys")["keys"]] == ["chief", MARKUP]
        page.get_by_role("button", name="Revoke").click()
        page.locator("#confirm-yes").click()
        message(page, "is revoked")
        visit.restart(service)
        assert status(service, "/v1/classes", till) == 401
        assert "the only admin key: it cannot be revoked" in page.locator("#key-table").inner_text()
        assert page.get_by_role("button", name="Revoke").count() == 0
        assert not [text for text in visit.messages if "40" not in text], visit.messages


def test_the_first_key_is_an_admin_key_and_is_asked_about(browser, service):
    with Visit(browser, 390) as visit:
        page = visit.page
        page.goto(f"{service.address}/settings")
        assert page.locator("#key-role option").all_inner_texts() == ["admin"]
        assert page.locator("#key-gallery option").all_inner_texts() == ["all"]
        page.locator("#key-name").fill("chief")
        page.get_by_role("button", name="Create").click()
        page.locator("#confirm[open]").wait_for(timeout=PATIENCE_MS)
        assert "This browser is then signed in as chief." in page.locator("#confirm").inner_text()
        assert not visit.faults(), "\n".join(visit.faults())
        page.locator("#confirm-no").click()
        assert status(service, "/v1/classes") == 200 and service.call("GET", "/v1/keys")["keys"] == []


def test_the_whole_secret_is_seen_and_copied(browser, service):
    with Visit(browser, 390, permissions=["clipboard-read", "clipboard-write"]) as visit:
        page = visit.page
        page.goto(f"{service.address}/settings")
        secret = create_key(page, "chief", "admin", is_first=True)
        field = page.locator("#secret-text")
        assert field.evaluate(
            "field => field.scrollWidth <= field.clientWidth && field.scrollHeight <= field.clientHeight"
        )
        page.get_by_role("button", name="Copy").click()
        page.locator("#secret-state", has_text="Copied.").wait_for(timeout=PATIENCE_MS)
        assert page.evaluate("navigator.clipboard.readText()") == secret
        assert not visit.faults(), "\n".join(visit.faults())


def test_an_error_goes_at_the_next_action(browser, service):
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/settings")
        create_key(page, "chief", "admin", is_first=True)
        page.locator("#secret-close").click()
        page.get_by_role("button", name="Sign out").wait_for(timeout=PATIENCE_MS)
        page.locator("#key-name").fill("chief")
        page.get_by_role("button", name="Create").click()
        page.locator(".message.bad").wait_for(timeout=PATIENCE_MS)
        create_key(page, "till", "operate")
        assert page.locator(".message.bad").count() == 0
        page.locator("#secret-close").click()
        message(page, "is made")


def test_what_is_done_before_the_scripts_have_run_is_done_afterwards(browser, service):
    with Visit(browser) as visit:
        page = visit.page
        delayed: list[Any] = []
        page.route("**/static/settings.js", lambda route: delayed.append(route))
        page.goto(f"{service.address}/settings", wait_until="commit")
        page.locator("#key-name").fill("chief")
        page.get_by_role("button", name="Create").click()
        page.wait_for_timeout(200)
        assert page.url == f"{service.address}/settings" and not page.locator("#confirm").is_visible()
        delayed[0].continue_()
        page.locator("#confirm[open]").wait_for(timeout=PATIENCE_MS)
        page.locator("#confirm-yes").click()
        page.locator("#secret").wait_for(timeout=PATIENCE_MS)
        secret = page.locator("#secret-text").input_value()
        page.unroute("**/static/settings.js")
        page.locator("#secret-close").click()
        page.get_by_role("button", name="Sign out").wait_for(timeout=PATIENCE_MS)
        page.context.clear_cookies()

        delayed.clear()
        page.route("**/static/sign_in.js", lambda route: delayed.append(route))
        page.goto(f"{service.address}/settings", wait_until="commit")
        page.get_by_label("API key").fill(secret)
        page.keyboard.press("Enter")
        page.wait_for_timeout(200)
        assert secret not in page.url
        delayed[0].continue_()
        page.locator("#settings").wait_for(timeout=PATIENCE_MS)


def test_retention_is_changed_undone_and_kept(browser, service):
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/settings")
        page.locator("#retention_days").fill("7.5")
        page.locator("#retention").get_by_role("button", name="Change").click()
        message(page, "The retention is changed.")
        visit.restart(service)
        settings = service.call("GET", "/v1/settings")["settings"]
        assert settings["retention_days"] == {"value": 7.5, "default": 30.0, "is_changed": True}
        message(page, "The retention is changed.").get_by_role("button", name="Undo").click()
        message(page, "Undone")
        visit.restart(service)
        assert service.call("GET", "/v1/settings")["settings"]["retention_days"]["is_changed"] is False
        page.locator("#decision_days").fill("90")
        page.locator("#retention").get_by_role("button", name="Change").click()
        message(page, "The retention is changed.")
        page.locator("#retention-reset").click()
        page.locator("#retention-reset:disabled").wait_for(timeout=PATIENCE_MS)
        assert service.call("GET", "/v1/settings")["settings"]["decision_days"]["value"] == 0
        assert not visit.messages


def test_the_audit_log_is_searched(browser, full):
    with Visit(browser) as visit:
        page = visit.page
        sign_in(page, full)
        page.locator("#filter-action").fill("keys.add")
        page.get_by_role("button", name="Search").click()
        page.wait_for_url("**action=keys.add*")
        actions = page.locator("section").last.locator("tbody td:nth-child(3)").all_inner_texts()
        assert actions and set(actions) == {"keys.add"}
