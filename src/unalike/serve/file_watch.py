"""Files that are read again when they change: a file or a folder is looked at, and what it holds is loaded anew.

What is being written is not read: two looks must see the same files. What cannot be loaded leaves the old state in service, and is
tried again when the files change, or a minute later.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

RETRY_S = 60.0
# One look at a folder may cost at most this share of the time.
LOOK_SHARE = 0.02

Status = tuple[tuple[str, int, int, int, int, int], ...]


def read_status(path: str) -> Status:
    """Names, places, sizes and times of a file, or of all files below a folder; empty where there is nothing."""
    names = [path]
    if os.path.isdir(path):
        names = sorted(os.path.join(folder, name) for folder, _, files in os.walk(path) for name in files)
    entries = []
    for name in names:
        try:
            status = os.stat(name)
        except OSError:  # deleted meanwhile
            continue
        entries.append((name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(entries)


class FileWatch:
    """Looks at a file or folder, and loads it again when it changed.

    Args:
        path: the file or folder; an address with a scheme is never looked at.
        status: of ``read_status``, before it was loaded.
        reload: loads it and takes it into service; where it raises, nothing has changed.
        clock: seconds.
    """

    def __init__(
        self, path: str, status: Status, reload: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.path, self._reload, self._clock = path, reload, clock
        self._loaded = self._seen = status
        self._failed: Status | None = None
        self._retry = self._look_s = 0.0

    @property
    def has_failed(self) -> bool:
        """Whether the files changed and could not be loaded: what was loaded before is in service."""
        return self._failed is not None

    async def look(self) -> bool:
        """Look once; True where it was loaded again.

        Raises:
            Exception: what ``reload`` raised; a look at the same files raises it no more until ``RETRY_S`` later.
        """
        if "://" in self.path:
            return False
        start = self._clock()
        status = await asyncio.to_thread(read_status, self.path)
        self._look_s = self._clock() - start
        is_settled, self._seen = status == self._seen, status
        if status == self._loaded:
            self._failed = None
            return False
        if not is_settled or (status == self._failed and self._clock() < self._retry):
            return False
        try:
            await self._reload()
        except Exception:
            self._failed, self._retry = status, self._clock() + RETRY_S
            raise
        self._loaded, self._failed = status, None
        return True

    async def run(
        self, interval_s: float, on_reload: Callable[[], None], on_error: Callable[[Exception], None]
    ) -> None:
        """Look again and again, until it is cancelled.

        Args:
            interval_s: seconds between two looks; longer where a look takes long.
            on_reload: called after it was loaded again.
            on_error: called with what ``look`` raised.
        """
        while True:
            try:
                if await self.look():
                    on_reload()
            except Exception as error:  # noqa: BLE001  the old state stays in service
                on_error(error)
            await asyncio.sleep(max(interval_s, self._look_s / LOOK_SHARE))
