"""From a URI to a path of this machine: fetched once, checked, kept in the cache, shared by processes.

What a URI holds at one moment is a *snapshot*: a folder ``<cache>/remote/<address>-<listing>`` that is never changed
once it is there. When something changes in the store the listing's digest does too, and the new snapshot takes over
what stayed the same. A snapshot grows under the name ``.build-...``; what a broken connection or a kill leaves there is
gone on with, byte by byte.
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
from urllib.parse import parse_qsl, urlsplit

from unalike.errors import DataError, UnalikeError, redact
from unalike.progress import progress, say
from unalike.storage.atomic import write_text
from unalike.storage.cache import Entry, default_cache_dir, make_room
from unalike.storage.filesystems import Item, StaleListing, Store, file_name, is_hidden, kind_of, safe_parts, uri_of

FORMAT_VERSION = 1
BLOCK_BYTES = 8 << 20
LANES = 4  # blocks of one file that are fetched at once
ATTEMPTS = 5  # in a row without a byte of progress
BACKOFF_S = 0.5
MEGABYTE = 1_000_000
# Signed addresses of one file differ in these from day to day; the file does not.
_SIGNING = ("x-amz-", "x-goog-", "awsaccesskeyid", "googleaccessid", "signature", "expires", "policy", "key-pair-id",
            "sig", "se", "sp", "sv", "sr", "st", "spr", "sks", "skt", "ske", "skv", "skoid", "sktid", "token")  # fmt: skip
# Stands for the tag of files whose store cannot tell when they change: fetched once by each process.
_THIS_PROCESS = uuid.uuid4().hex
_RECORD, _FILES, _PARTS, _DONE = "record.json", "files", "parts", "done.jsonl"
Advance = Callable[[int], None]


def local_path(
    source: str | Path, cache_dir: Path | None = None, *, wanted: Callable[[str], bool] | None = None
) -> Path:
    """The path of a source on this machine; a URI's file or folder is fetched unless it is in the cache already.

    ``wanted`` says by name which files of a folder are fetched (all where it is None); the others are there by name,
    empty, so that they are counted and named as on a disk. Raises DataError with one line that names the address and the remedy,
    MissingExtra.
    """
    uri = uri_of(source)
    if not uri:
        return Path(source).expanduser()
    for _ in range(2):
        store = Store(uri)
        found = store.listing()
        items = {file_name(found.path, store.scheme): found} if isinstance(found, Item) else _wanted(found, store)
        kept = items if wanted is None or isinstance(found, Item) else {n: i for n, i in items.items() if wanted(n)}
        try:
            files = _snapshot(_bare(uri), store.shown, kept, sorted(set(items) - set(kept)), cache_dir)
        except StaleListing:
            continue
        return files / next(iter(items)) if isinstance(found, Item) else files
    raise DataError(f"{redact(uri)}: changed while it was read, or arrives damaged", remedy="try again")


def fetch_files(uris: Sequence[str], shown: str, cache_dir: Path | None = None) -> dict[str, Path]:
    """Paths on this machine of single remote files (a manifest's), as one snapshot; what is not there has a path too.

    ``shown`` names what asks for them. Raises DataError, MissingExtra.
    """
    items: dict[str, Item] = {}
    names: dict[str, str] = {}
    stores: dict[tuple[str, str], Store] = {}
    for uri in dict.fromkeys(uris):
        address = urlsplit(uri)
        place = address.scheme, address.netloc
        if place not in stores:
            stores[place] = Store(uri)
        store = stores[place]
        path = type(store.fs)._strip_protocol(uri)
        host = address.netloc.rpartition("@")[2].replace(":", "-")
        marks = [hashlib.sha256(_bare(uri).encode()).hexdigest()[:12]] if address.query else []
        names[uri] = "/".join([address.scheme, host, *marks, *safe_parts(address.path.lstrip("/"), uri)])
        items[names[uri]] = Item(store, path, None, "")
    for _ in range(2):
        there = _facts(items, shown)
        identity = hashlib.sha256("\n".join(sorted(map(_bare, names))).encode()).hexdigest()
        try:
            files = _snapshot(identity, shown, there, [], cache_dir)
        except StaleListing:
            continue
        return {uri: files / name for uri, name in names.items()}
    raise DataError(f"{redact(shown)}: its files changed while they were read", remedy="try again")


def _facts(items: Mapping[str, Item], shown: str) -> dict[str, Item]:
    """Size and tag of each file that is there, asked for file by file."""

    def ask(entry: tuple[str, Item]) -> tuple[str, Item | None]:
        name, item = entry
        try:
            return name, item.store.item(item.path)
        except Exception as fault:  # each store's own
            if kind_of(fault) == "missing":
                return name, None
            raise item.store.explain(fault, f"{redact(shown)}: {name}") from fault

    lanes = min(item.store.lanes for item in items.values())
    with ThreadPoolExecutor(lanes) as pool:
        return {name: item for name, item in pool.map(ask, items.items()) if item is not None}


def _wanted(found: Mapping[str, Item], store: Store) -> dict[str, Item]:
    """What of a listing counts, by safe names; what systems leave in folders is passed over as on a disk."""
    parts = {name: safe_parts(name, f"{store.uri.rstrip('/')}/{name}") for name in found}
    return {"/".join(parts[name]): item for name, item in found.items() if not any(map(is_hidden, parts[name]))}


def _bare(uri: str) -> str:
    """What names a remote file, without what gives access to it."""
    address = urlsplit(uri)
    kept = [f"{k}={v}" for k, v in parse_qsl(address.query, keep_blank_values=True)
            if not any(k.lower() == s or (s.endswith("-") and k.lower().startswith(s)) for s in _SIGNING)]  # fmt: skip
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path.rstrip('/')}?{'&'.join(sorted(kept))}"


# ---- snapshots ----


def _snapshot(
    identity: str, shown: str, items: Mapping[str, Item], empty: Sequence[str], cache_dir: Path | None
) -> Path:
    """The folder with these files, made now unless it is there; held until this process ends."""
    cache = cache_dir or default_cache_dir()
    lines = [json.dumps([name, item.size, item.tag or _THIS_PROCESS]) for name, item in sorted(items.items())]
    family = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:20]
    listing = hashlib.sha256("\n".join([*lines, *empty]).encode("utf-8", "surrogateescape")).hexdigest()[:20]
    entry = Entry(cache, "remote", f"{family}-{listing}")
    try:
        entry.path.parent.mkdir(parents=True, exist_ok=True)
        entry.hold()
        if not entry.path.is_dir():
            with entry.building():
                if not entry.path.is_dir():
                    _build(entry, family, shown, items, empty)
        else:
            _repair(entry, shown, items)
    except OSError as fault:
        where = f"the cache {cache}"
        raise DataError(f"{shown}: {where} cannot be written ({fault.strerror or fault})",
                        remedy="free some space, or set UNALIKE_CACHE to another folder") from fault  # fmt: skip
    return entry.path / _FILES


def _build(entry: Entry, family: str, shown: str, items: Mapping[str, Item], empty: Sequence[str]) -> None:
    build = Entry(entry.cache, entry.shelf, f".build-{entry.key}")
    build.hold()
    done = _done_before(build.path)
    make_room(entry.cache, sum(item.size or 0 for name, item in items.items() if name not in done), shown)
    (build.path / _PARTS).mkdir(parents=True, exist_ok=True)
    files = build.path / _FILES
    for name in empty:
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).touch()
    files.mkdir(exist_ok=True)
    done |= _take_over(entry, family, files, {n: i for n, i in items.items() if n not in done})
    missing = {name: item for name, item in items.items() if name not in done}
    with (build.path / _DONE).open("a", encoding="utf-8", errors="surrogateescape") as log:
        guard = threading.Lock()

        def note(name: str, sha256: str) -> None:
            done[name] = sha256
            with guard:
                log.write(json.dumps([name, sha256]) + "\n")
                log.flush()

        _download_all(build.path, shown, missing, note)
    record = {
        "format_version": FORMAT_VERSION, "uri": shown,
        "files": {name: {"size": item.size, "tag": item.tag, "sha256": done[name]} for name, item in items.items()},
    }  # fmt: skip
    shutil.rmtree(build.path / _PARTS)
    (build.path / _DONE).unlink()
    write_text(build.path / _RECORD, json.dumps(record))
    build.path.rename(entry.path)
    entry.set_size(sum((entry.path / _FILES / name).stat().st_size for name in items))


def _done_before(build: Path) -> dict[str, str]:
    """Files that an attempt before this one finished, and still are what they were."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in (build / _DONE).read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            with contextlib.suppress(ValueError):  # a kill may have torn the last line
                name, sha256 = json.loads(line)
                found[name] = sha256
    return {name: sha256 for name, sha256 in found.items() if _sha256(build / _FILES / name) == sha256}


def _take_over(entry: Entry, family: str, files: Path, items: Mapping[str, Item]) -> dict[str, str]:
    """Files that an older snapshot of the same address has unchanged, as links; name -> sha256."""
    taken: dict[str, str] = {}
    for folder in sorted((entry.cache / entry.shelf).glob(f"{family}-*")):
        record = _record(folder)
        for name, item in items.items():
            kept = record.get(name)
            if name in taken or not kept or not item.tag or (kept["tag"], kept["size"]) != (item.tag, item.size):
                continue
            if _sha256(folder / _FILES / name) != kept["sha256"]:
                continue
            target = files / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another process may be removing that snapshot
                try:
                    os.link(folder / _FILES / name, target)
                except OSError:
                    shutil.copyfile(folder / _FILES / name, target)
                taken[name] = kept["sha256"]
    return taken


def _record(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        return dict(content["files"]) if content["format_version"] == FORMAT_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _repair(entry: Entry, shown: str, items: Mapping[str, Item]) -> None:
    """Compare what is kept with its checksums; fetch again what a disk or a person has changed."""
    record = _record(entry.path)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        sums = pool.map(lambda name: _sha256(entry.path / _FILES / name), items)
        damaged = [name for name, found in zip(items, sums, strict=True) if found != record.get(name, {}).get("sha256")]
    if not damaged:
        say(f"{shown}: unchanged, taken from {entry.path}", level=2)
        return
    say(f"{shown}: {len(damaged)} of its files in the cache damaged, fetching them again: {', '.join(damaged[:3])}")
    with entry.building():
        (entry.path / _PARTS).mkdir(exist_ok=True)
        _download_all(entry.path, shown, {name: items[name] for name in damaged}, lambda name, sha256: None)
        shutil.rmtree(entry.path / _PARTS)


def _sha256(path: Path) -> str:
    """The checksum of a file; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


# ---- bytes ----


def _download_all(folder: Path, shown: str, items: Mapping[str, Item], note: Callable[[str, str], None]) -> None:
    """Fetch every item into ``folder/files``, several at once; the first failure stops the others."""
    if not items:
        return
    total, single = sum(item.size or 0 for item in items.values()), len(items) == 1
    lanes = 1 if single else min(len(items), *(item.store.lanes for item in items.values()))
    say(f"fetching {shown}: {len(items)} file{'s' * (not single)}, {total / MEGABYTE:.1f} MB")
    stop = threading.Event()
    with _meter(shown, len(items), total) as (advance, file_done), ThreadPoolExecutor(lanes) as pool:

        def fetch(entry: tuple[str, Item]) -> None:
            if stop.is_set():
                return
            name, item = entry
            note(name, _download(folder, name, item, shown if single else f"{shown}: {name}", advance, stop))
            file_done()

        try:
            for _ in pool.map(fetch, items.items()):
                pass
        except BaseException:
            stop.set()
            raise


@contextlib.contextmanager
def _meter(shown: str, count: int, total: int) -> Iterator[tuple[Advance, Callable[[], None]]]:
    """A bar over megabytes for one file, over files for several; yields (bytes came, a file is done)."""
    guard, seen = threading.Lock(), [0, 0]
    single = count == 1
    with progress(f"fetching {posixpath.basename(shown.rstrip('/'))}", total // MEGABYTE if single else count,
                  "MB" if single else "files") as advance:  # fmt: skip

        def came(size: int) -> None:
            with guard:
                seen[0] += size
                if single and (steps := seen[0] // MEGABYTE - seen[1]) > 0:
                    seen[1] += steps
                    advance(steps)

        def file_done() -> None:
            with guard:
                if not single:
                    advance(1)

        yield came, file_done


def _download(folder: Path, name: str, item: Item, shown: str, advance: Advance, stop: threading.Event) -> str:
    """One file, whole and checked, under its name; returns its sha256. Goes on where an earlier attempt broke off."""
    part = folder / _PARTS / hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    if not item.tag or _length(part) > (item.size or 0):
        part.unlink(missing_ok=True)  # nobody knows whether the rest would fit
    advance(_length(part))
    if _length(part):
        say(f"{shown}: going on at {_length(part) / MEGABYTE:.1f} of {(item.size or 0) / MEGABYTE:.1f} MB")
    failures = 0

    def moved(size: int) -> None:
        if stop.is_set():
            raise InterruptedError("another part of the work failed")
        advance(size)

    while True:
        before = _length(part)
        try:
            _transfer(item, part, moved)
            break
        except Exception as fault:  # each store's own
            if stop.is_set() or isinstance(fault, UnalikeError) or _of_this_disk(fault, part):
                raise
            failures = 1 if _length(part) > before else failures + 1
            if failures >= ATTEMPTS or kind_of(fault) not in ("broken", "unreachable"):
                kept = f"{_length(part) / MEGABYTE:.1f} of {(item.size or 0) / MEGABYTE:.1f} MB are kept: run it again to go on"
                raise item.store.explain(fault, shown, kept if _length(part) else "") from fault
            say(f"{shown}: the connection broke off at {_length(part) / MEGABYTE:.1f} MB, trying again")
            stop.wait(BACKOFF_S * 2 ** (failures - 1))
    sha256 = _checked(item, part, shown)
    target = folder / _FILES / name
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, target)
    return sha256


def _of_this_disk(fault: Exception, part: Path) -> bool:
    return isinstance(fault, OSError) and (
        fault.errno in (errno.ENOSPC, errno.EDQUOT) or fault.filename in (str(part), part)
    )


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _transfer(item: Item, part: Path, advance: Advance) -> None:
    """What is missing of a file behind what ``part`` holds already."""
    if item.store.scheme in ("http", "https"):
        item.store.stream(item, part, advance)
        return
    if item.size is None:
        raise DataError(f"{item.store.shown}: the store does not say how large it is")
    done, lanes = _length(part), min(LANES, item.store.lanes)
    with part.open("ab") as out, ThreadPoolExecutor(lanes) as pool:
        while done < item.size:
            starts = range(done, min(item.size, done + lanes * BLOCK_BYTES), BLOCK_BYTES)
            stops = [min(start + BLOCK_BYTES, item.size) for start in starts]
            for data in pool.map(item.store.read, [item.path] * len(stops), starts, stops):
                out.write(data)
                out.flush()
                done += len(data)
                advance(len(data))


def _checked(item: Item, part: Path, shown: str) -> str:
    """The sha256 of a file that came whole: of the right size, by the store's own checksum, and still the same there."""
    part.touch()
    size = _length(part)
    with item.store.explaining(shown):
        if item.size is not None and size != item.size:
            part.unlink()
            raise StaleListing
        if size > BLOCK_BYTES and item.tag and item.store.item(item.path).tag != item.tag:
            part.unlink()
            raise StaleListing
        if item.digest is not None:
            algorithm, expected = item.digest
            with part.open("rb") as file:
                found = hashlib.file_digest(file, algorithm).hexdigest()
            if found != expected and item.store.is_plain_digest(item):
                part.unlink()
                raise StaleListing
    return _sha256(part)


__all__ = ["fetch_files", "local_path", "uri_of"]
