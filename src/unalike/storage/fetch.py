"""Fetch remote files into the cache: once, checked, resumable, shared by processes.

The files that a URI names at one moment make a *snapshot*: a folder ``<cache>/remote/<address>-<listing>`` that never
changes once it is complete. When something changes in the store, so does the digest of its listing, and a new snapshot
takes over the files that stayed the same. A snapshot is built under the name ``.build-...``; a download that a broken
connection or a kill interrupted continues there at its last byte.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import posixpath
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from unalike.errors import DataError, UnalikeError
from unalike.progress import progress, say
from unalike.sanitize import redact
from unalike.source_names import register_files, register_folder
from unalike.storage.atomic import write_text
from unalike.storage.cache import CacheEntry, cache_failures, default_cache_dir, make_room
from unalike.storage.digests import file_sha256, text_sha256
from unalike.storage.filesystems import (
    RemoteFile,
    RemoteStore,
    StaleListing,
    failure_kind,
    file_name,
    is_hidden,
    safe_parts,
    split_address,
    uri_of,
)
from unalike.storage.outside_files import expand_home

FORMAT_VERSION = 1
BLOCK_BYTES = 8 << 20
PARALLEL_BLOCKS = 4  # blocks of one file that are fetched at once
ATTEMPTS = 5  # in a row without a byte of progress
BACKOFF_S = 0.5
MEGABYTE = 1_000_000
# Parameters of signed addresses, which change from day to day while the file stays the same.
_SIGNING = ("x-amz-", "x-goog-", "awsaccesskeyid", "googleaccessid", "signature", "expires", "policy", "key-pair-id",
            "sig", "se", "sp", "sv", "sr", "st", "spr", "sks", "skt", "ske", "skv", "skoid", "sktid", "token")  # fmt: skip
# In place of the tag of files whose store cannot tell when they change: each process fetches them once.
_THIS_PROCESS = uuid.uuid4().hex
# Names in a snapshot: its record, its files; while it is built, unfinished files and a log of finished ones.
_RECORD, _FILES, _PARTS, _DONE = "record.json", "files", "parts", "done.jsonl"
Advance = Callable[[int], None]


def local_path(
    source: str | Path, cache_dir: Path | None = None, *, select: Callable[[str], bool] | None = None
) -> Path:
    """Return the local path of a source; the file or folder of a URI is fetched unless the cache holds it.

    Args:
        source: A local path, or a URI.
        cache_dir: Root of the cache; by default ``storage.cache.default_cache_dir()``.
        select: Whether a file of a folder is fetched, by its name; all are without it. The others exist under their
            names, empty, so that they are counted and named as on a disk.

    Raises:
        DataError: The source cannot be fetched; the message names the address and the remedy.
        MissingExtra: The package that reads such addresses is not installed.
    """
    uri = uri_of(source)
    if not uri:
        return expand_home(source)
    for _ in range(2):
        store = RemoteStore(uri)
        listing = store.listing()
        single = isinstance(listing, RemoteFile)
        files = (
            {file_name(listing.path, store.scheme): listing}
            if isinstance(listing, RemoteFile)
            else _visible(listing, store)
        )
        selection = files if select is None or single else {name: file for name, file in files.items() if select(name)}
        try:
            folder = _snapshot(
                _identity(uri), store.redacted, selection, sorted(set(files) - set(selection)), cache_dir
            )
        except StaleListing:
            continue
        if not single:
            register_folder(folder, store.redacted)
            return folder
        path = folder / next(iter(files))
        register_files(folder, {str(path): store.redacted})
        return path
    raise DataError(f"{redact(uri)}: changed while it was read, or arrives damaged", remedy="try again")


def fetch_files(uris: Sequence[str], description: str, cache_dir: Path | None = None) -> dict[str, Path]:
    """Fetch single remote files, such as those of a manifest, as one snapshot.

    Args:
        uris: Addresses of files.
        description: What names the files, for messages.
        cache_dir: Root of the cache; by default ``storage.cache.default_cache_dir()``.

    Returns:
        The local path of each address; a file that does not exist has a path too.

    Raises:
        DataError: A file cannot be fetched.
        MissingExtra: The package that reads such addresses is not installed.
    """
    files: dict[str, RemoteFile] = {}
    names: dict[str, str] = {}
    stores: dict[tuple[str, str], RemoteStore] = {}
    for uri in dict.fromkeys(uris):
        address = split_address(uri)
        place = address.scheme, address.netloc
        if place not in stores:
            stores[place] = RemoteStore(uri)
        store = stores[place]
        path = type(store.fs)._strip_protocol(uri)
        host = address.netloc.rpartition("@")[2].replace(":", "-")
        query = [text_sha256(_identity(uri), 12)] if address.query else []
        names[uri] = "/".join([address.scheme, host, *query, *safe_parts(address.path.lstrip("/"), uri)])
        files[names[uri]] = RemoteFile(store, path, None, "")
    for _ in range(2):
        existing = _describe(files, description)
        identity = text_sha256("\n".join(sorted(map(_identity, names))))
        try:
            folder = _snapshot(identity, description, existing, [], cache_dir)
        except StaleListing:
            continue
        register_files(folder, {str(folder / name): redact(uri) for uri, name in names.items()})
        return {uri: folder / name for uri, name in names.items()}
    raise DataError(f"{redact(description)}: its files changed while they were read", remedy="try again")


def _describe(files: Mapping[str, RemoteFile], description: str) -> dict[str, RemoteFile]:
    """Size and tag of each file that exists, one request a file."""

    def describe(entry: tuple[str, RemoteFile]) -> tuple[str, RemoteFile | None]:
        name, file = entry
        try:
            return name, file.store.file(file.path)
        except Exception as error:  # each store's own
            if failure_kind(error) == "missing":
                return name, None
            raise file.store.explain(error, f"{redact(description)}: {name}") from error

    workers = min(file.store.parallel_requests for file in files.values())
    with ThreadPoolExecutor(workers) as pool:
        return {name: file for name, file in pool.map(describe, files.items()) if file is not None}


def _visible(listing: Mapping[str, RemoteFile], store: RemoteStore) -> dict[str, RemoteFile]:
    """The files of a listing by safe names, without hidden and system files."""
    parts = {name: safe_parts(name, f"{store.uri.rstrip('/')}/{name}") for name in listing}
    return {"/".join(parts[name]): file for name, file in listing.items() if not any(map(is_hidden, parts[name]))}


def _identity(uri: str) -> str:
    """What names a remote file, without what gives access to it."""
    address = split_address(uri)
    pairs = [f"{k}={v}" for k, v in parse_qsl(address.query, keep_blank_values=True)
            if not any(k.lower() == s or (s.endswith("-") and k.lower().startswith(s)) for s in _SIGNING)]  # fmt: skip
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path.rstrip('/')}?{'&'.join(sorted(pairs))}"


# ---- snapshots ----


def _snapshot(
    identity: str, description: str, files: Mapping[str, RemoteFile], empty: Sequence[str], cache_dir: Path | None
) -> Path:
    """The folder of the snapshot with these files, built unless it exists; locked shared until this process ends.

    Args:
        identity: What names the source, without what gives access to it.
        description: The source, for messages.
        files: The files by name.
        empty: Names of files that exist empty.
        cache_dir: Root of the cache.
    """
    cache = cache_dir or default_cache_dir()
    lines = [json.dumps([name, file.size, file.tag or _THIS_PROCESS]) for name, file in sorted(files.items())]
    source_key = text_sha256(identity, 20)
    listing_key = text_sha256("\n".join([*lines, *empty]), 20)
    entry = CacheEntry(cache, "remote", f"{source_key}-{listing_key}")
    with cache_failures(cache):
        entry.path.parent.mkdir(parents=True, exist_ok=True)
        entry.lock_shared()
        if not entry.path.is_dir():
            with entry.build_lock():
                if not entry.path.is_dir():
                    _build(entry, source_key, description, files, empty)
        else:
            _repair(entry, description, files)
    return entry.path / _FILES


def _build(
    entry: CacheEntry, source_key: str, description: str, files: Mapping[str, RemoteFile], empty: Sequence[str]
) -> None:
    """Build a snapshot under a temporary name and rename it; what an interrupted build left is used."""
    build = CacheEntry(entry.cache, entry.kind, f".build-{entry.key}")
    build.lock_shared()
    digests = _finished_before(build.path)
    make_room(entry.cache, sum(file.size or 0 for name, file in files.items() if name not in digests), description)
    (build.path / _PARTS).mkdir(parents=True, exist_ok=True)
    folder = build.path / _FILES
    for name in empty:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    folder.mkdir(exist_ok=True)
    digests |= _link_unchanged(entry, source_key, folder, {n: file for n, file in files.items() if n not in digests})
    missing = {name: file for name, file in files.items() if name not in digests}
    with (build.path / _DONE).open("a", encoding="utf-8", errors="surrogateescape") as log:
        guard = threading.Lock()

        def record_finished(name: str, sha256: str) -> None:
            digests[name] = sha256
            with guard:
                log.write(json.dumps([name, sha256]) + "\n")
                log.flush()

        _download_all(build.path, description, missing, record_finished)
    record = {
        "format_version": FORMAT_VERSION, "uri": description,
        "files": {name: {"size": file.size, "tag": file.tag, "sha256": digests[name]} for name, file in files.items()},
    }  # fmt: skip
    shutil.rmtree(build.path / _PARTS)
    (build.path / _DONE).unlink()
    write_text(build.path / _RECORD, json.dumps(record))
    build.path.rename(entry.path)
    entry.set_size(sum((entry.path / _FILES / name).stat().st_size for name in files))


def _finished_before(build: Path) -> dict[str, str]:
    """SHA-256 of the files that an interrupted build finished, by name, where they are unchanged."""
    digests: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in (build / _DONE).read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            with contextlib.suppress(ValueError):  # a kill may have torn the last line
                name, sha256 = json.loads(line)
                digests[name] = sha256
    return {name: sha256 for name, sha256 in digests.items() if _sha256(build / _FILES / name) == sha256}


def _link_unchanged(
    entry: CacheEntry, source_key: str, folder: Path, files: Mapping[str, RemoteFile]
) -> dict[str, str]:
    """Link (or copy) into ``folder`` what older snapshots of the same source hold unchanged; SHA-256 by name."""
    digests: dict[str, str] = {}
    for snapshot in sorted((entry.cache / entry.kind).glob(f"{source_key}-*")):
        record = _read_record(snapshot)
        for name, file in files.items():
            earlier = record.get(name)
            if (
                name in digests
                or not earlier
                or not file.tag
                or (earlier["tag"], earlier["size"]) != (file.tag, file.size)
            ):
                continue
            if _sha256(snapshot / _FILES / name) != earlier["sha256"]:
                continue
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another process may be removing that snapshot
                try:
                    os.link(snapshot / _FILES / name, target)
                except OSError:
                    shutil.copyfile(snapshot / _FILES / name, target)
                digests[name] = earlier["sha256"]
    return digests


def _read_record(snapshot: Path) -> dict[str, dict[str, Any]]:
    """Size, tag and SHA-256 of a snapshot's files; empty when they cannot be read."""
    try:
        content = json.loads((snapshot / _RECORD).read_text(encoding="utf-8"))
        return dict(content["files"]) if content["format_version"] == FORMAT_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _repair(entry: CacheEntry, description: str, files: Mapping[str, RemoteFile]) -> None:
    """Compare a snapshot's files with their checksums and fetch again those that a disk or a person has changed."""
    record = _read_record(entry.path)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        digests = pool.map(lambda name: _sha256(entry.path / _FILES / name), files)
        names = [
            name for name, digest in zip(files, digests, strict=True) if digest != record.get(name, {}).get("sha256")
        ]
    if not names:
        say(f"{description}: unchanged, taken from {entry.path}", level=2)
        return
    say(f"{description}: {len(names)} of its files in the cache damaged, fetching them again: {', '.join(names[:3])}")
    with entry.build_lock():
        (entry.path / _PARTS).mkdir(exist_ok=True)
        _download_all(entry.path, description, {name: files[name] for name in names}, lambda name, sha256: None)
        shutil.rmtree(entry.path / _PARTS)


