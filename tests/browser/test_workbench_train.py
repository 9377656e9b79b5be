"""The page Train in a browser: from three enrolled classes to a promoted model and back, read through the API after a restart."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.browser.actions import message
from tests.browser.view import SHAPES, Visit
from tests.support.workbench import BIDI, MARKUP, Workbench, mark_picture, workbench

PATIENCE_MS = 600_000
# The shortest training: small images of the smallest trunk, heads on frozen features alone.
SPEC = """
model: {backbone: tf_efficientnet_lite0, input_height: 64, input_width: 64}
dataset: {workers: 1}
train: {batch_size: 8, num_epochs: 1}
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """Three classes, of which two have hostile names, and corrections that are later than the model."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "training.yaml").write_text(SPEC)
    (folder / "old" / "<b>old").mkdir(parents=True)
    (folder / "old/<b>old/1.png").write_bytes(mark_picture(7))
    (folder / "old/<b>old/2.png").write_bytes(b"\x89PNG broken")
    options = ("--train-spec", str(folder / "training.yaml"), "--train-folder", f"old={folder / 'old'}")
    with workbench(folder, names=("anchor", MARKUP, BIDI), options=options) as running:
        yield running


def varied(number: int, turn: int) -> bytes:
    """A picture of a mark, of another content for each turn."""
    image = Image.open(io.BytesIO(mark_picture(number, turn))).convert("RGB")
    image.putpixel((0, 0), (turn % 256, 0, 0))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def correct(service: Workbench, count: int = 4) -> None:
    """Ask for new pictures of each class, and say which class is right."""
    for number, label in enumerate(("anchor", MARKUP, BIDI)):
        turns = [("image", (f"{turn}.png", varied(number, 3 * turn + 1), "image/png")) for turn in range(count)]
        for answer in service.call("POST", "/v1/identify", files=turns)["answers"]:
            body = {"verdict": "confirmed"} if answer["label"] == label else {"verdict": "wrong", "label": label}
            service.call("POST", f"/v1/decisions/{answer['id']}/feedback", json=body)


def network(service: Workbench) -> str:
    (model,) = service.call("GET", "/v1/models")["models"]
    return str(model["network"])


def wait_for_network(service: Workbench, *, other_than: str = "", equal_to: str = "") -> str:
    end = time.monotonic() + PATIENCE_MS / 1000
    while True:
        key = network(service)
        if (other_than and key != other_than) or (equal_to and key == equal_to):
            return key
        assert time.monotonic() < end, "the service takes over the other model"
        time.sleep(0.2)


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_the_page_is_shown_whole_and_follows_wcag(browser, service, width, scheme):
    with Visit(browser, width, scheme) as visit:
        visit.page.goto(f"{service.address}/train")
        assert not visit.faults(), "\n".join(visit.faults())


def test_the_data_is_checked_before(browser, service):
    with Visit(browser, 390) as visit:
        page = visit.page
        page.goto(f"{service.address}/train")
        page.select_option("#folder", "old")
        page.keyboard.press("Escape")
        page.locator("#check").click()
        page.locator("#checks li").first.wait_for(timeout=PATIENCE_MS)
        text = page.locator("#checks").inner_text()
        assert "images of 4 classes" in text and "1 unreadable images" in text and "<b>old" in text
        assert not visit.faults(), "\n".join(visit.faults())


def test_from_corrections_to_a_promoted_model_and_back(browser, service):
    correct(service)
    first = network(service)
    with Visit(browser, 1440, "dark") as visit:
        page = visit.page
        page.goto(f"{service.address}/train")
        page.locator("#minutes").fill("0.2")
        page.locator("#goal").select_option("known-classes")
        page.locator("#name").fill(MARKUP)
        before = len(service.call("GET", "/v1/trainings")["tasks"])
        page.locator("#start").dblclick()
        message(page, "The training began", PATIENCE_MS)
        assert len(service.call("GET", "/v1/trainings")["tasks"]) == before + 1, "a double click begins one"
        page.reload()  # nothing is lost
        page.locator(".task .kind", has_text="running").or_(
            page.locator(".task .kind", has_text="done")
        ).first.wait_for(timeout=PATIENCE_MS)
        page.locator('[data-act="compare"]').first.wait_for(timeout=PATIENCE_MS)
        assert page.locator(".candidate h3").first.inner_text() == MARKUP
        (candidate,) = service.call("GET", "/v1/candidates")["candidates"]
        page.locator('[data-act="compare"]').dblclick()
        message(page, "The comparison is done", PATIENCE_MS)
        assert len(service.call("GET", "/v1/tasks?kind=compare")["tasks"]) == 1, "a double click begins one"
        verdict = page.locator(".verdict").inner_text()
        decision = service.call("GET", f"/v1/candidates/{candidate['id']}")["comparison"]["result"]["verdict"][
            "decision"
        ]
        assert verdict and decision in ("promote", "too few", "worse")
        for details in page.locator("details").all():
            details.evaluate("one => { one.open = true }")
        assert not visit.faults(), "\n".join(visit.faults())
        if decision == "promote":
            page.locator('[data-act="promote"]').click()
            page.locator("#confirm-yes").click()
        else:
            page.locator('[data-act="override"]').click()
            page.locator("#reason").fill("a test <b>of the page</b>")
            assert not visit.faults(), "\n".join(visit.faults())
            page.locator("#override-yes").click()
        message(page, "The promotion is done", PATIENCE_MS)
        assert not visit.faults(), "\n".join(visit.faults())
    second = wait_for_network(service, other_than=first)
    service.restart()
    assert network(service) == second == candidate["network"]
    assert service.counts() == {"anchor": 3, MARKUP: 3, BIDI: 3}
    answers = service.call("POST", "/v1/identify", files={"image": ("a.png", varied(0, 2), "image/png")})["answers"]
    assert answers[0]["nearest"] == "anchor"
    entry = service.call("GET", "/v1/audit?action=model.promote")["entries"][0]
    assert entry["outcome"] == "done" and entry["details"]["model"] == candidate["id"]
    with Visit(browser, 390) as visit:
        page = visit.page
        page.goto(f"{service.address}/train")
        page.locator('[data-act="roll-back"]').click()
        page.locator("#confirm-yes").click()
        message(page, "The return to the former model is done", PATIENCE_MS)
        assert not visit.faults(), "\n".join(visit.faults())
    wait_for_network(service, equal_to=first)
    service.restart()
    assert network(service) == first
    assert service.call("GET", "/v1/candidates")["can_roll_back"] is False


def test_a_training_is_canceled_and_one_of_a_killed_service_is_begun_again(browser, service):
    with Visit(browser, 1440) as visit:
        page = visit.page
        page.goto(f"{service.address}/train")
        page.locator("#minutes").fill("5")
        page.locator("#start").click()
        page.locator('[data-act="cancel"]').first.wait_for(timeout=PATIENCE_MS)
        page.locator('[data-act="cancel"]').first.click()
        message(page, "Canceled", PATIENCE_MS)
        page.locator(".state-canceled").first.wait_for(timeout=PATIENCE_MS)
    assert service.call("GET", "/v1/trainings")["tasks"][0]["state"] == "canceled"
    task = service.call("POST", "/v1/trainings", json={"minutes": 5})
    end = time.monotonic() + PATIENCE_MS / 1000
    while service.call("GET", f"/v1/tasks/{task['id']}")["state"] != "running":
        assert time.monotonic() < end
        time.sleep(0.1)
    service.kill()
    service.start()
    end = time.monotonic() + PATIENCE_MS / 1000
    while (record := service.call("GET", f"/v1/tasks/{task['id']}"))["attempts"] < 2:
        assert time.monotonic() < end, record
        time.sleep(0.1)
    assert record["state"] == "running" and record["max_attempts"] > 2
    assert service.call("POST", f"/v1/tasks/{task['id']}/cancel", json={})["state"] == "canceled"


def test_a_page_for_a_viewer_has_nothing_to_press(browser, tmp_path):
    with workbench(tmp_path, with_key=True, names=()) as service:
        from unalike.serve.store import open_store

        service.stop()
        with open_store(None, service.folder / "serve") as store:
            secret = store.keys.add("viewer", "view")[1]
        service.start()
        with Visit(browser, 390) as visit:
            page = visit.page
            page.goto(f"{service.address}/sign-in?next=/train")
            page.locator("input[type=password]").fill(secret)
            page.keyboard.press("Enter")
            page.locator("h1", has_text="Train").wait_for(timeout=PATIENCE_MS)
            assert page.locator("#training-form, [data-act]").count() == 0
            assert not visit.faults(), "\n".join(visit.faults())


def other_model(service: Workbench) -> str:
    """A candidate of another network than the one in service, with a hostile name; its id."""
    from tests.support.learning import network_bytes
    from unalike.recognition.recognizer import Recogniser
    from unalike.serve.model_files import keep_model, relative_file
    from unalike.serve.store import open_store
    from unalike.serve.store.learning import ModelRecord
    from unalike.serve.store.records import new_id
    from unalike.storage.digests import file_sha256

    file, model_id = service.folder / "other.onnx", new_id()
    file.write_bytes(network_bytes("color"))
    path = keep_model(service.folder / "serve", model_id, file, frozenset())
    network = Recogniser.load(path, runtime="onnxruntime").model_identity.network
    name = relative_file(service.folder / "serve", str(path))
    service.stop()
    with open_store(None, service.folder / "serve") as store:
        store.learning.add_model(ModelRecord("marks", MARKUP, name, file_sha256(path), network, id=model_id))
    service.start()
    return model_id


def test_a_candidate_shadows_the_traffic_and_the_shadow_is_ended(browser, tmp_path):
    with workbench(tmp_path, names=("anchor", MARKUP, BIDI)) as service, Visit(browser, 390) as visit:
        candidate = other_model(service)
        page = visit.page
        page.goto(f"{service.address}/train")
        assert page.locator("#shadow .none").count() == 1
        page.locator('[data-act="shadow"]').click()
        page.locator("#share").fill("0")
        page.locator("#share-yes").click()  # refused by the field
        assert page.locator("#share-dialog").evaluate("one => one.open")
        assert not visit.faults(), "\n".join(visit.faults())
        page.locator("#share").fill("100")
        page.locator("#share-yes").click()
        message(page, "The shadow began", PATIENCE_MS)
        page.locator("#shadow-state", has_text="running").wait_for(timeout=PATIENCE_MS)
        shadow = service.call("GET", "/v1/shadow")["shadow"]
        assert (shadow["candidate"], shadow["share"], shadow["references"]) == (candidate, 1, 9)
        pictures = [("image", (f"{n}.png", mark_picture(n % 3, 4 + 60 * n), "image/png")) for n in range(6)]
        service.call("POST", "/v1/identify", files=pictures)
        page.locator("#shadow-sampled", has_text="6").wait_for(timeout=PATIENCE_MS)
        shadow = service.call("GET", "/v1/shadow")["shadow"]
        assert shadow["sampled"] == 6 and page.locator("#shadow .changes li").count() == len(shadow["differences"])
        same = shadow["agreement"]["count"]
        assert page.locator("#shadow-agreement").inner_text().startswith(f"{same} of 6: ")
        assert len(shadow["differences"]) == 6 - same > 0
        for details in page.locator("#shadow details").all():
            details.evaluate("one => { one.open = true }")
        assert not visit.faults(), "\n".join(visit.faults())
        page.locator("#shadow-differences summary").focus()
        service.call("POST", "/v1/identify", files=pictures[:1])
        page.locator("#shadow-sampled", has_text="7").wait_for(timeout=PATIENCE_MS)
        assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
        visit.restart(service)
        page.goto(f"{service.address}/train")
        page.locator("#shadow-state", has_text="running").wait_for(timeout=PATIENCE_MS)
        page.locator("#end-shadow").click()
        message(page, "The shadow ended", PATIENCE_MS)
        page.locator('[data-act="shadow"]').wait_for(timeout=PATIENCE_MS)
        ended = service.call("GET", "/v1/shadow")["shadow"]
        assert ended["state"] == "ended" and ended["sampled"] == 7 and page.locator("#end-shadow").count() == 0
        actions = [entry["action"] for entry in service.call("GET", "/v1/audit")["entries"]]
        assert actions[:2] == ["shadow.end", "shadow.begin"]
        service.call("POST", "/v1/shadow", json={"candidate": candidate, "share": 1})
        page.reload()
        page.locator("#end-shadow").wait_for(timeout=PATIENCE_MS)
        assert page.locator('[data-act="shadow"]').count() == 0
        service.call("DELETE", "/v1/shadow")  # by somebody else
        page.locator('[data-act="shadow"]').wait_for(timeout=PATIENCE_MS)
        assert not visit.faults(), "\n".join(visit.faults())
