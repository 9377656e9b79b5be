"""Save the winner of automatic training: a checkpoint fitted to all images, and ``best_spec.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.model.backbones import PretrainedConfig
from unalike.model.checkpoint import write_checkpoint
from unalike.model.embedder import Embedder
from unalike.model.frozen_trunk import build_starting_trunk
from unalike.progress import say
from unalike.runs.filenames import BEST_CHECKPOINT, BEST_SPEC_FILE
from unalike.sanitize import redact_all
from unalike.spec import settle
from unalike.storage.atomic import copy_file, write_text
from unalike.training.automatic.final_choice import Candidate, refit_tuned
from unalike.training.automatic.starting_weights import AS_GIVEN, GivenNetwork
from unalike.training.heads.config import HeadConfig, frozen_head_kind, requested_dim
from unalike.training.heads.features import TrunkFeatures
from unalike.training.heads.head_search import HeadSearchSpace
from unalike.training.heads.interpolation import attach_head, spec_with_head
from unalike.training.heads.trained import fit_head
from unalike.training.recipe import settle_normalization
from unalike.training.setup import checkpoint_facts
from unalike.training.trainer import TrainingResult

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment
    from unalike.training.automatic.trunks import TrunkResult
    from unalike.training.time_budget import TimeBudget

FIRST_MODEL = "first trunk with a usual head"


def save_untuned(
    best: Candidate, spec: Experiment, run: Run, images: ImageSet, features: TrunkFeatures
) -> tuple[Path, Experiment]:
    """Save a candidate without fine-tuning: the user's own network as it is, or as ``save_frozen``, with its arguments."""
    if best.given is not None:
        return save_given(best.given, run, images)
    return save_frozen(best.config, best.name, spec, run, images, features)


def save_frozen(
    config: HeadConfig | None, name: str, spec: Experiment, run: Run, images: ImageSet, features: TrunkFeatures
) -> tuple[Path, Experiment]:
    """Save a candidate without fine-tuning: the frozen trunk with its head, if any, fitted to all images.

    Args:
        config: the candidate's head; None: none.
        name: the candidate's name.
        spec: resolved spec of the run; it is copied.
        run: gets the checkpoint, ``experiment.yaml`` and ``best_spec.yaml`` (none where nothing was fitted).
        images: all images.
        features: the trunk's features of these images.

    Returns:
        The checkpoint and its spec.
    """
    x_NF, labels_N = features.training_rows(np.arange(len(images)), images.labels_N)
    head = fit_head(x_NF, labels_N, config, requested_dim(spec), frozen_head_kind(spec), views=features.views)
    own_spec = spec.model_copy(deep=True)
    settle(own_spec, "model.feat_dim", head.matrix_FD.shape[1], name)
    settle(own_spec, "model.head", head.kind, name)
    settle_normalization(own_spec, features.facts)
    size = (own_spec.model.input_height, own_spec.model.input_width)
    embedder = attach_head(build_starting_trunk(own_spec, own_spec.model.backbone, size).trunk, head)
    if config is None:
        (run.dir / BEST_SPEC_FILE).unlink(missing_ok=True)  # an earlier session of this run may have left one
    else:
        repeat = own_spec.with_values(
            {"train.train_trunk": False, "train.train_embedder": False, "train.finish.enabled": True}
        )
        config.settle(repeat, mirrored=features.mirrored_NF is not None)
        _write_best_spec(repeat, run)
    return _save_network(embedder, own_spec, run, images, features.facts, name), own_spec


