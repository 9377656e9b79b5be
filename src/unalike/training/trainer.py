"""Train an embedder from a spec: build data, network and loop, run it, return the best checkpoint and its metrics.

The order matters where it changes results: data first (class count), then the trunk (its mean and std settle the spec),
then loss and optimizer, each seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from torch import nn

from unalike.data.from_spec import TrainingSets, load_training_sets
from unalike.data.notices import Notices
from unalike.metrics.retrieval import Ranking
from unalike.model.backbones import PretrainedConfig
from unalike.model.checkpoint import read_checkpoint
from unalike.model.embedder import Embedder, build_embedder
from unalike.model.parent_checkpoint import adopt_resumed_network
from unalike.progress import say
from unalike.runs.filenames import BEST_CHECKPOINT, SPLIT_FILE
from unalike.runs.kpi_names import short_name
from unalike.source_names import source_name
from unalike.training.checkpoints import CheckpointManager, newest_checkpoint
from unalike.training.cpu.batchnorm_folding import FoldablePairs, find_foldable_pairs
from unalike.training.cpu.openvino_stages import REQUEST_SIZE, CompiledStages, compile_stages
from unalike.training.devices import launch, make_fabric
from unalike.training.freezing import Freezer
from unalike.training.head_fitting import fit_frozen_head, interpolate_and_refit, save_if_best, trains_by_steps
from unalike.training.heads.interpolation import attach_head, copy_weights, spec_with_head
from unalike.training.heads.warm_start import start_from_head
from unalike.training.history import History
from unalike.training.loggers import Loggers
from unalike.training.loop import EpochChooser, TrainingLoop
from unalike.training.lora import add_lora, merge_lora
from unalike.training.losses import Criterion
from unalike.training.optimizer import build_optimizer
from unalike.training.plain_limit import PlainLimit, limit_validation
from unalike.training.recipe import settle_backbone, settle_decoding, settle_precision, settle_training
from unalike.training.resume import ResumeCheckpoint, adopt_decoding, choose_seed, find_resume_checkpoint
from unalike.training.schedule import LRSchedule
from unalike.training.setup import TrainingSetup
from unalike.training.time_budget import TimeBudget
from unalike.training.validation import ValidationEmbeddings, ValidationRunner

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment

# Steps of a run from which compiling the frozen stages pays: it takes some five seconds and saves 0.05 to 0.1 a step.
WORTH_COMPILING = 150
# Called once with network and criterion before the first step: sets the weights that training starts from.
Initializer = Callable[[Embedder, Criterion], None]


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training: the checkpoint to use (the best, or the latest without validation) and its metrics.

    Attributes:
        checkpoint: file of the best network.
        best: metrics of the best epoch; empty without validation.
        best_epoch: counted from 0; None without validation.
        last: metrics of the last validation.
        history: curves of loss, learning rates and validation.
        sets: the images of training and validation.
        ranking: ranking of the best epoch's validation.
        facts: mean, std, license and source of the trunk's pretrained weights.
        embeddings: query and reference with their vectors, of which ``ranking`` is.
        refitted: whether ``train.finish`` interpolated the last epoch's weights and fitted the head again.
        experiment: the settled spec with the final number of epochs; None where nothing was trained.
    """

    checkpoint: Path
    best: Mapping[str, float]
    best_epoch: int | None
    last: Mapping[str, float]
    history: History
    sets: TrainingSets
    ranking: Ranking | None
    facts: PretrainedConfig
    embeddings: ValidationEmbeddings | None = None
    refitted: bool = False
    experiment: Experiment | None = None


