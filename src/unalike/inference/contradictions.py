"""Fields of a spec that contradict the model that it names: the model's file decides them, so they are refused."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.data.decoding import Decoding
from unalike.data.preprocessing import Preprocessing
from unalike.errors import SpecError

if TYPE_CHECKING:
    from unalike.spec import Experiment


def refuse_contradictions(
    experiment: Experiment, source: Path, preprocessing: Preprocessing, *, dim: int, trunk: str, head: str = ""
) -> None:
    """Compare a spec with the model that it names: fields of the spec that are set must agree with the model's file.

    Args:
        experiment: the spec.
        source: the model's file, for messages.
        preprocessing: view, mean and std of the model.
        dim: width of its embeddings; 0 where it is not known.
        trunk: name of its trunk; empty where it is not known.
        head: kind of its head; empty where it is not known.

    Raises:
        SpecError: fields differ; it names all of them.
    """
    view = preprocessing.view
    view_values = view.to_dict()
    model_values = {
        "model.backbone": trunk,
        "model.input_height": view.height,
        "model.input_width": view.width,
        "model.feat_dim": dim,
        "model.head": head if experiment.model.head != "auto" else "",
        "dataset.pixel_mean": list(preprocessing.mean),
        "dataset.pixel_std": list(preprocessing.std),
        **{f"dataset.view.{key}": view_values[key] for key in ("mode", "resize_ratio", "interpolation")},
    }
    faults = []
    for path, value in model_values.items():
        spec_value: Any = attrgetter(path)(experiment)
        if value and experiment.is_set(path) and spec_value != value:
            faults.append(f"{path} is {spec_value}, the model's is {value}")
    if experiment.is_set("dataset.decoding"):
        conflict = view.decoding.conflict(Decoding.from_section(experiment.dataset.decoding))
        faults += [f"dataset.decoding: the model has {conflict}"] if conflict else []
    if faults:
        raise SpecError(f"the spec contradicts {source}: {'; '.join(faults)}", remedy="remove these keys")
