"""Weights of the user's own that automatic training starts from, and the network that they make as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unalike.model.embedder import Embedder, build_embedder
from unalike.model.parent_checkpoint import read_parent, settle_from_checkpoints
from unalike.progress import say
from unalike.sanitize import redact
from unalike.training.recipe import settle_backbone

if TYPE_CHECKING:
    import numpy as np

    from unalike.spec import Experiment

AS_GIVEN = "as given"  # name of the candidate in automatic.json
_SIZES = ("model.input_height", "model.input_width")


@dataclass(frozen=True)
class GivenNetwork:
    """The network of the weight files that a spec names, trunk and head, to which nothing is fitted.

    Attributes:
        network: trunk and head.
        spec: its resolved spec.
    """

    network: Embedder
    spec: Experiment

    def vectors(self, features_NF: np.ndarray) -> np.ndarray:
        """Return the head's vectors (N, D) for features (N, F) of its trunk."""
        with torch.inference_mode():
            vectors_ND: np.ndarray = self.network.head(torch.from_numpy(features_NF)).numpy()
        return vectors_ND


def names_trunk_weights(spec: Experiment) -> bool:
    """Return whether a spec names a file for the trunk."""
    return bool(spec.model.pretrained_trunk_path or spec.model.pretrained_model_path)


def names_head_weights(spec: Experiment) -> bool:
    """Return whether a spec names a file for the head."""
    return bool(spec.model.pretrained_embedder_path or spec.model.pretrained_model_path)


def starting_spec(spec: Experiment) -> Experiment:
    """Return the spec of a training that fits new heads to the trunk of the named weights.

    Trunk, image size, view and decoding are settled as the checkpoint has them, and count as set: no other trunk and no other
    size is tried. The head is left open. Without named weights the spec is returned as it is.

    Args:
        spec: the spec as the user set it.

    Raises:
        WeightsError: a file cannot be read.
    """
    if not (names_trunk_weights(spec) or names_head_weights(spec)):
        return spec
    model = spec.model
    paths = {
        "model.pretrained_trunk_path": model.pretrained_model_path or model.pretrained_trunk_path,
        "model.pretrained_model_path": None,
        "model.pretrained_embedder_path": None,
    }
    starting = spec.with_values(paths)
    sizes_are_known = settle_from_checkpoints(starting)
    settle_backbone(starting)
    starting.mark_set(["model.backbone"])
    if sizes_are_known or names_head_weights(spec):
        starting.mark_set(_SIZES)
    return starting


def load_given_network(spec: Experiment, starting: Experiment) -> GivenNetwork | None:
    """Return the network of the named weights; None where no head is named.

    Args:
        spec: the spec as the user set it.
        starting: that of ``starting_spec``, with the trunk and the decoding of all images.

    Raises:
        WeightsError: a file does not fit.
        SpecError: the spec contradicts a file.
    """
    if not names_head_weights(spec):
        return None
    decoding = starting.dataset.decoding.model_copy()
    own = spec.with_values({"model.backbone": starting.model.backbone, "dataset.decoding": decoding})
    own.mark_set(["model.backbone"])
    return GivenNetwork(build_embedder(own).eval(), own)


def describe_weights(spec: Experiment, classes: Sequence[str]) -> dict[str, Any] | None:
    """Return what is known of the named weights, for ``automatic.json``, and print it; None where none are named.

    Weights that were trained on the images here make held-out images less than new: that cannot be seen in the files but for
    the names of the classes, and is stated.

    Args:
        spec: the spec as the user set it.
        classes: names of the classes of the images.
    """
    model = spec.model
    trunk = model.pretrained_model_path or model.pretrained_trunk_path
    head = model.pretrained_model_path or model.pretrained_embedder_path
    if not (trunk or head):
        return None
    earlier_classes = {
        name for path in {trunk, head} if path for name in (read_parent(path, spec) or {}).get("classes") or ()
    }
    shared_count = len(earlier_classes & set(classes))
    note = "figures are too high if the weights were trained on images of this set"
    if shared_count:
        note = f"the weights know {shared_count} of the {len(classes)} classes by name: {note}"
    say(f"weights: {Path(trunk).name if trunk else 'pretrained trunk'}"
        + (f", head of {Path(head).name}" if head else "") + f"; {note}")  # fmt: skip
    return {
        "trunk": trunk and redact(str(trunk)),
        "head": head and redact(str(head)),
        "shared_classes": shared_count,
        "note": note,
    }
