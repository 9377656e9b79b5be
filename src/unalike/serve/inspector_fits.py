"""Fits of inspectors to images that were sent to the service: tasks that are done in a child process, one at a time.

The images are in the image store by their content hashes. The file of the inspector appears in the folder of the service when it
is complete; all processes find it there, and the next start too.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unalike.errors import UnalikeError
from unalike.serve.child_process import run_child, tell_progress
from unalike.serve.model_files import LOG_FILE
from unalike.serve.store import ImageStore, TaskRecord
from unalike.serve.task_runner import Progress
from unalike.source_names import register_files

KIND = "inspector.fit"


class InspectorFits:
    """Does the fits that requests asked for.

    Args:
        folder_of: the folder of a task, for its log.
        images: place of the image store, for the child process.
        max_pixels: larger images count as unreadable.
        threads: cores that the network may use; the runtime's choice if None.
    """

    def __init__(self, folder_of: Callable[[str], Path], images: str, max_pixels: int, threads: int | None) -> None:
        self.folder_of, self.images, self.max_pixels, self.threads = folder_of, images, max_pixels, threads

    async def fit(self, task: TaskRecord, progress: Progress) -> None:
        """Do one fit. Raises RunError."""
        progress.set("the network is prepared", 0, 0)

        log = self.folder_of(task.id) / LOG_FILE
        await asyncio.to_thread(lambda: log.parent.mkdir(parents=True, exist_ok=True))
        with tempfile.TemporaryDirectory(prefix="unalike-fit-") as folder:
            path = Path(folder, "options.json")
            options = {"images_at": self.images, "max_pixels": self.max_pixels, "threads": self.threads}
            path.write_text(json.dumps({**task.options, **options}), encoding="utf-8")
            await run_child(__name__, [str(path)], progress.take, log=log)


def main() -> None:
    """Do the fit that the file of the one argument describes; its progress is lines of JSON, an error is one line."""
    tell_progress()
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
    from unalike.inspection.inspector import Inspector

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
