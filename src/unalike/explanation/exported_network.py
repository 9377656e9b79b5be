"""The network of a checkpoint or of a pretrained trunk, exported so that it can be cut at its mean; in memory or once into a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unalike.errors import ModelError, UnalikeError
from unalike.inference.model_files import CHECKPOINTS, EXPORTED, PRETRAINED
from unalike.storage.atomic import write_bytes
from unalike.storage.file_lock import file_lock

if TYPE_CHECKING:
    from unalike.inference.loaded_model import LoadedModel


def export_source(model: LoadedModel) -> str | None:
    """What has to be exported before a model's network can be cut; None for a file that can be cut as it is.

    Raises:
        ModelError: A file of another kind.
    """
    file = Path(model.source)
    if file.suffix in (".onnx", ".xml"):
        return None
    if file.suffix in EXPORTED:
        raise ModelError(f"{file.name} cannot be cut where it averages", expected="an .onnx, .xml or checkpoint")
    if file.suffix in CHECKPOINTS:
        return str(file)
    name = model.trunk or file.name  # the source of a pretrained trunk is its name
    return PRETRAINED if name == PRETRAINED else f"{PRETRAINED}:{name}"


def export(source: str, size: tuple[int, int]) -> bytes:
    """The network as the content of an ONNX file; some ten seconds.

    Args:
        source: A checkpoint, ``pretrained`` or ``pretrained:NAME``.
        size: Height and width of its input, in pixels.

    Raises:
        ModelError, WeightsError, ExportError, DeviceError, MissingExtra: It cannot be exported.
    """
    from unalike.inference.feature_map_model import load_feature_maps

    content = load_feature_maps(source, size=size, runtime="openvino", precision="fp32").content
    if content is None:
        raise ModelError(f"{source} cannot be cut where it averages")
    return content


def write_export(source: str, size: tuple[int, int], path: Path) -> None:
    """Write what ``export`` gives to a file that is not there yet; of several processes one does, and the others wait.

    Raises:
        OSError: The file cannot be written.
        UnalikeError: As ``export``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path):
        if not path.exists():
            write_bytes(path, export(source, size))


def main() -> None:
    """``write_export`` of the arguments SOURCE HEIGHT WIDTH PATH, as a process of its own; an error is one line."""
    source, height, width, path = sys.argv[1:]
    try:
        write_export(source, (int(height), int(width)), Path(path))
    except (UnalikeError, OSError) as error:
        sys.exit(f"error: {error}")
