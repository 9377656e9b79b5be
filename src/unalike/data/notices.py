"""What was found odd in the user's data: gathered by any thread, said once a kind, names written to a file."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from pathlib import Path

from unalike.progress import say
from unalike.storage.atomic import replacing

# The sentence of a kind; {n} is the count, {s} an "s" for several. A kind that stands not here is its own sentence.
SENTENCES = {
    "stray": "{n} file{s} that {are} no image passed over",
    "root-image": "{n} image{s} directly in the root, in no class folder, passed over",
    "empty-class": "{n} class folder{s} without images",
    "class-of-one": "{n} class{es} with a single image: no other of its class in the set",
    "unmapped-class": "{n} class folder{s} not in the class map, shown under their own names",
    "unreadable": "{n} image{s} unreadable",
    "missing": "{n} file{s} of the manifest not there, passed over",
    "wrapper": "{n} wrapper folder{s} unwrapped",
    "link-loop": "{n} link{s} to an enclosing folder not followed",
    "broken-link": "{n} link{s} to nothing passed over",
}
SHOWN_NAMES = 3


class Notices:
    """A thread-safe list of (kind, name, detail); a pair of kind and name is counted once.

    ``say()`` writes one line a kind with its count and first names; ``write(path)`` puts every name in a CSV file.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, dict[str, str]] = {}
        self._said: dict[str, int] = {}

    def add(self, kind: str, name: str | Path, detail: str = "") -> None:
        """Note that ``name`` (a file, a class) is of this kind; ``detail`` is the reason, where there is one."""
        detail = detail.removeprefix(f"{name}: ")  # the text of an error that begins with the file's name
        with self._lock:
            self._found.setdefault(kind, {}).setdefault(str(name), detail)

    @property
    def counts(self) -> dict[str, int]:
        """How many names each kind has."""
        with self._lock:
            return {kind: len(names) for kind, names in self._found.items()}

    def names(self, kind: str) -> tuple[str, ...]:
        """The names noted under a kind, in the order in which they came."""
        with self._lock:
            return tuple(self._found.get(kind, ()))

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        with self._lock:
            rows = [(kind, name, detail) for kind, names in self._found.items() for name, detail in names.items()]
        return iter(rows)

    def say(self) -> None:
        """One line for each kind that has grown since it was last said."""
        with self._lock:
            due = {k: list(names.items()) for k, names in self._found.items() if self._said.get(k, 0) < len(names)}
            self._said.update({kind: len(names) for kind, names in due.items()})
        for kind, names in due.items():
            say(sentence(kind, names))

    def write(self, path: str | Path) -> Path | None:
        """Write all as CSV (kind, name, detail); returns the path, or None (and no file) when there is nothing."""
        rows = list(self)
        if not rows:
            return None
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # surrogateescape: a file name need not be valid Unicode, and must be found again from this list
        with (
            replacing(path) as partial,
            partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as out,
        ):
            writer = csv.writer(out)
            writer.writerow(("kind", "name", "detail"))
            writer.writerows(rows)
        return path


def sentence(kind: str, names: list[tuple[str, str]]) -> str:
    """The line of one kind: ``3 images unreadable: a.jpg (truncated), b.jpg, ...``."""
    n = len(names)
    template = SENTENCES.get(kind, "{n} x " + kind.replace("{", "").replace("}", ""))
    many = n != 1
    head = template.format(n=n, s="s" if many else "", es="es" if many else "", are="are" if many else "is")
    shown = [f"{name} ({detail})" if detail else name for name, detail in names[:SHOWN_NAMES]]
    # a name that holds bytes of no encoding must not break the terminal's
    text = ", ".join(shown).encode("utf-8", "backslashreplace").decode()
    return f"{head}: {text}{', ...' if n > SHOWN_NAMES else ''}"
