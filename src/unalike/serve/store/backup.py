"""Backup of a service while it writes, and restoring one: a folder with the database, the galleries and the images.

    manifest.json         format, time, digests
    store.db              the database, in SQLite also where the service uses PostgreSQL
    galleries/NAME.gallery
    images/ab/abcd...     by content hash
    models/ID/model.onnx  models that were trained for the galleries

The database is copied first, then the galleries, then the images. An image is on the disk before anything names it, and a gallery
changes before the answer that says so is in the database: what is copied later holds all that was copied before needs.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from unalike.errors import StoreError
from unalike.recognition.backends.address import open_gallery
from unalike.recognition.backends.database_address import is_database
from unalike.recognition.gallery_file import write_gallery_file
from unalike.serve.model_files import copy_models
from unalike.serve.store.database import BUSY_S, DATABASE_FILE, Database
from unalike.serve.store.images import ImageStore
from unalike.serve.store.migration import upgrade
from unalike.serve.store.purge import purge_lock
from unalike.serve.store.records import utc_now
from unalike.serve.store.store import IMAGES_FOLDER, Store, open_store
from unalike.serve.store.tables import metadata
from unalike.storage.atomic import atomic_write, write_text
from unalike.storage.digests import file_sha256, text_sha256
from unalike.storage.file_lock import file_lock
from unalike.storage.outside_files import read_bytes, reader_errors, reason
from unalike.storage.overwrite import refuse_existing

FORMAT, FORMAT_VERSION = "unalike backup", 1
MANIFEST, GALLERIES = "manifest.json", "galleries"
ROWS = 1000  # copied at once between databases of two kinds


@dataclass(frozen=True)
class BackupReport:
    """What a backup holds, or what was restored.

    Attributes:
        folder: where.
        rows: number of rows by table.
        images: number of images.
        galleries: name -> file.
    """

    folder: str
    rows: dict[str, int]
    images: int
    galleries: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def backup(
    store: Store, target: str | Path, galleries: Mapping[str, str | Path] | None = None, *, with_images: bool = True
) -> BackupReport:  # fmt: skip
    """Write a backup, while services read and write; a purge waits meanwhile.

    It appears under its name when it is complete.

    Args:
        store: the store.
        target: a folder that does not exist, or is empty.
        galleries: name -> address; by default those that services of this store have registered. One that is kept in a
            database becomes a file in the backup.
        with_images: False leaves images out, where their store has a backup of its own.

    Raises:
        StoreError: something cannot be read or written, or the target is not empty.
    """
    target = Path(os.path.abspath(target))
    refuse_existing(target, folder=True, error=StoreError)
    addresses = dict(store.galleries.list() if galleries is None else galleries)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    with purge_lock(store), _writing(partial):
        partial.mkdir(parents=True)
        rows = _copy_database(store.database, partial / DATABASE_FILE)
        digests = {DATABASE_FILE: file_sha256(partial / DATABASE_FILE)}
        (partial / GALLERIES).mkdir()
        copies = {}
        for name, address in addresses.items():
            file_name = f"{_file_stem(name)}.gallery"
            _copy_gallery(address, partial / GALLERIES / file_name)
            digests[f"{GALLERIES}/{file_name}"] = file_sha256(partial / GALLERIES / file_name)
            copies[name] = file_name
        images = _copy_images(store.images, ImageStore(partial / IMAGES_FOLDER)) if with_images else 0
        copy_models(store.folder, partial)
        manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, "time": utc_now().isoformat(), "rows": rows,
                    "images": images, "galleries": copies, "sha256": digests}  # fmt: skip
        write_text(partial / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        if target.is_dir():
            target.rmdir()
        os.rename(partial, target)
    paths = {name: str(target / GALLERIES / file_name) for name, file_name in copies.items()}
    return BackupReport(str(target), rows, images, paths)


def restore(
    source: str | Path, folder: str | Path, url: str | None = None, images: str | Path | None = None
) -> BackupReport:  # fmt: skip
    """Restore a backup into a new store. The database comes last, so that an interrupted restoring can be repeated.

    Args:
        source: the backup's folder.
        folder: the folder of the service; it may hold no store.
        url: as of ``open_store``; tables in PostgreSQL must be empty.
        images: as of ``open_store``.

    Returns:
        What was restored; ``galleries`` are the files that the service is to be given.

    Raises:
        StoreError: it is no backup, it is damaged, or there is a store already.
    """
    source, folder = Path(source), Path(folder)
    manifest = _read_manifest(source)
    for name, digest in manifest["sha256"].items():
        with reader_errors(f"{source / name} cannot be read", error=StoreError):
            if file_sha256(source / name) != digest:
                raise StoreError(f"{source / name} is damaged", expected="the content that was backed up",
                                 remedy="use another backup")  # fmt: skip
    database = Database(url, folder)
    if database.path and database.path.exists():
        refuse_existing(database.path, error=StoreError, alternative="name another folder with --folder")
    copies = {}
    with _writing():
        (folder / GALLERIES).mkdir(parents=True, exist_ok=True)
        for name, file_name in manifest["galleries"].items():
            path = folder / GALLERIES / Path(file_name).name
            if not path.exists() or file_sha256(path) != manifest["sha256"][f"{GALLERIES}/{file_name}"]:
                refuse_existing(path, error=StoreError)
                _copy_file(source / GALLERIES / file_name, path)
            copies[name] = str(path)
        copy_models(source, folder)
        count = _copy_images(ImageStore(source / IMAGES_FOLDER), ImageStore(images or folder / IMAGES_FOLDER))
        if database.path:
            _copy_file(source / DATABASE_FILE, database.path, mode=0o600)
            rows = dict(manifest["rows"])
        else:
            rows = _fill(source / DATABASE_FILE, database)
    with open_store(url, folder, images) as store:
        store.galleries.register(copies)
    return BackupReport(str(folder), rows, count, copies)


def _copy_database(database: Database, path: Path) -> dict[str, int]:
    """Copy all rows, as they are at one moment, into a SQLite file of its own. Returns their number by table."""
    target = Database(f"sqlite:///{path}", path.parent)
    if database.path:
        source, copy = sqlite3.connect(database.path, timeout=BUSY_S), sqlite3.connect(path)
        try:
            source.backup(copy)  # all pages in one step: writers append to the journal meanwhile
        except sqlite3.Error as error:
            raise database.explain(error) from error
        finally:
            copy.close()
            source.close()
    else:
        upgrade(target)
        with database.reading() as connection:
            _copy_rows(connection, target)
    with target.reading() as connection:
        rows = _count_rows(connection)
    target.close()
    _close_journal(path)
    return rows


def _fill(path: Path, database: Database) -> dict[str, int]:
    """Copy the rows of a backup into PostgreSQL, whose tables must be empty."""
    upgrade(database)
    with database.reading() as connection:
        if any(_count_rows(connection).values()):
            raise StoreError(f"{database.address} holds a store", expected="empty tables",
                             remedy="create a new database")  # fmt: skip
    copy = path.with_name(f".{path.name}.restoring-{os.getpid()}")  # the backup itself stays as it is
    try:
        shutil.copyfile(path, copy)
        source = Database(f"sqlite:///{copy}", copy.parent)
        upgrade(source)  # of an earlier version
        with source.reading() as connection:
            _copy_rows(connection, database)
            rows = _count_rows(connection)
        source.close()
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
    return rows


def _copy_rows(source: sa.Connection, target: Database) -> None:
    """Copy all tables in one transaction, those that others refer to first."""
    with target.writing() as connection:
        for table in metadata.sorted_tables:
            rows = source.execution_options(yield_per=ROWS).execute(sa.select(table)).mappings()
            for part in rows.partitions(ROWS):
                connection.execute(table.insert(), [dict(row) for row in part])


def _count_rows(connection: sa.Connection) -> dict[str, int]:
    return {
        table.name: int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
        for table in metadata.sorted_tables
    }


def _copy_gallery(address: str | Path, copy: Path) -> None:
    """Write a gallery as it is at one moment. Of a file: later changes are appended behind it, or go to a new one."""
    if is_database(address):
        with open_gallery(address).view() as view:
            write_gallery_file(copy, view.snapshot(), view.calibration, view.model_identity)
        return
    path = Path(address)
    with reader_errors(f"gallery {path} cannot be read", error=StoreError):
        with file_lock(path):  # nobody is in the middle of a change
            file = path.open("rb")
            size = os.fstat(file.fileno()).st_size
        with file, copy.open("wb") as out:
            while size > 0 and (content := file.read(min(size, 2**20))):
                out.write(content)
                size -= len(content)
            out.flush()
            os.fsync(out.fileno())


def _copy_images(source: ImageStore, target: ImageStore) -> int:
    """Copy the images that the target lacks, each checked by its name. Returns the number of all."""
    count = 0
    for sha in source.hashes():
        if not target.exists(sha):
            target.put(source.get(sha))
        count += 1
    return count


def _copy_file(source: Path, path: Path, mode: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        if mode is not None:
            partial.chmod(mode)
        shutil.copyfile(source, partial)


def _read_manifest(source: Path) -> dict[str, Any]:
    path = source / MANIFEST
    expectation = "the folder of a backup by unalike serve backup"
    with reader_errors(f"{path} cannot be read", expected=expectation, error=StoreError):
        manifest: dict[str, Any] = json.loads(read_bytes(path, 2**24, error=StoreError))
        if manifest["format"] != FORMAT:
            raise StoreError(f"{path} is no manifest of a backup", expected=expectation)
        if manifest["format_version"] > FORMAT_VERSION:
            raise StoreError(f"{path} has version {manifest['format_version']}", expected=f"at most {FORMAT_VERSION}",
                             remedy="use the unalike that wrote it, or a newer one")  # fmt: skip
        names = [*manifest["galleries"].values(), *(name.rpartition("/")[2] for name in manifest["sha256"])]
        if any(Path(name).name != name for name in names) or not {"rows", "sha256"} <= manifest.keys():
            raise StoreError(f"{path} is damaged", expected=expectation)
    return manifest


@contextmanager
def _writing(partial: Path | None = None) -> Iterator[None]:
    """While inside, failures of the system become one line; after any, the partial folder is removed."""
    try:
        yield
    except BaseException as error:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise StoreError(f"{error.filename or 'a file'} cannot be written: {reason(error)}",
                             expected="a folder with enough space") from error  # fmt: skip
        raise


def _file_stem(name: str) -> str:
    """A gallery's name as the name of a file; two names never become one."""
    plain = "".join(character if character.isalnum() or character in "-_" else "-" for character in name)[:60]
    return plain if plain == name else f"{plain}-{text_sha256(name, 8)}"


def _close_journal(path: Path) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode=DELETE")
    finally:
        connection.close()
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
