"""Export: write a checkpoint as ONNX, compared with torch on real images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.actions.result import Result
from unalike.actions.results_folder import run_action
from unalike.actions.spec_resolution import Overrides, Spec, resolve_spec
from unalike.data.decoding import Decoding
from unalike.data.from_spec import load_from_spec
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.errors import (
    DataError,
    DeviceError,
    ExportError,
    SpecError,
    UnreadableImage,
)
from unalike.inference.contradictions import refuse_contradictions
from unalike.progress import say
from unalike.runs.environment import refuse_several_processes
from unalike.spec.load import check_fields
from unalike.spec.nodes import check_mandatory
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.data.imageset import ImageSet
    from unalike.runs.run import Run
    from unalike.spec import Experiment
    from unalike.spec.export_maps import ExportMaps


def run_export(experiment: Experiment, run: Run) -> tuple[Path, Mapping[str, Any]]:
    """Write ONNX and compare it with torch; returns the path and the figures of the comparison."""
    from unalike.deploy.onnx_export import export_onnx
    from unalike.deploy.parity import IMAGES
    from unalike.model.checkpoint import load_embedder
    from unalike.spec import settle

    section = experiment.export
    assert section.checkpoint is not None
    embedder, meta = load_embedder(section.checkpoint, experiment)
    facts = meta["facts"]
    preprocessing = Preprocessing.from_facts(facts)
    refuse_contradictions(experiment, Path(section.checkpoint), preprocessing, dim=embedder.dim, trunk=facts["trunk"],
                         head=embedder.head_kind)  # fmt: skip
    path = Path(section.onnx_file) if section.onnx_file else run.dir / f"{Path(section.checkpoint).stem}.onnx"
    refuse_existing(path, field="export.onnx_file")
    run.own(path)  # before it is there: --overwrite removes it after a kill
    count = max(section.parity_images, IMAGES)
    embedder.to(export_device(experiment))
    export = export_onnx(
        embedder, path, preprocessing, embedded=section.preprocessing == "embedded",
        images_NHWC=_parity_images(experiment, meta, preprocessing.view, count),
        unit_length=section.unit_length, batch_size=section.batch_size,
        opset=section.opset_version if experiment.is_set("export.opset_version") else None,
        metadata={"classes": list(meta["classes"]), "trunk": facts["trunk"], "licence": facts["licence"],
                  "name": experiment.model_name or facts.get("name"),
                  **{key: facts[key] for key in ("held_out_scores", "teachers") if key in facts}},
    )  # fmt: skip
    settle(experiment, "export.opset_version", export.opset, "the exporter's own")
    run.write_experiment(experiment)
    say(f"{path}: opset {export.opset}, input {export.facts.preprocessing}, dim {export.facts.dim}")
    if section.verbose:
        say(f"graph: {export.graph}")
    figures = {"opset": export.opset, **export.parity.to_dict()}
    run.record(parity=figures, onnx=str(path))
    return path, figures


def export_device(experiment: Experiment) -> str:
    """The device of the torch network in the comparison: ``export.gpu_id``, or the CPU. Raises DeviceError for a missing GPU."""
    import torch

    section = experiment.export
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if section.on_cpu or count == 0:
        if section.gpu_id and not section.on_cpu:
            say(f"export.gpu_id: {section.gpu_id}, no GPU here: running on the CPU")
        return "cpu"
    if section.gpu_id >= count:
        raise DeviceError(f"export.gpu_id is {section.gpu_id}", expected=f"one of the {count} GPUs of this machine, "
                          "counted from 0", remedy="change it or set export.on_cpu=true")  # fmt: skip
    return f"cuda:{section.gpu_id}"


def parity_sets(experiment: Experiment, meta: Mapping[str, Any]) -> Iterator[ImageSet]:
    """Sets of images for the comparison: of the spec's data, then the data that the checkpoint was trained on.

    Args:
        experiment: The spec.
        meta: What ``load_embedder`` returns of the checkpoint besides the network.
    """
    validation = experiment.dataset.val_dataset
    sources = [validation.query, validation.reference] if validation else []
    sources += [experiment.dataset.train_dataset, meta["spec"]["dataset"].get("train_dataset")]
    for source in filter(None, sources):
        try:
            images = load_from_spec(experiment, source, Notices(), labeled=False)
        except DataError as error:
            say(f"parity images: {error}")
            continue
        if len(images):
            yield images


def no_parity_images() -> ExportError:
    """The error of an export without images to compare on."""
    return ExportError("no images to compare the exported network on", expected="images in dataset.train_dataset or dataset."
                       "val_dataset.query", remedy="set dataset.train_dataset=DIR")  # fmt: skip


def _parity_images(experiment: Experiment, meta: Mapping[str, Any], view: View, count: int) -> np.ndarray:
    """Images for the comparison, through the network's view."""
    decoding = view.decoding.completed(Decoding.from_section(experiment.dataset.decoding))
    view = replace(view, decoding=decoding)
    for images in parity_sets(experiment, meta):
        step = max(1, len(images) // count)
        views = []
        for path in images.paths[::step]:
            try:
                views.append(view(path, max_pixels=experiment.dataset.max_pixels))
            except UnreadableImage:
                continue
            if len(views) == count:
                break
        if views:
            return np.stack(views)
    raise no_parity_images()


def export(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Write a checkpoint as ONNX, and compare both on images; ``path`` is the file."""
    refuse_several_processes("export")
    experiment = resolve_spec("export", spec, overrides, data)
    if not experiment.export.checkpoint:
        raise SpecError("export.checkpoint is not set", expected="a trained checkpoint (.pth), or the folder of its run; random "
                        "weights are not exported", remedy="unalike export MODEL, or export.checkpoint=FILE")  # fmt: skip
    return run_action(
        "export", run_export, experiment, (), None, resume=resume, overwrite=overwrite, message="exported: {path}"
    )


def export_maps(
    source: str | Path, output: str | Path, *, stages: str | Sequence[int | str] = "auto",
    size: tuple[int, int] | None = None, vector: bool = True,
) -> Result:  # fmt: skip
    """Write a checkpoint, or a pretrained trunk, as ONNX with its feature maps, compared with torch.

    Args:
        source: Network: a checkpoint (.pth), or ``pretrained[:NAME]``.
        output: File to write, .onnx.
        stages: Feature maps by stride or name; ``auto``: strides 8 and 16, ``middle``: stride 16.
        size: Height and width of the network's input, in pixels; None: the model's own.
        vector: Keep the layers above the feature maps, which output the vector.

    Returns:
        The result; ``path`` is the file.
    """
    return run_export_maps(
        check_fields("export_maps", source=source, output=output, stages=stages, size=size, vector=vector)
    )


def run_export_maps(settings: ExportMaps) -> Result:
    """Write the feature maps of the network that the section ``export_maps`` of a spec names, as ONNX."""
    from unalike.inference.feature_map_model import export_feature_maps

    check_mandatory("export_maps", settings)
    output = Path(str(settings.output))
    size = (settings.size[0], settings.size[1]) if settings.size else None
    figures = export_feature_maps(
        str(settings.source), output, stages=settings.stages, size=size, vector=settings.vector
    )
    return Result(output.parent, output, figures)
