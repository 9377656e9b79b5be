"""Batches of pictures: their names hold their time, and no two are alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from unalike.serve.pages.batch import new_batch, start_of_batch


def test_a_batch_has_its_time_in_its_name() -> None:
    start = start_of_batch(new_batch())
    assert start is not None and timedelta(seconds=55) < datetime.now(UTC) - start < timedelta(seconds=90)
    assert len({new_batch() for _ in range(50)}) == 50
    for name in ("", "page-", "page-zz-1", "page-" + "f" * 40, "other"):
        assert start_of_batch(name) is None
