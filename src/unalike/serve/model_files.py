"""Files below the folder of a service: models with the digests of their training images, folders of tasks, uploads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from unalike.errors import StoreError
from unalike.inference.model_files import is_pretrained
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_file import write_gallery_file
from unalike.recognition.model_identity import ModelIdentity
from unalike.storage.atomic import copy_file, write_text
from unalike.storage.digests import text_sha256
from unalike.storage.outside_files import reason

MODELS_FOLDER, VECTORS_FOLDER = "models", "vectors"
TASKS_FOLDER, UPLOADS_FOLDER = "tasks", "uploads"
MODEL_FILE, DIGESTS_FILE = "model.onnx", "training.txt"
# In the folder of a task.
LOG_FILE = "log.txt"
LOG_BYTES = 64 * 1024


def task_folder(folder: Path, task_id: str) -> Path:
    """The folder of a task: its log, and the run and the images of a training."""
    return folder / TASKS_FOLDER / task_id


def read_log(folder: Path, task_id: str) -> str:
    """The end of the log of a task; empty before it begins."""
    try:
        content = (task_folder(folder, task_id) / LOG_FILE).read_bytes()
    except OSError:
        return ""
    text = content[-LOG_BYTES:].decode("utf-8", errors="replace")
    return text if len(content) <= LOG_BYTES else text.partition("\n")[2]


def model_file(folder: Path, model_id: str) -> Path:
    """The file of a model of this service."""
    return folder / MODELS_FOLDER / model_id / MODEL_FILE


def relative_file(folder: Path, file: str) -> str:
    """The name of a model's file as the store keeps it: below the folder of the service where it is one of its own."""
    own = own_model(folder, file)
    if own is not None:
        return own.relative_to(folder).as_posix()
    return file if is_pretrained(file) else os.path.abspath(file)


def own_model(folder: Path, file: str) -> Path | None:
    """The file that a gallery names, where it is a model of this service; also after its folder was moved."""
    parts = Path(file).parts[-3:]
    if is_pretrained(file) or len(parts) != 3 or (parts[0], parts[2]) != (MODELS_FOLDER, MODEL_FILE):
        return None
    path = model_file(folder, parts[1])
    return path if path.is_file() else None


def keep_model(folder: Path, model_id: str, file: Path, digests: frozenset[str]) -> Path:
    """Keep the file of a model and the digests of the images of its training; both are on the disk when this returns.

    Raises:
        StoreError: they cannot be written.
    """
    path = model_file(folder, model_id)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path.with_name(DIGESTS_FILE), "".join(f"{digest}\n" for digest in sorted(digests)))
        copy_file(file, path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {reason(error)}", expected="a folder with enough space") from error
    return path


def training_digests(folder: Path, model_id: str) -> frozenset[str] | None:
    """The digests of the images that a model of this service was trained on; None where they are not known."""
    try:
        text = model_file(folder, model_id).with_name(DIGESTS_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return frozenset(text.split("\n")) - {""}


def vectors_file(folder: Path, gallery: str, identity: ModelIdentity) -> Path:
    """Where vectors of a gallery's references by one network are kept, so that they need not be computed again."""
    key = f"{gallery}\0{identity.network}\0{identity.view}\0{identity.probe_D.tobytes().hex()}"
    return folder / MODELS_FOLDER / VECTORS_FOLDER / f"{text_sha256(key)[:32]}.gallery"


def keep_vectors(gallery: Gallery, target: Path) -> None:
    """Keep the vectors of a gallery; without them they are computed again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    write_gallery_file(target, gallery.snapshot, None, gallery.model_identity)


def remove_learning_data(folder: Path) -> None:
    """Remove what learning keeps beside galleries and models, for a purge: vectors, uploads, folders of tasks with their reports.

    Nothing of what a purge removes may stay in them; models hold no pictures, and stay.
    """
    for path in (folder / MODELS_FOLDER / VECTORS_FOLDER).glob("*.gallery"):
        path.unlink(missing_ok=True)
    for name in (TASKS_FOLDER, UPLOADS_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)


def copy_models(source: Path, target: Path) -> None:
    """Copy the models of one folder of a service to another, for a backup or from one; those that are there stay."""
    for path in sorted((source / MODELS_FOLDER).glob(f"*/{MODEL_FILE}")):
        copy = model_file(target, path.parent.name)
        digests = path.with_name(DIGESTS_FILE)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            if digests.is_file():
                copy_file(digests, copy.with_name(DIGESTS_FILE))
            copy_file(path, copy)
