"""Batches: the pictures of one visit of a page, named by the id of their requests, under which a reload finds them."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime, timedelta

_PREFIX = "page-"


def new_batch() -> str:
    """A name for the pictures of one visit: the id of their requests, by which a page that is loaded again finds them."""
    return f"{_PREFIX}{time.time_ns() // 1_000_000:x}-{secrets.token_hex(6)}"


def start_of_batch(batch: str) -> datetime | None:
    """When a batch was named, which bounds the search for its decisions; None for another name."""
    try:
        milliseconds = int(batch.removeprefix(_PREFIX).partition("-")[0], 16)
        return datetime.fromtimestamp(milliseconds / 1000, UTC) - timedelta(minutes=1)
    except (ValueError, OverflowError, OSError):
        return None
