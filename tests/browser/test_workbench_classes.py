"""The pages Classes in a browser: the grid scrolls through any number of classes, and what is changed is so in the service, and undone."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from tests.browser.actions import PATIENCE_MS, message, undo, until, upload
from tests.browser.view import SHAPES, Visit
from tests.support.workbench import BIDI, MARKUP, NAMES, Workbench, noise_picture, workbench
from unalike.recognition.gallery import Gallery
from unalike.sanitize import csv_cell, from_csv_cell

MANY_CLASSES, MANY_REFERENCES = 10_000, 100_000
NUMBERS = "all => all.map(one => Number(one.dataset.number))"
# Places in the window where a cell should be, and none is.
HOLES = """(() => {
  const box = document.querySelector('.cells').getBoundingClientRect();
  let holes = 0;
  // The middles of the rows, which are 108 px apart.
  for (let y = box.top + 108 * Math.ceil(Math.max(0, -box.top) / 108) + 48; y < Math.min(box.bottom, innerHeight); y += 108)
    if (!document.elementsFromPoint(box.left + 20, y).some(one => one.closest('.cell'))) holes += 1;
  return holes;
})()"""
COLUMNS = "[...document.querySelectorAll('.cell')].filter((one, _, all) => one.getBoundingClientRect().top === all[0].getBoundingClientRect().top).length"
PART_IS_THERE = (
    "performance.getEntriesByType('resource').some(entry => entry.name.includes('/classes/cells') && entry.responseEnd)"
)
# Scrolls row by row, each when the part that was asked for before is there; the most cells that came in at once, and how many in all.
SCROLL_ROWS = """async rows => {
  const list = document.querySelector('.cells'), batches = [];
  const observer = new MutationObserver(records => batches.push(records.reduce((sum, record) => sum + record.addedNodes.length, 0)));
  observer.observe(list, {childList: true});
  const pause = () => new Promise(resolve => setTimeout(() => requestAnimationFrame(resolve), 60));
  const original = window.fetch;
  let open = 0;
  window.fetch = (...values) => {
    open += 1;
    return original(...values).finally(() => { open -= 1; });
  };
  for (let row = 0; row < rows; row += 1) {
    scrollBy(0, 108);
    do await pause(); while (open);
    await pause();
  }
  observer.disconnect();
  return [Math.max(...batches), batches.reduce((sum, count) => sum + count, 0)];
}"""
FOCUSED = "document.activeElement.closest('li')?.dataset.number ?? ''"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    with workbench(tmp_path_factory.mktemp("classes")) as running:
        yield running


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """A service of 10,000 classes with 100,000 references."""
    with workbench(tmp_path_factory.mktemp("large"), names=("anchor",)) as running:
        running.stop()
        path = running.folder / "marks.gallery"
        gallery = Gallery.load(path)
        vectors = np.random.default_rng(0).normal(size=(MANY_REFERENCES, gallery.dim)).astype(np.float32)
        gallery.enrol(vectors, [f"class {number % MANY_CLASSES:05}" for number in range(MANY_REFERENCES)])
        gallery.save(path)
        running.start()
        yield running


def class_address(service: Workbench, label: str) -> str:
    return f"{service.address}/classes/view?{urlencode({'label': label})}"


def references(service: Workbench, label: str) -> list[dict[str, Any]]:
    return list(service.call("GET", f"/v1/references?{urlencode({'label': label, 'limit': 1000})}")["references"])


def enroll(service: Workbench, label: str, *pictures: bytes, **attributes: str) -> list[int]:
    sent = [("image", (f"{number}.png", content, "image/png")) for number, content in enumerate(pictures)]
    answer = service.call(
        "POST", "/v1/references", files=sent, data={"label": label, "attributes": json.dumps(attributes)}
    )
    return [entry["id"] for entry in answer["references"]]


def choose_class(page: Any, text: str) -> None:
    page.locator("#choose-text").fill(text)
    page.locator("#choice-1, #choice-new").first.wait_for()
    page.keyboard.press("Enter")


# ---- the grid ----


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_the_grid_is_shown_whole_and_follows_wcag(browser, service, width, scheme):
    with Visit(browser, width, scheme) as visit:
        page = visit.page
        page.goto(f"{service.address}/classes")
        page.wait_for_load_state("networkidle")
        assert page.locator(".cell").count() == len(service.counts())
        assert page.locator(".cell img").count() == len(service.counts())
        assert not visit.faults(), "\n".join(visit.faults())
        page.keyboard.press("n")
        page.locator("#name-dialog").wait_for()
        assert not visit.faults(), "\n".join(visit.faults())


@pytest.mark.parametrize("width", [390, 1440])
def test_ten_thousand_classes_scroll_with_few_of_them_in_the_page(browser, large, width):
    with Visit(browser, width) as visit:
        page = visit.page
        page.goto(f"{large.address}/classes")
        assert "10001 of 10001 classes, 100003 references" in page.locator("#count").inner_text()
        cells = page.locator(".cells > li")
        most = 0
        for share in (0.1, 0.5, 0.73, 1.0, 0.3):
            page.evaluate("share => scrollTo(0, share * document.documentElement.scrollHeight)", share)
            for _ in range(100):  # the policy forbids the browser to wait for a condition by itself
                if page.evaluate(HOLES) == 0:
                    break
                page.wait_for_timeout(50)
            assert page.evaluate(HOLES) == 0, f"the window is not filled at {share}"
            most = max(most, cells.count())
        assert most <= 160, "the page holds what is near the window alone"
        numbers = page.eval_on_selector_all(".cells > li", NUMBERS)
        assert numbers == sorted(numbers), "the order of reading is that of the names"
        assert not visit.messages


def test_cells_come_into_the_page_a_few_at_a_time_while_it_scrolls(browser, large):
    """Their part is there before they are needed: cells that come together are drawn in one frame, which takes long."""
    with Visit(browser) as visit:
        page = visit.page
        parts: list[str] = []
        page.on("request", lambda request: parts.append(request.url) if "/classes/cells" in request.url else None)
        page.goto(f"{large.address}/classes")
        until(lambda: len(parts) == 1 and page.evaluate(PART_IS_THERE), page)
        assert "offset=60" in parts[0], "the part after the first is fetched before it is needed"
        most, shown = page.evaluate(SCROLL_ROWS, 60)
        assert shown > 200 and most <= 2 * page.evaluate(COLUMNS), (most, shown)
        page.wait_for_load_state("networkidle")
        assert len(parts) == len(set(parts)) and not visit.messages


def test_the_grid_is_walked_by_keys_to_its_end_and_searched(browser, large):
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{large.address}/classes")
        page.keyboard.press("ArrowDown")
        assert page.evaluate(FOCUSED) == "0"
        columns = page.evaluate(COLUMNS)
        for key, number in (
            ("ArrowRight", 1),
            ("ArrowDown", 1 + columns),
            ("ArrowLeft", columns),
            ("ArrowUp", 0),
            ("End", 10_000),
        ):
            page.keyboard.press(key)
            page.locator(f".cells > li[data-number='{number}'] a:focus").wait_for(timeout=PATIENCE_MS)
        assert page.locator("a:focus .cell-name").inner_text() == "class 09999"
        page.keyboard.press("Home")
        page.locator(".cells > li[data-number='0'] a:focus").wait_for(timeout=PATIENCE_MS)
        page.keyboard.press("/")
        page.keyboard.type("CLASS 0777")
        page.locator("#count", has_text="10 of 10001").wait_for()
        assert page.locator(".cell-name").all_inner_texts() == [f"class 0777{number}" for number in range(10)]
        page.reload()
        assert page.locator(".cell").count() == 10 and page.locator("#search").input_value() == "CLASS 0777"
        page.keyboard.press("/")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_url("**/classes/view?**")
        assert page.get_by_role("heading", name="class 07770").is_visible()
        page.go_back()
        page.locator("#search").fill("no such")
        page.locator("#no-classes").wait_for()
        assert not visit.messages


# ---- one class ----


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
@pytest.mark.parametrize("label", [MARKUP, BIDI, NAMES[3], "no such class"])
def test_a_class_is_shown_whole_and_follows_wcag_with_its_dialogs_open(browser, service, label, width, scheme):
    with Visit(browser, width, scheme) as visit:
        page = visit.page
        page.goto(class_address(service, label))
        page.wait_for_load_state("networkidle")
        assert page.locator("h1").inner_text() == label.replace("\u202e", "\\u202e")
        assert not visit.faults(), "\n".join(visit.faults())
        if label == "no such class":
            return
        page.keyboard.press("a")
        assert page.locator("#selected").inner_text() == "3 selected"
        page.keyboard.press("s")
        page.locator("#separation .look-alikes a").first.wait_for()
        answer = service.call("GET", f"/v1/classes/separation?{urlencode({'label': label})}")
        assert f"{answer['margin']:.3f}" in page.locator("#separation .figures").inner_text()
        assert not visit.faults(), "\n".join(visit.faults())
        page.get_by_role("button", name="Delete the class").click()
        page.locator("#confirm").wait_for()
        assert "undo brings them back" in page.locator("#confirm-text").inner_text()
        assert not visit.faults(), "\n".join(visit.faults())


def test_references_are_selected_by_click_shift_and_keys(browser, service):
    label = "selection"
    ids = enroll(service, label, *(noise_picture(100 + seed) for seed in range(6)))

    def selected() -> list[int]:
        return [
            int(id) for id in page.eval_on_selector_all("[aria-selected=true]", "all => all.map(one => one.dataset.id)")
        ]

    with Visit(browser) as visit:
        page = visit.page
        page.goto(class_address(service, label))
        assert page.get_by_role("button", name="Move m").is_disabled()
        page.locator(f"#reference-{ids[1]}").click()
        page.locator(f"#reference-{ids[4]}").click(modifiers=["Shift"])
        assert selected() == ids[1:5] and page.locator("#selected").inner_text() == "4 selected"
        page.locator(f"#reference-{ids[2]}").click()
        assert selected() == [ids[1], ids[3], ids[4]]
        page.keyboard.press("Escape")
        assert selected() == [] and page.get_by_role("button", name="Remove Del").is_disabled()
        page.keyboard.press("Home")
        page.keyboard.press("Space")
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowRight")
        assert selected() == ids[:3]
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+Space")
        assert selected() == ids[:5]
        page.keyboard.press("a")
        assert selected() == ids
        page.keyboard.press("a")
        assert selected() == [] and not visit.messages


def test_references_are_moved_and_removed_and_it_is_undone(browser, service):
    label, target = "from <here>", 'to "there"'
    ids = enroll(service, label, *(noise_picture(200 + seed) for seed in range(4)), site="<berlin>", line="2")
    pictures = {entry["name"].split("/")[0] for entry in references(service, label)}
    with Visit(browser) as visit:
        page = visit.page
        page.goto(class_address(service, label))
        for number in ids[:2]:
            page.locator(f"#reference-{number}").click()
        page.keyboard.press("m")
        choose_class(page, target)
        message(page, f"2 references moved to {target}")
        assert (service.counts()[label], service.counts()[target]) == (2, 2)
        undo(page, f"2 references moved to {target}")
        assert service.counts()[label] == 4 and target not in service.counts()
        page.locator("[role=option]").nth(3).wait_for()
        page.locator("[role=option]").first.click()
        page.keyboard.press("Delete")
        message(page, "1 reference removed")
        assert service.counts()[label] == 3
        undo(page, "1 reference removed")
        assert {entry["name"].split("/")[0] for entry in references(service, label)} == pictures
        assert [entry["attributes"] for entry in references(service, label)] == [{"site": "<berlin>", "line": "2"}] * 4
        page.keyboard.press("a")
        page.keyboard.press("m")
        choose_class(page, target)
        message(page, "4 references moved")
        assert "no class of this name" in page.locator("#class .none").inner_text()
        assert not visit.messages
    service.restart()
    assert service.counts()[target] == 4 and label not in service.counts()


def test_pictures_are_added_and_refused_ones_are_named(browser, service):
    label = 'new "class"'
    hostile = "<b onclick=alert(1)>.png"
    with Visit(browser, 390, "dark") as visit:
        page = visit.page
        page.goto(f"{service.address}/classes")
        page.get_by_role("button", name="New class").click()
        page.keyboard.type(label)
        page.keyboard.press("Enter")
        page.wait_for_url("**/classes/view?**")
        sent = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": noise_picture(300 + n)} for n in range(3)]
        bad = [
            {"name": name, "mimeType": "image/png", "buffer": content}
            for name, content in ((hostile, b"no picture"), ("0", b""))
        ]
        page.set_input_files("#files", [*sent, *bad])
        message(page, "3 references added, 2 pictures refused")
        lines = set(page.locator(".refused li").all_inner_texts())
        assert lines == {f"{hostile}: not an image of a known format", "0: an empty file"}
        assert page.locator(".refused b").count() == 0
        assert len(references(service, label)) == 3 and page.locator("[role=option]").count() == 3
        visit.messages = [text for text in visit.messages if "422" not in text]  # the browser's own line
        assert not visit.faults(), "\n".join(visit.faults())
        undo(page, "3 references added")
        assert label not in service.counts()
        page.set_input_files("#files", sent[:1])
        message(page, "1 reference added")
        assert not visit.messages
    service.restart()
    assert service.counts()[label] == 1


def test_a_class_is_renamed_and_merged_and_it_is_undone(browser, service):
    label, name, other = "old name", "<i>new</i> \u00fc", "other class"
    ids = enroll(service, label, *(noise_picture(400 + seed) for seed in range(2)))
    enroll(service, other, noise_picture(450))
    with Visit(browser) as visit:
        page = visit.page
        page.goto(class_address(service, label))
        page.keyboard.press("e")
        page.locator("#name-text").fill(name)
        page.keyboard.press("Enter")
        message(page, "is now called")
        page.locator("h1", has_text=name).wait_for()
        assert service.counts()[name] == 2 and label not in service.counts()
        page.reload()
        assert page.locator("h1").inner_text() == name, "the address is that of the new name"
        page.goto(class_address(service, name))
        page.keyboard.press("e")
        page.locator("#name-text").fill(label)
        page.keyboard.press("Enter")
        message(page, "is now called")
        undo(page, "is now called")
        page.locator("h1", has_text=name).wait_for()
        assert service.counts()[name] == 2
        page.keyboard.press("e")  # a name that is taken
        page.locator("#name-text").fill(other)
        page.keyboard.press("Enter")
        page.locator(".message.bad").wait_for()
        page.evaluate("document.getElementById('messages').replaceChildren()")
        visit.messages = [text for text in visit.messages if "422" not in text]  # the browser's own line
        page.keyboard.press("g")
        choose_class(page, other)
        message(page, f"now belong to {other}")
        page.locator("h1", has_text=other).wait_for()
        assert service.counts()[other] == 3 and name not in service.counts()
        assert {entry["id"] for entry in references(service, other)} >= set(ids)
        undo(page, f"now belong to {other}")
        page.locator("h1", has_text=name).wait_for()
        assert (service.counts()[name], service.counts()[other]) == (2, 1)
        assert not visit.messages
    service.restart()
    assert (service.counts()[name], service.counts()[other]) == (2, 1)


def test_a_picture_for_a_class_that_was_renamed_in_another_tab_makes_no_new_class(browser, service):
    label, name = "in two tabs", "renamed in the other tab"
    enroll(service, label, noise_picture(480))
    with Visit(browser) as visit:
        page = visit.page
        page.goto(class_address(service, label))
        service.call("POST", "/v1/classes/rename", json={"label": label, "new": name})
        upload(page, noise_picture(481))
        message(page, f"There is no class {label} any more")
        assert label not in service.counts() and service.counts()[name] == 1
        visit.messages = [text for text in visit.messages if "404" not in text]  # the browser's own line
        assert not page.locator("#drop").is_visible() and not visit.faults(), "\n".join(visit.faults())
        page.get_by_role("link", name="See all classes").click()
        page.locator(".cell-name", has_text=name).wait_for()
        page.goto(class_address(service, name))
        service.call("DELETE", f"/v1/classes?{urlencode({'label': name})}")
        page.keyboard.press("e")
        page.locator("#name-text").fill("another name")
        page.keyboard.press("Enter")
        message(page, f"There is no class {name} any more")
        page.get_by_role("link", name="Make a class of this name").click()
        page.wait_for_url("**new=true**")  # with its scripts loaded, which upload what is chosen
        upload(page, noise_picture(482))
        message(page, "1 reference added")
        assert service.counts()[name] == 1


def test_a_class_is_deleted_and_what_was_kept_comes_back(browser, service):
    label = "to delete"
    enroll(service, label, *(noise_picture(500 + seed) for seed in range(2)), site="berlin")
    enroll(service, label, noise_picture(502))
    pictures = {(entry["name"].split("/")[0], *entry["attributes"].values()) for entry in references(service, label)}
    with Visit(browser) as visit:
        page = visit.page
        page.goto(class_address(service, label))
        delete = page.get_by_role("button", name="Delete the class")
        delete.dblclick()
        page.locator("#confirm").wait_for()  # it asks the service first what can be brought back
        assert page.locator(".message").count() == 0
        page.keyboard.press("Enter")  # the focus is on Cancel
        page.locator("#confirm").wait_for(state="hidden")
        assert service.counts()[label] == 3
        delete.click()
        page.locator("#confirm-yes").click()
        message(page, "is deleted, 3 references removed")
        assert label not in service.counts()
        page.wait_for_url("**/classes?**")
        undo(page, "is deleted")
        there = {(entry["name"].split("/")[0], *entry["attributes"].values()) for entry in references(service, label)}
        assert there == pictures
        page.locator(".cell-name", has_text=label).wait_for()
        page.goto(class_address(service, label))
        delete.click()
        page.locator("#confirm-yes").click()
        message(page, "is deleted")
        assert not visit.messages
    service.restart()
    assert label not in service.counts()


def test_before_a_deletion_the_page_says_that_it_cannot_be_undone(browser, large):
    label = "class 00042"
    with Visit(browser) as visit:
        page = visit.page
        page.goto(class_address(large, label))
        page.locator("[role=option]").first.click()
        page.keyboard.press("Delete")
        page.locator("#confirm").wait_for()
        assert "undo cannot bring it back" in page.locator("#confirm-text").inner_text()
        page.locator("#confirm-no").click()
        assert len(references(large, label)) == 10
        page.get_by_role("button", name="Delete the class").click()
        page.locator("#confirm").wait_for()
        assert "this cannot be undone" in page.locator("#confirm-text").inner_text()
        assert not visit.faults(), "\n".join(visit.faults())
        page.locator("#confirm-yes").click()
        place = message(page, "10 references cannot be brought back")
        assert place.get_by_role("button", name="Undo").count() == 0
        assert not visit.messages
    counts = large.call("GET", f"/v1/classes?{urlencode({'search': label})}")
    assert counts["total"] == 0


# ---- import and export ----


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_the_page_of_the_import_is_shown_whole_and_follows_wcag(browser, service, width, scheme):
    with Visit(browser, width, scheme) as visit:
        visit.page.goto(f"{service.address}/classes")
        visit.page.get_by_role("link", name="Import").click()
        visit.page.get_by_role("heading", name="Import").wait_for()
        assert not visit.faults(), "\n".join(visit.faults())


def test_a_folder_becomes_classes_and_it_is_undone(browser, service, tmp_path):
    counts = service.counts()
    folder = tmp_path / "shop"
    for number, name in enumerate(
        (
            "first/1.png",
            "first/deep/2.png",
            "<i>second/3.png",
            "alone.png",
            "first/notes.txt",
            "first/broken.png",
            ".hidden/4.png",
        )
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"text" if "notes" in name or "broken" in name else noise_picture(600 + number))
    with Visit(browser, 390) as visit:
        page = visit.page
        page.goto(f"{service.address}/classes/import")
        page.set_input_files("#folder", str(folder))
        page.locator("#summary", has_text="3 of 7 files became references, of 2 classes; 4 refused").wait_for(
            timeout=PATIENCE_MS
        )
        refused = page.locator(".refused").inner_text()
        for name, reason in (
            ("alone.png", "directly in the chosen folder; expected CLASS/PICTURE"),
            ("first/notes.txt", "its name ends in none of"),
            ("first/broken.png", ""),
            (".hidden/4.png", "hidden"),
        ):
            assert any(name in line and reason in line for line in refused.splitlines()), refused
        assert service.counts() == {**counts, "first": 2, "<i>second": 1} and page.locator(".refused i").count() == 0
        visit.messages = [text for text in visit.messages if "422" not in text]  # the browser's own line
        assert not visit.faults(), "\n".join(visit.faults())
        undo(page, "3 references imported")
        assert service.counts() == counts


def test_an_import_that_a_reload_breaks_off_is_said_and_gone_on_with_or_undone(browser, service, tmp_path):
    folder = tmp_path / "broken"
    for number in range(8):
        path = folder / "broken off" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise_picture(900 + number))
    with Visit(browser, 390) as visit:
        page = visit.page
        page.goto(f"{service.address}/classes/import")
        # After two pictures none is answered any more.
        sent: list[str] = []

        def pass_two(route: Any) -> None:
            sent.append(route.request.url)
            if len(sent) <= 2:
                route.continue_()

        page.route("**/v1/galleries/*/references", pass_two)
        page.set_input_files("#folder", str(folder))
        page.locator("#enrolling", has_text="2 of 8 pictures").wait_for(timeout=PATIENCE_MS)
        page.close()
        page = visit.page = visit.context.new_page()
        page.on("console", lambda text: visit.messages.append(text.text))
        page.goto(f"{service.address}/classes")
        page.locator("#broken-import", has_text="At least 2 of 8 pictures were added").wait_for()
        # A request that was under way when the page was closed may have been answered.
        page.wait_for_timeout(500)
        added = service.counts()["broken off"]
        assert 2 <= added < 8
        page.goto(f"{service.address}/classes/import")
        page.locator("#broken-import", has_text="At least 2 of 8").wait_for()
        assert not visit.faults(), "\n".join(visit.faults())
        page.set_input_files("#folder", str(folder))
        page.locator("#summary", has_text=f"{8 - added} of 8 files became references").wait_for(timeout=PATIENCE_MS)
        assert f"{added} were references of their class already" in page.locator("#summary").inner_text()
        assert service.counts()["broken off"] == 8
        page.reload()
        assert page.locator("#broken-import").is_hidden(), "an import that ended is none that was broken off"
        page.evaluate(
            "ids => localStorage.setItem('unalike-import:' + document.getElementById('import').dataset.gallery,"
            " JSON.stringify({total: 9, ids}))",
            [entry["id"] for entry in references(service, "broken off")[:3]],
        )
        page.reload()
        page.get_by_role("button", name="Undo: remove these 3").click()
        until(lambda: service.counts()["broken off"] == 5, page)
        page.locator("#broken-import").wait_for(state="hidden")
        assert not visit.messages


def test_a_table_with_its_pictures_becomes_references(browser, service):
    table = '\ufeffpath;label\r\n"a ""1"".png";"semi; colon"\r\nsub/b.png;plain\r\nmissing.png;plain\r\n;plain\r\nb.png;\r\n'
    sent = [
        {"name": name, "mimeType": "image/png", "buffer": noise_picture(700 + n)}
        for n, name in enumerate(('a "1".png', "b.png", "more.png"))
    ]
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/classes/import")
        page.set_input_files("#pictures", sent)
        message(page, "Choose the CSV file first")
        page.set_input_files("#table", [{"name": "t.csv", "mimeType": "text/csv", "buffer": table.encode()}])
        page.set_input_files("#pictures", sent)
        page.locator("#summary", has_text="2 of 6 files became references").wait_for(timeout=PATIENCE_MS)
        refused = page.locator(".refused").inner_text()
        assert all(
            word in refused
            for word in (
                "missing.png: line 4 of the table names it, and it is not among the chosen files",
                "line 5: line 5 of the table has no path",
                "b.png: line 6 of the table has no label: write its class",
                "more.png: no line of the table names it",
            )
        )
        page.set_input_files("#table", [{"name": "t.csv", "mimeType": "text/csv", "buffer": b"file,class\n"}])
        page.set_input_files("#pictures", sent)
        message(page, "no columns path and label")
        assert not visit.messages
    service.restart()
    assert (service.counts()["semi; colon"], service.counts()["plain"]) == (1, 1)


def test_an_export_is_imported_again_as_it_was(browser, service, tmp_path):
    attributes = {"site": "=1+1", "path": "a", "attribute_path": "b"}
    enroll(service, "attributes", noise_picture(990), **attributes)
    enroll(service, "=cmd", noise_picture(991))
    with Visit(browser) as visit:
        page = visit.page
        page.goto(f"{service.address}/classes")
        with page.expect_download() as download:
            page.get_by_role("link", name="Export").click()
        with zipfile.ZipFile(download.value.path()) as file:
            assert file.testzip() is None
            file.extractall(tmp_path / "export")
        counts = service.counts()  # one name turns the direction of writing: no new one may, this class is there
        lost = "attributes"
        service.call("DELETE", f"/v1/classes?{urlencode({'label': lost})}")
        page.goto(f"{service.address}/classes/import")
        page.set_input_files("#folder", str(tmp_path / "export"))
        page.locator("#summary", has_text="became references").wait_for(timeout=PATIENCE_MS)
        known = sum(counts.values()) - counts[lost]
        assert f"{known} were references of their class already" in page.locator("#summary").inner_text()
        assert service.counts() == counts and page.locator(".refused li").count() == 0
        assert [entry["attributes"] for entry in references(service, lost)] == [attributes]
        undo(page, "references imported")
        assert service.counts() == {label: count for label, count in counts.items() if label != lost}


def test_tables_are_read_as_they_were_written_for_spreadsheets(browser, service):
    """The page reads cells as ``sanitize.from_csv_cell`` does, which undoes what keeps them from being formulas."""
    texts = [
        "=1+1",
        "'=1",
        "''@a",
        "+a",
        "-",
        "-5",
        "'-5",
        "-1e3",
        "-inf",
        "'-inf",
        "\uff1dx",
        "\ta",
        "'",
        "'a",
        "a",
        "a=b",
        "'+1_0",
        "+1_0",
    ]
    table = io.StringIO(newline="")
    csv.writer(table).writerows([csv_cell(text), "end"] for text in texts)
    with Visit(browser) as visit:
        visit.page.goto(f"{service.address}/classes/import")
        cells = visit.page.evaluate(
            "async (table) => (await import('/static/csv_table.js')).parseTable(table).map(([text]) => text)",
            table.getvalue(),
        )
    assert cells == texts == [from_csv_cell(csv_cell(text)) for text in texts]


def test_a_key_that_may_only_look_sees_no_buttons_of_changes(browser, tmp_path):
    with workbench(tmp_path, with_key=True, names=("anchor",)) as service, Visit(browser) as visit:
        import httpx

        from unalike.serve.store import open_store

        with open_store(None, tmp_path / "serve") as store:
            secret = store.keys.add("guest", "view")[1]
        page = visit.page
        page.goto(f"{service.address}/classes")
        page.get_by_label("API key").fill(secret)
        page.keyboard.press("Enter")
        page.wait_for_url("**/classes")
        assert page.get_by_role("button", name="New class").count() == 0
        page.locator(".cell a").click()
        page.locator("#references img").first.wait_for()
        for key in ("a", "m", "e", "g", "Delete", "o"):
            page.keyboard.press(key)
        assert page.locator("dialog[open]").count() == 0
        assert not visit.faults(), "\n".join(visit.faults())
        response = httpx.request("DELETE", f"{service.address}/v1/classes?label=anchor", headers={"x-api-key": secret})
        assert response.status_code == 403


def test_the_service_writes_no_traceback(service, large):
    for running in (service, large):
        assert "Traceback" not in (Path(running.folder) / "log.txt").read_text()


def test_a_threshold_is_set_anew_on_the_page_and_holds_after_a_restart(service: Workbench, browser: Any) -> None:
    with Visit(browser, 390) as visit:
        page = visit.page
        page.goto(f"{service.address}/classes")
        page.locator("#calibrate").click()
        message(page, "The threshold is set")
        undo(page, "The threshold is set")
        assert service.call("GET", "/v1/calibration")["calibration"] is None
        page.locator("#calibration", has_text="No threshold is set").wait_for()
        page.locator("#calibrate").click()
        message(page, "The threshold is set")
        assert "a picture is called unknown" in page.locator("#calibration").inner_text()
        assert not visit.faults()
    calibration = service.call("GET", "/v1/calibration")
    assert calibration["calibration"] is not None and not calibration["stale"]
    service.restart()
    assert service.call("GET", "/v1/calibration")["calibration"] == calibration["calibration"]
