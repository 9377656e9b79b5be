"""Fit the head in closed form before the first training step, and again after the last one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from lightning_fabric import Fabric
from torch import Tensor

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.errors import UnalikeError
from unalike.model.embedder import Embedder
from unalike.progress import say
from unalike.runs.kpi_names import short_name
from unalike.spec import settle
from unalike.training.checkpoints import CheckpointManager
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.discriminant import FittedHead
from unalike.training.heads.interpolation import embed_with_trunk, interpolate_weights, refit_head, spec_with_head
from unalike.training.heads.warm_start import fit_initial_head
from unalike.training.loggers import Loggers
from unalike.training.loop import TrainingLoop
from unalike.training.setup import TrainingSetup
from unalike.training.validation import ValidationRunner

if TYPE_CHECKING:
    from unalike.spec import Experiment


def trains_by_steps(experiment: Experiment) -> bool:
    """Return whether trunk or embedder is trained at all; otherwise the head is only fitted in closed form."""
    return bool(experiment.train.train_trunk or experiment.train.train_embedder)


def fit_frozen_head(
    experiment: Experiment, images: ImageSet, notices: Notices, fabric: Fabric
) -> tuple[FittedHead, np.ndarray, np.ndarray] | None:
    """Fit a head to the frozen trunk's features, where training starts from it or consists of it.

    Args:
        experiment: the spec; ``model.head`` and ``model.feat_dim`` are settled by the head.
        images: training images.
        notices: collects unreadable images.
        fabric: rank 0 fits the head and sends it to the others.

    Returns:
        Head, features (N, F) and labels (N), the same on all ranks; None where training does not use such a head.

    Raises:
        UnalikeError: the head cannot be fitted; raised on all ranks.
    """
    if trains_by_steps(experiment) and not experiment.train.warm_start:
        return None
    message: tuple[FittedHead, np.ndarray, np.ndarray] | UnalikeError | None = None
    if fabric.is_global_zero:
        try:
            message = fit_initial_head(experiment, images, notices)
        except UnalikeError as error:
            message = error  # raised on all ranks, or the others would wait forever
    message = fabric.broadcast(message)
    if isinstance(message, UnalikeError):
        raise message
    assert message is not None
    head, features_NF, labels_N = message
    for path, value in (("model.head", head.kind), ("model.feat_dim", head.matrix_FD.shape[1])):
        settle(experiment, path, value, "the fitted head")
    if trains_by_steps(experiment):
        settle(experiment, "train.head_epochs", 0, "training begins with the fitted head")
        experiment.mark_set(["train.head_epochs"])  # otherwise the recipe would settle it again
    return head, features_NF, labels_N


def interpolate_and_refit(setup: TrainingSetup, loop: TrainingLoop, initial: Mapping[str, Tensor]) -> Embedder | None:
    """Build the network of ``train.finish``: weights between initial and trained ones, with a head fitted in closed form.

    Args:
        setup: the data, network and devices of this run.
        loop: the training loop, after its last epoch.
        initial: the trunk's weights before the first step.

    Returns:
        The network on the CPU, the same on all ranks; None where no head can be fitted.
    """
    experiment, images, fabric = setup.experiment, setup.sets.train, setup.fabric
    setup.embedder.load_state_dict(loop.weights())
    network: Embedder | None = None
    if fabric.is_global_zero:
        finish = experiment.train.finish
        trunk = interpolate_weights(setup.embedder.trunk, initial, finish.trained_share)
        features = embed_with_trunk(trunk, images, Preprocessing.from_spec(experiment), dataset=experiment.dataset,
                                 notices=setup.notices, mirrored=finish.mirrored)  # fmt: skip
        network = refit_head(
            trunk, features, images.labels_N, HeadConfig.from_spec(experiment), experiment.model.feat_dim
        )
    return fabric.broadcast(network)


def save_if_best(
    setup: TrainingSetup,
    network: Embedder,
    loop: TrainingLoop,
    checkpoint_manager: CheckpointManager,
    validation: ValidationRunner,
    loggers: Loggers,
) -> Mapping[str, float] | None:
    """Validate the refitted network and save it as the best checkpoint where no epoch was better.

    Args:
        setup: the data, network and devices of this run.
        network: the refitted network, on the CPU.
        loop: the training loop, after its last epoch.
        checkpoint_manager: knows the best metric so far, and writes the checkpoint.
        validation: measures the network; its engine is replaced.
        loggers: receive the metrics where the checkpoint is written.

    Returns:
        The metrics, empty without validation; None where an epoch was better.
    """
    position, fabric = loop.position, setup.fabric
    epoch = position.epoch - 1
    kpis: dict[str, float] = {}
    if validation.validator is not None:
        validation.engine = None  # another head is another graph
        kpis = dict(validation(fabric.to_device(network)))
    is_best = False
    if fabric.is_global_zero:
        weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        payload = setup.payload(weights, spec_with_head(setup.with_epochs(loop.epochs), network))
        is_best = checkpoint_manager.save_if_best(payload, epoch=epoch, step=position.global_step, kpis=kpis)
        monitor = checkpoint_manager.monitor
        text = f", {short_name(monitor)} {kpis[monitor]:.4f}" if monitor in kpis else ""
        say(f"finished: {setup.experiment.train.finish.trained_share:g} of the training kept, the head fitted anew{text}"
            + ("" if is_best else f"; epoch {(checkpoint_manager.best_epoch or 0) + 1} was no worse and stays"))  # fmt: skip
        if is_best and kpis:
            loggers("validation", {"epoch": epoch, "step": position.global_step, "kpi": kpis})
    return kpis if fabric.broadcast(is_best) else None