def train_embedder(
    experiment: Experiment,
    run: Run,
    *,
    resume: bool = False,
    sets: TrainingSets | None = None,
    initialize: Initializer | None = None,
    loss: nn.Module | None = None,
    finish: bool = True,
    choose_epochs: EpochChooser | None = None,
    seconds_left: Callable[[], float] | None = None,
    budget: TimeBudget | None = None,
) -> TrainingResult:
    """Train as the spec says into ``run.dir``, which holds readable checkpoints at any moment.

    Args:
        experiment: the spec; fields that the user left open are settled in it before the first step.
        run: the run; all files are written into its folder.
        resume: whether to continue from the newest checkpoint in ``run.dir``.
        sets: the images, if the caller has split them already and settled their decoding; by default those of the spec.
        initialize: sets the weights of network and criterion to start from; not called on resuming.
        loss: what is minimized in place of ``train.loss``; called with vectors (B, D) and labels (B).
        finish: whether ``train.finish`` applies after the last epoch.
        choose_epochs: called after each epoch with their number and the seconds of the last one; returns the total number of
            epochs, which can grow after the first ones alone.
        seconds_left: returns the seconds that are left for steps; training ends in the middle of an epoch that would pass them.
        budget: time limit of all of it, in place of both; ``train.num_epochs`` is the largest number of epochs then.

    Raises:
        UnalikeError: training cannot use the data, the weights or the spec, or fails.
    """
    adopt_resumed_network(experiment)
    settle_backbone(experiment)
    settle_precision(experiment)
    fabric = make_fabric(experiment)
    launch(fabric)
    run.dir = Path(fabric.broadcast(str(run.dir)))
    checkpoint = find_resume_checkpoint(experiment, run.dir, resume, fabric)
    seed = choose_seed(experiment, checkpoint, fabric)
    experiment.set_value(
        "train.seed", seed
    )  # experiment.yaml, run.json and the model card hold it: it repeats this run
    _set_backends(experiment)
    notices, is_given = Notices(), sets is not None
    if sets is None:
        sets = load_training_sets(experiment, notices, manifest=run.dir / SPLIT_FILE if fabric.is_global_zero else None)
    if budget is not None:
        sets = limit_validation(sets, budget)
    if checkpoint:
        adopt_decoding(experiment, checkpoint)
    if not is_given:  # else the caller has settled it
        settle_decoding(experiment, sets.train, sets.reference, sets.query)
    fabric.seed_everything(seed, workers=False, verbose=False)
    head = fit_frozen_head(experiment, sets.train, notices, fabric)
    if head is not None:
        initialize = initialize or start_from_head(*head)
        fabric.seed_everything(seed, workers=False, verbose=False)  # the same random weights for the trunk again
    embedder = build_embedder(experiment)
    settle_training(experiment, facts=embedder.trunk.facts, stages=len(embedder.trunk.stages()),
                    classes=len(sets.train.classes), images=len(sets.train), cuda=fabric.device.type == "cuda")  # fmt: skip
    setup = TrainingSetup(experiment, run, fabric, seed, sets, notices, embedder, sets.train.fingerprint(), loss)
    _announce(setup)
    if fabric.is_global_zero:
        run.write_experiment(experiment)
        run.record(device=str(fabric.device), seed=seed, data=setup.data_fingerprint)
    if not trains_by_steps(experiment):
        assert head is not None
        return _save_fitted(setup, attach_head(embedder.trunk, head[0]))
    finish = finish and experiment.train.finish.enabled
    limit = None if budget is None else PlainLimit(budget, setup, finish=finish)
    return _train(
        setup, checkpoint, initialize, limit, finish=finish, choose_epochs=choose_epochs, seconds_left=seconds_left
    )


def _train(
    setup: TrainingSetup, checkpoint: ResumeCheckpoint, initialize: Initializer | None, limit: PlainLimit | None, *, finish: bool,
    choose_epochs: EpochChooser | None, seconds_left: Callable[[], float] | None,
) -> TrainingResult:  # fmt: skip
    """Train from ``checkpoint`` on, or from the beginning."""
    initial = copy_weights(setup.embedder.trunk) if finish else None
    validation = ValidationRunner(setup)
    loggers = Loggers(setup.experiment, setup.run, setup.fabric.is_global_zero)
    loop = _build_loop(setup, validation, loggers, None if checkpoint else initialize, choose_epochs, seconds_left)
    if limit is not None:
        limit.attach(loop)
    if checkpoint:
        loop.load_checkpoint(checkpoint.take())
    try:
        with setup.run.graceful():
            history = loop.run()
        merge_lora(setup.embedder)
        refits = initial is not None and (limit is None or setup.fabric.broadcast(limit.refits()))
        if initial is not None and not refits:
            say("no time to interpolate weights and fit the head again: the network stays as the last epoch left it")
        network = interpolate_and_refit(setup, loop, initial) if initial is not None and refits else None
        kpis = None
        if network is not None:
            kpis = save_if_best(setup, network, loop, loop.checkpoint_manager, validation, loggers)
    finally:
        loggers.close()
        setup.close_notices()
    experiment = setup.with_epochs(loop.epochs)
    if kpis is None:
        return _collect_result(setup, loop.checkpoint_manager, history, validation, experiment)
    ranking, embeddings = validation.latest or (None, None)
    return TrainingResult(
        setup.run.dir / BEST_CHECKPOINT, kpis, loop.position.epoch - 1, kpis, history, setup.sets, ranking, setup.facts,
        embeddings, refitted=True, experiment=experiment,
    )  # fmt: skip


