"""States of a gallery in Milvus: a document for each commit, and a table of classes whose lines are added and never changed.

Both lie in one collection, the log, whose rows are written once. A row belongs to an attempt; those of attempts that were no
commit are left out.

Shape letters: D width of a vector.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.recognition.attributes import NO_ATTRIBUTES, Attributes, AttributeSets, Where, check_where
from unalike.recognition.backends.database_gallery import DatabaseState
from unalike.recognition.backends.milvus_connection import MilvusConnection
from unalike.recognition.gallery_content import read_calibration
from unalike.recognition.model_identity import read_identity
from unalike.storage.outside_files import reader_errors

FORMAT_VERSION = 2  # 1 of a gallery without an index, which earlier releases read and write
# A primary key is the number of the attempt and, in the lower bits, that of the row in it: no other attempt ever writes it.
ROW_BITS = 32
_DOCUMENT, _CLASS = 0, 1
_TEXT = 60_000  # characters of a row's text, all ASCII; Milvus takes 65,535 bytes
MOST_LABEL = 8000  # characters of the name of a class
_NUMBERS = ("dim", "half", "vectors", "classes", "revision", "next_id", "next_class", "next_set")
LOG_FIELDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("pk", "INT64", {}),
    ("added", "INT64", {}),
    ("kind", "INT64", {}),
    ("part", "INT64", {}),
    ("text", "VARCHAR", {"max_length": 65_535}),
    ("vector", "FLOAT_VECTOR", {"dim": 2}),  # of no meaning: a collection needs one
)
LOG_INDEXES = {"vector": {"index_type": "FLAT", "metric_type": "IP"}}


@dataclass(frozen=True, kw_only=True)
class MilvusState(DatabaseState):
    """What a gallery is at one commit.

    Attributes:
        uid: number of the gallery; another one where it was replaced.
        commit: number of the attempt that made this state.
        next_class: number of the next class.
        next_set: number of the next set of attributes; 0 stands for none.
        aborted: attempts before ``commit`` that were none, whose rows count for nothing.
        formers: galleries that this one replaced and that are still read: their commit, and since when in seconds, by number.
        rewritten: since this commit the table of classes is complete without earlier lines.
        history: some earlier commits, with their times in seconds.
        search_index: of an index for approximate search: effort and recall, empty until they are measured; None without one.
    """

    uid: str
    commit: int
    next_class: int
    next_set: int
    aborted: tuple[int, ...] = ()
    formers: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    rewritten: int = 0
    history: tuple[tuple[int, float], ...] = ()
    search_index: Mapping[str, Any] | None = None

    @property
    def has_index(self) -> bool:
        """Whether its vectors are written into an index for approximate search too."""
        return self.search_index is not None

    def next(self, attempt: int) -> MilvusState:
        """The state that another attempt begins with: all attempts in between were no commits."""
        between = tuple(range(self.commit + 1, attempt))
        return replace(self, commit=attempt, aborted=(*self.aborted, *between))

    def is_visible(self, attempt: int) -> bool:
        """Whether what an attempt wrote belongs to this state."""
        return attempt <= self.commit and attempt not in self.aborted

    @cached_property
    def condition(self) -> str:
        """The expression that selects the vectors of this state."""
        if not self.aborted:
            return f"added <= {self.commit} and removed > {self.commit}"
        aborted = list(self.aborted)
        return (
            f"added <= {self.commit} and added not in {aborted} and (removed > {self.commit} or removed in {aborted})"
        )

    def to_text(self) -> str:
        """All of it but ``uid`` and ``commit`` as a JSON text of ASCII characters."""
        identity = self.model_identity
        return json.dumps(
            {
                "format": FORMAT_VERSION if self.has_index else 1, "index": self.search_index, **{key: getattr(self, key) for key in _NUMBERS}, "network": identity.to_dict(),
                "probe": base64.b64encode(np.asarray(identity.probe_D, "<f4").tobytes()).decode("ascii"),
                "calibration": None if self.calibration is None else self.calibration.to_dict(),
                "aborted": self.aborted, "formers": self.formers, "rewritten": self.rewritten, "history": self.history,
            },
            allow_nan=False,
        )  # fmt: skip

    @classmethod
    def of_text(cls, uid: str, commit: int, text: str, display: str) -> MilvusState:
        """The inverse of ``to_text``. Raises DataError for a damaged text, and for one of a newer release."""
        with reader_errors(f"{display} is damaged, or another program wrote it", remedy="restore it from a copy"):
            values = json.loads(text)
            version = int(values["format"])
            if version <= FORMAT_VERSION:
                probe_D = np.frombuffer(base64.b64decode(values["probe"]), "<f4").astype(np.float32)
                calibration = values["calibration"]
                dim, half, vectors, classes, revision, next_id, next_class, next_set = (values[key] for key in _NUMBERS)
                return cls(
                    uid=uid, commit=commit, dim=dim, half=half, vectors=vectors, classes=classes, revision=revision, next_id=next_id,
                    next_class=next_class, next_set=next_set, model_identity=read_identity(probe_D, values["network"]),
                    calibration=None if calibration is None else read_calibration(calibration), aborted=tuple(values["aborted"]),
                    formers={key: (number, since) for key, (number, since) in values["formers"].items()},
                    rewritten=values["rewritten"], history=tuple((number, since) for number, since in values["history"]),
                    search_index=values.get("index"),
                )  # fmt: skip
        raise DataError(f"{display} has format version {version}", remedy="update unalike")


class ClassTable:
    """The classes of a state: their numbers in the order of first enrollment, names and numbers of vectors.

    A class that was merged into another keeps its number, and stands for the other one: vectors keep the number of their class.

    Attributes:
        classes: [name, number of vectors] by number.
        sets: [attributes, number of references that have them] by the number of the set.
        targets: the class that a merged class became, by number.
        commit: of the state that it belongs to.
    """

    def __init__(self) -> None:
        self.classes: dict[int, tuple[str, int]] = {}
        self.targets: dict[int, int] = {}
        self.sets: dict[int, tuple[Attributes, int]] = {}
        self.commit = 0

    def copy(self) -> ClassTable:
        """A table of its own."""
        table = ClassTable()
        table.classes, table.targets, table.sets = dict(self.classes), dict(self.targets), dict(self.sets)
        table.commit = self.commit
        return table

    def put(self, line: Mapping[str, Any]) -> None:
        """Take over a line: a class with its vectors, one without any, or one that was merged; or a set of attributes."""
        if "s" in line:
            self.sets.pop(int(line["s"]), None)
            if line["v"]:
                self.sets[int(line["s"])] = (dict(line["a"]), int(line["v"]))
            return
        number = int(line["n"])
        self.classes.pop(number, None)
        self.targets.pop(number, None)
        if line["t"] is not None:
            self.targets[number] = int(line["t"])
        elif line["v"]:
            self.classes[number] = (str(line["l"]), int(line["v"]))

    def line(self, number: int) -> dict[str, Any]:
        """The line of a class, which may be one that is gone."""
        label, count = self.classes.get(number, ("", 0))
        return {"n": number, "l": label, "v": count, "t": self.targets.get(number)}

    def set_line(self, number: int) -> dict[str, Any]:
        """The line of a set of attributes, which may be one that is gone."""
        attributes, count = self.sets.get(number, (NO_ATTRIBUTES, 0))
        return {"s": number, "a": dict(attributes), "v": count}

    def attributes_of(self, number: int) -> Attributes:
        """The attributes of a set; none for 0."""
        return self.sets[number][0] if number else NO_ATTRIBUTES

    def passing_sets(self, where: Where | None) -> list[int] | None:
        """Ascending numbers of the sets that a filter lets pass; None for no filter. Raises DataError for another name."""
        values_by_name, numbers = check_where(where), sorted(self.sets)
        if values_by_name is None:
            return None
        return [numbers[code] for code in AttributeSets([self.sets[n][0] for n in numbers]).matching(values_by_name)]

    def counts(self) -> dict[str, int]:
        """Number of vectors of each class, in the order of first enrollment."""
        return {label: count for _, (label, count) in sorted(self.classes.items())}

    def number_of(self) -> dict[str, int]:
        """Number of each class by its name."""
        return {label: number for number, (label, _) in self.classes.items()}

    def target(self, number: int) -> int:
        """The class that a number stands for."""
        return self.targets.get(number, number)

    def members(self, number: int) -> list[int]:
        """All numbers that stand for a class."""
        return [number, *(merged for merged, target in self.targets.items() if target == number)]


def document_rows(state: MilvusState, first: int) -> list[dict[str, Any]]:
    """The rows of a state's document, with primary keys from ``first`` on."""
    text = state.to_text()
    return [
        _row(state.commit, first + part, _DOCUMENT, part, text[start : start + _TEXT])
        for part, start in enumerate(range(0, len(text), _TEXT))
    ]