def _sha256(path: Path) -> str:
    """The SHA-256 of a file; empty when it cannot be read."""
    try:
        return file_sha256(path)
    except OSError:
        return ""


# ---- downloads ----


def _download_all(
    folder: Path, description: str, files: Mapping[str, RemoteFile], on_finished: Callable[[str, str], None]
) -> None:
    """Download every file into ``folder/files``, several at once; the first failure stops the others.

    ``on_finished`` gets the name and the SHA-256 of each file.
    """
    if not files:
        return
    total, single = sum(file.size or 0 for file in files.values()), len(files) == 1
    workers = 1 if single else min(len(files), *(file.store.parallel_requests for file in files.values()))
    say(f"fetching {description}: {len(files)} file{'s' * (not single)}, {total / MEGABYTE:.1f} MB")
    stop = threading.Event()
    with _meter(description, len(files), total) as (advance, file_done), ThreadPoolExecutor(workers) as pool:

        def download(entry: tuple[str, RemoteFile]) -> None:
            if stop.is_set():
                return
            name, file = entry
            label = description if single else f"{description}: {name}"
            on_finished(name, _download(folder, name, file, label, advance, stop))
            file_done()

        try:
            for _ in pool.map(download, files.items()):
                pass
        except BaseException:
            stop.set()
            raise


