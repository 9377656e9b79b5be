"""Check of a spec that trains: what a run would meet once its network is built, at the first batch or after the first epoch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unalike.actions.check_findings import Findings
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.data.from_spec import TrainingSets
    from unalike.model.embedder import Embedder
    from unalike.spec import Experiment


def check_training(
    experiment: Experiment, sets: TrainingSets | None, embedder: Embedder, folder: Path | None, findings: Findings
) -> None:
    """Check batches, frozen stages, the head to start from, and the places of checkpoints and cache; nothing is written.

    Args:
        experiment: The spec.
        sets: The images; None where they cannot be read.
        embedder: The network of the spec.
        folder: The results folder; None where the spec names none.
        findings: Receives faults.
    """
    from unalike.data.batches.sampler import ClassBalancedSampler
    from unalike.training.checkpoints import CheckpointManager
    from unalike.training.freezing import Freezer
    from unalike.training.head_fitting import trains_by_steps
    from unalike.training.heads.warm_start import refuse_head

    train, cache = experiment.train, experiment.dataset.cache
    if sets is not None and experiment.is_set("train.batch_size"):
        with findings.collect("train.batch_size"):
            ClassBalancedSampler(
                sets.train.labels_N, batch_size=train.batch_size, num_instance=experiment.dataset.num_instance
            )
    with findings.collect("train.frozen_stages"):
        Freezer(embedder, experiment)
    if train.warm_start or not trains_by_steps(experiment):
        with findings.collect("model.head"):
            refuse_head(experiment)
    with findings.collect("train.checkpointer"):
        CheckpointManager(folder or Path(), train)
    if folder is not None:
        with findings.collect("results_dir"):
            refuse_existing(folder, True, folder=True)
    if cache.mode == "disk" and cache.directory:
        with findings.collect("dataset.cache.directory"):
            refuse_existing(cache.directory, True, folder=True)
