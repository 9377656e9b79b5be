"""What a service offers of learning: its data folders and uploads, its tasks, and how a task of a gallery is begun."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.errors import DataError, closest
from unalike.report.plots import LinePlot
from unalike.runs.filenames import REPORT_FILE, STATUS_FILE
from unalike.runs.kpi_names import short_name
from unalike.serve.child_process import run_child
from unalike.serve.learning.candidate import IMAGES_FOLDER, RUN_FOLDER, TrainingOptions
from unalike.serve.learning.gallery_models import LearningGallery
from unalike.serve.learning.shadow_worker import ShadowOrder
from unalike.serve.learning.worker import Order
from unalike.serve.model_files import LOG_FILE, UPLOADS_FOLDER, read_log, task_folder
from unalike.serve.sources import named
from unalike.serve.store import Store, TaskRecord
from unalike.serve.store.learning import COMPARE, LEARNING_KINDS, TRAIN
from unalike.serve.store.records import DONE, new_id
from unalike.serve.store.shadows import ShadowRecord
from unalike.serve.store.tasks import MAX_ATTEMPTS
from unalike.serve.task_runner import Progress, TaskRunner
from unalike.serve.thread_budget import thread_budget
from unalike.storage.atomic import write_bytes

if TYPE_CHECKING:
    import sqlalchemy as sa

    from unalike.serve.resources import GalleryResource
    from unalike.serve.sources import Sources
    from unalike.spec.serve import Serve

MODULE = "unalike.serve.learning.worker"
# First bytes of what may be uploaded: ZIP archives.
ARCHIVE_MAGIC = b"PK"
# Figures of a training that are drawn: its loss, and this one.
VALIDATION = "val Precision at Rank 1"
MAX_POINTS = 400


class LearningDesk:
    """Learning as a service offers it.

    Args:
        settings: of the service.
        sources: what it serves.
        store: its store.
        addresses: name -> address of its galleries.
    """

    def __init__(
        self, settings: Serve, sources: Sources, store: Store, addresses: Mapping[str, str] | None = None
    ) -> None:
        self.settings, self.sources, self.store = settings, sources, store
        self.folders = named(settings.train_folders or (), "training folder")
        self.addresses = dict(addresses or {})
        self.tasks = TaskRunner(
            store.tasks, dict.fromkeys(LEARNING_KINDS, self._work), lambda: self.addresses, self._clean_up
        )

    def place(self, resource: GalleryResource) -> LearningGallery:
        """A gallery of the service."""
        settings = self.settings
        return LearningGallery(
            self.store, resource.name, resource.address, self.sources.model, settings.runtime, settings.precision,
            thread_budget(settings), settings.max_pixels,
        )  # fmt: skip

    def folder_of(self, task_id: str) -> Path:
        """The folder of a task."""
        return task_folder(self.store.folder, task_id)

    # ---- data ----

    def folder(self, name: str | None) -> str | None:
        """The path of a folder that the operator allowed, by its name; no path comes from a client. Raises DataError."""
        if name is None:
            return None
        if name not in self.folders:
            raise DataError(f"no training folder {name[:64]!r}", expected=f"one of {', '.join(self.folders)}" if self.folders else
                            "a folder that the service allows with --train-folder NAME=PATH", remedy=closest(name, self.folders))  # fmt: skip
        return self.folders[name]

    def keep_upload(self, content: bytes) -> str:
        """Keep an uploaded archive of class folders; its id. Raises DataError where it is no ZIP archive."""
        if not content.startswith(ARCHIVE_MAGIC):
            raise DataError("the upload is no ZIP archive", expected="a ZIP archive with one folder a class")
        upload_id = new_id()
        path = self._upload_path(upload_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
        return upload_id

    def upload(self, upload_id: str | None) -> str | None:
        """The path of an upload. Raises DataError where there is none."""
        if upload_id is None:
            return None
        path = self._upload_path(upload_id)
        if not upload_id.replace("-", "").isalnum() or not path.is_file():
            raise DataError(
                f"no upload {upload_id[:64]!r}", expected="the id of POST /v1/training-data", remedy="upload it again"
            )
        return str(path)

    def _upload_path(self, upload_id: str) -> Path:
        return self.store.folder / UPLOADS_FOLDER / f"{upload_id}.zip"

    def _clean_up(self, task: TaskRecord) -> None:
        """Remove the copies of pictures of a training that is over, which a process that was killed could not; and its upload."""
        shutil.rmtree(self.folder_of(task.id) / IMAGES_FOLDER, ignore_errors=True)
        upload = task.options.get("upload")
        if task.state == DONE and isinstance(upload, str):
            self._upload_path(upload).unlink(missing_ok=True)

    def training_options(self, values: Mapping[str, Any]) -> TrainingOptions:
        """The options of a training, from those of a request. Raises DataError."""
        if values.get("folder") and values.get("upload"):
            raise DataError("a folder and an upload", expected="one of them")
        if values.get("with_service") is False and not values.get("folder") and not values.get("upload"):
            raise DataError(
                "no images to train on", expected="the references and corrections of the service, a folder or an upload"
            )
        data = self.folder(values.get("folder")) or self.upload(values.get("upload"))
        names = ("with_service", "minutes", "goal", "share", "name")
        return TrainingOptions(data, **{name: values[name] for name in names if values.get(name) is not None})

    # ---- tasks ----

    def begin(
        self, kind: str, resource: GalleryResource, options: Mapping[str, Any], actor: str, request_id: str,
        connection: sa.Connection | None = None,
    ) -> TaskRecord:  # fmt: skip
        """Ask for a task of a gallery, after those that were asked for before."""
        # A change of the model may have come about before its process ended: it is not made twice.
        max_attempts = MAX_ATTEMPTS if kind in (TRAIN, COMPARE) else 1
        return self.store.tasks.add(
            kind, resource.name, options, actor=actor, request_id=request_id, max_attempts=max_attempts, connection=connection
        )  # fmt: skip

    async def _work(self, task: TaskRecord, progress: Progress) -> None:
        settings, folder = self.settings, self.folder_of(task.id)
        progress.set("loading the networks", 0, 0)
        data = self.training_options(task.options).data if task.kind == TRAIN else None
        await asyncio.to_thread(lambda: folder.mkdir(parents=True, exist_ok=True))
        order = Order(
            task.id, str(self.store.folder), settings.store, settings.images, task.resource, self.addresses[task.resource],
            self.sources.model, settings.runtime, settings.precision, thread_budget(settings), settings.max_pixels,
            settings.train_spec, data, str(folder),
        )  # fmt: skip
        await run_child(
            MODULE, [], progress.take, order=order.to_line(), cores=settings.train_cores, log=folder / LOG_FILE
        )

    def shadow_order(self, resource: GalleryResource, record: ShadowRecord) -> ShadowOrder:
        """What the process of a shadow needs to know; it computes with one thread."""
        settings = self.settings
        return ShadowOrder(
            record.model, str(self.store.folder), settings.store, settings.images, resource.name, resource.address, self.sources.model,
            settings.runtime, settings.precision, 1, settings.max_pixels,
        )  # fmt: skip

    # ---- what a task says ----

    def log(self, task_id: str) -> str:
        """The end of the log of a task; empty before it begins."""
        return read_log(self.store.folder, task_id)

    def report(self, task_id: str) -> bytes | None:
        """The report of a training; None where there is none yet."""
        try:
            return (self.folder_of(task_id) / RUN_FOLDER / REPORT_FILE).read_bytes()
        except OSError:
            return None

    def curves(self, task_id: str) -> dict[str, list[tuple[float, float]]]:
        """Loss and R@1 of a training, as far as it is: name -> points (step, value)."""
        points: dict[str, list[tuple[float, float]]] = {}
        try:
            lines = (
                (self.folder_of(task_id) / RUN_FOLDER / STATUS_FILE)
                .read_text(encoding="utf-8", errors="replace")
                .splitlines()
            )
        except OSError:
            return points
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:  # it is being written
                continue
            kpi, step = entry.get("kpi"), entry.get("step")
            for name, value in kpi.items() if isinstance(kpi, dict) else ():
                is_drawn = name == VALIDATION or "loss" in name
                if is_drawn and isinstance(value, int | float) and isinstance(step, int | float):
                    points.setdefault(short_name(name), []).append((float(step), float(value)))
        return {name: line[:: -(-len(line) // MAX_POINTS)] for name, line in points.items()}


def plots_of(curves: Mapping[str, list[tuple[float, float]]]) -> list[LinePlot]:
    """Drawings of the curves of a training, one for each figure."""
    return [LinePlot.from_points(name, {name: points}, "step") for name, points in curves.items() if points]
