"""Fits of inspectors to images that were sent to the service: in a child process, one at a time, with progress in the store.

The images are in the image store by their content hashes. The file of the inspector appears in the folder of the service when it
is complete; all processes find it there, and the next start too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unalike import progress
from unalike.errors import UnalikeError
from unalike.inspection.inspector import Inspector
from unalike.serve.child_process import run_child
from unalike.serve.store import ImageStore, Store, WorkRecord
from unalike.serve.store.records import DONE, FAILED
from unalike.source_names import register_files

KIND = "inspector.fit"
REPORT_S, RENEW_S = 0.5, 5.0


class InspectorFits:
    """Does the fits that requests asked for.

    Args:
        store: holds what was asked for.
        images: place of the image store, for the child process.
        max_pixels: larger images count as unreadable.
        threads: cores that the network may use; the runtime's choice if None.
    """

    def __init__(self, store: Store, images: str, max_pixels: int, threads: int | None) -> None:
        self.store, self.images, self.max_pixels, self.threads = store, images, max_pixels, threads

    async def look(self) -> None:
        """Do the fit that waits first, if there is one. Raises StoreError."""
        claim = asyncio.create_task(asyncio.to_thread(self.store.work.claim, KIND))
        try:
            record = await asyncio.shield(claim)
        except asyncio.CancelledError:  # its thread claims it all the same
            if (record := await claim) is not None:
                self.store.work.release(record)
            raise
        if record is not None:
            await self._do(record)

    async def _do(self, record: WorkRecord) -> None:
        """Do one fit. Where the service stops meanwhile, it waits again for the next start."""
        work, latest = self.store.work, ["the network is prepared", 0, 0]

        async def note(line: str) -> None:
            with contextlib.suppress(ValueError):
                latest[:] = json.loads(line)

        with tempfile.TemporaryDirectory(prefix="unalike-fit-") as folder:
            path = Path(folder, "options.json")
            options = {"images_at": self.images, "max_pixels": self.max_pixels, "threads": self.threads}
            path.write_text(json.dumps({**record.options, **options}), encoding="utf-8")
            child = asyncio.create_task(run_child(__name__, [str(path)], note))
            try:
                is_own = await self._follow(record, child, latest)
                if is_own:
                    error = child.exception()
                    state, text = (DONE, "") if error is None else (FAILED, str(error))
                    await asyncio.to_thread(work.finish, record, state, error=text)
            except asyncio.CancelledError:
                work.release(record)  # in the event loop, which ends
                raise
            finally:
                child.cancel()
                await asyncio.gather(child, return_exceptions=True)

    async def _follow(self, record: WorkRecord, child: asyncio.Task[None], latest: list[Any]) -> bool:
        """Write down how far a fit is until it ends; False where it was canceled."""
        clock = asyncio.get_running_loop().time
        moment, reported_values = 0.0, list[Any]()
        while not child.done():
            if latest != reported_values or clock() - moment > RENEW_S:
                moment, reported_values = clock(), list(latest)
                if not await asyncio.to_thread(self.store.work.report, record, *reported_values):
                    return False
            await asyncio.wait([child], timeout=REPORT_S)
        # What it wrote last, it may have written since.
        return await asyncio.to_thread(self.store.work.report, record, *latest)


def main() -> None:
    """Do the fit that the file of the one argument describes; its progress is lines of JSON, an error is one line."""

    def show(description: str, count: int, total: int) -> None:
        print(json.dumps([description, count, total]), flush=True)

    progress.set_listener(show)
    try:
        fit(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except UnalikeError as error:
        sys.exit(f"error: {error}")


def fit(options: Mapping[str, Any]) -> Path:
    """Fit an inspector and write its file.

    Args:
        options: ``images``, and perhaps ``defects``, lists of ``{"sha256", "name"}``; ``images_at``, the place of the image store;
            ``network``, the file of an inspector whose network is used, or ``pretrained[:NAME]``; ``target``, the file to write;
            ``rate``, ``light``, ``fit``, ``ignore_boxes`` and ``max_pixels`` as of ``Inspector.fit``.

    Raises:
        UnalikeError: as of ``Inspector.fit``; an image is gone.
    """
    images, target = ImageStore(options["images_at"]), Path(options["target"])
    network: Any = options["network"]
    if Path(network).is_file():
        network = Inspector.load(network, threads=options.get("threads")).network
    with tempfile.TemporaryDirectory(prefix="unalike-images-") as folder:
        paths: dict[str, list[str]] = {}
        for part in ("images", "defects"):
            paths[part] = []
            for number, entry in enumerate(options.get(part) or ()):
                path = Path(folder, f"{part}-{number:05}")
                path.write_bytes(images.get(entry["sha256"]))
                register_files(folder, {str(path): entry["name"]})
                paths[part].append(str(path))
        inspector = Inspector.fit(
            paths["images"], model=network, rate=options["rate"], light=options["light"], fit=options["fit"],
            defects=paths["defects"], ignore_boxes=options.get("ignore_boxes"), threads=options.get("threads"),
            max_pixels=options["max_pixels"],
        )  # fmt: skip
        target.parent.mkdir(parents=True, exist_ok=True)
        inspector.save(target)
    return target