def save_first(
    choice: TrunkResult, spec: Experiment, run: Run, images: ImageSet, goal: str, budget: TimeBudget
) -> None:
    """Save the first model of a run, before anything is compared: the first trunk with a closed-form head of the usual settings.

    None where the user set a head that no closed form fits, or where no class has two images to fit to; a run that is resumed
    keeps the model that it has.

    Args:
        choice: the trunk with the features of ``images``.
        spec: resolved spec of the run; it is copied.
        run: gets the checkpoint, ``experiment.yaml`` and ``best_spec.yaml``.
        images: the images that the features were computed of.
        goal: a key of ``holdout.GOALS``.
        budget: tells the time for the message.
    """
    features, own_spec = choice.features, spec.model_copy(deep=True)
    images = images.select(features.kept_N)
    choice.settle_spec(own_spec)
    _, counts = np.unique(images.labels_N, return_counts=True)
    space = HeadSearchSpace.from_spec(own_spec, classes=len(counts))
    if (run.dir / BEST_CHECKPOINT).exists() or space.fixed_training is not None or len(counts) < 2 or counts.max() < 2:
        return
    save_frozen(space.uncompared_head(goal), FIRST_MODEL, own_spec, run, images, features)
    say(f"first model after {budget.spent:.0f} s, of {len(images)} images and not measured, replaced by better ones: "
        f"{run.dir / BEST_CHECKPOINT}")  # fmt: skip


def save_given(start_network: GivenNetwork, run: Run, images: ImageSet) -> tuple[Path, Experiment]:
    """Save the network of the user's own weights as it is; return the checkpoint and its spec.

    Args:
        start_network: the network.
        run: gets the checkpoint and ``experiment.yaml``; ``best_spec.yaml`` of an earlier session is removed.
        images: all images; their classes are stored.
    """
    own_spec, facts = start_network.spec.model_copy(deep=True), start_network.network.trunk.facts
    settle_normalization(own_spec, facts)
    (run.dir / BEST_SPEC_FILE).unlink(missing_ok=True)
    return _save_network(start_network.network, own_spec, run, images, facts, AS_GIVEN), own_spec


def save_fine_tuned(
    best: Candidate, training: TrainingResult, spec: Experiment, run: Run, images: ImageSet
) -> tuple[Path, Experiment]:
    """Save a fine-tuned candidate; a refitted head is fitted to all images, held-out ones too.

    Args:
        best: the candidate.
        training: the result of fine-tuning.
        spec: its resolved spec; it is copied.
        run: gets the checkpoint, ``experiment.yaml`` and ``best_spec.yaml``.
        images: all images.

    Returns:
        The checkpoint and its spec.
    """
    own_spec = spec.with_values({"train.finish.enabled": best.config is not None})
    trunk, network = best.tuned, None
    assert trunk is not None
    for side in ("height", "width"):
        settle(own_spec, f"model.input_{side}", getattr(trunk.view, side), best.name)
    if best.config is not None:
        network = refit_tuned(trunk, images, np.arange(len(images)), best.config, spec)
        best.config.settle(own_spec, mirrored=trunk.mirrored)
    _write_best_spec(own_spec, run)
    if network is None:
        run.write_experiment(own_spec)
        checkpoint = run.dir / BEST_CHECKPOINT
        copy_file(training.checkpoint, checkpoint)
        return checkpoint, own_spec
    return _save_network(network, own_spec, run, images, training.facts, best.name), own_spec


def _write_best_spec(spec: Experiment, run: Run) -> None:
    """Write the spec that repeats the winner by plain training on all images, with none held out."""
    repeat = spec.with_values({"automl_policy": "off", "dataset.validation.by": "none"})
    write_text(run.dir / BEST_SPEC_FILE, repeat.to_yaml(redacted=True))


def _save_network(
    network: Embedder, spec: Experiment, run: Run, images: ImageSet, facts: PretrainedConfig, name: str
) -> Path:
    spec = spec_with_head(spec, network)
    payload = {
        "model": network.state_dict(), "spec": redact_all(spec.to_dict()), "classes": list(images.classes),
        "epoch": 0, "step": 0, "metrics": {}, "facts": checkpoint_facts(spec, facts, f"automatic training: {name}"),
    }  # fmt: skip
    run.write_experiment(spec)
    return write_checkpoint(run.dir / BEST_CHECKPOINT, payload)