def _build_loop(
    setup: TrainingSetup, validation: ValidationRunner, loggers: Loggers, initialize: Initializer | None,
    choose_epochs: EpochChooser | None, seconds_left: Callable[[], float] | None,
) -> TrainingLoop:  # fmt: skip
    """Build the loop with its batches, network, criterion, optimizer, schedule and checkpoints."""
    experiment, run, fabric, embedder = setup.experiment, setup.run, setup.fabric, setup.embedder
    images = setup.sets.train
    loader = setup.build_loader()
    fabric.to_device(embedder)
    if experiment.train.channels_last:
        nn.Module.to(embedder, memory_format=torch.channels_last)  # type: ignore[call-overload]
    criterion = setup.build_criterion()
    if initialize is not None:
        initialize(embedder, criterion)
    fabric.to_device(criterion)
    if count := add_lora(embedder.trunk, experiment.train.lora):
        say(f"LoRA: {count} layers of {experiment.model.backbone} learn updates of rank {experiment.train.lora.rank}")
    freezer = Freezer(embedder, experiment)  # before the optimizer, which takes the parameters that are not frozen
    checkpoint_manager = CheckpointManager(run.dir, experiment.train)

    def listen(event: str, facts: dict[str, Any]) -> None:
        if event == "validation":
            validation.remember(facts["epoch"], checkpoint_manager.best_epoch)
        if event == "epochs" and fabric.is_global_zero:
            say(f"an epoch takes {facts['seconds']:.1f} s: {facts['epochs']} epochs fit, not {facts['before']}")
            run.write_experiment(setup.with_epochs(facts["epochs"]))  # a killed run resumes with it
        loggers(event, facts)

    def image_names(indices: Iterable[int]) -> list[str]:
        return [source_name(images.paths[i]) for i in indices]

    return TrainingLoop(
        fabric=fabric, embedder=embedder, criterion=criterion,
        optimizer=build_optimizer(experiment, embedder, criterion), freezer=freezer, loader=loader,
        schedule=LRSchedule.from_spec(experiment, len(loader)), experiment=experiment,
        checkpoint_manager=checkpoint_manager, validate=validation if validation.validator is not None else None,
        payload=lambda weights, epochs: setup.payload(weights, setup.with_epochs(epochs)), image_names=image_names,
        listener=listen, stop_requested=run.stop_requested,
        identity={"data": setup.data_fingerprint, "classes": list(images.classes), "seed": setup.seed,
                  "class_sampling": experiment.dataset.class_sampling},
        foldable_pairs=_find_foldable_pairs(experiment, embedder, fabric),
        compiled_stages=_compile_frozen_stages(experiment, embedder, fabric, steps=len(loader)),
        choose_epochs=choose_epochs, seconds_left=seconds_left,
    )  # fmt: skip


def _collect_result(
    setup: TrainingSetup, checkpoint_manager: CheckpointManager, history: History, validation: ValidationRunner,
    experiment: Experiment,
) -> TrainingResult:  # fmt: skip
    """Return the best epoch's checkpoint and metrics; those of the latest without validation."""
    folder, fabric = setup.run.dir, setup.fabric
    last = history.validations[-1] if history.validations else {}
    checkpoint = folder / BEST_CHECKPOINT
    if not checkpoint.exists():
        checkpoint = newest_checkpoint(folder)
    best_epoch: int | None = fabric.broadcast(checkpoint_manager.best_epoch)  # rank 0 alone writes checkpoints
    best = next((v for v in history.validations if v["epoch"] == best_epoch), {})
    ranking, embeddings = validation.rankings.get(best_epoch) or (None, None)
    if best_epoch is not None and validation.validator is not None and fabric.broadcast(ranking is None):
        # The best epoch was before a resume, or one without a validation: its ranking is computed again.
        setup.embedder.load_state_dict(read_checkpoint(checkpoint)["model"])
        best = {"epoch": best_epoch, **validation(setup.embedder)}
        ranking, embeddings = validation.latest or (None, None)
    if checkpoint_manager.best is not None:
        at = "" if best_epoch is None else f" in epoch {best_epoch + 1}"
        say(f"best: {short_name(checkpoint_manager.monitor)} {checkpoint_manager.best:.4f}{at}, {checkpoint}")
    return TrainingResult(
        checkpoint, best, best_epoch, last, history, setup.sets, ranking, setup.facts, embeddings, experiment=experiment
    )


