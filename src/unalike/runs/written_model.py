"""The model that a run wrote into its folder: the best checkpoint of a training, the file of an export or a conversion.

Incomplete files are never used: a checkpoint counts when the end of its archive exists, and files that are being written
have other names.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from unalike.errors import RunError
from unalike.progress import say
from unalike.runs.filenames import BEST_CHECKPOINT, LATEST_CHECKPOINT, PERIODIC_CHECKPOINTS, SEARCH_FILE
from unalike.runs.record import read_json, recorded_action

# Folder of the training in the root of several runs' results.
TRAINING_FOLDER = "train"
TRAININGS = ("train", "distill")  # actions that write a checkpoint
# Action -> patterns of the default names of the file that it writes.
WRITTEN_FILES = {
    "export": ("*.onnx",), "quantize": ("*.onnx",), "gen_engine": ("*.xml", "*_optimised.onnx"),
    "gen_trt_engine": ("*.engine",), "inspect_fit": ("*.inspector",), "verify": (), "gallery_build": ("*.gallery",),
}  # fmt: skip


def is_complete(path: Path) -> bool:
    """Whether a checkpoint is complete (torch writes ZIP archives, whose table comes last)."""
    try:
        return path.stat().st_size > 0 and zipfile.is_zipfile(path)
    except OSError:
        return False


def epoch_and_step(path: Path) -> tuple[int, ...]:
    """The numbers in the name of a periodic checkpoint, by which they are ordered."""
    return tuple(int(number) for number in re.findall(r"\d+", path.stem))


def complete_checkpoints(folder: Path) -> Iterator[Path]:
    """Complete checkpoints of a training's folder, the newest first; incomplete ones are reported and skipped."""
    latest = folder / LATEST_CHECKPOINT
    paths = [latest.resolve()] if latest.exists() else []
    periodic = sorted(folder.glob(PERIODIC_CHECKPOINTS), key=epoch_and_step, reverse=True)
    paths += [path for path in periodic if path.resolve() not in paths]
    for path in paths:
        if is_complete(path):
            yield path
        else:
            say(f"{path} is incomplete: skipped")


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a training's own folder."""
    return next(complete_checkpoints(folder), None)


def best_trial_folder(folder: Path) -> Path | None:
    """The folder of a search's best trial by its record; None where there is no search or no trial was measured."""
    best = read_json(folder / SEARCH_FILE).get("best") or {}
    return Path(best["folder"]) if best.get("folder") else None


def trained_model(folder: Path) -> Path | None:
    """The best checkpoint of a training, else its newest; of a search those of its best trial."""
    trial = best_trial_folder(folder)
    for path in [folder] if trial is None else [trial, folder]:
        if is_complete(path / BEST_CHECKPOINT):
            return path / BEST_CHECKPOINT
    return newest_checkpoint(trial or folder)


def newest_file(folder: Path, patterns: Iterable[str]) -> Path | None:
    """The file of these name patterns that was written last; hidden files do not count."""
    files = [file for pattern in patterns for file in folder.glob(pattern) if not file.name.startswith(".")]
    return max(files, key=lambda file: file.stat().st_mtime, default=None)


def run_in_folder(folder: Path) -> Path:
    """The folder itself, or its training where it is the root of several runs' results (``-r``), as that of the demo is."""
    training = folder / TRAINING_FOLDER
    is_root = recorded_action(folder) is None and recorded_action(training) == "train"
    return training if is_root else folder


def model_in_folder(folder: Path) -> Path:
    """The model that the run in a folder wrote: a checkpoint of a training, a file of an export or a conversion.

    In the root of several runs' results it is that of the training.

    Raises:
        RunError: The run wrote no model, or writes none.
    """
    folder = run_in_folder(folder)
    action = recorded_action(folder)
    if action in TRAININGS:
        model = trained_model(folder)
    elif action in WRITTEN_FILES:
        model = newest_file(folder, WRITTEN_FILES[action])
    else:
        raise RunError(f"{folder} holds a run of {action}, which writes no model",
                       expected=f"a run of {', '.join([*TRAININGS, *WRITTEN_FILES])}, or a model's file")  # fmt: skip
    if model is None:
        raise RunError(f"{folder} holds a run of {action} without a model", remedy="name the model's file")
    return model
