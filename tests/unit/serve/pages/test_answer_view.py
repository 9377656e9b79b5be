"""Answers as pages show them: words, places on the scale, neighbors as they are now."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from tests.support.serving import files, picture, run, running
from unalike.serve.pages.answer_view import (
    CLEAR,
    CORRECTED,
    DOUBTFUL,
    EDGE,
    NOT_CALIBRATED,
    RIGHT,
    STATES,
    UNUSABLE,
    WIDTH,
    WRONG,
    AnswerView,
    Scale,
    count_states,
    find_doubt,
    sort_doubtful_first,
    view_answers,
)
from unalike.serve.store import DecisionRecord, Feedback


def test_figures_are_placed_on_one_axis() -> None:
    scale = Scale.of(0.75, 0.5, 0.5)
    inner = WIDTH - 2 * EDGE
    assert (scale.low, scale.score, scale.threshold, scale.second) == (
        0.0,
        EDGE + 0.75 * inner,
        EDGE + 0.5 * inner,
        EDGE + 0.25 * inner,
    )
    negative = Scale.of(0.5, None, 1.0)
    assert (negative.low, negative.score, negative.threshold, negative.second) == (
        -1.0,
        EDGE + 0.75 * inner,
        None,
        EDGE + 0.25 * inner,
    )
    assert Scale.of(None, None, None) == Scale(0.0, None, None, None)
    assert Scale.of(1.0000001, None, 3.0).score == WIDTH - EDGE and Scale.of(1.0, None, 3.0).second == EDGE


@pytest.mark.parametrize(
    ("decision", "label", "second", "headline"),
    [("label", "red", "blue", "red"), ("ambiguous", None, "blue", "red or blue"), ("ambiguous", None, None, "red"), ("unknown", None, "blue", "Unknown")],
)  # fmt: skip
def test_what_was_decided_in_words(decision: str, label: str | None, second: str | None, headline: str) -> None:
    resource = SimpleNamespace(gallery=SimpleNamespace(view=lambda: _Empty()))
    record = DecisionRecord("identify", "colors", decision, label, "red", 0.5, result={"second": second})
    (view,) = view_answers([record], resource)  # type: ignore[arg-type]
    assert view.headline == headline and view.second == second and view.neighbors == () and view.feedback is None


def view_of(verdict: str = "", right: str | None = None, **values: Any) -> AnswerView:
    resource = SimpleNamespace(gallery=SimpleNamespace(view=lambda: _Empty()))
    values = {
        "decision": "label",
        "label": "red",
        "score": 0.9,
        "threshold": 0.5,
        "margin": 0.4,
        "calibrated": True,
        **values,
    }
    feedback = (Feedback(verdict, right, "ann"),) if verdict else ()
    record = DecisionRecord("identify", "colors", nearest="red", result={"second": "blue"}, feedback=feedback, **values)
    return view_answers([record], resource)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "state"),
    [({}, CLEAR), ({"calibrated": False}, NOT_CALIBRATED), ({"margin": 0.01, "calibrated": False}, DOUBTFUL), ({"threshold": 0.88}, DOUBTFUL),
     ({"decision": "ambiguous", "label": None}, DOUBTFUL), ({"decision": "unknown", "label": None}, "unknown"), ({"margin": None}, CLEAR),
     ({"verdict": "confirmed", "margin": 0.01}, RIGHT), ({"verdict": "wrong", "right": "blue"}, CORRECTED), ({"verdict": "wrong"}, WRONG),
     ({"verdict": "new class", "right": "gold"}, CORRECTED), ({"verdict": "unusable"}, UNUSABLE), ({"verdict": "withdrawn"}, CLEAR)],
)  # fmt: skip
def test_an_answer_has_one_state_with_a_mark_of_its_own(values: dict[str, Any], state: str) -> None:
    view = view_of(**values)
    assert view.state == state and view.mark == STATES[state] and len(set(STATES.values())) == len(STATES)


def test_a_corrected_answer_is_headed_by_the_right_class() -> None:
    assert (view_of("wrong", "blue").headline, view_of("wrong", "blue").decided) == ("blue", "red")
    assert (view_of("confirmed").headline, view_of("confirmed").decided) == ("red", "")


def test_the_margin_of_the_gallery_moves_what_is_doubtful() -> None:
    record = DecisionRecord("identify", "colors", "label", "red", "red", 0.9, margin=0.2)
    assert find_doubt(record, 0.0) == "" and find_doubt(record, 0.18) == "Another class is nearly as close."


def test_answers_are_counted_by_state_and_doubtful_ones_come_first() -> None:
    clear, doubtful = view_of(), view_of(margin=0.0)
    unknown = view_of(decision="unknown", label=None)
    answers = [clear, unknown, doubtful, clear]
    assert count_states(answers) == [(CLEAR, 2), (DOUBTFUL, 1), ("unknown", 1)]
    assert sort_doubtful_first(answers) == [doubtful, unknown, clear, clear]


class _Empty:
    calibration = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_neighbors_have_the_pictures_that_there_are_now(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            gold = (
                await it.client.post("/v1/references", files=files(picture((200, 180, 20))), data={"label": "gold"})
            ).json()
            reference = gold["references"][0]
            answer = (await it.client.post("/v1/identify", files=files(picture((200, 180, 20))))).json()["answers"][0]
            record, resource = it.service.store.decisions.get(answer["id"]), it.service.resources.gallery()
            nearest = view_answers([record], resource)[0].neighbors[0]
            assert (nearest.label, nearest.image, nearest.is_gone) == ("gold", reference["image"], False)
            await it.client.delete(f"/v1/references/{reference['id']}")
            nearest = view_answers([record], resource)[0].neighbors[0]
            assert (nearest.label, nearest.image, nearest.is_gone) == ("gold", None, True)

    run(scenario())
