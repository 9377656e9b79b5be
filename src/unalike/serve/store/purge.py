"""Removal of what a store holds: what is past its retention, one image everywhere, one class everywhere.

A purge that was interrupted is completed by running it again: what names the things to remove goes last. The audit log keeps who
purged what, and when. Deleted rows of SQLite are overwritten; PostgreSQL reuses their space after its own vacuum. Backups that
were made before are not changed.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from unalike.data.class_names import normalize_class_name
from unalike.errors import DataError, closest
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.gallery import Gallery
from unalike.serve.model_files import remove_learning_data
from unalike.serve.store.database import Database
from unalike.serve.store.images import check_sha
from unalike.serve.store.learning import TRAIN
from unalike.serve.store.records import utc_now
from unalike.serve.store.references import hash_of_reference, hashes_of, references_of
from unalike.serve.store.reviews import DOUBTFUL, DRIFTED, NEW_CLASS, UNDO_TIME
from unalike.serve.store.store import Store
from unalike.serve.store.tables import decisions, idempotency, json_text, plain_text, reviews, shadow_answers, shadows
from unalike.storage.atomic import copy_file
from unalike.storage.file_lock import file_lock

CHUNK = 500  # rows a transaction: other writers wait no longer than for these
ANSWERS_KEPT = timedelta(hours=24)
LOCK_FILE = ".purge.lock"
# A gallery that another one replaced is kept so long for those who read it, as a service that cannot load the new model does.
FORMER_S = 3600.0


@dataclass(frozen=True)
class Retention:
    """How long things are kept; None for ever.

    Attributes:
        images: images of decisions; those of references stay as long as their references.
        decisions: decisions with their feedback.
    """

    images: timedelta | None = timedelta(days=30)
    decisions: timedelta | None = None

    @classmethod
    def of_days(cls, images: float, decisions: float) -> Retention:
        """From days; 0 is for ever."""
        return cls(*(timedelta(days=days) if days else None for days in (images, decisions)))


@dataclass(frozen=True)
class PurgeReport:
    """Number of things that a purge removed; ``answers`` are those kept for repeated requests."""

    images: int = 0
    references: int = 0
    decisions: int = 0
    answers: int = 0

    def to_dict(self) -> dict[str, int]:
        """As plain data."""
        return asdict(self)


def purge_expired(
    store: Store, retention: Retention, galleries: Iterable[GalleryBackend], *, now: datetime | None = None
) -> PurgeReport:  # fmt: skip
    """Remove what is past its retention. Safe beside services that write, of which each may run it.

    Args:
        store: the store.
        retention: how long things are kept.
        galleries: every gallery that has references in this image store: an image that none names is removed.
        now: the present time.

    Raises:
        StoreError: something cannot be read or removed.
    """
    now, galleries = now or utc_now(), list(galleries)
    with purge_lock(store):
        for gallery in galleries:
            gallery.drop_former(FORMER_S)
        answers = _delete(store.database, idempotency, idempotency.c.created < now - ANSWERS_KEPT)
        _forget_undo(store.database, now - UNDO_TIME)
        rows = 0
        if retention.decisions is not None:
            rows = _delete(store.database, decisions, decisions.c.time < now - retention.decisions)
            # An answer is younger than the decisions that it is about.
            of_decisions = reviews.c.kind.in_((DOUBTFUL, DRIFTED, NEW_CLASS))
            _delete(store.database, reviews, sa.and_(of_decisions, reviews.c.time < now - retention.decisions))
        images = 0
        if retention.images is not None:
            limit = now - retention.images
            # Before the list of images: a reference that is added later has an image that was given just now.
            references = {sha for gallery in galleries for sha in hashes_of(references_of(gallery))}
            images = sum(store.images.delete(sha, limit) for sha in store.images.hashes(limit) if sha not in references)
    return PurgeReport(images=images, decisions=rows, answers=answers)


def purge_image(
    store: Store, sha: str, galleries: Mapping[str, GalleryBackend], *, actor: str = "", request_id: str = ""
) -> PurgeReport:  # fmt: skip
    """Remove one image everywhere: the picture, its thumbnails, references made from it, decisions about it.

    Args:
        store: the store.
        sha: content hash of the image.
        galleries: name -> gallery, all that have references in this image store.
        actor: who asks, for the audit log.
        request_id: the request that asked.

    Raises:
        NoSuchImage: no content hash.
        StoreError: something cannot be read or removed.
    """
    check_sha(sha)
    with purge_lock(store), _audited(store, actor, "purge.image", "", {"image": sha}, request_id) as entry:
        report = PurgeReport(images=int(store.images.delete(sha)))
        for gallery in galleries.values():
            ids = [one.id for one in references_of(gallery) if hash_of_reference(one.name) == sha]
            report = replace(report, references=report.references + _remove_references(gallery, ids))
        _remove_learning_data(store, galleries.values())
        rows = _delete(store.database, decisions, decisions.c.image == sha)
        store.images.delete(sha)  # an answer that was under way may have kept it again
        answers = _delete(store.database, idempotency, _contains(store.database, idempotency.c.body, sha))
        _delete(store.database, reviews, _contains(store.database, reviews.c.undo, sha))
        report = replace(report, decisions=rows, answers=answers)
        entry.update(report.to_dict())
    _empty_journal(store.database)
    return report


def purge_class(
    store: Store, resource: str, label: str, galleries: Mapping[str, GalleryBackend], *, actor: str = "",
    request_id: str = "",
) -> PurgeReport:  # fmt: skip
    """Remove one class of a gallery everywhere: its references, decisions that name it, and the images of both.

    An image that another reference or another decision holds stays.

    Args:
        store: the store.
        resource: name of the gallery.
        label: the class.
        galleries: name -> gallery, all that have references in this image store.
        actor: who asks, for the audit log.
        request_id: the request that asked.

    Raises:
        DataError: there is no such gallery, or nothing that names the class.
        StoreError: something cannot be read or removed.
    """
    if resource not in galleries:
        raise DataError(f"no gallery {resource!r}", remedy=closest(resource, galleries))
    label, gallery, database = normalize_class_name(label), galleries[resource], store.database
    details = {"label": label}
    with purge_lock(store), _audited(store, actor, "purge.class", resource, details, request_id) as entry:
        own = list(references_of(gallery, label)) if label in gallery.counts() else []
        names_it = _names_class(database, resource, label)
        is_shadow = _shadow_names_class(resource, label)
        is_named = _exists(database, decisions.c.id, names_it) or _exists(
            database, shadow_answers.c.shadow_id, is_shadow
        )
        if not own and not is_named:
            raise DataError(f"no class {label!r} in gallery {resource!r}", expected="a class, or one that decisions name",
                            remedy=closest(label, gallery.counts()))  # fmt: skip
        candidates = hashes_of(own) | _images_of(database, names_it)
        own_ids = {one.id for one in own}
        candidates -= {
            sha for name, other in galleries.items() for one in references_of(other)
            if (sha := hash_of_reference(one.name)) and not (name == resource and one.id in own_ids)
        }  # fmt: skip
        candidates -= _held_by_others(database, candidates, names_it)
        images = sum(store.images.delete(sha) for sha in sorted(candidates))
        is_answer = sa.or_(reviews.c.label == label, _mentions(database, reviews.c.undo, label))
        _delete(database, reviews, sa.and_(reviews.c.resource == resource, sa.func.coalesce(is_answer, sa.false())))
        # First the references: until these are gone an answer, also of a candidate, may name the class.
        references = _remove_references(gallery, sorted(own_ids))
        images += _delete_free_images(store, names_it, galleries)  # of answers that were under way meanwhile
        report = PurgeReport(
            images=images,
            decisions=_delete(database, decisions, names_it),
            answers=_delete(database, idempotency, _mentions(database, idempotency.c.body, label)),
            references=references,
        )
        _delete(database, shadow_answers, is_shadow)
        _remove_learning_data(store, galleries.values())
        entry.update(report.to_dict())
    _empty_journal(database)
    return report


def _delete_free_images(store: Store, names_it: sa.ColumnElement[bool], galleries: Mapping[str, GalleryBackend]) -> int:
    """Delete the images of decisions that name a class; those that a reference or another decision holds stay."""
    images = _images_of(store.database, names_it)
    images = {sha for sha in images if store.images.exists(sha)}
    if not images:
        return 0
    images -= {sha for gallery in galleries.values() for sha in hashes_of(references_of(gallery))}
    images -= _held_by_others(store.database, images, names_it)
    return sum(store.images.delete(sha) for sha in sorted(images))


def _remove_learning_data(store: Store, galleries: Iterable[GalleryBackend]) -> None:
    """Cancel trainings, which have copies of pictures, and remove what learning keeps beside galleries and models."""
    for gallery in galleries:
        gallery.drop_former()
    store.tasks.cancel_all(TRAIN, error="pictures of its data were purged")
    remove_learning_data(store.folder)


@contextmanager
def purge_lock(store: Store) -> Iterator[None]:
    """One purge or backup of a folder at a time."""
    path = store.folder / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with file_lock(path):
        yield


@contextmanager
def _audited(
    store: Store, actor: str, action: str, resource: str, details: Mapping[str, Any], request_id: str
) -> Iterator[dict[str, int]]:
    """An entry of the audit log around a purge; what the caller puts into the dictionary becomes part of it."""
    entry_id = store.audit.begin(actor, action, resource, details, request_id=request_id)
    counts: dict[str, int] = {}
    try:
        yield counts
    except BaseException as error:
        store.audit.finish(entry_id, "failed", str(error))
        raise
    store.audit.finish(entry_id, "done", details=counts)


def _delete(database: Database, table: sa.Table, condition: sa.ColumnElement[bool]) -> int:
    """Delete rows, some at a time; feedback and answers of shadows go with their decisions."""
    columns = list(table.primary_key.columns)
    count = 0
    while True:
        with database.writing() as connection:
            rows = connection.execute(sa.select(*columns).where(condition).limit(CHUNK)).all()
            if rows:
                is_chosen = sa.or_(
                    *(sa.and_(*(c == value for c, value in zip(columns, row, strict=True))) for row in rows)
                )
                if len(columns) == 1:
                    is_chosen = columns[0].in_([row[0] for row in rows])
                connection.execute(table.delete().where(is_chosen))
        count += len(rows)
        if len(rows) < CHUNK:
            return count


def _forget_undo(database: Database, limit: datetime) -> None:
    """Remove what would take back the answers of a review that were given before a time: vectors of removed references."""
    is_old = sa.and_(reviews.c.time < limit, sa.type_coerce(reviews.c.undo, sa.Text) != "null")
    with database.writing() as connection:
        connection.execute(reviews.update().where(is_old).values(undo=sa.literal("null", sa.Text)))


def _remove_references(gallery: GalleryBackend, ids: list[int]) -> int:
    if not ids:
        return 0
    with gallery.change() as open_gallery:
        count = open_gallery.remove(ids=ids)
    if isinstance(gallery, Gallery) and gallery.path is not None:
        _rewrite_file(gallery.path)
    return count


def _rewrite_file(path: Path) -> None:
    """Write a gallery's file anew: a removal is appended to its journal, and the vectors would stay in it."""
    with file_lock(path), tempfile.TemporaryDirectory(prefix=".purge-", dir=path.parent) as folder:
        copy = Path(folder) / path.name
        Gallery.load(path).save(copy)
        copy_file(copy, Path(os.path.realpath(path)))


