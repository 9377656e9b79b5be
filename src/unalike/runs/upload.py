"""Upload the results of a run to a remote store, from a staging folder in the cache.

Checkpoints are uploaded when they appear, other files every half minute, and everything at the end, after a failure too.
A staging folder that was not uploaded completely is never removed from the cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from unalike.errors import RunError, UnalikeError
from unalike.progress import progress, say, warn
from unalike.runs.failures import occupied_folder
from unalike.runs.filenames import (
    LATEST_CHECKPOINT,
    LOCK_FILE,
    RECORD_FILE,
    RUN_MARKS,
    TENSORBOARD_PREFIX,
    is_periodic_checkpoint,
)
from unalike.storage.atomic import atomic_write, write_text
from unalike.storage.cache import folder_size, staging_entry
from unalike.storage.filesystems import RemoteFile, RemoteStore, failure_kind, safe_parts

FORMAT_VERSION = 1
STATE_FILE = ".mirror.json"
PROMPT_SUFFIXES = (".pth", ".onnx")  # uploaded as soon as they appear
WATCH_SECONDS, REST_SECONDS = 2.0, 30.0
ATTEMPTS, BACKOFF_S = 4, 1.0
_REPORTED_SIZE = 1_000_000  # bytes from which an upload is announced
_PAST_TENSE = {"read": "read", "write": "written", "delete": "cleared"}
T = TypeVar("T")


class FileVersion(NamedTuple):
    """What changes when a file does; ``link`` is the neighbor that a symbolic link leads to."""

    mtime_ns: int
    size: int
    inode: int
    link: str


class Uploader:
    """A run's staging folder and its results at an address.

    Attributes:
        uri: The address of the results.
        entry: The cache entry of the staging folder.
        folder: The staging folder.

    Raises:
        RunError: The address cannot be written; every failure names it.
    """

    def __init__(self, uri: str) -> None:
        if uri.startswith(("http://", "https://")):
            raise RunError(f"results_dir is {uri}", expected="a folder, or an address that can be written (s3://, gs://, "
                           "az://, hf://)")  # fmt: skip
        self.uri = uri.rstrip("/")
        self.entry = staging_entry(uri)
        self.folder = self.entry.path
        self._store = RemoteStore(self.uri)
        self._root = self._store.path.rstrip("/")
        self._remote: dict[str, RemoteFile] = {}  # files in the store before the run
        self._placeholders: set[str] = set()  # empty files that stand for those of the store that are overwritten
        self._replacing = False
        self._uploaded: dict[str, FileVersion] = {}
        self._recorded: dict[str, dict[str, Any]] = {}  # size and tag of each uploaded file
        self._busy, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._last_complete_upload = 0.0

    # -- before the run --

    def prepare(self, *, resume: bool, overwrite: bool) -> None:
        """List what the store holds: refuse a run that exists there, or fetch what resuming or clearing it needs."""
        self.entry.lock_shared()
        self._remote = self._retry("read", self._list)
        state = self._read_state()
        self._recorded = state.get("files", {})
        exists = any(mark in self._remote for mark in RUN_MARKS)
        if exists and not (resume or overwrite):
            raise occupied_folder(self._store.redacted)
        if not exists and state.get("complete"):
            self._empty_folder()  # uploaded once, and deleted in the store since
        self._write_state(complete=False)
        self.entry.use_file.write_text("", encoding="ascii")
        if exists and resume:
            self._fetch(self._needed())
        elif exists:
            self._replacing = True
            self._fetch([name for name in (RECORD_FILE,) if name in self._remote])
            for name in self._remote:
                if not (self.folder / name).exists():
                    self._placeholders.add(name)
                    (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (self.folder / name).touch()

    def delete_cleared(self) -> None:
        """Delete in the store what was cleared in the staging folder; files of others stay."""
        if self._replacing:
            for name in [name for name in self._remote if not (self.folder / name).exists()]:
                self._delete(name)
        for name in self._placeholders:
            (self.folder / name).unlink(missing_ok=True)
        self._placeholders.clear()

    def _list(self) -> dict[str, RemoteFile]:
        """The store's files by name, without private ones."""
        try:
            self._store.fs.invalidate_cache()
            listing = self._store.fs.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        names = {path[len(self._root) :].lstrip("/"): (path, info) for path, info in listing.items()}
        return {
            "/".join(safe_parts(name, self._store.redacted)): self._store.file(path, info)
            for name, (path, info) in names.items()
            if name and not name.endswith("/") and not _is_private(name)
        }

    def _needed(self) -> list[str]:
        """Names of the files to fetch for resuming: all but checkpoints of earlier epochs and what is here unchanged."""
        periodic = sorted(name for name in self._remote if is_periodic_checkpoint(name))
        skipped_names = set(periodic if LATEST_CHECKPOINT in self._remote else periodic[:-1])
        return [
            name for name, file in self._remote.items()
            if name not in skipped_names and not self._is_here(name, file)
            and not posixpath.basename(name).startswith(TENSORBOARD_PREFIX)  # a resumed run starts a new file of its own
        ]  # fmt: skip

    def _is_here(self, name: str, file: RemoteFile) -> bool:
        version = self._recorded.get(name)
        return bool(version and file.tag and version.get("tag") == file.tag and (self.folder / name).exists())

    def _fetch(self, names: Sequence[str]) -> None:
        source = self._store.redacted
        total = sum(self._remote[name].size or 0 for name in names)
        with progress(f"fetching the run from {source}", len(names), "files") as advance:
            if names:
                say(f"fetching the run from {source}: {len(names)} files, {total / 1e6:.1f} MB")
            for name in names:
                target = self.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(target, follow_links=False) as temporary:
                    self._retry("read", partial(self._fetch_file, self._remote[name], temporary))
                advance(1)

    def _fetch_file(self, file: RemoteFile, path: Path) -> None:
        self._store.fs.get_file(file.path, str(path))
        if file.size is not None and path.stat().st_size != file.size:
            raise ConnectionResetError(f"{path.stat().st_size} of {file.size} bytes arrived")

    def _empty_folder(self) -> None:
        for path in self.folder.iterdir():
            if path.name == LOCK_FILE:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self._recorded = {}

    # -- during the run --

    def start(self) -> None:
        """Upload what exists, which shows now whether the store can be written, and start uploading what appears."""
        self._upload(everything=True)
        self._last_complete_upload = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="unalike-upload", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_SECONDS):
            everything = time.monotonic() - self._last_complete_upload >= REST_SECONDS
            try:
                self._upload(everything=everything)
            except RunError as error:  # the upload at the end of the run decides
                warn(f"{error}; the run continues, and the upload is tried again")
            if everything:
                self._last_complete_upload = time.monotonic()

    def finish(self) -> None:
        """Upload the rest. Raises RunError, naming the folder that still holds the results, when that fails."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._upload(everything=True)
        self._write_state(complete=True)
        self.entry.set_size(folder_size(self.folder))
        say(f"results: {len(self._uploaded)} files at {self._store.redacted}")

    def _upload(self, *, everything: bool) -> None:
        """Upload new and changed files, prompt ones alone unless ``everything``, and delete what was deleted here."""
        with self._busy:
            due = []
            # Links last: the store copies what it holds already.
            for name, path in sorted(self._files().items(), key=lambda entry: entry[1].is_symlink()):
                version = _version(path)
                if version and self._uploaded.get(name) != version and (everything or path.suffix in PROMPT_SUFFIXES):
                    due.append((name, path, version))
            for name, path, version in due:
                with contextlib.suppress(FileNotFoundError):  # replaced or deleted meanwhile
                    self._upload_file(name, path, version)
            for name in [name for name in self._uploaded if not os.path.lexists(self.folder / name)]:
                self._delete(name)
                del self._uploaded[name]
                self._recorded.pop(name, None)
            if due:
                self._write_state(complete=False)

    def _files(self) -> dict[str, Path]:
        files = {}
        for root, _, names in os.walk(self.folder):
            for name in names:
                path = Path(root, name)
                inner = path.relative_to(self.folder).as_posix()
                if not _is_private(inner):
                    files[inner] = path
        return files

    def _upload_file(self, name: str, path: Path, version: FileVersion) -> None:
        target = f"{self._root}/{name}"
        link = version.link if version.link in self._uploaded else ""  # the store copies what a link leads to
        if version.size > _REPORTED_SIZE and not link:
            say(f"uploading {name} ({version.size / 1e6:.1f} MB) to {self._store.redacted}", level=2)
        if link:
            self._retry("write", partial(self._store.fs.cp_file, f"{self._root}/{link}", target))
        else:
            self._retry("write", partial(self._store.fs.put_file, str(path), target))
        self._uploaded[name] = version
        tag = self._retry("read", lambda: self._store.file(target).tag)
        self._recorded[name] = {"size": version.size, "tag": tag}

    def _delete(self, name: str) -> None:
        self._retry("delete", partial(self._store.fs.rm_file, f"{self._root}/{name}"))

    # -- state and failures --

    def _read_state(self) -> dict[str, Any]:
        try:
            content = json.loads((self.folder / STATE_FILE).read_text(encoding="utf-8"))
            return dict(content) if content.get("format_version") == FORMAT_VERSION else {}
        except (OSError, ValueError, AttributeError):
            return {}

    def _write_state(self, *, complete: bool) -> None:
        content = {
            "format_version": FORMAT_VERSION,
            "uri": self._store.redacted,
            "complete": complete,
            "files": self._recorded,
        }
        write_text(self.folder / STATE_FILE, json.dumps(content))

    def _retry(self, operation: str, request: Callable[[], T]) -> T:
        """Make a request of the store, again when the connection fails; ``operation`` is read, write or delete."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return request()
            except UnalikeError:
                raise
            except FileNotFoundError as error:
                if error.filename and str(error.filename).startswith(str(self.folder)):
                    raise
                raise self._failure(operation, error) from error
            except Exception as error:  # each store's own
                if attempt == ATTEMPTS or failure_kind(error) not in ("broken", "unreachable"):
                    raise self._failure(operation, error) from error
                self._stop.wait(BACKOFF_S * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _failure(self, operation: str, error: Exception) -> RunError:
        explanation = self._store.explain(error, f"results_dir {self._store.redacted}")
        rest = f"; what the run wrote lies in {self.folder}" if self._uploaded or self._files() else ""
        return RunError(
            f"{explanation.found}, so it cannot be {_PAST_TENSE[operation]}{rest}", expected=explanation.expected,
            remedy=explanation.remedy,
        )  # fmt: skip


def _is_private(name: str) -> bool:
    return name == LOCK_FILE or any(part.startswith(".") for part in name.split("/"))


def _version(path: Path) -> FileVersion | None:
    try:
        status = path.stat()
        link = os.readlink(path) if path.is_symlink() else ""
    except OSError:
        return None
    return FileVersion(status.st_mtime_ns, status.st_size, status.st_ino, link)
