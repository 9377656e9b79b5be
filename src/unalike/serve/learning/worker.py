"""The process of one task of learning: it reads its order, does the work, and writes the result into the store; it ends with the service."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unalike.errors import UnalikeError
from unalike.serve.child_process import tell_progress
from unalike.serve.learning.candidate import TrainingOptions, compare_candidate, train_candidate
from unalike.serve.learning.gallery_models import LearningGallery
from unalike.serve.learning.promotion import promote, roll_back
from unalike.serve.model_files import LOG_FILE
from unalike.serve.store import TaskRecord, open_store
from unalike.serve.store.learning import COMPARE, PROMOTE, TRAIN


@dataclass(frozen=True)
class Order:
    """What the process of a task needs to know; it is sent through standard input, since an address may hold a password.

    Attributes:
        task: id of the task.
        folder, store, images: of the service.
        gallery, address: name of the gallery, and its file or its address in a database.
        model: the model that the service was started with.
        runtime, precision, threads, max_pixels: of its networks.
        spec: spec file of trainings.
        data: path of further images of a training; None: none.
        work_folder: folder of the task.
    """

    task: str
    folder: str
    store: str | None
    images: str | None
    gallery: str
    address: str
    model: str | None
    runtime: str
    precision: str
    threads: int | None
    max_pixels: int
    spec: str | None
    data: str | None
    work_folder: str

    def to_line(self) -> bytes:
        """One line of JSON."""
        return json.dumps(self.__dict__).encode("ascii")


def main() -> None:
    """Read an order and carry it out; an error of the user is one line on standard error."""
    order = Order(**json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_end_with_service, daemon=True).start()
    tell_progress()
    try:
        with open_store(order.store, order.folder, order.images) as store:
            task = store.tasks.get(order.task)
            if task is None:
                raise UnalikeError(f"there is no task {order.task}")
            place = LearningGallery(
                store, order.gallery, order.address, order.model, order.runtime, order.precision, order.threads, order.max_pixels
            )  # fmt: skip
            result = carry_out(task, place, order)
            store.tasks.keep_result(task, result)
    except UnalikeError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)


def carry_out(task: TaskRecord, place: LearningGallery, order: Order) -> dict[str, Any]:
    """Do the work of a task; its result as plain data. Raises UnalikeError."""
    options = dict(task.options)
    if task.kind == TRAIN:
        models = [record for record in place.store.learning.models(place.name) if record.task == task.id]
        if models:  # of a process that ended before it could say so
            return {"figures": models[0].facts.get("figures", {}), "model": models[0].id}
        _remove_former_run(Path(order.work_folder))
        names = ("with_service", "minutes", "goal", "share", "name")
        values = {name: options[name] for name in names if name in options}
        training = TrainingOptions(order.data, **values, spec=order.spec)
        record, result = train_candidate(place, training, Path(order.work_folder), task=task.id)
        return result | {"model": record.id}
    if task.kind == COMPARE:
        return {"comparison": compare_candidate(place, options["model"]).id}
    if task.kind == PROMOTE:
        promotion = promote(
            place, options["model"], actor=task.actor, request_id=task.request_id, override=options.get("override", False),
            reason=options.get("reason", ""), source=options.get("source"),
        )  # fmt: skip
    else:
        promotion = roll_back(place, actor=task.actor, request_id=task.request_id, source=options.get("source"))
    return {"promotion": promotion.id}


def _remove_former_run(folder: Path) -> None:
    """Remove what a process left that ended in the middle of this task; its log stays."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOG_FILE:
            path.unlink(missing_ok=True)


def _end_with_service() -> None:
    os.read(0, 1)  # not sys.stdin: its lock, held here, would block the interpreter at its end
    os._exit(1)
