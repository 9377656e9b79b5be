"""Run by test_two_processes under torchrun or alone: three steps of the loop, each rank with its share of every batch.

Arguments: a folder, then for each training that shares the processes its loss, head epochs, sampled classes (0: all) and vectors of
earlier batches (0: none).
"""

import atexit
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

from tests.support.tiny import TinyEmbedder, spec
from unalike.training.checkpoints import CheckpointManager
from unalike.training.devices import launch, make_fabric
from unalike.training.freezing import Freezer
from unalike.training.loop import TrainingLoop
from unalike.training.losses import build_criterion
from unalike.training.optimizer import build_optimizer
from unalike.training.resume import ResumeCheckpoint, choose_seed, find_resume_checkpoint
from unalike.training.schedule import LRSchedule

STEPS, WHOLE = 3, 16
CLASSES = 20  # of which a batch has eight


class Shares:
    def __init__(self, rank, world):
        self.mine = slice(rank * WHOLE // world, (rank + 1) * WHOLE // world)

    def __len__(self):
        return STEPS

    def epoch(self, epoch, start_step=0):
        for step in range(start_step, STEPS):
            generator = torch.Generator().manual_seed(100 * epoch + step)
            images = torch.randn(WHOLE, 3, 16, 16, generator=generator)
            yield SimpleNamespace(
                images_BCHW=images[self.mine], labels_B=(torch.arange(WHOLE) // 2)[self.mine],
                indices_B=torch.arange(WHOLE)[self.mine],
            )  # fmt: skip


def _fail_if_connected():
    if torch.distributed.is_initialized():
        print("the process group was still open at exit", file=sys.stderr, flush=True)
        os._exit(9)


def main(folder: Path, loss: str, head_epochs: int, sampled: int | None, memory: int | None) -> None:
    s = spec(train__freeze_batchnorm=True, train__num_epochs=2, train__head_epochs=head_epochs)
    s.train.optim.name = "SGD"
    s.train.loss.name, s.train.loss.sampled_classes, s.train.loss.memory_size = loss, sampled, memory
    s.train.miner.name = None
    fabric = make_fabric(s)
    launch(fabric)
    assert fabric.world_size == int(os.environ.get("WORLD_SIZE", "1"))
    s.train.seed, s.train.resume_training_checkpoint_path = -1, None
    seeds = fabric.all_gather(torch.tensor(choose_seed(s, ResumeCheckpoint(None), fabric)))
    assert seeds.unique().numel() == 1, seeds
    assert not find_resume_checkpoint(s, folder if fabric.is_global_zero else Path("/nowhere"), True, fabric)
    torch.manual_seed(0)
    embedder = TinyEmbedder()
    criterion = build_criterion(s, classes=CLASSES, dim=8)
    freezer = Freezer(embedder, s)
    statistics = embedder.trunk.low[1].running_mean

    def part(event, facts):
        statistics.add_(fabric.global_rank)  # as BatchNorm that learns does, on every rank by its own images

    def validate(_):
        assert (statistics == 0).all(), "rank 0's statistics are those of the checkpoint"
        return {}

    loop = TrainingLoop(
        fabric=fabric, embedder=embedder, criterion=criterion, optimizer=build_optimizer(s, embedder, criterion),
        freezer=freezer, loader=Shares(fabric.global_rank, fabric.world_size), schedule=LRSchedule.from_spec(s, STEPS),
        experiment=s, checkpoint_manager=CheckpointManager(folder, s.train), validate=validate,
        payload=lambda weights, epochs: {"model": dict(weights), "spec": {}, "classes": [], "facts": {}},
        image_names=lambda indices: [], listener=part, stop_requested=lambda: 0,
    )  # fmt: skip
    loop.run()


if __name__ == "__main__":
    atexit.register(_fail_if_connected)  # exit handlers run last in, first out: after those of launch
    for number in range(2, len(sys.argv), 4):
        loss, *numbers = training = sys.argv[number : number + 4]
        head_epochs, sampled, memory = map(int, numbers)
        main(Path(sys.argv[1], "-".join(training)), loss, head_epochs, sampled or None, memory or None)
