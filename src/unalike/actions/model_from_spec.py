"""Load the model that a spec names, and embed reference and query images with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.data.decoding import Decoding
from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.errors import SpecError
from unalike.inference.contradictions import refuse_contradictions
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import LoadedModel, load_model, require_model_file
from unalike.inference.model_files import PRETRAINED
from unalike.progress import say

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.spec.retrieval import Retrieval


def fit_decoding(
    models: Sequence[LoadedModel], reference: ImageSet, query: ImageSet, experiment: Experiment
) -> list[LoadedModel]:
    """The models, with what their decoding leaves open taken from the spec, else chosen from both sets of images."""
    first = models[0].with_decoding(
        models[0].view.decoding.completed(Decoding.from_section(experiment.dataset.decoding))
    )
    decoding = first.fitted(dict.fromkeys([*reference.paths, *query.paths])).view.decoding
    return [model.with_decoding(decoding) for model in models]


def load_frozen(
    experiment: Experiment, *, runtime: str, precision: str, gpu: int = 0, images: int | None = None
) -> LoadedModel:  # fmt: skip
    """Load the pretrained trunk of ``model.backbone``, or the best one available, without training: the baseline.

    Args:
        experiment: the spec; unset fields of backbone, mean and std are set in it.
        runtime, precision: of the engine.
        gpu: number of the GPU, where torch runs it on one.
        images: how many will be embedded, where that is known.

    Raises:
        WeightsError: no pretrained weights are available.
        ModelError: there is no such trunk.
    """
    from unalike.inference.engine_selection import create_engine, move_to_gpu
    from unalike.model.frozen_trunk import build_frozen_trunk
    from unalike.training.recipe import settle_backbone, settle_normalization

    settle_backbone(experiment)
    trunk = build_frozen_trunk(experiment.model.backbone, (experiment.model.input_height, experiment.model.input_width))
    settle_normalization(experiment, trunk.trunk.facts)
    move_to_gpu(trunk, runtime, gpu)
    preprocessing = Preprocessing.from_spec(experiment)
    engine = create_engine(trunk, preprocessing, runtime=runtime, precision=precision, images=images)
    return LoadedModel(engine, preprocessing, (), Path(experiment.model.backbone))


def _device_ids(experiment: Experiment, section: Retrieval, name: str) -> list[int]:
    """GPU numbers of evaluate or inference, one for each copy of the network; ``[0]`` where it runs on the CPU, too."""
    if section.num_nodes > 1:
        say(f"{name}.num_nodes: {section.num_nodes}; {name} runs on this machine alone")
    if section.num_gpus == 1:
        if section.gpu_ids != [0] and _runs_on_cpu(section):
            say(f"{name}.gpu_ids: {section.gpu_ids} is not used: the network runs on the CPU")
        return [section.gpu_ids[0]]
    from unalike.training.devices import check_devices

    ids = check_devices(
        section.num_gpus, section.gpu_ids, ids_were_set=experiment.is_set(f"{name}.gpu_ids"), where=name
    )
    if section.onnx_file or section.engine or section.runtime not in ("auto", "torch", "tensorrt"):
        say(f"{name}.num_gpus: {section.num_gpus}; exported networks run on the CPU, in one copy")
        return ids[:1]
    return ids


def _runs_on_cpu(section: Retrieval) -> bool:
    """Whether the network of a section runs on the CPU: a checkpoint where there is no GPU, and an exported one."""
    if section.device or section.trt_engine or (section.engine or "").endswith((".engine", ".plan")):
        return False
    if section.onnx_file or section.engine or section.runtime not in ("auto", "torch"):
        return True
    import torch

    return not torch.cuda.is_available()


def find_model_source(section: Retrieval, name: str) -> str:
    """Return the path of the model that evaluate or inference runs, or ``pretrained``; the model is not loaded yet.

    An engine needs no checkpoint beside it (TAO D34).

    Args:
        section: ``evaluate`` or ``inference``.
        name: its key in the spec, for messages.

    Raises:
        SpecError: the section names no model, or several.
        ModelError: there is no such file.
    """
    fields = ("checkpoint", "onnx_file", "engine", "trt_engine")
    sources = {key: str(getattr(section, key)) for key in fields if getattr(section, key)}
    if "trt_engine" in sources and "checkpoint" in sources:
        # TAO's specs name both, since a checkpoint is mandatory there.
        say(f"{name}.trt_engine is set: {name}.checkpoint is not used")
        del sources["checkpoint"]
    if not sources:
        raise SpecError(f"none of {', '.join(f'{name}.{key}' for key in fields)} is set", expected="a trained model",
                        remedy=f"unalike {name} MODEL ..., or {name}.checkpoint=FILE.pth; {PRETRAINED} is the pretrained trunk "
                        "without training")  # fmt: skip
    if len(sources) > 1:
        raise SpecError(f"{' and '.join(f'{name}.{key}' for key in sources)} are both set", remedy="keep one")
    key, source = next(iter(sources.items()))
    return PRETRAINED if (key, source) == ("checkpoint", PRETRAINED) else str(require_model_file(source))


def load_models(experiment: Experiment, section: Retrieval, name: str, source: str, images: int) -> list[LoadedModel]:
    """Load a model once for each device, and compare the spec with it.

    Args:
        experiment: the spec.
        section: ``evaluate`` or ``inference``; gives runtime, precision and devices.
        name: its key in the spec, for messages.
        source: of ``find_model_source``.
        images: how many will be embedded.

    Raises:
        SpecError: the spec contradicts the model.
        ModelError, DeviceError, MissingExtra: the model cannot be loaded.
    """
    models = []
    for gpu in _device_ids(experiment, section, name):
        if source == PRETRAINED:
            models.append(load_frozen(experiment, runtime=section.runtime, precision=section.precision, gpu=gpu,
                                      images=images))  # fmt: skip
            continue
        model = load_model(
            source, runtime=section.runtime, precision=section.precision, gpu=gpu, images=images, quiet=False,
            threads=section.threads, streams=section.streams, device=section.device,
            experiment=experiment, **explicit_normalization(experiment),
        )  # fmt: skip
        refuse_contradictions(experiment, model.source, model.preprocessing, dim=model.engine.dim, trunk=model.trunk,
                             head=model.head)  # fmt: skip
        models.append(model)
    if section.threads is not None and (runtime := models[0].engine.name) in ("torch", "tensorrt"):
        say(f"{name}.threads is not used by {runtime}: OpenVINO and ONNX Runtime take it")
    return models


def explicit_normalization(experiment: Experiment) -> dict[str, Any]:
    """Mean and std where the spec sets them, for networks without metadata (TAO's engines); others keep their own."""
    dataset = experiment.dataset
    explicit = experiment.is_set("dataset.pixel_mean") or experiment.is_set("dataset.pixel_std")
    return {"mean": tuple(dataset.pixel_mean), "std": tuple(dataset.pixel_std)} if explicit else {}


def explicit_batch_size(experiment: Experiment, name: str) -> int | None:
    """The batch size that the user set; else None, for the engine's own: TAO's defaults of 4 and 1 are slow in every engine."""
    size: int = getattr(experiment, name).batch_size
    return size if experiment.is_set(f"{name}.batch_size") else None


def embed_two_sets(
    models: Sequence[LoadedModel], reference: ImageSet, query: ImageSet, experiment: Experiment, batch_size: int | None,
    notices: Notices,
) -> tuple[ImageSet, np.ndarray, ImageSet, np.ndarray]:  # fmt: skip
    """Embed a reference and a query set; a file that is in both is decoded and embedded once.

    Args:
        models: copies of one model, one for each device.
        reference, query: the sets.
        experiment: gives the options for reading images.
        batch_size: images a call; the engine's own when None.
        notices: collects unreadable files.

    Returns:
        The readable reference images and their vectors, float32 (N, D); the same of the query.
    """
    union = list(dict.fromkeys([*reference.paths, *query.paths]))
    dataset = experiment.dataset
    embedded = embed_files(
        [model.engine for model in models], union, models[0].view, batch_size=batch_size, workers=dataset.workers,
        max_unreadable=dataset.max_unreadable, max_pixels=dataset.max_pixels, notices=notices, describe="embedding",
    )  # fmt: skip
    row_of_path = {union[i]: row for row, i in enumerate(embedded.kept_N.tolist())}

    def select_readable(images: ImageSet) -> tuple[ImageSet, np.ndarray]:
        readable = [i for i, path in enumerate(images.paths) if path in row_of_path]
        return images.select(readable), embedded.vectors_ND[[row_of_path[images.paths[i]] for i in readable]]

    return *select_readable(reference), *select_readable(query)
