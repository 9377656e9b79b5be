"""Results that lie in a store: a run works in a folder of the cache, and what it writes there is sent as it comes.

Checkpoints are sent when they appear, the rest every half minute, everything at the end, after a failure too. What the
folder holds that was not delivered yet is never removed from the cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unalike.errors import RunError, UnalikeError, redact
from unalike.progress import progress, say, warn
from unalike.runs.failures import occupied_folder
from unalike.runs.filenames import LATEST_CHECKPOINT, LOCK_FILE, RECORD_FILE, TENSORBOARD_PREFIX, is_periodic_checkpoint
from unalike.storage.atomic import atomic_write, write_text
from unalike.storage.cache import folder_size, staging_entry
from unalike.storage.filesystems import Item, Store, kind_of, safe_parts

FORMAT_VERSION = 1
MEMORY = ".mirror.json"
PROMPT_SUFFIXES = (".pth", ".onnx")
WATCH_SECONDS, REST_SECONDS = 2.0, 30.0
ATTEMPTS, BACKOFF_S = 4, 1.0
Stamp = tuple[int, int, int, str]


class Mirror:
    """A run's folder ``folder`` and its copy at ``uri``. Every failure is a RunError that names the address."""

    def __init__(self, uri: str, marks: tuple[str, ...]) -> None:
        self.uri, self.shown, self.marks = uri.rstrip("/"), redact(uri.rstrip("/")), marks
        self.entry = staging_entry(uri)
        self.folder = self.entry.path
        self.store = Store(self.uri)
        self.root = self.store.path.rstrip("/")
        self._there: dict[str, Item] = {}
        self._empty: set[str] = set()  # stand for files of a store that are to be overwritten
        self._replacing = False
        self._sent: dict[str, Stamp] = {}
        self._kept: dict[str, dict[str, Any]] = {}
        self._busy, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._last_rest = 0.0

    # -- before the run --

    def pull(self, *, resume: bool, overwrite: bool) -> None:
        """Look at what the store holds: refuse a run that is there, or bring here what going on with it needs."""
        self.entry.hold()
        self._there = self._retry("read", self._list)
        memory = self._memory()
        self._kept = memory.get("files", {})
        held = any(mark in self._there for mark in self.marks)
        if held and not (resume or overwrite):
            raise occupied_folder(self.shown)
        if not held and memory.get("complete"):
            self._empty_folder()  # delivered once, and taken away from the store since
        self._note(complete=False)
        self.entry.use_file.write_text("", encoding="ascii")
        if held and resume:
            self._fetch(self._needed())
        elif held:
            self._replacing = True
            self._fetch([name for name in (RECORD_FILE,) if name in self._there])
            for name in self._there:
                if not (self.folder / name).exists():
                    self._empty.add(name)
                    (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (self.folder / name).touch()

    def prune(self) -> None:
        """Once the run's folder was cleared here: take from the store what was cleared, leave what is somebody else's."""
        if self._replacing:
            for name in [name for name in self._there if not (self.folder / name).exists()]:
                self._retry("delete", lambda name=name: self.store.fs.rm_file(f"{self.root}/{name}"))  # type: ignore[misc]
        for name in self._empty:
            (self.folder / name).unlink(missing_ok=True)
        self._empty.clear()

    def _list(self) -> dict[str, Item]:
        try:
            self.store.fs.invalidate_cache()
            found = self.store.fs.find(self.root, detail=True)
        except FileNotFoundError:
            return {}
        names = {path[len(self.root) :].lstrip("/"): (path, info) for path, info in found.items()}
        return {
            "/".join(safe_parts(name, self.shown)): self.store.item(path, info)
            for name, (path, info) in names.items()
            if name and not name.endswith("/") and not _is_private(name)
        }

    def _needed(self) -> list[str]:
        """All but the checkpoints of earlier epochs, and what is here as it was sent."""
        epochs = sorted(name for name in self._there if is_periodic_checkpoint(name))
        spared = set(epochs if LATEST_CHECKPOINT in self._there else epochs[:-1])
        return [
            name for name, item in self._there.items()
            if name not in spared and not self._is_here(name, item)
            and not posixpath.basename(name).startswith(TENSORBOARD_PREFIX)  # a resumed run starts a new file of its own
        ]  # fmt: skip

    def _is_here(self, name: str, item: Item) -> bool:
        kept = self._kept.get(name)
        return bool(kept and item.tag and kept.get("tag") == item.tag and (self.folder / name).exists())

    def _fetch(self, names: list[str]) -> None:
        total = sum(self._there[name].size or 0 for name in names)
        with progress(f"fetching the run from {self.shown}", len(names), "files") as advance:
            if names:
                say(f"fetching the run from {self.shown}: {len(names)} files, {total / 1e6:.1f} MB")
            for name in names:
                target = self.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(target) as partial:  # a link here is replaced, not written through

                    def get(item: Item = self._there[name], partial: Path = partial) -> None:
                        self.store.fs.get_file(item.path, str(partial))
                        if item.size is not None and partial.stat().st_size != item.size:
                            raise ConnectionResetError(f"{partial.stat().st_size} of {item.size} bytes came")

                    self._retry("read", get)
                advance(1)

    def _empty_folder(self) -> None:
        for path in self.folder.iterdir():
            if path.name == LOCK_FILE:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self._kept = {}

    # -- while it goes on --

    def start(self) -> None:
        """Send what is there, so that a store that cannot be written is known now, and the rest as it comes."""
        self._push(everything=True)
        self._last_rest = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="unalike-mirror", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_SECONDS):
            rest = time.monotonic() - self._last_rest >= REST_SECONDS
            try:
                self._push(everything=rest)
            except RunError as fault:  # the end of the run tries once more, and then it counts
                warn(f"{fault}; going on, to be tried again")
            if rest:
                self._last_rest = time.monotonic()

    def finish(self) -> None:
        """Send all that is left. Raises RunError, with the folder where the results still lie, when that fails."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._push(everything=True)
        self._note(complete=True)
        self.entry.set_size(folder_size(self.folder))
        say(f"results: {len(self._sent)} files at {self.shown}")

    def _push(self, *, everything: bool) -> None:
        with self._busy:
            due = []
            for name, path in sorted(self._files().items(), key=lambda pair: pair[1].is_symlink()):
                stamp = _stamp(path)
                if stamp and self._sent.get(name) != stamp and (everything or path.suffix in PROMPT_SUFFIXES):
                    due.append((name, path, stamp))
            for name, path, stamp in due:
                with contextlib.suppress(FileNotFoundError):  # replaced or dropped meanwhile
                    self._send(name, path, stamp)
            for name in [name for name in self._sent if not os.path.lexists(self.folder / name)]:
                self._retry("delete", lambda name=name: self.store.fs.rm_file(f"{self.root}/{name}"))  # type: ignore[misc]
                del self._sent[name]
                self._kept.pop(name, None)
            if due:
                self._note(complete=False)

    def _files(self) -> dict[str, Path]:
        found = {}
        for root, _, names in os.walk(self.folder):
            for name in names:
                path = Path(root, name)
                inner = path.relative_to(self.folder).as_posix()
                if not _is_private(inner):
                    found[inner] = path
        return found

    def _send(self, name: str, path: Path, stamp: Stamp) -> None:
        target = f"{self.root}/{name}"
        twin = stamp[3] if stamp[3] in self._sent else ""  # a link: the store makes its own copy of what it has
        size = stamp[1]
        if size > 1_000_000 and not twin:
            say(f"sending {name} ({size / 1e6:.1f} MB) to {self.shown}", level=2)
        self._retry(
            "write",
            lambda: self.store.fs.cp_file(f"{self.root}/{twin}", target) if twin
            else self.store.fs.put_file(str(path), target),
        )  # fmt: skip
        self._sent[name] = stamp
        tag = self._retry("read", lambda: self.store.item(target).tag)
        self._kept[name] = {"size": size, "tag": tag}

    # -- memory and failures --

    def _memory(self) -> dict[str, Any]:
        try:
            content = json.loads((self.folder / MEMORY).read_text(encoding="utf-8"))
            return content if content.get("format_version") == FORMAT_VERSION else {}
        except (OSError, ValueError, AttributeError):
            return {}

    def _note(self, *, complete: bool) -> None:
        content = {"format_version": FORMAT_VERSION, "uri": self.shown, "complete": complete, "files": self._kept}
        write_text(self.folder / MEMORY, json.dumps(content))

    def _retry(self, doing: str, act: Callable[[], Any]) -> Any:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return act()
            except UnalikeError:
                raise
            except FileNotFoundError as fault:
                if fault.filename and str(fault.filename).startswith(str(self.folder)):
                    raise
                raise self._refused(doing, fault) from fault
            except Exception as fault:  # each store's own
                if attempt == ATTEMPTS or kind_of(fault) not in ("broken", "unreachable"):
                    raise self._refused(doing, fault) from fault
                self._stop.wait(BACKOFF_S * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _refused(self, doing: str, fault: Exception) -> RunError:
        line = self.store.explain(fault, f"results_dir {self.shown}")
        kept = f"; what the run wrote lies in {self.folder}" if self._sent or self._files() else ""
        return RunError(
            f"{line.found}, so it cannot be {_PAST[doing]}{kept}", expected=line.expected, remedy=line.remedy
        )


_PAST = {"read": "read", "write": "written", "delete": "cleared"}


def _is_private(name: str) -> bool:
    return name == LOCK_FILE or any(part.startswith(".") for part in name.split("/"))


def _stamp(path: Path) -> Stamp | None:
    """What changes when a file does; its last part names the neighbour that a link leads to."""
    try:
        status = path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino, os.readlink(path) if path.is_symlink() else ""
    except OSError:
        return None


def mirror_of(uri: str, marks: tuple[str, ...]) -> Mirror:
    """The mirror of a run whose results go to an address. Raises RunError when nothing can be written there."""
    if uri.startswith(("http://", "https://")):
        raise RunError(f"results_dir is {uri}", expected="a folder, or an address that can be written (s3://, gs://, az://, "
                       "hf://)")  # fmt: skip
    return Mirror(uri, marks)