@contextlib.contextmanager
def _meter(description: str, count: int, total: int) -> Iterator[tuple[Advance, Callable[[], None]]]:
    """A progress bar over megabytes for one file, over files for several.

    Yields a function that takes the bytes that arrived, and one that is called when a file is complete.
    """
    guard, size_so_far, steps_so_far = threading.Lock(), 0, 0
    single = count == 1
    with progress(f"fetching {posixpath.basename(description.rstrip('/'))}", total // MEGABYTE if single else count,
                  "MB" if single else "files") as advance:  # fmt: skip

        def add_bytes(size: int) -> None:
            nonlocal size_so_far, steps_so_far
            with guard:
                size_so_far += size
                if single and (steps := size_so_far // MEGABYTE - steps_so_far) > 0:
                    steps_so_far += steps
                    advance(steps)

        def file_done() -> None:
            with guard:
                if not single:
                    advance(1)

        yield add_bytes, file_done


def _download(
    folder: Path, name: str, file: RemoteFile, description: str, advance: Advance, stop: threading.Event
) -> str:
    """Download one file completely, check it, move it to its name; its SHA-256. Continues an interrupted download."""
    part = folder / _PARTS / text_sha256(name, 32)
    if not file.tag or _length(part) > (file.size or 0):
        part.unlink(missing_ok=True)  # it may be of other content
    advance(_length(part))
    if _length(part):
        say(f"{description}: continuing at {_length(part) / MEGABYTE:.1f} of {(file.size or 0) / MEGABYTE:.1f} MB")
    failures = 0

    def add_bytes(size: int) -> None:
        if stop.is_set():
            raise InterruptedError("another download failed")
        advance(size)

    while True:
        before = _length(part)
        try:
            _transfer(file, part, add_bytes)
            break
        except Exception as error:  # each store's own
            if stop.is_set() or isinstance(error, UnalikeError) or _is_local(error, part):
                raise
            failures = 1 if _length(part) > before else failures + 1
            if failures >= ATTEMPTS or failure_kind(error) not in ("broken", "unreachable"):
                partial = f"{_length(part) / MEGABYTE:.1f} of {(file.size or 0) / MEGABYTE:.1f} MB are kept: run it again to continue"
                raise file.store.explain(error, description, partial if _length(part) else "") from error
            say(f"{description}: the connection broke off at {_length(part) / MEGABYTE:.1f} MB, trying again")
            stop.wait(BACKOFF_S * 2 ** (failures - 1))
    sha256 = _checked_sha256(file, part, description)
    target = folder / _FILES / name
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, target)
    return sha256


