"""From a resolved spec to a trained checkpoint: builds what the loop needs, runs it, writes the model card.

The order matters where it changes results: data first (class count), then the trunk (its facts settle the spec), then
loss and optimizer, each seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from unalike.data.from_spec import TrainingSets, load_training_sets
from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.data.training.augment import Augmentation
from unalike.data.training.loader import TrainingLoader
from unalike.data.training.pixel_cache import build_pixel_cache
from unalike.data.training.sampler import ClassBalancedSampler
from unalike.data.view import View
from unalike.errors import UnalikeError, redact_all
from unalike.model.checkpoint import read_checkpoint
from unalike.model.embedder import Embedder, build_embedder
from unalike.progress import say
from unalike.runs.filenames import BEST_CHECKPOINT, NOTICES_FILE, SPLIT_FILE
from unalike.spec import settle
from unalike.training.checkpoints import Checkpointer, newest_checkpoint
from unalike.training.cpu.batchnorm_folding import FoldablePairs, find_foldable_pairs
from unalike.training.cpu.frozen_stages import REQUEST_SIZE, CompiledStages, compile_stages
from unalike.training.devices import make_fabric
from unalike.training.freezing import Freezer
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.discriminant import FittedHead
from unalike.training.heads.interpolation import (
    attach_head,
    copy_weights,
    embed_with_trunk,
    interpolate_weights,
    refit_head,
    spec_with_head,
)
from unalike.training.heads.warm_start import fit_initial_head, start_from_head
from unalike.training.loggers import Loggers
from unalike.training.loop import History, TrainingLoop
from unalike.training.losses import build_criterion
from unalike.training.optimizer import build_optimizer
from unalike.training.recipe import settle_backbone, settle_precision, settle_training
from unalike.training.schedule import LRSchedule
from unalike.training.validation import ValidationRunner

# Steps of a run from which compiling the frozen stages pays: it takes some five seconds and saves 0.05 to 0.1 a step.
WORTH_COMPILING = 150
Begin = Callable[[Any, nn.Module], None]


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves: the checkpoint to use (the best, or the latest without validation) and its figures."""

    checkpoint: Path
    best: Mapping[str, float]
    best_epoch: int | None
    last: Mapping[str, float]
    history: History
    sets: TrainingSets
    ranking: Any | None
    facts: Any
    seen: Any | None = None  # what ``ranking`` was made of: (query, its vectors), (reference, its vectors)
    finished: bool = False  # the checkpoint is no epoch's, but made of the last one's (``train.finish``)


@dataclass(frozen=True)
class _Ground:
    """What a training stands on, once trunk, data and seed are settled."""

    spec: Any
    run: Any
    fabric: Fabric
    seed: int
    sets: TrainingSets
    notices: Notices
    embedder: Embedder
    facts: Any
    fingerprint: str

    def payload(self, weights: Mapping[str, Tensor], spec: Any = None) -> dict[str, Any]:
        return _payload(weights, spec or self.spec, self.sets, self.facts)


def train_embedder(
    spec: Any,
    run: Any,
    *,
    resume: bool = False,
    sets: TrainingSets | None = None,
    begin: Begin | None = None,
    finish: bool = True,
    epochs_at: Callable[[int, float], int] | None = None,
) -> TrainingResult:
    """Train as the spec says into ``run.dir``. Raises the house's errors; leaves readable checkpoints at any moment.

    ``sets``: the images, where the caller has divided them already; else the spec's. ``begin`` is called once with network
    and criterion before the first step, never on resuming: what they start from, where the caller knows better. Without
    ``finish`` the last epoch is the end, whatever ``train.finish`` says. ``epochs_at`` is asked after each of the first
    epochs how many there shall be, by the number done and the seconds of the last.
    """
    settle_backbone(spec)
    settle_precision(spec)
    fabric = make_fabric(spec)
    fabric.launch()
    run.dir = Path(fabric.broadcast(str(run.dir)))
    start = _start(spec, run.dir, resume, fabric)
    seed = _settle_seed(spec, start, fabric)
    _set_cudnn(spec)
    notices = Notices()
    if sets is None:
        sets = load_training_sets(spec, notices, manifest=run.dir / SPLIT_FILE if fabric.is_global_zero else None)
    fabric.seed_everything(seed, workers=False, verbose=False)
    head = _head_of_frozen(spec, sets.train, notices, fabric)
    if head is not None:
        begin = begin or start_from_head(*head)
        fabric.seed_everything(seed, workers=False, verbose=False)  # the same trunk once more, whatever it is made of
    embedder = build_embedder(spec)
    facts = embedder.trunk.facts
    settle_training(spec, facts=facts, stages=len(embedder.trunk.stages()), classes=len(sets.train.classes),
                    images=len(sets.train), cuda=fabric.device.type == "cuda")  # fmt: skip
    _announce(spec, sets, facts, fabric)
    ground = _Ground(spec, run, fabric, seed, sets, notices, embedder, facts, sets.train.fingerprint())
    if fabric.is_global_zero:
        run.write_experiment(spec)
        run.record(device=str(fabric.device), seed=seed, data=ground.fingerprint)
    if not _learns(spec):
        assert head is not None
        return _fitted_only(ground, attach_head(embedder.trunk, head[0]))
    return _learnt(ground, start, begin, finish=finish and spec.train.finish.enabled, epochs_at=epochs_at)


