"""What automatic training leaves of the best candidate: the network fitted to all images, and the spec that makes it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from unalike.data.imageset import ImageSet
from unalike.errors import redact, redact_all
from unalike.model.checkpoint import write_checkpoint
from unalike.model.embedder import Embedder, EmbedderConfig, create_embedder
from unalike.model.frozen import build_frozen_trunk
from unalike.runs.filenames import BEST_CHECKPOINT, BEST_SPEC_FILE
from unalike.spec import settle
from unalike.storage.atomic import copy_file, write_text
from unalike.training.automatic.candidates import Candidate, fitted_network
from unalike.training.heads.features import Features
from unalike.training.heads.interpolation import with_fitted_head, with_head_of
from unalike.training.heads.trained import fitted_head
from unalike.training.recipe import settle_normalization
from unalike.training.trainer import TrainingResult, checkpoint_facts


def deliver_frozen(best: Candidate, spec: Any, run: Any, images: ImageSet, features: Features) -> tuple[Path, Any]:
    """The frozen trunk with the candidate's head, fitted to all images now; the trunk alone where no head was better."""
    dim = spec.model.feat_dim if spec.is_set("model.feat_dim") else None
    form, head = best.form, None
    if form is not None:
        head = fitted_head(*features.both(np.arange(len(images)), images.labels_N), form, dim)
    trunk_width = features.vectors_NF.shape[1]
    width = trunk_width if head is None else head.matrix_FD.shape[1]
    settled = spec.model_copy(deep=True)
    settle(settled, "model.feat_dim", width, best.name)
    settle(settled, "model.head", "linear" if head is None else head.kind, best.name)
    settle_normalization(settled, features.facts)
    if form is None or head is None:
        (run.dir / BEST_SPEC_FILE).unlink(missing_ok=True)  # an earlier session of this run may have left one
        embedder = create_embedder(EmbedderConfig.from_spec(settled.model), pretrained="true")
        linear = embedder.head.linear
        assert isinstance(linear, torch.nn.Linear)
        with torch.no_grad():
            linear.weight.copy_(torch.eye(trunk_width)[:width])
            linear.bias.zero_()
    else:
        trunk = build_frozen_trunk(
            settled.model.backbone, (settled.model.input_height, settled.model.input_width)
        ).trunk
        embedder = with_fitted_head(trunk, head)
        again = settled.model_copy(deep=True)
        form.settle(again, mirrored=features.mirrored_NF is not None)
        again.train.train_trunk = again.train.train_embedder = False
        again.train.finish.enabled = True
        _write_best_spec(again, run)
    return _write(embedder, settled, run, images, features.facts, best.name), settled


def deliver_tuned(best: Candidate, tuned: TrainingResult, spec: Any, run: Any, images: ImageSet) -> tuple[Path, Any]:
    """The fine-tuned network under the run's own name, and the spec that trains it again.

    A head that is fitted anew is so on all images now, those that were held out too.
    """
    settled = spec.model_copy(deep=True)
    of, network = best.tuned, None
    assert of is not None
    if best.form is not None:
        network = fitted_network(of, images, np.arange(len(images)), best.form, spec)
        best.form.settle(settled, mirrored=of.mirrored)
    settled.train.finish.enabled = best.form is not None
    _write_best_spec(settled, run)
    if network is None:
        run.write_experiment(settled)
        target: Path = run.dir / BEST_CHECKPOINT
        copy_file(tuned.checkpoint, target)
        return target, settled
    return _write(network, settled, run, images, tuned.facts, best.name), settled


def _write_best_spec(spec: Any, run: Any) -> None:
    """The spec that makes the winner again by plain training, of all images: those held out to judge by are none here."""
    again = spec.model_copy(deep=True)
    again.automl_policy = "off"
    again.dataset.validation.by = "none"
    write_text(run.dir / BEST_SPEC_FILE, redact(again.to_yaml()))


def _write(network: Embedder, spec: Any, run: Any, images: ImageSet, facts: Any, why: str) -> Path:
    spec = with_head_of(network, spec)
    payload = {
        "model": network.state_dict(), "spec": redact_all(spec.to_dict()), "classes": list(images.classes),
        "epoch": 0, "step": 0, "metrics": {}, "facts": checkpoint_facts(spec, facts, f"automatic training: {why}"),
    }  # fmt: skip
    run.write_experiment(spec)
    return write_checkpoint(run.dir / BEST_CHECKPOINT, payload)
