"""Answers of one resource: those of another, or of another kind, are not shown; pages follow each other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.serving import run
from unalike.errors import DataError
from unalike.serve.pages.answer_list import PAGE_SIZE, AnswerList
from unalike.serve.problems import Problem
from unalike.serve.request_context import SCOPE_KEY, new_context
from unalike.serve.store import DecisionRecord, open_store
from unalike.serve.uploads import Parameters

ANSWERS = AnswerList("identify", "shop", "gallery", lambda records: [record.id for record in records])


def ask(store: Any, **values: str) -> dict[str, Any]:
    """The page of an address."""
    request: Any = SimpleNamespace(scope={SCOPE_KEY: new_context("", "", 10.0)})
    result: dict[str, Any] = {}

    async def scenario() -> None:
        result.update(await ANSWERS.page(SimpleNamespace(store=store), request, Parameters(values)))  # type: ignore[arg-type]

    run(scenario())
    return result


def test_the_latest_answers_by_pages_one_decision_or_those_of_a_batch(tmp_path: Path) -> None:
    with open_store(None, tmp_path) as store:
        own = [
            DecisionRecord("identify", "shop", "label", request_id=f"r{number % 2}") for number in range(PAGE_SIZE + 2)
        ]
        others = [DecisionRecord("identify", "other", "label"), DecisionRecord("inspect", "shop", "good")]
        store.decisions.add([*own, *others])
        newest = [record.id for record in sorted(own, key=lambda record: record.id, reverse=True)]
        first = ask(store)
        assert first["answers"] == newest[:PAGE_SIZE] and first["is_first"]
        second = ask(store, after=first["following"])
        assert second["answers"] == newest[PAGE_SIZE:] and second["following"] is None and not second["is_first"]
        assert ask(store, decision=newest[3])["answers"] == [newest[3]]
        batch = {record.id for record in own if record.request_id == "r1"}
        assert set(ask(store, batch="r1")["answers"]) == batch
        for record in others:
            with pytest.raises(Problem, match="no decision of the gallery shop"):
                ask(store, decision=record.id)
        with pytest.raises(Problem):
            ask(store, color="red")
        with pytest.raises(DataError):
            ask(store, after="x")