class _Start:
    """The checkpoint that a training goes on from, or none. It is let go once taken: weights and optimizer are large."""

    def __init__(self, checkpoint: dict[str, Any] | None) -> None:
        self._checkpoint = checkpoint

    def __bool__(self) -> bool:
        return self._checkpoint is not None

    @property
    def seed(self) -> int | None:
        training = (self._checkpoint or {}).get("training") or {}
        seed: int | None = training.get("identity", {}).get("seed")
        return seed

    def take(self) -> dict[str, Any]:
        taken, self._checkpoint = self._checkpoint, None
        assert taken is not None
        return taken


def _learnt(
    ground: _Ground, start: _Start, begin: Begin | None, *, finish: bool, epochs_at: Callable[[int, float], int] | None
) -> TrainingResult:
    """The training itself, from ``start`` on or from the beginning."""
    spec, run, fabric, sets, embedder = ground.spec, ground.run, ground.fabric, ground.sets, ground.embedder
    batches = _batches(spec, sets.train, ground.notices, ground.seed, fabric)
    began = copy_weights(embedder.trunk) if finish else None
    fabric.to_device(embedder)
    if spec.train.channels_last:
        nn.Module.to(embedder, memory_format=torch.channels_last)  # type: ignore[call-overload]
    criterion = build_criterion(spec, classes=len(sets.train.classes), dim=embedder.dim)
    if begin is not None and not start:
        begin(embedder, criterion)
    fabric.to_device(criterion)
    freezer = Freezer(embedder, spec)
    optimizer = build_optimizer(spec, embedder, criterion)
    validation = ValidationRunner(spec, sets, fabric, ground.notices, ground.seed)
    loggers = Loggers(spec, run, fabric.is_global_zero)
    checkpointer = Checkpointer(run.dir, spec.train)

    def listen(event: str, row: dict[str, Any]) -> None:
        if event == "validation":
            validation.remember(row["epoch"], checkpointer.best_epoch)
        loggers(event, row)

    loop = TrainingLoop(
        fabric=fabric, embedder=embedder, criterion=criterion, optimizer=optimizer, freezer=freezer, batches=batches,
        schedule=LRSchedule.from_spec(spec, len(batches)), spec=spec, checkpointer=checkpointer,
        validate=validation if validation.validator is not None else None, payload=ground.payload,
        names=lambda indices: _names(sets.train, indices), listener=listen, stop_requested=run.stop_requested,
        identity={"data": ground.fingerprint, "classes": list(sets.train.classes), "seed": ground.seed},
        folds=_folds(spec, embedder, fabric), prefix=_prefix(spec, embedder, fabric, steps=len(batches)),
        epochs_at=epochs_at and partial(_epochs_settled, ground, epochs_at),
    )  # fmt: skip
    if start:
        loop.restore(start.take())
    try:
        with run.graceful():
            history = loop.run()
        network = None if began is None else _finished(ground, loop, began)
        kpis = None if network is None else _offer(ground, network, loop, checkpointer, validation, loggers)
    finally:
        loggers.close()
        if fabric.is_global_zero:
            ground.notices.say()
            ground.notices.write(run.dir / NOTICES_FILE)
    if kpis is not None:
        ranking, seen = validation.latest or (None, None)
        epoch = loop.position.epoch - 1
        return TrainingResult(
            run.dir / BEST_CHECKPOINT, kpis, epoch, kpis, history, sets, ranking, ground.facts, seen, True
        )
    return _outcome(run.dir, checkpointer, history, sets, validation, ground.facts, embedder)


