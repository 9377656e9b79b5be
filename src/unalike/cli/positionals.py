"""Positional arguments of the actions on a model: which of them is a model, which is data, and the field that each sets."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from unalike.cli.shared_options import split_overrides
from unalike.errors import DataError, SpecError
from unalike.spec.actions import MODEL_ACTIONS

_RETRIEVAL = {
    ".pth": "checkpoint", ".ckpt": "checkpoint", ".onnx": "onnx_file", ".xml": "engine", ".engine": "trt_engine",
    ".plan": "trt_engine",
}  # fmt: skip
_CONVERSION = {".onnx": "onnx_file", ".pth": "checkpoint", ".ckpt": "checkpoint"}
# Action -> suffix of a model's file -> the field of the action's section that names it.
MODEL_FIELDS: Mapping[str, Mapping[str, str]] = {
    "evaluate": _RETRIEVAL,
    "inference": _RETRIEVAL,
    "export": {".pth": "checkpoint", ".ckpt": "checkpoint"},
    "quantize": _CONVERSION,
    "gen_engine": _CONVERSION,
    "gen_trt_engine": {".onnx": "onnx_file"},
}
_PRETRAINED = (
    "pretrained"  # in place of a model's file: the best pretrained trunk that is installed, or pretrained:NAME
)


def is_model(argument: str) -> bool:
    """Whether a positional argument names a model: a file with a model's suffix, ``pretrained``, or the folder of a run or of runs.

    Folders of runs that write images (discover) are data.
    """
    path = Path(argument)
    if argument.partition(":")[0] == _PRETRAINED:
        return not os.path.lexists(argument)
    if path.is_dir():
        from unalike.runs.record import recorded_action
        from unalike.runs.written_model import run_in_folder

        return recorded_action(run_in_folder(path)) in MODEL_ACTIONS
    return PurePath(argument).suffix.lower() in _RETRIEVAL


def split_arguments(action: str, arguments: Sequence[str] | None) -> tuple[str | None, list[str]]:
    """Split the positional arguments of an action on a model into its data and overrides; a model becomes an override.

    Args:
        action: One of MODEL_ACTIONS.
        arguments: Paths of a model and of data, in any order, and overrides ``key=value``.

    Raises:
        SpecError: Two models, two data folders, or a model that the action does not take.
        RunError: A run's folder holds no model.
    """
    values, overrides = split_overrides(arguments)
    models = [value for value in values if is_model(value)]
    data = [value for value in values if value not in models]
    for kind, paths in (("models", models), ("data folders", data)):
        if len(paths) > 1:
            raise SpecError(
                f"two {kind}, {paths[0]!r} and {paths[1]!r}", expected="one", remedy=_second_remedy(action, paths)
            )
    return (data[0] if data else None), [*(_model_override(action, model) for model in models), *overrides]


def refuse_nothing(path: str) -> None:
    """Raise DataError for a path to nothing, which would count as images though a model may have been meant."""
    if os.path.lexists(os.path.expanduser(path)) or any(mark in path for mark in ("://", "!", "#")):
        return
    from unalike.storage.outside_files import path_remedy

    raise DataError(
        f"{path}: no such file or folder",
        expected="a model, the folder of its run, or images",
        remedy=path_remedy(path),
    )


def unquoted_path(words: Sequence[str]) -> str:
    """A path with blanks that exists and stands in several words of a command line, for want of quotes; empty text without."""
    for first in range(len(words)):
        for last in range(first + 2, len(words) + 1):
            path = " ".join(words[first:last])
            if not os.path.lexists(words[first]) and os.path.lexists(path):
                return path
    return ""


def _second_remedy(action: str, paths: Sequence[str]) -> str:
    """What was probably meant by two models or two data folders."""
    first, second = (shlex.quote(path) for path in paths[:2])
    if not all(map(os.path.lexists, paths[:2])) or is_model(paths[0]):
        return "write overrides as key=value, without blanks around '='"
    if all(map(os.path.isfile, paths)):
        return f"give their folder, {shlex.quote(os.path.dirname(paths[0]) or '.')}, or a table of them"
    return {
        "train": f"to validate on the second: unalike train {first} dataset.val_dataset.query={second}",
        "evaluate": f"unalike evaluate MODEL --reference {first} --query {second}",
        "inference": f"unalike inference MODEL --reference {first} {second}",
    }.get(action, "give one of them")


def model_argument(arguments: Sequence[str] | None) -> str | None:
    """The positional argument that names a model, or None."""
    return next((argument for argument in split_overrides(arguments)[0] if is_model(argument)), None)


def _model_override(action: str, argument: str) -> str:
    """The override that sets a model given as a positional argument."""
    from unalike.spec.reading import yaml_line

    fields = MODEL_FIELDS.get(action)
    if fields is None:
        raise SpecError(f"{argument} is a model, not data for {action}", expected="a folder of images",
                        remedy=f"to start from its weights: {shlex.quote(f'model.pretrained_model_path={argument}')}")  # fmt: skip
    path: str | Path = argument
    if Path(argument).is_dir():
        from unalike.runs.written_model import model_in_folder

        path = model_in_folder(Path(argument))
    suffix = ".pth" if argument.partition(":")[0] == _PRETRAINED else PurePath(path).suffix.lower()
    if suffix not in fields:
        raise SpecError(f"{path} for {action}", expected=f"a model of kind {', '.join(fields)}",
                        remedy=_model_remedy(action, suffix))  # fmt: skip
    return f"{action}.{fields[suffix]}={yaml_line(str(path))}"


def _model_remedy(action: str, suffix: str) -> str:
    if suffix in (".pth", ".ckpt"):
        return "write an ONNX file first: unalike export CHECKPOINT"
    return "name the checkpoint of the training" if action == "export" else "name the ONNX file that it was built from"


def refuse_models(options: Mapping[str, str | None]) -> None:
    """Raise SpecError for a model in an option that takes images (``option name -> value``)."""
    for name, value in options.items():
        if value is not None and is_model(value):
            raise SpecError(f"{name} {value} is a model, not images", expected="a folder, an archive or a manifest",
                            remedy=f"write the model without {name}")  # fmt: skip
