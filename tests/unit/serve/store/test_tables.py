"""Values go in and come out alike on SQLite and PostgreSQL, whatever texts and numbers they are."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
import sqlalchemy as sa

from unalike.serve.store import DecisionFilter, DecisionRecord, Store
from unalike.serve.store.tables import (
    NAME_CHARACTERS,
    Name,
    PlainText,
    Word,
    json_text,
    metadata,
    plain_text,
    short_name,
)


@pytest.mark.parametrize("label", ["Äpfel", "a\0b", "caf\udce9", "😀" * 400, "x" * 5000, "%_'\";--", "", "a\nb"])
def test_any_class_name_can_be_written_and_found(store: Store, label: str) -> None:
    record = DecisionRecord("identify", "shop", "label", label=label, result={"label": label})
    store.decisions.add([record, DecisionRecord("identify", "shop", "label", label="other")])
    (entry,) = store.decisions.find(DecisionFilter(label=label)).items
    assert entry.id == record.id and entry.result == {"label": label}


def test_long_names_stay_apart_and_keep_their_beginning() -> None:
    first, second = short_name("x" * 600 + "a"), short_name("x" * 600 + "b")
    assert first != second and first.startswith("x" * 400) and len(first) == NAME_CHARACTERS == len(second)
    assert short_name(first) == first
    assert short_name("x" * NAME_CHARACTERS) == "x" * NAME_CHARACTERS


def test_texts_without_what_a_database_refuses() -> None:
    assert plain_text("a\0\udc80é") == "a\\x00\\udc80é"


def test_numbers_that_are_not_finite_become_null(store: Store) -> None:
    values = {"score": float("nan"), "threshold": float("inf"), "margin": np.float32(0.5)}
    record = DecisionRecord("identify", "shop", "unknown", **values, result={"scores": [float("-inf"), 1.5]})
    store.decisions.add([record])
    entry = store.decisions.get(record.id)
    assert entry is not None and (entry.score, entry.threshold, entry.margin) == (None, None, 0.5)
    assert entry.result == {"scores": [None, 1.5]}
    assert json.loads(json_text({1: (float("nan"),)})) == {"1": [None]}


def test_times_are_in_utc_with_microseconds(store: Store) -> None:
    moment = datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    records = [DecisionRecord("inspect", "line", "good", time=time) for time in (moment, moment.replace(tzinfo=None))]
    store.decisions.add(records)
    times = [entry.time for entry in (store.decisions.get(record.id) for record in records) if entry]
    assert times == [moment, moment.replace(tzinfo=UTC)] and all(time.tzinfo is UTC for time in times)


TEXTS = (sa.String, Word, Name, PlainText)


@pytest.mark.parametrize("text", ["half \ud800", "a\0b", "x" * 5000])
def test_every_column_of_texts_can_be_searched_for_any_text(store: Store, text: str) -> None:
    columns = [
        column for table in metadata.tables.values() for column in table.columns if isinstance(column.type, TEXTS)
    ]
    assert len(columns) > 60
    with store.database.reading() as connection:
        for column in columns:
            assert connection.execute(sa.select(column).where(column == text)).all() == [], column