def _epochs_settled(ground: _Ground, epochs_at: Callable[[int, float], int], done: int, seconds: float) -> int:
    """What the caller wants, written down at once: a run that is killed goes on by it."""
    spec, run = ground.spec, ground.run
    before = spec.train.num_epochs
    spec.train.num_epochs = epochs_at(done, seconds)
    if spec.train.num_epochs != before and ground.fabric.is_global_zero:
        say(f"an epoch takes {seconds:.1f} s: {spec.train.num_epochs} epochs fit, not {before}")
        run.write_experiment(spec)
    return int(spec.train.num_epochs)


def _finished(ground: _Ground, loop: TrainingLoop, began: Mapping[str, Tensor]) -> Embedder | None:
    """The network of ``train.finish``, the same on all ranks; None where its head cannot be fitted."""
    spec, sets, fabric = ground.spec, ground.sets, ground.fabric
    loop.embedder.load_state_dict(loop.weights())
    network: Any = None
    trunk: Any = loop.embedder.trunk
    if fabric.is_global_zero:
        finish, dataset = spec.train.finish, spec.dataset
        trunk = interpolate_weights(trunk, began, finish.trained_share)
        done = embed_with_trunk(trunk, sets.train, Preprocessing.from_spec(spec), dataset=dataset,
                             notices=ground.notices, mirrored=finish.mirrored)  # fmt: skip
        network = refit_head(trunk, done, sets.train.labels_N, HeadConfig.from_spec(spec), spec.model.feat_dim)
    return fabric.broadcast(network)  # type: ignore[no-any-return]


def _learns(spec: Any) -> bool:
    return bool(spec.train.train_trunk or spec.train.train_embedder)


def _head_of_frozen(
    spec: Any, images: ImageSet, notices: Notices, fabric: Fabric
) -> tuple[FittedHead, np.ndarray, np.ndarray] | None:
    """What ``fit_initial_head`` gives, the same on all ranks, where training begins with it or is nothing else; else None."""
    if _learns(spec) and not spec.train.warm_start:
        return None
    found: Any = None
    if fabric.is_global_zero:
        try:
            found = fit_initial_head(spec, images, notices)
        except UnalikeError as error:
            found = error  # all ranks leave with it, or the others would wait for ever
    found = fabric.broadcast(found)
    if isinstance(found, UnalikeError):
        raise found
    for path, value in (("model.head", found[0].kind), ("model.feat_dim", found[0].matrix_FD.shape[1])):
        settle(spec, path, value, "the fitted head")
    if _learns(spec):
        settle(spec, "train.head_epochs", 0, "training begins with the fitted head")
        spec.mark_set(["train.head_epochs"])  # the recipe would settle it once more
    return found  # type: ignore[no-any-return]


def _fitted_only(ground: _Ground, network: Embedder) -> TrainingResult:
    """The trunk as it is with its fitted head, measured and written: nothing learns by steps."""
    spec, run, sets = ground.spec, ground.run, ground.sets
    validation = ValidationRunner(spec, sets, ground.fabric, ground.notices, ground.seed)
    kpis = dict(validation(network)) if validation.validator is not None else {}
    if ground.fabric.is_global_zero:
        weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        payload = ground.payload(weights, spec_with_head(spec, network))
        Checkpointer(run.dir, spec.train).offer(payload, epoch=0, step=0, kpis=kpis)
        say(f"the trunk as it is, with a head fitted in closed form: {run.dir / BEST_CHECKPOINT}")
        ground.notices.say()
        ground.notices.write(run.dir / NOTICES_FILE)
    ranking, seen = validation.latest or (None, None)
    return TrainingResult(
        run.dir / BEST_CHECKPOINT, kpis, 0, kpis, History(), sets, ranking, ground.facts, seen, finished=True
    )


