"""The page Review in a browser: every entry is answered by one key, the answer is in the service after a restart, and undone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.actions import PATIENCE_MS, message, undo
from tests.browser.view import SHAPES, Visit
from tests.support.workbench import BIDI, MARKUP, NAMES, Workbench, mark_picture, workbench
from unalike.recognition.decision import GalleryCalibration, RateGuarantee
from unalike.recognition.gallery import Gallery

# With a network that was not trained, pictures of one thing are those that differ by noise alone.
THRESHOLD = 0.993
KINDS = ("new class", "doubtful", "wrong label", "duplicate")


def noisy(number: int, seed: int, strength: int = 25) -> bytes:
    """A PNG of mark ``number`` with noise, which is no copy of another one."""
    pixels = np.array(Image.open(io.BytesIO(mark_picture(number)))).astype(np.int64)
    noise = np.random.default_rng([number, seed]).integers(-strength, strength + 1, pixels.shape)
    stream = io.BytesIO()
    Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def black_picture() -> bytes:
    """A PNG without anything on it, as under a lens cap."""
    stream = io.BytesIO()
    Image.new("RGB", (96, 96)).save(stream, "PNG")
    return stream.getvalue()


def enroll(service: Workbench, label: str, *contents: bytes) -> list[int]:
    sent = [("image", (f"{number}.png", content, "image/png")) for number, content in enumerate(contents)]
    answer = service.call("POST", "/v1/references", files=sent, data={"label": label})
    return [entry["id"] for entry in answer["references"]]


def identify(service: Workbench, *contents: bytes) -> list[str]:
    sent = [("image", (f"{number}.png", content, "image/png")) for number, content in enumerate(contents)]
    return [entry["id"] for entry in service.call("POST", "/v1/identify", files=sent)["answers"]]


def prepare(folder: Path) -> Iterator[Workbench]:
    with workbench(folder, names=()) as running:
        for number, name in enumerate(NAMES):
            enroll(running, name if name != BIDI else "photo", *(noisy(number, seed) for seed in range(5)))
        running._rename("photo", BIDI)
        with Gallery.load(running.folder / "marks.gallery").change() as gallery:
            vectors, classes = gallery.view().size
            guarantee = RateGuarantee(0.01, 0.0, 0.0, 0.1, 0.95, 10, 5, 10.0, 10)
            gallery.calibration = GalleryCalibration(
                THRESHOLD, 0.0, "nearest", 10, guarantee, None, vectors, classes, "a test", revision=gallery.revision
            )
        running.restart()
        yield running


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Workbench]:
    yield from prepare(tmp_path)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """A service with entries of four kinds."""
    for running in prepare(tmp_path_factory.mktemp("review")):
        identify(running, *(noisy(9, seed) for seed in range(3)), noisy(0, 50))
        enroll(running, MARKUP, noisy(0, 60))  # a wrong label
        (copy,) = enroll(running, NAMES[0], noisy(0, 0))  # a copy
        assert copy
        wait_until_complete(running)
        yield running


def wait_until_complete(service: Workbench) -> dict[str, Any]:
    for _ in range(600):
        document: dict[str, Any] = service.call("GET", "/v1/review")
        if document["progress"]["complete"]:
            return document
    raise AssertionError("the review is never complete")


def entries(service: Workbench, kind: str) -> list[dict[str, Any]]:
    return [entry for entry in wait_until_complete(service)["entries"] if entry["kind"] == kind]


def answers(service: Workbench) -> list[dict[str, Any]]:
    return list(service.call("GET", "/v1/review/answers")["answers"])


def settle(page: Any) -> None:
    """Wait until the page asks for nothing any more."""
    page.locator("#review-list[data-complete=yes]").wait_for(timeout=PATIENCE_MS)


def choose_class(page: Any, text: str) -> None:
    page.locator("#choose-text").fill(text)
    page.locator("#choice-1, #choice-new").first.wait_for()
    page.keyboard.press("Enter")


def open_kind(page: Any, service: Workbench, kind: str) -> None:
    page.goto(f"{service.address}/review?kind={kind}")
    page.locator("article").first.wait_for(timeout=PATIENCE_MS)
    page.keyboard.press("ArrowDown")


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_the_page_is_shown_whole_and_follows_wcag_with_its_dialog_open(browser, full, width, scheme):
    with Visit(browser, width, scheme) as visit:
        page = visit.page
        page.goto(f"{full.address}/review")
        page.wait_for_load_state("networkidle")
        shown = page.eval_on_selector_all("article", "all => all.map(one => one.dataset.kind)")
        assert set(shown) == set(KINDS)
        assert MARKUP in page.locator("#review").inner_text() and "\u202e" not in page.content()
        assert not visit.faults(), "\n".join(visit.faults())
        page.keyboard.press("n")
        page.locator("#choose").wait_for()
        assert not visit.faults(), "\n".join(visit.faults())


def test_a_group_is_named_by_keys_and_that_is_so_after_a_restart(browser, service):
    ids = identify(service, *(noisy(9, seed) for seed in range(3)))
    with Visit(browser) as visit:
        page = visit.page
        open_kind(page, service, "new class")
        page.locator("article img").nth(2).wait_for()
        page.keyboard.press("n")
        page.locator("#choose").wait_for()
        page.reload()  # in mid-action: nothing is lost
        page.locator("article").first.wait_for(timeout=PATIENCE_MS)
        page.keyboard.press("n")
        choose_class(page, "star")
        message(page, "3 pictures: star. 3 references added.")
        page.locator("#review-end:not([hidden])").wait_for(timeout=PATIENCE_MS)
        assert "1 answered" in page.locator(".review-progress").inner_text()
        settle(page)
        visit.restart(service)
        assert service.counts()["star"] == 3 and not entries(service, "new class")
        assert {service.call("GET", f"/v1/decisions/{id}")["feedback"][-1]["label"] for id in ids} == {"star"}
        assert [one["label"] for one in answers(service)] == ["star"]
        undo(page, "3 pictures")
        page.locator("article").first.wait_for(timeout=PATIENCE_MS)
        settle(page)
        visit.restart(service)
        assert "star" not in service.counts() and len(entries(service, "new class")) == 1 and not answers(service)
        assert not visit.messages


def test_a_picture_can_be_left_out_of_a_group(browser, service):
    identify(service, *(noisy(9, seed) for seed in range(3)))
    with Visit(browser) as visit:
        page = visit.page
        open_kind(page, service, "new class")
        page.locator("article input[type=checkbox]").first.uncheck()
        page.get_by_role("button", name="Name these").click()
        choose_class(page, MARKUP)
        message(page, "2 pictures")
        settle(page)
        visit.restart(service)
        assert service.counts()[MARKUP] == 7
        assert not visit.messages


def test_a_wrong_label_is_moved_and_a_copy_removed_by_keys(browser, service):
    (wrong,) = enroll(service, MARKUP, noisy(0, 60))
    (copy,) = enroll(service, NAMES[0], noisy(0, 0))
    assert [entry["references"][0]["id"] for entry in entries(service, "wrong label")] == [wrong]
    before = service.counts()
    with Visit(browser) as visit:
        page = visit.page
        open_kind(page, service, "wrong label")
        page.keyboard.press("m")
        message(page, f"Moved to {NAMES[0]}")
        assert service.counts() == before | {MARKUP: before[MARKUP] - 1, NAMES[0]: before[NAMES[0]] + 1}
        undo(page, "Moved to")
        settle(page)
        visit.restart(service)
        assert service.counts() == before
        open_kind(page, service, "duplicate")
        page.keyboard.press("r")
        message(page, f"Reference {copy} removed.")
        settle(page)
        visit.restart(service)
        assert service.counts() == before | {NAMES[0]: before[NAMES[0]] - 1} and not entries(service, "duplicate")
        undo(page, f"Reference {copy}")
        settle(page)
        visit.restart(service)
        assert service.counts() == before
        assert not visit.messages


@pytest.mark.parametrize(
    ("key", "action", "verdict"),
    [("y", "confirmed", "confirmed"), ("u", "unusable", "unusable"), ("d", "dismissed", None)],
)
def test_a_doubtful_answer_is_answered_by_one_key(browser, service, key, action, verdict):
    (id,) = identify(service, noisy(0, 50))
    assert service.call("GET", f"/v1/decisions/{id}")["decision"] == "label"
    with Visit(browser) as visit:
        page = visit.page
        open_kind(page, service, "doubtful")
        page.keyboard.press(key)
        page.locator("#review-end:not([hidden])").wait_for(timeout=PATIENCE_MS)
        settle(page)
        visit.restart(service)
        assert [one["action"] for one in answers(service)] == [action] and not entries(service, "doubtful")
        feedback = service.call("GET", f"/v1/decisions/{id}")["feedback"]
        assert [one["verdict"] for one in feedback] == ([verdict] if verdict else [])
        page.keyboard.press("z")
        message(page, "Undone")
        settle(page)
        visit.restart(service)
        assert len(entries(service, "doubtful")) == 1
        assert not visit.messages


def test_two_browsers_at_once_agree(browser, service):
    (id,) = identify(service, noisy(0, 50))
    with Visit(browser) as first, Visit(browser, 390, "dark") as second:
        for visit in (first, second):
            open_kind(visit.page, service, "doubtful")
        first.page.keyboard.press("y")
        message(first.page, "Noted: right.")
        second.page.keyboard.press("d")
        message(second.page, "somebody has answered this before")
        second.page.locator("#review-end:not([hidden])").wait_for(timeout=PATIENCE_MS)
        assert [one["action"] for one in answers(service)] == ["confirmed"]
        assert [one["verdict"] for one in service.call("GET", f"/v1/decisions/{id}")["feedback"]] == ["confirmed"]
        assert not first.messages


def test_entries_appear_while_the_page_is_open(browser, service):
    wait_until_complete(service)
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/review")
        page.locator("#review-end:not([hidden])").wait_for(timeout=PATIENCE_MS)
        enroll(service, MARKUP, noisy(0, 60))
        page.reload()
        page.locator("article[data-kind='wrong label']").wait_for(timeout=PATIENCE_MS)
        assert not visit.messages


def test_a_picture_unlike_everything_is_named_and_another_time_unusable_by_its_buttons(browser, service):
    for number in range(4, 28):  # enough classes to know how unlike they are
        enroll(service, f"mark {number}", noisy(number, 0))
    (id,) = identify(service, black_picture())
    assert service.call("GET", f"/v1/decisions/{id}")["decision"] == "unknown"
    assert [entry["decisions"][0]["id"] for entry in entries(service, "drifted")] == [id]
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/review")
        page.get_by_role("link", name="Unlike everything").click()
        article = page.locator("article[data-kind=drifted]")
        article.wait_for(timeout=PATIENCE_MS)
        assert "Unlike everything that is enrolled" in article.inner_text()
        article.get_by_role("button", name="Name its class").click()
        choose_class(page, "lens cap")
        message(page, "1 picture: lens cap. 1 reference added.")
        page.locator("#review-end:not([hidden])").wait_for(timeout=PATIENCE_MS)
        settle(page)
        visit.restart(service)
        assert service.counts()["lens cap"] == 1 and not entries(service, "drifted")
        feedback = service.call("GET", f"/v1/decisions/{id}")["feedback"]
        assert [(one["verdict"], one["label"]) for one in feedback] == [("new class", "lens cap")]
        undo(page, "1 picture")
        article.wait_for(timeout=PATIENCE_MS)
        assert "lens cap" not in service.counts()
        article.get_by_role("button", name="Unusable").click()
        message(page, "Noted: unusable.")
        settle(page)
        visit.restart(service)
        assert [one["action"] for one in answers(service)] == ["unusable"] and not entries(service, "drifted")
        assert service.call("GET", f"/v1/decisions/{id}")["feedback"][-1]["verdict"] == "unusable"
        assert not visit.faults(), "\n".join(visit.faults())
