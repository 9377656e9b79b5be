"""Changes of a gallery in Milvus within one attempt, which holds the gallery's lock.

Rows are written at once, under the number of the attempt, which no reader takes into account before the commit. After an
exception they are taken back; where that is not certain the attempt is left out of all later states.

Shape letters: M vectors, D width.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from unalike.data.class_names import check_class_name, normalize_class_name
from unalike.errors import DatabaseUnavailable, DataError, closest
from unalike.numerics.arguments import check_list
from unalike.recognition.attributes import Attributes, ReferenceAttributes, check_set_count
from unalike.recognition.backends.milvus_connection import MilvusConnection
from unalike.recognition.backends.milvus_lock import GalleryLock, lost_lock, read_register
from unalike.recognition.backends.milvus_rows import ALL, NEVER, Row, batches, new_row, read_rows, stored_row
from unalike.recognition.backends.milvus_state import (
    MOST_LABEL,
    ClassTable,
    MilvusState,
    class_rows,
    document_rows,
    read_state,
)
from unalike.recognition.backends.milvus_view import LIFETIME_S, MilvusView
from unalike.recognition.decision import GalleryCalibration
from unalike.recognition.gallery_change import checked_removal
from unalike.recognition.model_identity import ModelIdentity

BATCH = 1000  # rows that are read, changed and written back at a time
KEPT_S = 2 * LIFETIME_S  # what was removed stays for those who read an earlier state
OLD_LINES = 1000  # commits, beyond four for each class, after which the table of classes is written anew
HISTORY_S, MOST_HISTORY = 300.0, 64  # seconds between commits that are remembered with their times, and their number


class MilvusChange:
    """The changes of one attempt. What does not exist is refused before anything is changed.

    Args:
        connection: to the server.
        lock: of the gallery.
        before: the state that is changed.
        classes: its table of classes.
        vectors, log: names of the collections.

    Attributes:
        state: after the changes.
        table: after the changes.
    """

    def __init__(
        self,
        connection: MilvusConnection,
        lock: GalleryLock,
        before: MilvusState,
        classes: ClassTable,
        vectors: str,
        log: str,
    ) -> None:
        self.connection, self._lock, self._before = connection, lock, before
        self._shown = connection.address.shown
        self._vectors, self._log = vectors, log
        self.state, self.table = before.next(lock.register.attempt), classes.copy()
        self._start, self._rows = self.state, 0
        self._touched, self._touched_sets = set[int](), set[int]()
        # Whether something was written, a write is without an answer, an operation did not end, the lock was given back.
        self._is_written = self._is_uncertain = self._is_torn = self._is_finished = False

    @property
    def is_changed(self) -> bool:
        """Whether there is something to commit."""
        return self.state is not self._start

    def view(self) -> MilvusView:
        """The state with the changes so far."""
        table = self.table.copy()
        return MilvusView(self.connection, self._vectors, self.state, lambda: table)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Around each write: without an answer it is not certain whether it reaches the server."""
        self._lock.check()
        self._is_uncertain = self._is_written = True
        yield
        self._is_uncertain = False

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Around writes that belong together: where some fail, nothing of this change can be committed."""
        self._is_torn = True
        yield
        self._is_torn = False

    def _write(self, collection: str, rows: Sequence[Row], dim: int) -> None:
        for part in batches(rows, dim):
            with self._writing():
                self.connection.upsert(collection, part)

    # ---- the end ----

    def commit(self) -> MilvusState:
        """Make the changes the present state. Raises DataError where another process took the lock, or a write failed."""
        if self._is_torn:
            raise DataError(f"{self._shown}: a write of this change failed", remedy="repeat the change")
        self._clean()
        lines = [self.table.line(number) for number in sorted(self._touched)]
        lines += [self.table.set_line(number) for number in sorted(self._touched_sets)]
        rows = class_rows(self.state.commit, lines, 0)
        rows += document_rows(self.state, len(rows))
        self._write(self._log, rows, 0)
        self._is_finished = True
        try:
            is_committed = self._lock.finish(self.state.commit, self.state.commit) or self._is_committed()
        except DatabaseUnavailable as error:
            raise DatabaseUnavailable(
                f"{self._shown}: no answer to the end of a change: it is not known whether it was made",
                remedy="look at the gallery when the server answers, then repeat the change if it is not there",
            ) from error
        if not is_committed:
            raise lost_lock(self.connection)
        return self.state

    def _is_committed(self) -> bool:
        """Whether the renaming that commits took place, although its answer did not come."""
        register, listing = read_register(self.connection)
        if register.uid != self.state.uid or register.commit < self.state.commit:
            return False
        later = read_state(self.connection, listing.logs[register.uid], register.uid, register.commit)
        return later.is_visible(self.state.commit)

    def abort(self) -> None:
        """Take everything back and free the lock; where that fails the attempt is left out of later states."""
        if self._is_finished:
            return
        self._is_finished = True
        with suppress(DataError):
            if self._is_written and not self._is_uncertain:
                self._take_back()
        attempt = self.state.commit if self._is_uncertain else self.state.commit - 1
        with suppress(DatabaseUnavailable):  # others take the lock over when it is not renewed
            self._lock.finish(self._before.commit, attempt)

    def _take_back(self) -> None:
        self._is_uncertain, attempt = True, self.state.commit
        self.connection.delete(self._vectors, f"added == {attempt}")
        self.connection.delete(self._log, f"added == {attempt}")
        rows = read_rows(
            lambda condition, fields: self.connection.query(self._vectors, condition, fields),
            self._before, ALL, f"removed == {attempt}",
        )  # fmt: skip
        while part := list(islice(rows, BATCH)):
            rows_before = [{**stored_row(row, self._before.has_index), "removed": NEVER} for row in part]
            for some in batches(rows_before, self.state.dim):
                self._lock.check()
                self.connection.upsert(self._vectors, some)
        self._is_uncertain = False

    def _clean(self) -> None:
        """Delete what no view can read any more, and write the table of classes anew where it has many old lines."""
        now, state = time.time(), self.state
        old = [commit for commit, since in state.history if since < now - KEPT_S]
        history = state.history
        if old:
            last = max(old)
            condition = f"removed <= {last}" + (f" and removed not in {list(state.aborted)}" if state.aborted else "")
            with self._writing():
                self.connection.delete(self._vectors, condition)
                self.connection.delete(self._log, f"kind == 0 and added < {last}")
                if state.rewritten and state.rewritten <= last:
                    self.connection.delete(self._log, f"kind == 1 and added < {state.rewritten}")
            history = tuple((commit, since) for commit, since in history if commit > last)
            if state.commit - state.rewritten > 4 * len(self.table.classes) + OLD_LINES:
                self._touched |= {*self.table.classes, *self.table.targets}
                self._touched_sets |= {*self.table.sets}
                state = replace(state, rewritten=state.commit)
        if not history or history[-1][1] < now - HISTORY_S:
            history = (*history, (state.commit, now))[-MOST_HISTORY:]
        self.state = replace(state, history=history)

    # ---- changes ----

    def _count(self, *, vectors: int = 0, revision: int = 0, ids: int = 0) -> None:
        state = self.state
        self.state = replace(state, vectors=state.vectors + vectors, classes=len(self.table.classes),
                             revision=state.revision + revision, next_id=state.next_id + ids)  # fmt: skip

    def set_calibration(self, calibration: GalleryCalibration | None) -> None:
        """Give the gallery another calibration, or none."""
        self.state = replace(self.state, calibration=calibration)

    def set_index(self, facts: Mapping[str, Any]) -> None:
        """Write effort and recall of the index."""
        self.state = replace(self.state, search_index=facts)

    def set_identity(self, identity: ModelIdentity) -> None:
        """Write what is known of the network."""
        if not identity.equals(self.state.model_identity):
            self.state = replace(self.state, model_identity=identity)

    def enrol(
        self, vectors_MD: np.ndarray, labels: Sequence[str], names: Sequence[str],
        attributes: ReferenceAttributes | None = None,
    ) -> list[int]:  # fmt: skip
        """Add references whose values were checked; their ids. Raises DataError for too many different attributes."""
        for label in labels:
            check_label(label)
        number_of, state = self.table.number_of(), self.state
        ids = list(range(state.next_id, state.next_id + len(labels)))
        next_class, numbers = state.next_class, []
        for label in labels:
            if label not in number_of:
                number_of[label] = next_class
                next_class += 1
            numbers.append(number_of[label])
        sets, new_sets = self._numbered_sets(attributes, len(labels))
        rows = [
            stored_row(new_row(state.commit, self._rows + row, *facts), state.has_index)
            for row, facts in enumerate(zip(ids, numbers, names, vectors_MD, sets, strict=True))
        ]
        self._rows += len(rows)
        with self._whole():
            self._write(self._vectors, rows, state.dim)
            for label, number in zip(labels, numbers, strict=True):
                self._put(number, label, 1)
            self.table.sets.update({number: (each, 0) for number, each in new_sets.items()})
            for number in sets:
                self._put_set(number, 1)
            self.state = replace(self.state, next_class=next_class, next_set=state.next_set + len(new_sets))
            self._count(vectors=len(labels), revision=1, ids=len(labels))
        return ids

    def _put(self, number: int, label: str, more: int) -> None:
        """Give a class a name, and more or fewer vectors; one without any is none."""
        count = self.table.classes.get(number, (label, 0))[1] + more
        self.table.classes[number] = (label, count)
        self._touched.add(number)
        if not count:
            del self.table.classes[number]
            for member in self.table.members(number)[1:]:
                del self.table.targets[member]
                self._touched.add(member)

    def _numbered_sets(
        self, attributes: ReferenceAttributes | None, count: int
    ) -> tuple[list[int], dict[int, Attributes]]:
        """The number of each reference's set of attributes, 0 for none; and the sets that are new, by their numbers."""
        if attributes is None:
            return [0] * count, {}
        number_of = {tuple(each.items()): number for number, (each, _) in self.table.sets.items()}
        new: dict[int, Attributes] = {}
        for each in attributes.sets:
            if tuple(each.items()) not in number_of:
                number = number_of[tuple(each.items())] = self.state.next_set + len(new)
                new[number] = each
        check_set_count(len(self.table.sets) + len(new))
        numbers = [*(number_of[tuple(each.items())] for each in attributes.sets), 0]
        return [numbers[code] for code in attributes.codes_N.tolist()], new

    def _put_set(self, number: int, more: int) -> None:
        """Give a set of attributes more or fewer references; one without any is none."""
        if number:
            attributes, count = self.table.sets[number]
            self.table.sets[number] = (attributes, count + more)
            self._touched_sets.add(number)
            if not count + more:
                del self.table.sets[number]

    def remove(self, labels: Sequence[str], names: Sequence[str], ids: Sequence[int]) -> int:
        """Remove classes and single references; the number of vectors removed."""
        labels, names, ids = checked_removal(labels, names, ids)
        view = self.view()
        classes = [member for label in labels for member in self.table.members(view.class_number(label))]
        id_set = set(ids)
        for name in dict.fromkeys(names):
            matches = view.ids_of_name(name)
            if not matches:
                names_there = [entry.name for entry in view.entries(limit=10_000)]
                raise DataError(f"no image {name!r} in the gallery", remedy=closest(name, names_there))
            id_set.update(matches)
        rows = view.rows_of_ids(sorted(id_set), ALL)
        if missing := id_set - set(rows):
            raise DataError(f"no image of id {min(missing)} in the gallery")
        count = 0
        with self._whole():
            count += self._remove_rows(iter(rows.values()))
            if classes:
                others = (row for row in view.rows(ALL, f"class in {classes}") if row["id"] not in rows)
                count += self._remove_rows(others)
            if count:
                self._count(vectors=-count, revision=1)
        return count

    def _remove_rows(self, rows: Iterator[Row]) -> int:
        """Put the number of this attempt into rows; their number."""
        count = 0
        while part := list(islice(rows, BATCH)):
            changes = [{**stored_row(row, self.state.has_index), "removed": self.state.commit} for row in part]
            self._write(self._vectors, changes, self.state.dim)
            for row in part:
                number = self.table.target(row["class"])
                self._put(number, self.table.classes[number][0], -1)
                self._put_set(row["attributes"], -1)
            count += len(part)
        return count

    def rename(self, label: str, new: str) -> None:
        """Rename a class."""
        view = self.view()
        number = view.class_number(label)
        label, new = normalize_class_name(label), check_label(check_class_name(new))
        if new == label:
            return
        if new in self.table.number_of():
            raise DataError(f"{new!r} is in the gallery already", remedy=f"merge {label!r} into it instead")
        self.table.classes[number] = (new, self.table.classes[number][1])
        self._touched.add(number)
        self._count()

    def merge(self, labels: Sequence[str], into: str) -> int:
        """Merge classes into ``into``, which may be new; the number of vectors whose class changed."""
        view, into = self.view(), normalize_class_name(into)
        names = check_list("labels", labels, "a class name", ordered=False)
        numbers = [view.class_number(name) for label in names if (name := normalize_class_name(label)) != into]
        numbers = list(dict.fromkeys(numbers))
        if not numbers:
            raise DataError("nothing to merge", expected="at least one class other than the one to merge into")
        target = self.table.number_of().get(into)
        if target is None:
            check_label(check_class_name(into))
        images = sum(self.table.classes[number][1] for number in numbers)
        target = numbers[0] if target is None else target
        total = sum(self.table.classes[number][1] for number in {*numbers, target})
        for number in numbers:
            if number != target:
                for member in self.table.members(number):
                    self.table.targets[member] = target
                    self._touched.add(member)
                del self.table.classes[number]
        self.table.classes[target] = (into, total)
        self._touched.add(target)
        self._count(revision=1)
        return images


def check_label(label: str) -> str:
    """Return the name of a class. Raises DataError for one that is too long."""
    if len(label) > MOST_LABEL:
        raise DataError(f"a class name of {len(label)} characters", expected=f"at most {MOST_LABEL} in Milvus")
    return label
