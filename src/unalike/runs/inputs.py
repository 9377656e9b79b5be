"""The files and folders that an action reads, as its spec names them; and refusing to write over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unalike.errors import RunError, UnalikeError
from unalike.spec.fields import fields_of
from unalike.storage.outside_files import expand_home

if TYPE_CHECKING:
    from unalike.spec import Experiment

# Inputs of the actions on a model; {action} is the action's section. Fields of other actions have the fact ``takes``.
_INPUT_FIELDS = (
    "dataset.train_dataset", "dataset.val_dataset.reference", "dataset.val_dataset.query",
    "model.pretrained_model_path", "model.pretrained_trunk_path", "model.pretrained_embedder_path",
    "{action}.input_path", "{action}.checkpoint", "{action}.onnx_file", "{action}.trt_engine",
)  # fmt: skip
# Of these names, those that are written.
_OUTPUT_FIELDS = ("export.onnx_file", "gen_trt_engine.trt_engine")


def input_paths(action: str, experiment: Experiment) -> Iterator[tuple[str, Path]]:
    """Yield the dotted field and the path of each input on this machine that a spec names and that exists.

    Args:
        action: the action.
        experiment: its spec.
    """
    nodes = fields_of(action)
    fields = [field.format(action=action) for field in _INPUT_FIELDS]
    fields += [field for field, node in nodes.items() if "takes" in node.facts]
    for field in dict.fromkeys(fields):
        if field not in nodes or field in _OUTPUT_FIELDS:
            continue
        value: object = experiment
        for name in field.split("."):
            value = getattr(value, name, None)
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, str) and item and (path := expand_home(item)).exists():
                yield field, path


def refuse_written_inputs(
    action: str, experiment: Experiment, paths: Iterable[Path], error: type[UnalikeError] = RunError, *,
    in_folders: bool = True,
) -> None:  # fmt: skip
    """Raise an error where a file or folder that is going to be written, or deleted, is an input, or a file in one.

    ``--overwrite`` is no leave for this: the input would be gone.

    Args:
        action: the action.
        experiment: its spec.
        paths: files or folders.
        error: the class of the error.
        in_folders: whether files in input folders are inputs; those that a former run wrote there are none.
    """
    inputs = [(field, path.resolve()) for field, path in input_paths(action, experiment)]
    for path in paths:
        target = path.resolve()
        for field, source in inputs:
            is_inside = in_folders and source.is_dir() and target.is_file() and target.is_relative_to(source)
            if target == source or is_inside or (target.exists() and target.samefile(source)):
                what = f"a file in {field} ({source})" if is_inside else f"{field} too"
                raise error(f"{path} would be written, and is {what}", expected="an output that is no input",
                            remedy="choose another name")  # fmt: skip
