"""Good images that a service has already: those of its inspections that people called good, and whose picture is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from unalike.inspection.result import DEFECTIVE, GOOD
from unalike.serve.store import DecisionFilter, DecisionRecord, Store
from unalike.serve.store.records import MAX_PAGE

# What a decision and the latest feedback on it say together: whether the part is good.
IS_GOOD = {
    (GOOD, "confirmed"): True, (DEFECTIVE, "wrong"): True, (GOOD, "wrong"): False, (DEFECTIVE, "confirmed"): False,
}  # fmt: skip


@dataclass(frozen=True)
class GoodImages:
    """Good images of an inspector's decisions.

    Attributes:
        images: their content hashes and names, the newest first, each content once.
        not_kept: number of good decisions whose picture is not kept (any more).
    """

    images: list[dict[str, str]]
    not_kept: int = 0


def collect_good_images(
    store: Store, inspector: str, since: datetime | None = None, until: datetime | None = None
) -> GoodImages:
    """The images of an inspector's decisions that people called good: confirmed as good, or called defective by mistake.

    Of several decisions on one picture the newest that somebody judged counts.

    Args:
        store: the store of the service.
        inspector: its name.
        since, until: time of the decisions, from and before.
    """
    newest: dict[str, DecisionRecord] = {}
    not_kept = 0
    for record in _judged(store, inspector, since, until):
        if record.image is None:
            not_kept += _is_good(record)
        elif record.image not in newest or newest[record.image].id < record.id:
            newest[record.image] = record
    images = []
    for sha, record in sorted(newest.items(), key=lambda item: item[1].id, reverse=True):
        if not _is_good(record):
            continue
        if store.images.exists(sha):
            images.append({"sha256": sha, "name": record.file or f"decision {record.id}"})
        else:
            not_kept += 1
    return GoodImages(images, not_kept)


def _judged(store: Store, inspector: str, since: datetime | None, until: datetime | None) -> Iterator[DecisionRecord]:
    """Decisions of an inspector on which people said something that tells good from defective."""
    for verdict in sorted({verdict for _, verdict in IS_GOOD}):
        selection = DecisionFilter(kind="inspect", resource=inspector, verdict=verdict, since=since, until=until)
        after = None
        while True:
            page = store.decisions.find(selection, after, MAX_PAGE)
            yield from (record for record in page.items if _key(record) in IS_GOOD)
            after = page.next
            if after is None:
                break


def _is_good(record: DecisionRecord) -> bool:
    return IS_GOOD[_key(record)]


def _key(record: DecisionRecord) -> tuple[str, Any]:
    return record.decision, record.feedback[-1].verdict if record.feedback else None