def _contains(database: Database, column: sa.ColumnElement[Any], text: str) -> sa.ColumnElement[bool]:
    """Whether a column contains a text, by exact characters (LIKE would ignore case in SQLite)."""
    function = sa.func.instr if database.is_sqlite else sa.func.strpos
    return function(sa.type_coerce(column, sa.Text), plain_text(text)) > 0


def _mentions(database: Database, column: sa.ColumnElement[Any], label: str) -> sa.ColumnElement[bool]:
    """Whether JSON text has a string that is this class, in either way of writing characters beyond ASCII."""
    texts = {json_text(label), json.dumps(label, ensure_ascii=False)}
    return sa.or_(*(_contains(database, column, text) for text in sorted(texts)))


def _names_class(database: Database, resource: str, label: str) -> sa.ColumnElement[bool]:
    """Which decisions name a class: as their own, the nearest, the right one, or anywhere in their result."""
    columns = decisions.c
    is_named = sa.or_(columns.label == label, columns.nearest == label, columns.right_label == label,
                   _mentions(database, columns.result, label))  # fmt: skip
    return sa.and_(columns.resource == resource, is_named)


def _shadow_names_class(resource: str, label: str) -> sa.ColumnElement[bool]:
    """Which answers of candidates name a class."""
    of_gallery = shadow_answers.c.shadow_id.in_(sa.select(shadows.c.id).where(shadows.c.gallery == resource))
    return sa.and_(of_gallery, sa.or_(shadow_answers.c.label == label, shadow_answers.c.nearest == label))


