"""Load the model that a spec names, and embed reference and query images with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.errors import SpecError
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import LoadedModel, load_model, require_model_file
from unalike.inference.model_files import PRETRAINED
from unalike.progress import say

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.spec.retrieval import Retrieval


def refuse_contradictions(
    experiment: Experiment, source: Path, preprocessing: Preprocessing, *, dim: int, trunk: str
) -> None:
    """The model is read from its file; a spec that says otherwise is an error, all of it in one report."""
    view = preprocessing.view
    shown = view.to_dict()
    known = {
        "model.backbone": trunk,
        "model.input_height": view.height,
        "model.input_width": view.width,
        "model.feat_dim": dim,
        "dataset.pixel_mean": list(preprocessing.mean),
        "dataset.pixel_std": list(preprocessing.std),
        **{f"dataset.view.{key}": shown[key] for key in ("mode", "resize_ratio", "interpolation")},
    }
    faults = []
    for path, value in known.items():
        said: Any = experiment
        for part in path.split("."):
            said = getattr(said, part)
        if value and experiment.is_set(path) and said != value:
            faults.append(f"{path} is {said}, the model's is {value}")
    if faults:
        raise SpecError(f"the spec contradicts {source}: {'; '.join(faults)}", remedy="remove these keys")


def load_frozen(
    experiment: Experiment, *, runtime: str, precision: str, gpu: int = 0, images: int | None = None
) -> LoadedModel:  # fmt: skip
    """Load the pretrained trunk of ``model.backbone``, or the best one available, without training: the baseline.

    ``images``: how many it will embed, where that is known.
    """
    from unalike.inference.engine_selection import create_engine, move_to_gpu
    from unalike.model.frozen_trunk import build_frozen_trunk
    from unalike.training.recipe import settle_backbone, settle_normalization

    settle_backbone(experiment)
    trunk: Any = build_frozen_trunk(
        experiment.model.backbone, (experiment.model.input_height, experiment.model.input_width)
    )
    settle_normalization(experiment, trunk.trunk.facts)
    move_to_gpu(trunk, runtime, gpu)
    preprocessing = Preprocessing.from_spec(experiment)
    engine = create_engine(trunk, preprocessing, runtime=runtime, precision=precision, images=images)
    return LoadedModel(engine, preprocessing, (), Path(experiment.model.backbone))


def _device_ids(experiment: Experiment, section: Retrieval, name: str) -> list[int]:
    """The GPUs of evaluate or inference, one copy of the network each; ``[0]`` stands for the CPU too."""
    if section.num_nodes > 1:
        say(f"{name}.num_nodes: {section.num_nodes}; {name} runs on this machine alone")
    if section.num_gpus == 1:
        return [section.gpu_ids[0]]
    from unalike.training.devices import check_devices

    ids = check_devices(
        section.num_gpus, section.gpu_ids, ids_were_set=experiment.is_set(f"{name}.gpu_ids"), where=name
    )
    if section.onnx_file or section.engine or section.runtime not in ("auto", "torch", "tensorrt"):
        say(f"{name}.num_gpus: {section.num_gpus}; exported networks run on the CPU, in one copy")
        return ids[:1]
    return ids


def find_model_source(section: Retrieval, name: str) -> str:
    """What evaluate or inference shall run: a file that is there, or ``pretrained``. Cheap, so asked before the data.

    An engine needs no checkpoint beside it (TAO D34).
    """
    fields = ("checkpoint", "onnx_file", "engine", "trt_engine")
    given = {key: getattr(section, key) for key in fields if getattr(section, key)}
    if given.get("trt_engine") and "checkpoint" in given:
        # TAO's specs name both, since there a checkpoint is mandatory; the engine is what was asked for.
        say(f"{name}.trt_engine is set: {name}.checkpoint is not used")
        del given["checkpoint"]
    if not given:
        raise SpecError(f"none of {', '.join(f'{name}.{key}' for key in fields)} is set", expected="a trained model",
                        remedy=f"set {name}.checkpoint=FILE.pth, or {PRETRAINED} for the pretrained trunk without training")  # fmt: skip
    if len(given) > 1:
        raise SpecError(f"{' and '.join(f'{name}.{key}' for key in given)} are both set", remedy="keep one")
    key, source = next(iter(given.items()))
    return PRETRAINED if (key, source) == ("checkpoint", PRETRAINED) else str(require_model_file(source))


def load_models(experiment: Experiment, section: Retrieval, name: str, source: str, images: int) -> list[LoadedModel]:
    """The model that ``find_model_source`` named, once for each device; ``images`` is how many there are to embed."""
    models = []
    for gpu in _device_ids(experiment, section, name):
        if source == PRETRAINED:
            models.append(load_frozen(experiment, runtime=section.runtime, precision=section.precision, gpu=gpu,
                                      images=images))  # fmt: skip
            continue
        model = load_model(
            source, runtime=section.runtime, precision=section.precision, gpu=gpu, images=images, quiet=False,
            threads=section.threads, streams=section.streams, device=section.device, **_explicit_normalization(experiment),
        )  # fmt: skip
        refuse_contradictions(experiment, model.source, model.preprocessing, dim=model.engine.dim, trunk=model.trunk)
        models.append(model)
    return models


def _explicit_normalization(experiment: Experiment) -> dict[str, Any]:
    """Mean and std as the spec has them, for networks that carry none (TAO's engines); others keep their own."""
    dataset = experiment.dataset
    explicit = experiment.is_set("dataset.pixel_mean") or experiment.is_set("dataset.pixel_std")
    return {"mean": tuple(dataset.pixel_mean), "std": tuple(dataset.pixel_std)} if explicit else {}


def _embed(
    models: Sequence[LoadedModel],
    paths: Sequence[Path],
    experiment: Experiment,
    batch_size: int | None,
    notices: Notices,
    what: str,
) -> Any:
    return embed_files(
        [model.engine for model in models], list(paths), models[0].view, batch_size=batch_size,
        workers=experiment.dataset.workers, max_unreadable=experiment.dataset.max_unreadable,
        max_pixels=experiment.dataset.max_pixels, notices=notices, describe=what,
    )  # fmt: skip


def explicit_batch_size(experiment: Experiment, name: str) -> int | None:
    """The user's batch size; else the engine's own, since TAO's defaults of 4 and 1 starve every engine."""
    size: int = getattr(experiment, name).batch_size
    return size if experiment.is_set(f"{name}.batch_size") else None


def embed_two_sets(
    models: Sequence[LoadedModel], reference: ImageSet, query: ImageSet, experiment: Experiment, batch_size: int | None,
    notices: Notices,
) -> Any:  # fmt: skip
    """Vectors of both sets, each file decoded and embedded once even when it stands in both."""
    union = list(dict.fromkeys([*reference.paths, *query.paths]))
    done = _embed(models, union, experiment, batch_size, notices, "embedding")
    row = {union[i]: n for n, i in enumerate(done.kept_N.tolist())}

    def part(images: ImageSet) -> tuple[ImageSet, np.ndarray]:
        kept = [i for i, path in enumerate(images.paths) if path in row]
        return images.select(kept), done.vectors_ND[[row[images.paths[i]] for i in kept]]

    return *part(reference), *part(query)