def _is_local(error: Exception, part: Path) -> bool:
    """Whether a failure is of this machine's disk."""
    return isinstance(error, OSError) and (
        error.errno in (errno.ENOSPC, errno.EDQUOT) or error.filename in (str(part), part)
    )


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _transfer(file: RemoteFile, part: Path, advance: Advance) -> None:
    """Append to ``part`` the bytes of a file that it lacks."""
    if file.store.scheme in ("http", "https"):
        file.store.download(file, part, advance)
        return
    if file.size is None:
        raise DataError(f"{file.store.redacted}: the store does not say how large it is")
    offset, workers = _length(part), min(PARALLEL_BLOCKS, file.store.parallel_requests)
    with part.open("ab") as out, ThreadPoolExecutor(workers) as pool:
        while offset < file.size:
            starts = range(offset, min(file.size, offset + workers * BLOCK_BYTES), BLOCK_BYTES)
            stops = [min(start + BLOCK_BYTES, file.size) for start in starts]
            for data in pool.map(file.store.read, [file.path] * len(stops), starts, stops):
                out.write(data)
                out.flush()
                offset += len(data)
                advance(len(data))


def _checked_sha256(file: RemoteFile, part: Path, description: str) -> str:
    """The SHA-256 of a complete download. Raises StaleListing for a wrong size or checksum, or a change in the store."""
    part.touch()
    size = _length(part)
    with file.store.explain_errors(description):
        if file.size is not None and size != file.size:
            part.unlink()
            raise StaleListing
        if size > BLOCK_BYTES and file.tag and file.store.file(file.path).tag != file.tag:
            part.unlink()
            raise StaleListing
        if file.digest is not None:
            algorithm, expected_digest = file.digest
            with part.open("rb") as content:
                digest = hashlib.file_digest(content, algorithm).hexdigest()
            if digest != expected_digest and file.store.is_plain_digest(file):
                part.unlink()
                raise StaleListing
    return _sha256(part)


__all__ = ["fetch_files", "local_path", "uri_of"]