def _offer(
    ground: _Ground,
    network: Embedder,
    loop: TrainingLoop,
    checkpointer: Checkpointer,
    validation: ValidationRunner,
    loggers: Loggers,
) -> Mapping[str, float] | None:
    """Measure the finished network and keep it where it is the best: its figures (none without validation), else None."""
    at, fabric, spec = loop.position, ground.fabric, ground.spec
    kpis: dict[str, float] = {}
    if validation.validator is not None:
        validation.engine = None  # another head is another graph
        kpis = dict(validation(fabric.to_device(network)))
    kept = False
    if fabric.is_global_zero:
        weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        payload = ground.payload(weights, spec_with_head(spec, network))
        kept = checkpointer.offer(payload, epoch=at.epoch - 1, step=at.total, kpis=kpis)
        told = f", {checkpointer.monitor} {kpis[checkpointer.monitor]:.4f}" if checkpointer.monitor in kpis else ""
        say(f"finished: {spec.train.finish.trained_share:g} of the training kept, the head fitted anew{told}"
            + ("" if kept else f"; epoch {(checkpointer.best_epoch or 0) + 1} was no worse and stays"))  # fmt: skip
        if kept and kpis:
            loggers("validation", {"epoch": at.epoch - 1, "step": at.total, "kpi": kpis})
    return kpis if fabric.broadcast(kept) else None


def _start(spec: Any, folder: Path, resume: bool, fabric: Fabric) -> _Start:
    """The checkpoint to go on from, if any. Rank 0 looks for it: another rank may find its file newer or not yet there."""
    found: Any = None
    if fabric.is_global_zero:
        try:
            found = spec.train.resume_training_checkpoint_path or (str(newest_checkpoint(folder)) if resume else None)
        except UnalikeError as error:
            found = error  # all ranks leave with it, or the others would wait for ever
    found = fabric.broadcast(found)
    if isinstance(found, UnalikeError):
        raise found
    return _Start(read_checkpoint(found) if found else None)


def _settle_seed(spec: Any, start: _Start, fabric: Fabric) -> int:
    """``train.seed``, which experiment.yaml, run.json and the card hold, since it repeats this run.

    One seed for all ranks: the user's; else that of the run that goes on, so that its batches do too; else a new one.

    A user's seed that is not the checkpoint's is left to ``TrainingLoop.restore``, which says so.
    """
    theirs, own = start.seed, spec.train.seed
    if theirs is not None and (own < 0 or not spec.is_set("train.seed")):
        seed = int(theirs)
    else:
        seed = own if own >= 0 else int(fabric.broadcast(torch.seed() % 2**31))
    if seed != own:
        say(f"seed: {seed} ({'that of the run that goes on' if start else 'drawn, since train.seed is -1'})")
        spec.train.seed = seed
    return seed


