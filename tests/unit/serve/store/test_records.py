"""Records check what a client gives, and ids sort by time."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from unalike.errors import DataError
from unalike.serve.store.records import (
    DecisionFilter,
    DecisionRecord,
    Feedback,
    KeyRecord,
    check_page,
    new_id,
    utc_now,
)


def test_ids_are_of_version_7_sort_by_time_and_differ() -> None:
    ids = [new_id() for _ in range(2000)]
    assert all(uuid.UUID(one).version == 7 and uuid.UUID(one).variant == uuid.RFC_4122 for one in ids)
    assert len(set(ids)) == len(ids)
    moments = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=7 * step) for step in range(50)]
    dated = [new_id(moment) for moment in moments]
    assert dated == sorted(dated)
    assert uuid.UUID(dated[1]).int >> 80 == int(moments[1].timestamp() * 1000)


def test_two_ids_of_one_moment_share_the_time_alone() -> None:
    moment = utc_now()
    first, second = (uuid.UUID(new_id(moment)).int for _ in range(2))
    assert first >> 64 == second >> 64 and first % 2**62 != second % 2**62


def test_what_is_misspelt_is_refused_with_a_close_spelling() -> None:
    with pytest.raises(DataError, match="kind is 'identfy'.*did you mean 'identify'"):
        DecisionRecord("identfy", "shop", "label")
    with pytest.raises(DataError, match="verdict is 'rigth'"):
        DecisionFilter(verdict="rigth")


@pytest.mark.parametrize(
    ("verdict", "label", "message"),
    [
        ("confirmed", "a", "with a label"),
        ("new class", None, "without a label"),
        ("wrong", "a" * 1001, "1001 characters; expected at most 1000"),
    ],
)
def test_feedback_needs_a_label_where_it_names_one(verdict: str, label: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Feedback(verdict, label)


def test_wrong_may_leave_the_right_class_open() -> None:
    assert Feedback("wrong").label is None and Feedback("new class", "b").label == "b"


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_pages_are_bounded(limit: int) -> None:
    with pytest.raises(DataError, match="expected 1 to 1000"):
        check_page(None, limit)


@pytest.mark.parametrize("cursor", ["", "x", "../etc", "01A226F2-346B-7E49-847C-685BA1C23CAF", "' OR 1=1"])
def test_a_cursor_is_an_id(cursor: str) -> None:
    check_page(new_id(), 1)
    with pytest.raises(DataError, match="after is no cursor"):
        check_page(cursor, 10)


def test_roles_include_those_below_and_a_gallery_bounds_a_key() -> None:
    key = KeyRecord("00000000", "till", "operate", None, utc_now())
    assert key.may("view") and key.may("operate", "shop") and not key.may("admin")
    bound = KeyRecord("00000000", "till", "admin", "shop", utc_now())
    assert bound.may("admin", "shop") and not bound.may("view", "other") and not bound.may("view")
    assert not KeyRecord("00000000", "till", "admin", None, utc_now(), revoked=utc_now()).may("view")


def test_plain_data_has_times_in_utc() -> None:
    zone = datetime(2026, 5, 1, 12, tzinfo=UTC).astimezone()
    record = DecisionRecord("inspect", "line", "good", time=zone, feedback=(Feedback("confirmed", time=zone),))
    plain = record.to_dict()
    assert plain["time"] == "2026-05-01T12:00:00Z" and plain["feedback"][0]["time"] == "2026-05-01T12:00:00Z"
