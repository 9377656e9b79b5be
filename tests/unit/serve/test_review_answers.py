"""Answers teach: references are added, moved and removed, decisions get feedback, and every answer is taken back whole."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.reviewing import MIXED, PURPLE, RED, YELLOW, answer, identify, ids_of, of_kind, review, set_threshold
from tests.support.serving import run, running
from unalike.serve.batching import Batcher
from unalike.serve.problems import Problem
from unalike.serve.resources import GalleryResource, Network
from unalike.serve.review_answers import read_answer


def counts(it: SimpleNamespace) -> dict[str, int]:
    return dict(it.service.resources.gallery().gallery.counts())


def verdicts(it: SimpleNamespace, *ids: str) -> list[tuple[str, str | None]]:
    records = it.service.store.decisions.get_many(ids)
    return [(records[id].feedback[-1].verdict, records[id].feedback[-1].label) for id in ids]


async def undo(it: SimpleNamespace, document: dict[str, Any]) -> dict[str, Any]:
    response = await it.client.delete(f"/v1/review/answers/{document['id']}")
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_a_group_is_named_once_and_recognized_from_then_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            await identify(it, *YELLOW, *PURPLE)
            yellow, purple = of_kind(await review(it), "new class")
            document = await answer(it, kind="new class", action="labeled", decisions=ids_of(yellow), label="yellow")
            assert counts(it)["yellow"] == 3 == len(document["references"])
            assert verdicts(it, *ids_of(yellow)) == [("new class", "yellow")] * 3
            (known,) = await identify(it, (250, 250, 6))
            assert (known["decision"], known["label"]) == ("label", "yellow")
            assert [ids_of(one) for one in of_kind(await review(it), "new class")] == [ids_of(purple)]
            picture = await it.client.get(document["references"][0]["image"])
            assert picture.status_code == 200
            entry = it.service.store.audit.find(action="review.answer").items[0]
            assert (entry.outcome, entry.details["label"], entry.details["kind"]) == ("done", "yellow", "new class")
            await undo(it, document)
            assert "yellow" not in counts(it) and verdicts(it, *ids_of(yellow)) == [("withdrawn", None)] * 3
            assert len(of_kind(await review(it), "new class")) == 2
            assert it.service.store.audit.find(action="review.undo").items[0].outcome == "done"

    run(scenario())


def test_some_pictures_of_a_group_can_be_named_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            await identify(it, *YELLOW)
            (group,) = of_kind(await review(it), "new class")
            await answer(it, kind="new class", action="labeled", decisions=ids_of(group)[:2], label="red")
            assert counts(it)["red"] == 3 and verdicts(it, *ids_of(group)[:2]) == [("wrong", "red")] * 2
            assert not of_kind(await review(it), "new class"), "one picture is no group"

    run(scenario())


@pytest.mark.parametrize("action", ["confirmed", "labeled", "unusable", "dismissed"])
def test_doubtful_decisions_are_answered_in_four_ways(tmp_path: Path, action: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            await identify(it, MIXED)
            before = counts(it)
            (entry,) = of_kind(await review(it), "doubtful")
            nearest, id = entry["suggestion"], ids_of(entry)[0]
            label = {"label": "green"} if action == "labeled" else {}
            document = await answer(it, kind="doubtful", action=action, decisions=[id], **label)
            assert not of_kind(await review(it), "doubtful")
            grown = {"confirmed": nearest, "labeled": "green"}.get(action)
            assert {name: count - before[name] for name, count in counts(it).items() if count > before[name]} == (
                {grown: 1} if grown else {}
            )
            record = it.service.store.decisions.get(id)
            expected = {
                "confirmed": [("wrong", nearest)],
                "labeled": [("wrong", "green")],
                "unusable": [("unusable", None)],
                "dismissed": [],
            }
            assert [(one.verdict, one.label) for one in record.feedback] == expected[action]
            await undo(it, document)
            assert counts(it) == before and [ids_of(one) for one in of_kind(await review(it), "doubtful")] == [[id]]

    run(scenario())


def test_a_doubtful_label_that_is_right_is_confirmed_without_a_reference(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it, threshold=0.97, margin=0.0)
            (labeled,) = await identify(it, RED)
            assert labeled["decision"] == "label"
            (entry,) = of_kind(await review(it), "doubtful")
            await answer(it, kind="doubtful", action="confirmed", decisions=ids_of(entry))
            assert verdicts(it, labeled["id"]) == [("confirmed", None)] and counts(it)["red"] == 1

    run(scenario())


async def fill(it: SimpleNamespace) -> tuple[list[int], int]:
    """Three classes of eight references; one has the wrong class, one a copy. Their ids, and that of the copy."""
    rng, centers = np.random.default_rng(0), np.eye(3)
    with it.service.resources.gallery().gallery.change() as gallery:
        gallery.remove(labels=["red", "green", "blue"])
        vectors = np.concatenate([center + 0.1 * rng.normal(size=(8, 3)) for center in centers])
        vectors[7] = centers[1] + 0.1 * rng.normal(size=3)
        ids = gallery.enrol(vectors, [f"c{row // 8}" for row in range(24)], [f"{row}.png" for row in range(24)])
        (copy,) = gallery.enrol(vectors[20:21], ["c2"], ["copy.png"], {"site": "x"})
    it.service.resources.gallery().refresh()
    return ids, copy


def test_a_wrong_label_is_moved_and_moved_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            ids, _ = await fill(it)
            (entry,) = of_kind(await review(it), "wrong label")
            document = await answer(it, kind="wrong label", action="labeled", references=[ids[7]], label="c1")
            assert counts(it) == {"c0": 7, "c1": 9, "c2": 9} and not of_kind(await review(it), "wrong label")
            assert document["references"][0]["label"] == "c1" and document["references"][0]["name"] == "7.png"
            back = await undo(it, document)
            assert counts(it) == {"c0": 8, "c1": 8, "c2": 9} and back["references"][0]["label"] == "c0"
            assert len(of_kind(await review(it), "wrong label")) == 1, "it is asked again"
            assert entry["references"][0]["id"] == ids[7]

    run(scenario())


def test_a_label_that_is_right_is_not_doubted_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            ids, _ = await fill(it)
            await review(it)
            document = await answer(it, kind="wrong label", action="confirmed", references=[ids[7]])
            assert not of_kind(await review(it), "wrong label") and counts(it) == {"c0": 8, "c1": 8, "c2": 9}
            assert (await answer(it, 409, kind="wrong label", action="dismissed", references=[ids[7]]))["status"] == 409
            await undo(it, document)
            assert len(of_kind(await review(it), "wrong label")) == 1

    run(scenario())


@pytest.mark.parametrize("older", [False, True])
def test_one_of_two_near_duplicates_is_removed_and_comes_back_without_a_picture(tmp_path: Path, older: bool) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            ids, copy = await fill(it)
            await review(it)
            gallery = it.service.resources.gallery().gallery
            removed = ids[20] if older else copy
            name, vector = gallery.entry(removed).name, gallery.view().vectors([removed])
            values = {"remove": removed} if older else {}
            document = await answer(it, kind="duplicate", action="removed", references=[copy, ids[20]], **values)
            assert (
                gallery.entry(removed) is None and counts(it)["c2"] == 8 and not of_kind(await review(it), "duplicate")
            )
            (restored,) = (await undo(it, document))["references"]
            assert restored["name"] == name and restored["label"] == "c2" and counts(it)["c2"] == 9
            assert restored["attributes"] == ({} if older else {"site": "x"}) and gallery.attributes() == {
                "site": {"x": 1}
            }
            assert np.allclose(gallery.view().vectors([restored["id"]]), vector, atol=1e-6)
            assert len(of_kind(await review(it), "duplicate")) == 1

    run(scenario())


def test_an_answer_that_is_too_old_is_not_taken_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            ids, _ = await fill(it)
            document = await answer(it, kind="wrong label", action="removed", references=[ids[7]])
            with it.service.store.transaction() as connection:
                connection.exec_driver_sql("UPDATE reviews SET undo = 'null'")
            response = await it.client.delete(f"/v1/review/answers/{document['id']}")
            assert response.status_code == 409 and response.json()["type"].endswith(":too-old")
            assert (await it.client.delete("/v1/review/answers/none")).status_code == 404

    run(scenario())


def test_decisions_and_references_that_are_not_there_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            (labeled,) = await identify(it, RED)
            assert (await answer(it, 404, kind="doubtful", action="confirmed", decisions=["none"]))["status"] == 404
            await answer(it, 404, kind="wrong label", action="confirmed", references=[99])
            await answer(it, 422, kind="doubtful", action="labeled", decisions=[labeled["id"]], label="a\u202eb")
            await it.client.post(f"/v1/decisions/{labeled['id']}/feedback", json={"verdict": "confirmed"})
            await answer(it, 409, kind="doubtful", action="confirmed", decisions=[labeled["id"]])
            assert counts(it) == {"red": 1, "green": 1, "blue": 1}

    run(scenario())


def test_the_picture_of_a_decision_that_is_gone_becomes_no_reference(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            answers = await identify(it, *YELLOW)
            it.service.store.images.delete(it.service.store.decisions.get(answers[0]["id"]).image)
            ids = [entry["id"] for entry in answers]
            document = await answer(it, kind="new class", action="labeled", decisions=ids, label="yellow")
            assert len(document["references"]) == 2 and verdicts(it, *ids) == [("new class", "yellow")] * 3

    run(scenario())


WRONG = [
    {}, {"kind": "doubtful"}, {"kind": "x", "action": "dismissed"}, {"kind": "doubtful", "action": "removed", "decisions": ["a"]},
    {"kind": "doubtful", "action": "dismissed"}, {"kind": "doubtful", "action": "labeled", "decisions": ["a"]},
    {"kind": "doubtful", "action": "labeled", "decisions": ["a"], "label": " "},
    {"kind": "doubtful", "action": "dismissed", "decisions": ["a"], "label": "b"},
    {"kind": "doubtful", "action": "dismissed", "decisions": ["a"], "references": [1]},
    {"kind": "duplicate", "action": "dismissed", "references": [1]}, {"kind": "duplicate", "action": "dismissed", "references": [1, 1]},
    {"kind": "duplicate", "action": "removed", "references": [1, 2], "remove": 3},
    {"kind": "wrong label", "action": "confirmed", "references": ["1"]}, {"kind": "wrong label", "action": "confirmed", "references": [True]},
    {"kind": "wrong label", "action": "confirmed", "references": [1], "other": 1},
    {"kind": "doubtful", "action": "dismissed", "decisions": ["a"] * 65},
]  # fmt: skip


@pytest.mark.parametrize("values", WRONG)
def test_answers_that_say_nothing_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(Problem) as info:
        read_answer(values)
    assert info.value.status == 422


def test_an_answer_that_was_interrupted_is_completed_by_repeating_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gallery was changed, and the process ended before the answer was in the store."""

    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            await identify(it, *YELLOW)
            (group,) = of_kind(await review(it), "new class")
            values = {"kind": "new class", "action": "labeled", "decisions": ids_of(group), "label": "yellow"}
            headers = {"Idempotency-Key": "again"}

            def end(*_: Any, **__: Any) -> None:
                raise RuntimeError("the process ends")

            with monkeypatch.context() as patch:
                patch.setattr(it.service.store.reviews, "add", end)
                await answer(it, 500, headers, **values)
            assert counts(it)["yellow"] == 3 and len(of_kind(await review(it), "new class")) == 1, "it is asked again"
            await answer(it, 409, headers, **values)  # the claim has not ended
            with it.service.store.transaction() as connection:
                connection.exec_driver_sql("UPDATE idempotency SET lease_end = '2020-01-01 00:00:00.000000'")
            document = await answer(it, 201, headers, **values)
            assert counts(it)["yellow"] == 3 == len(document["references"]) and not of_kind(
                await review(it), "new class"
            )
            await undo(it, document)
            assert "yellow" not in counts(it)

    run(scenario())


def test_references_of_another_network_are_left_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            await identify(it, *YELLOW)
            (group,) = of_kind(await review(it), "new class")
            document = await answer(it, kind="new class", action="labeled", decisions=ids_of(group), label="yellow")
            old = it.service.resources.gallery()
            network = Network("promoted.onnx", old.network.model, Batcher(it.engine))
            it.service.resources.replace_gallery(GalleryResource(old.name, old.address, network, old.recognizer))
            response = await it.client.delete(f"/v1/review/answers/{document['id']}")
            assert response.status_code == 409 and response.json()["type"].endswith(":other-network")
            assert counts(it)["yellow"] == 3 and it.service.store.reviews.get(document["id"]) is not None

    run(scenario())


def test_a_reference_that_has_the_number_of_another_one_since_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            await identify(it, *YELLOW)
            (group,) = of_kind(await review(it), "new class")
            document = await answer(it, kind="new class", action="labeled", decisions=ids_of(group), label="yellow")
            with it.service.store.transaction() as connection:  # as of a gallery that was built anew
                connection.exec_driver_sql("UPDATE reviews SET undo = replace(undo, 'sha256:', 'sha256:0')")
            await undo(it, document)
            assert counts(it)["yellow"] == 3

    run(scenario())
