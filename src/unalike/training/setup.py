"""Build what training starts from: data, network, device, seed, loader, and the metadata of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_fabric import Fabric
from torch import Tensor, nn

from unalike.data.batches.augment import Augmentation
from unalike.data.batches.loader import TrainingLoader
from unalike.data.batches.pixel_cache import build_pixel_cache
from unalike.data.batches.sampler import ClassBalancedSampler
from unalike.data.from_spec import TrainingSets
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.model.backbones import PretrainedConfig
from unalike.model.embedder import Embedder
from unalike.runs.filenames import NOTICES_FILE
from unalike.sanitize import redact_all
from unalike.training.losses import Criterion, build_criterion

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment


@dataclass(frozen=True)
class TrainingSetup:
    """The settled spec, and the data, network and devices that were built from it, before the first step.

    Attributes:
        experiment: settled; nothing changes it from here on.
        run: the run, or a part of one; checkpoints are written into its folder.
        fabric: device, precision and processes.
        seed: the same on all ranks.
        sets: training, reference and query images.
        notices: collects unreadable files and other notices about the data.
        embedder: trunk and head with their initial weights.
        data_fingerprint: digest of the training images, for run.json and for resuming.
        loss: what is minimized in place of ``train.loss``, which no name describes; None for that of the spec.
    """

    experiment: Experiment
    run: Run
    fabric: Fabric
    seed: int
    sets: TrainingSets
    notices: Notices
    embedder: Embedder
    data_fingerprint: str
    loss: nn.Module | None = None

    @property
    def facts(self) -> PretrainedConfig:
        """Where the trunk's weights come from, and how its images are prepared."""
        return self.embedder.trunk.facts

    def with_epochs(self, epochs: int) -> Experiment:
        """Return the spec with this number of epochs, which may change after the first ones."""
        if epochs == self.experiment.train.num_epochs:
            return self.experiment
        return self.experiment.with_values({"train.num_epochs": epochs})

    def payload(self, weights: Mapping[str, Tensor], experiment: Experiment) -> dict[str, Any]:
        """Return the content of a checkpoint without the state of training.

        Args:
            weights: the weights to save, by name.
            experiment: the spec to save.

        Returns:
            Weights, spec, class names and facts (``checkpoint_facts``).
        """
        return {
            "model": dict(weights),
            "spec": redact_all(experiment.to_dict()),
            "classes": list(self.sets.train.classes),
            "facts": checkpoint_facts(experiment, self.facts, self.sets.validation),
        }

    def build_criterion(self) -> Criterion:
        """Build the loss with its miner."""
        if self.loss is not None:
            return Criterion(self.loss, None)
        return build_criterion(self.experiment, classes=len(self.sets.train.classes), dim=self.embedder.dim)

    def build_loader(self) -> TrainingLoader:
        """Build the loader of this rank's class-balanced batches of the training images."""
        experiment, images, fabric = self.experiment, self.sets.train, self.fabric
        processes = max(1, fabric.world_size // experiment.train.num_nodes)
        cache = build_pixel_cache(experiment, images, self.notices, processes=processes)
        sampler = ClassBalancedSampler(
            images.labels_N, batch_size=experiment.train.batch_size, num_instance=experiment.dataset.num_instance,
            seed=self.seed, rank=fabric.global_rank, world_size=fabric.world_size,
            epoch_images=experiment.train.epoch_images, class_sampling=experiment.dataset.class_sampling,
        )  # fmt: skip
        augmentation = Augmentation.from_spec(experiment, self.seed)
        return TrainingLoader(
            images, cache, augmentation, sampler, workers=experiment.dataset.workers, device=fabric.device
        )

    def close_notices(self) -> None:
        """Print the notices about the data, and write the names of the files into the run's folder."""
        if self.fabric.is_global_zero:
            self.notices.say()
            self.notices.write(self.run.dir / NOTICES_FILE)


def checkpoint_facts(experiment: Experiment, facts: PretrainedConfig, validation: str) -> dict[str, Any]:
    """Return the facts that a checkpoint stores with weights and spec: names, preprocessing, license, source of the weights.

    Args:
        experiment: the settled spec.
        facts: mean, std, license and source of the trunk's pretrained weights.
        validation: how the model was validated, in words.
    """
    return {
        "name": experiment.model_name,
        "trunk": experiment.model.backbone,
        "mean": list(experiment.dataset.pixel_mean),
        "std": list(experiment.dataset.pixel_std),
        "view": View.from_spec(experiment).to_dict(),
        "licence": facts.license,
        "weights": facts.source,
        "validation": validation,
    }
