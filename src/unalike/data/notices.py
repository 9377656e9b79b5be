"""Notices about the user's data, such as unreadable files: collected, summarized by kind, written to a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unalike.progress import say
from unalike.source_names import source_name, with_source_names
from unalike.storage.csv_file import write_csv
from unalike.storage.process_lock import ProcessLock

# Kind -> line; {n} is the count, {s} and {es} are plural endings, {it} the pronoun. A kind that is missing here is printed as it is.
MESSAGES = {
    "stray": "{n} file{s} skipped: not in an image format",
    "nested-archive": "{n} archive{s} among the images skipped: unpack {it} first",
    "root-image": "{n} image{s} skipped: directly in the root, in no class folder",
    "empty-class": "{n} class folder{s} without images",
    "class-of-one": "{n} class{es} with a single image: no other of its class in the set",
    "unmapped-class": "{n} class folder{s} not in the class map, shown under their own names",
    "unreadable": "{n} image{s} unreadable",
    "missing": "{n} file{s} of the manifest skipped: not found",
    "repeated-row": "{n} image{s} in several equal rows of the manifest, each counted once",
    "several-labels": "{n} image{s} under more than one label in the manifest",
    "several-splits": "{n} image{s} in more than one split of the manifest",
    "box-columns": "{n} manifest{s} whose boxes are read from columns of other names",
    "partial-box": "{n} manifest{s} with columns of boxes that are not read, so that whole images are used",
    "several-groups": "{n} image{s} in more than one group of the manifest",
    "missing-values": "{n} class{es} named as programs write a missing value: is the label missing there?",
    "similar-classes": "{n} group{s} of classes whose names look alike: they stay separate classes",
    "split-folder": "{n} folder{s} divided like a data set, the parts taken as classes",
    "folders-of-classes": "{n} folder{s} of which each folder holds folders of images and counts as one class",
    "wrapper": "{n} wrapper folder{s} unwrapped",
    "link-loop": "{n} link{s} to an enclosing folder not followed",
    "broken-link": "{n} link{s} skipped: the target does not exist",
}
MAX_NAMES = 3


class Notices:
    """A thread-safe list of (kind, name, detail); a pair of kind and name is counted once.

    ``say()`` prints one line for each kind, with its count and first names; ``write(path)`` writes every name to a CSV file.
    """

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._notices: dict[str, dict[str, str]] = {}
        self._printed: dict[str, int] = {}

    def add(self, kind: str, name: str | Path, detail: str = "") -> None:
        """Add a notice.

        Args:
            kind: A key of ``MESSAGES``, or any other word.
            name: The file or class that it is about.
            detail: The reason, where there is one.
        """
        name = source_name(name)
        detail = with_source_names(detail).removeprefix(f"{name}: ")  # an error begins with the file's name
        with self._lock:
            self._notices.setdefault(kind, {}).setdefault(str(name), detail)

    @property
    def counts(self) -> dict[str, int]:
        """Number of names of each kind."""
        with self._lock:
            return {kind: len(names) for kind, names in self._notices.items()}

    def names(self, kind: str) -> tuple[str, ...]:
        """The names of a kind, in the order in which they were added."""
        with self._lock:
            return tuple(self._notices.get(kind, ()))

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        with self._lock:
            rows = [(kind, name, detail) for kind, names in self._notices.items() for name, detail in names.items()]
        return iter(rows)

    def say(self) -> None:
        """Print one line for each kind that has new names since the last call."""
        with self._lock:
            new = {k: list(names.items()) for k, names in self._notices.items() if self._printed.get(k, 0) < len(names)}
            self._printed.update({kind: len(names) for kind, names in new.items()})
        for kind, names in new.items():
            say(format_message(kind, names))

    def write(self, path: str | Path) -> Path | None:
        """Write all notices as CSV (kind, name, detail).

        Returns:
            The path, or None (and no file) when there are none.
        """
        rows = list(self)
        if not rows:
            return None
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_csv(path, rows, ("kind", "name", "detail"))


def format_message(kind: str, names: list[tuple[str, str]]) -> str:
    """Format the line of one kind: ``3 images unreadable: a.jpg (truncated), b.jpg, ...``."""
    n = len(names)
    template = MESSAGES.get(kind, "{n} x " + kind.replace("{", "").replace("}", ""))
    plural = n != 1
    head = template.format(n=n, s="s" if plural else "", es="es" if plural else "", it="them" if plural else "it")
    first = [f"{name} ({detail})" if detail else name for name, detail in names[:MAX_NAMES]]
    # names with bytes of no encoding must not break the terminal
    text = ", ".join(first).encode("utf-8", "backslashreplace").decode()
    return f"{head}: {text}{', ...' if n > MAX_NAMES else ''}"
