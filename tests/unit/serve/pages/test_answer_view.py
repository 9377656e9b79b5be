"""Answers as pages show them: words, places on the scale, neighbors as they are now."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest

from tests.support.serving import files, picture, run, running
from unalike.serve.pages.answer_view import EDGE, WIDTH, Scale, view_answers
from unalike.serve.store import DecisionRecord


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


class _Empty:
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
