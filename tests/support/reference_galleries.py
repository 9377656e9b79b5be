"""A gallery without vectors, in memory: what purges read and change of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple


class Entry(NamedTuple):
    id: int
    label: str
    name: str


class MemoryGallery:
    """References as (label, name); ids are their positions."""

    path = None

    def __init__(self, *references: tuple[str, str]) -> None:
        self.references = [Entry(number, label, name) for number, (label, name) in enumerate(references)]

    def entries(self, label: str | None = None, after: int = -1, limit: int = 100) -> list[Entry]:
        chosen = [one for one in self.references if one.id > after and label in (None, one.label)]
        return chosen[:limit]

    def counts(self) -> dict[str, int]:
        return Counter(one.label for one in self.references)

    @contextmanager
    def change(self) -> Iterator[MemoryGallery]:
        yield self

    def remove(self, labels: Sequence[str] = (), names: Sequence[str] = (), ids: Sequence[int] = ()) -> int:
        before = len(self.references)
        self.references = [one for one in self.references if one.id not in ids]
        return before - len(self.references)