def class_rows(commit: int, lines: Iterable[Mapping[str, Any]], first: int) -> list[dict[str, Any]]:
    """The rows of lines of the table of classes, with primary keys from ``first`` on."""
    return [_row(commit, first + row, _CLASS, 0, json.dumps(line)) for row, line in enumerate(lines)]


def _row(commit: int, number: int, kind: int, part: int, text: str) -> dict[str, Any]:
    return {
        "pk": commit << ROW_BITS | number,
        "added": commit,
        "kind": kind,
        "part": part,
        "text": text,
        "vector": [1.0, 0.0],
    }


def read_state(connection: MilvusConnection, log: str, uid: str, commit: int) -> MilvusState:
    """Read the document of a commit. Raises DataError where it is damaged or gone."""
    rows = connection.query(log, f"added == {commit} and kind == {_DOCUMENT}", ["part", "text"])
    text = "".join(row["text"] for row in sorted(rows, key=lambda row: row["part"]))
    return MilvusState.of_text(uid, commit, text, connection.address.shown)


def read_classes(connection: MilvusConnection, log: str, state: MilvusState, earlier: ClassTable | None) -> ClassTable:
    """The table of classes of a state, from one of an earlier state of the same gallery where there is one.

    Raises:
        DataError: it does not fit the state.
    """
    is_usable = earlier is not None and max(1, state.rewritten) <= earlier.commit <= state.commit
    table = earlier.copy() if earlier is not None and is_usable else ClassTable()
    after = table.commit if table.commit else max(0, state.rewritten - 1)
    lines: list[tuple[int, str]] = []
    for first, last in _spans(connection, log, after, state.commit):
        rows = connection.query(log, f"kind == {_CLASS} and pk >= {first} and pk < {last}", ["text"])
        lines += [(row["pk"], row["text"]) for row in rows if state.is_visible(row["pk"] >> ROW_BITS)]
    for _, text in sorted(lines):
        table.put(json.loads(text))
    table.commit = state.commit
    if len(table.classes) != state.classes or sum(count for _, count in table.classes.values()) != state.vectors:
        raise DataError(f"{connection.address.shown} is damaged: its classes do not fit its state",
                        remedy="another program changed its collections: restore it from a copy")  # fmt: skip
    return table


def _spans(connection: MilvusConnection, log: str, after: int, last: int) -> Iterable[tuple[int, int]]:
    """Spans of primary keys of the attempts behind ``after`` that hold few enough rows to be read at once."""
    spans = [((after + 1) << ROW_BITS, (last + 1) << ROW_BITS)]
    while spans:
        low, high = spans.pop()
        if high <= low:
            continue
        count = connection.count(log, f"kind == {_CLASS} and pk >= {low} and pk < {high}")
        if count > MOST_LINES and high - low > 1:
            middle = (low + high) // 2
            spans += [(middle, high), (low, middle)]
        elif count:
            yield low, high


MOST_LINES = 8000  # of the table of classes that are read at once