def _save_fitted(setup: TrainingSetup, network: Embedder) -> TrainingResult:
    """Validate and save the frozen trunk with its fitted head, where nothing is trained by steps."""
    experiment, run = setup.experiment, setup.run
    validation = ValidationRunner(setup)
    kpis = dict(validation(network)) if validation.validator is not None else {}
    if setup.fabric.is_global_zero:
        weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        payload = setup.payload(weights, spec_with_head(experiment, network))
        CheckpointManager(run.dir, experiment.train).save_if_best(payload, epoch=0, step=0, kpis=kpis)
        say(f"the trunk as it is, with a head fitted in closed form: {run.dir / BEST_CHECKPOINT}")
    setup.close_notices()
    ranking, embeddings = validation.latest or (None, None)
    return TrainingResult(
        run.dir / BEST_CHECKPOINT, kpis, 0, kpis, History(), setup.sets, ranking, setup.facts, embeddings,
        refitted=True, experiment=experiment,
    )  # fmt: skip


def _find_foldable_pairs(experiment: Experiment, embedder: nn.Module, fabric: Fabric) -> FoldablePairs:
    """Find the frozen BatchNorm layers to fold: on a CPU alone, where passes over the activations take most of the time."""
    train, model = experiment.train, experiment.model
    frozen = train.freeze_batchnorm or train.frozen_stages > 0 or train.head_epochs > 0 or not train.train_trunk
    if fabric.device.type != "cpu" or train.compile or not frozen:
        return ()
    size = (1, model.input_channels, model.input_height, model.input_width)
    return find_foldable_pairs(embedder, torch.rand(size, generator=torch.Generator().manual_seed(0)))


def _compile_frozen_stages(
    experiment: Experiment, embedder: Embedder, fabric: Fabric, *, steps: int
) -> CompiledStages | None:
    """Compile the frozen stages with OpenVINO: in one process on a CPU, where the run has enough steps to save time."""
    train, model, dataset = experiment.train, experiment.model, experiment.dataset
    stages = embedder.trunk.stages()[: train.frozen_stages] if train.train_trunk else embedder.trunk.stages()
    if fabric.device.type != "cpu" or fabric.world_size > 1 or train.compile:
        return None
    if not stages or steps * train.num_epochs < WORTH_COMPILING:
        return None
    height, width = dataset.train_height or model.input_height, dataset.train_width or model.input_width
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((REQUEST_SIZE, model.input_channels, height, width), generator=generator)
    return compile_stages(embedder, stages, images, "bf16" if train.precision == "bf16" else "f32")


def _set_backends(experiment: Experiment) -> None:
    """Set cuDNN as the spec says, and TF32 for matrix products on GPUs where the vectors are of 16 bits anyway."""
    torch.backends.cudnn.benchmark = experiment.train.cudnn.benchmark
    torch.backends.cudnn.deterministic = experiment.train.cudnn.deterministic
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = experiment.train.precision != "fp32"


def _announce(setup: TrainingSetup) -> None:
    """One line: trunk, input size, images, device and what is trained."""
    model, train, facts = setup.experiment.model, setup.experiment.train, setup.facts
    weights = facts.source if facts.pretrained else "from scratch"
    size = f"{model.input_height}x{model.input_width}"
    say(f"trunk {model.backbone} ({weights}), input {size}, {len(setup.sets.train)} images of "
        f"{len(setup.sets.train.classes)} classes, {setup.fabric.device.type} x {setup.fabric.world_size}, "
        + (f"{train.precision}, {type(setup.loss).__name__ if setup.loss else train.loss.name}, {train.num_epochs} epoch{'s' if train.num_epochs > 1 else ''}"
           if trains_by_steps(setup.experiment) else "a fitted head alone"))  # fmt: skip