def _exists(database: Database, column: sa.ColumnElement[Any], condition: sa.ColumnElement[bool]) -> bool:
    with database.reading() as connection:
        return connection.execute(sa.select(column).where(condition).limit(1)).first() is not None


def _images_of(database: Database, condition: sa.ColumnElement[bool]) -> set[str]:
    query = sa.select(decisions.c.image).where(condition, decisions.c.image.is_not(None)).distinct()
    with database.reading() as connection:
        return set(connection.execute(query).scalars())


def _held_by_others(database: Database, images: set[str], condition: sa.ColumnElement[bool]) -> set[str]:
    """Of some images those that a decision holds which the condition does not choose."""
    others: set[str] = set()
    candidates = sorted(images)
    with database.reading() as connection:
        for first in range(0, len(candidates), CHUNK):
            is_candidate = decisions.c.image.in_(candidates[first : first + CHUNK])
            is_other = sa.not_(sa.func.coalesce(condition, sa.false()))
            others.update(connection.execute(sa.select(decisions.c.image).where(is_candidate, is_other)).scalars())
    return others


def _empty_journal(database: Database) -> None:
    """Move SQLite's journal into the file, so that no copy of what was deleted stays in it."""
    if database.is_sqlite:
        with database.engine.connect() as connection:
            connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
