"""Check whether a standalone action could run: its inputs, the files that it writes, its folder and its extras."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unalike.actions.check_findings import Findings
from unalike.actions.embed import refuse_shard_options
from unalike.actions.embed_shards import check_shard_folder, is_shard_folder
from unalike.actions.results_folder import check_folder
from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.errors import DataError
from unalike.inference.loaded_model import require_model_file
from unalike.inference.model_files import CHECKPOINTS, PRETRAINED, is_pretrained
from unalike.inference.shards.source import open_source
from unalike.recognition.backends.database_address import is_database
from unalike.runs.folder import results_folder
from unalike.runs.ray_cluster import refuse_cluster_options
from unalike.spec.declare import FILE, IMAGE_OR_FOLDER, IMAGES, IMAGES_OR_FILE, MODEL, Section
from unalike.spec.fields import fields_of
from unalike.spec.nodes import SpecNode, check_mandatory
from unalike.storage.output_folder import OutputFolder
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.spec.embed import Embed

# Action -> field of the file that it writes where the field is set.
OUTPUT_FIELDS = {
    "inspect_fit": "inspector",
    "gallery_build": "gallery",
    "verify": "save",
    "embed": "output",
    "export_maps": "output",
    "inspect_learn": "output",
}
EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino", "torch": "train", "tensorrt": "tensorrt"}  # runtime -> extra


def check_standalone(action: str, experiment: Experiment, findings: Findings) -> None:
    """Check a spec of one of STANDALONE_ACTIONS; nothing is written and no network runs."""
    section = getattr(experiment, action)
    shards = action == "embed" and section.output is not None and is_shard_folder(section.output)
    with findings.collect(action):
        check_mandatory(action, section)
    findings.require_modules(_required_modules(action, section))
    if shards:
        findings.require_modules([("pyarrow", "parquet", "embed.output")])
    for path, node in fields_of(action).items():
        value = getattr(section, node.name, None) if path.startswith(f"{action}.") else None
        if value is not None and "takes" in node.facts:
            with findings.collect(path):
                if shards and node.facts["takes"] == IMAGES:
                    _check_shard_source(experiment.embed, path, findings)
                else:
                    _check_input(node, value, path, findings)
    with findings.collect(f"{action}.{OUTPUT_FIELDS.get(action, '')}"):
        if shards:
            check_shard_folder(OutputFolder(str(section.output)), overwrite=False, resume=False)
            refuse_cluster_options(experiment, action)
        elif action == "embed" and section.output is not None:
            refuse_shard_options(experiment)
            refuse_existing(section.output, False)
        elif action in OUTPUT_FIELDS and (file := getattr(section, OUTPUT_FIELDS[action])) is not None:
            refuse_existing(file, False)
    folder = results_folder(action, experiment)
    if folder is not None:
        with findings.collect(f"{action}.results_dir"):
            check_folder(folder, action, False)


def _required_modules(action: str, section: Section) -> Iterator[tuple[str, str, str]]:
    """(module, extra, purpose) of what the action imports with these options."""
    if action == "compare":
        yield "cv2", "vision", "compare"
    if action in ("demo", "distill", "export_maps"):
        yield from ((module, "train", action) for module in ("torch", "timm"))
    if action == "demo":
        yield from ((module, "demo", action) for module in ("simpleicons", "resvg_py"))
    runtime, model = getattr(section, "runtime", "auto"), getattr(section, "model", None)
    if getattr(section, "cluster", None) == "ray":
        yield "ray", "cluster", f"{action}.cluster"
    if runtime in EXTRAS:
        yield runtime, EXTRAS[runtime], f"{action}.runtime"
    if getattr(section, "search", None) == "ann":
        yield "faiss", "ann", f"{action}.search"
    if getattr(section, "approximate", False) and not all(map(_is_in_database, _galleries(section))):
        yield "faiss", "ann", f"{action}.approximate"
    needs_torch = (Path(model).suffix in CHECKPOINTS or model.partition(":")[0] == PRETRAINED) if model else False
    if needs_torch or (model is None and action in ("discover", "embed")):
        yield from ((module, "train", f"{action}.model") for module in ("torch", "timm"))
    elif model and runtime == "auto" and not any(map(importlib.util.find_spec, ("openvino", "onnxruntime"))):
        yield "onnxruntime", "onnx", f"{action}.model"


def _galleries(section: Section) -> list[str]:
    return list(getattr(section, "galleries", None) or [str(getattr(section, "gallery", None))])


def _is_in_database(gallery: str) -> bool:
    """Whether a gallery, which may be given as NAME=ADDRESS, has the index of its database."""
    return is_database(gallery) or is_database(gallery.partition("=")[2])


def _check_shard_source(section: Embed, path: str, findings: Findings) -> None:
    """Check that a source of shards lists something; no image is fetched. Raises the error that a run would raise."""
    source = open_source(str(section.source), labeled=section.labeled, notices=Notices())
    if next(source.items(), None) is None:
        raise DataError(f"{source.name} holds no images", expected="images")
    findings.facts[path] = f"{source.count} {source.kind}" if source.count else "a manifest with rows"


def _check_input(node: SpecNode, value: str | list[str], path: str, findings: Findings) -> None:
    """Check that images or a file exist. Raises the error that a run would raise."""
    takes = node.facts["takes"]
    sources = value if isinstance(value, list) else [value]
    is_file = len(sources) == 1 and Path(sources[0]).is_file()
    files = [source for source in sources if not is_pretrained(source)]
    if takes == MODEL and files and "://" not in files[0]:
        for file in files:
            require_model_file(file)
        findings.facts[path] = "exists"
    elif takes == IMAGES or (takes in (IMAGE_OR_FOLDER, IMAGES_OR_FILE) and not is_file):
        count = sum(len(load_images(source, labeled=False)) for source in sources)
        if count == 0:
            raise DataError(f"{value} holds no images", expected="images")
        findings.facts[path] = f"{count} images"
    elif takes in (FILE, IMAGE_OR_FOLDER, IMAGES_OR_FILE):
        if not is_file:
            raise DataError(f"there is no file {value}")
        findings.facts[path] = "exists"