def _batches(spec: Any, images: ImageSet, notices: Notices, seed: int, fabric: Fabric) -> TrainingLoader:
    """This rank's batches, class-balanced, from pixels kept or read anew."""
    store = build_pixel_cache(spec, images, notices, processes=max(1, fabric.world_size // spec.train.num_nodes))
    sampler = ClassBalancedSampler(
        images.labels_N, batch_size=spec.train.batch_size, num_instance=spec.dataset.num_instance, seed=seed,
        rank=fabric.global_rank, world_size=fabric.world_size,
    )  # fmt: skip
    return TrainingLoader(
        images, store, _augmentation(spec, seed), sampler, workers=spec.dataset.workers, device=fabric.device
    )


def _outcome(
    folder: Path, checkpointer: Checkpointer, history: History, sets: TrainingSets, validation: ValidationRunner, facts: Any,
    embedder: nn.Module,
) -> TrainingResult:  # fmt: skip
    last = history.validations[-1] if history.validations else {}
    checkpoint = folder / BEST_CHECKPOINT
    if not checkpoint.exists():
        checkpoint = newest_checkpoint(folder)
    fabric = validation.fabric
    best_epoch: int | None = fabric.broadcast(checkpointer.best_epoch)  # rank 0 alone keeps checkpoints
    best = next((v for v in history.validations if v["epoch"] == best_epoch), {})
    ranking, seen = validation.rankings.get(best_epoch, (None, None))
    if best_epoch is not None and validation.validator is not None and fabric.broadcast(ranking is None):
        # The best epoch was before a resume, or one without a validation: its ranking is made again.
        embedder.load_state_dict(read_checkpoint(checkpoint)["model"])
        best = {"epoch": best_epoch, **validation(embedder)}
        ranking, seen = validation.latest
    if checkpointer.best is not None:
        say(f"best: {checkpointer.monitor} {checkpointer.best:.4f} at epoch {best_epoch}, {checkpoint}")
    return TrainingResult(checkpoint, best, best_epoch, last, history, sets, ranking, facts, seen)


def _folds(spec: Any, embedder: nn.Module, fabric: Fabric) -> FoldablePairs:
    """Frozen BatchNorm layers to be folded: on a CPU, where passes over the activations are what takes the time."""
    rests = spec.train.freeze_batchnorm or spec.train.frozen_stages > 0 or spec.train.head_epochs > 0
    if fabric.device.type != "cpu" or spec.train.compile or not (rests or not spec.train.train_trunk):
        return ()
    size = (1, spec.model.input_channels, spec.model.input_height, spec.model.input_width)
    return find_foldable_pairs(embedder, torch.rand(size, generator=torch.Generator().manual_seed(0)))


def _prefix(spec: Any, embedder: Any, fabric: Fabric, *, steps: int) -> CompiledStages | None:
    """The frozen stages as OpenVINO runs them: in one process on a CPU, where the steps are enough to pay for compiling."""
    stages = embedder.trunk.stages()[: spec.train.frozen_stages] if spec.train.train_trunk else embedder.trunk.stages()
    if fabric.device.type != "cpu" or fabric.world_size > 1 or spec.train.compile:
        return None
    if not stages or steps * spec.train.num_epochs < WORTH_COMPILING:
        return None
    height, width = (
        spec.dataset.train_height or spec.model.input_height,
        spec.dataset.train_width or spec.model.input_width,
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((REQUEST_SIZE, spec.model.input_channels, height, width), generator=generator)
    return compile_stages(embedder, stages, images, "bf16" if spec.train.precision == "bf16" else "f32")


def _set_cudnn(spec: Any) -> None:
    torch.backends.cudnn.benchmark = spec.train.cudnn.benchmark
    torch.backends.cudnn.deterministic = spec.train.cudnn.deterministic


def _names(images: ImageSet, indices: Iterable[int]) -> list[str]:
    return [str(images.paths[i]) for i in indices]


def _announce(spec: Any, sets: TrainingSets, facts: Any, fabric: Fabric) -> None:
    weights = facts.source if facts.pretrained else "from scratch"
    size = f"{spec.model.input_height}x{spec.model.input_width}"
    say(f"trunk {spec.model.backbone} ({weights}), input {size}, {len(sets.train)} images of "
        f"{len(sets.train.classes)} classes, {fabric.device.type} x {fabric.world_size}, "
        + (f"{spec.train.precision}, {spec.train.loss.name}, {spec.train.num_epochs} "
           f"epoch{'s' if spec.train.num_epochs > 1 else ''}" if _learns(spec) else "a fitted head alone"))  # fmt: skip


def _augmentation(spec: Any, seed: int) -> Augmentation:
    dataset, colour, blur = spec.dataset, spec.dataset.color_augmentation, spec.dataset.gaussian_blur
    return Augmentation(
        dataset.train_height or spec.model.input_height,
        dataset.train_width or spec.model.input_width,
        crop_scale=tuple(dataset.crop.scale),
        crop_ratio=tuple(dataset.crop.ratio),
        flip_prob=dataset.prob,
        rotation=dataset.random_rotation,
        colour={k: getattr(colour, k) for k in ("brightness", "contrast", "saturation", "hue")}
        if colour.enabled
        else None,
        blur={"kernel": tuple(blur.kernel), "sigma": tuple(blur.sigma)} if blur.enabled else None,
        erase_prob=dataset.re_prob,
        mean=tuple(dataset.pixel_mean),
        std=tuple(dataset.pixel_std),
        seed=seed,
    )


def _payload(weights: Mapping[str, Tensor], spec: Any, sets: TrainingSets, facts: Any) -> dict[str, Any]:
    return {
        "model": dict(weights),
        "spec": redact_all(spec.to_dict()),
        "classes": list(sets.train.classes),
        "facts": checkpoint_facts(spec, facts, sets.validation),
    }


def checkpoint_facts(spec: Any, facts: Any, validation: str) -> dict[str, Any]:
    """What a checkpoint tells of itself beside its weights and its spec."""
    return {
        "name": spec.model_name,
        "trunk": spec.model.backbone,
        "mean": list(spec.dataset.pixel_mean),
        "std": list(spec.dataset.pixel_std),
        "view": View.from_spec(spec).to_dict(),
        "licence": facts.licence,
        "weights": facts.source,
        "validation": validation,
    }
