"""Refuse inputs of an action that took each other's place on the command line: gallery and folder, model and images."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path, PurePath

from unalike.data.decode import IMAGE_SUFFIXES
from unalike.errors import SpecError
from unalike.inference.model_files import SUFFIXES
from unalike.recognition.backends.database_address import is_database
from unalike.runs.filenames import RECORD_FILE
from unalike.spec.actions import command_of

# Field of a command's first argument -> what it is; its file has that suffix.
_OWN_FILES = {"gallery": "gallery", "inspector": "inspector"}
_IMAGE_FIELDS = ("source", "images", "good", "data")


def refuse_swapped(action: str, fields: Mapping[str, object]) -> None:
    """Raise SpecError where two inputs of a standalone action took each other's place: gallery and folder, model and images.

    Args:
        action: One of STANDALONE_ACTIONS.
        fields: Values of its section on the command line, by field.
    """
    command = f"unalike {command_of(action)}"
    model = str(fields.get("model", ""))
    texts = {name: str(value[0] if isinstance(value, list) else value) for name, value in fields.items() if value}
    for name in _OWN_FILES.keys() & texts.keys():
        text, kind = texts[name], _OWN_FILES[name]
        others = [value for other, value in texts.items() if other in _IMAGE_FIELDS]
        if _is_images(text) and others and not _is_images(others[0]):
            raise SpecError(f"{text} is {_describe(text)}, no {kind}", expected=f"the {kind} first",
                            remedy=f"{command} {shlex.join([others[0], text])}")  # fmt: skip
    for name in (name for name in _IMAGE_FIELDS if name in texts and action != "export_maps"):  # its source is a model
        text = texts[name]
        if PurePath(text).suffix.lower() not in SUFFIXES or Path(text).is_dir():
            continue
        images = model if _is_images(model) else "DIR"
        words = [*([texts["gallery"]] if "gallery" in texts else []), images, "-m", text]
        raise SpecError(f"{text} is a model, not images", expected="the model after -m",
                        remedy=f"{command} {shlex.join(words)}")  # fmt: skip


def _is_images(text: str) -> bool:
    """Whether a path is an existing folder that holds no run, or an image's file; the address of a gallery is no path."""
    if ":" in text and is_database(text):
        return False
    path = Path(text)
    if text and path.is_dir():
        return not (path / RECORD_FILE).is_file()
    return path.suffix.lower() in IMAGE_SUFFIXES


def _describe(text: str) -> str:
    return "a folder" if Path(text).is_dir() else "an image"
