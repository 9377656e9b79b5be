"""A small embedder and spec stand-in for tests of the training room."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn


class TinyTrunk(nn.Module):
    """Two convolutions with BatchNorm; three stages, so that freezing has something to count."""

    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.low = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.high = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())

    def stages(self) -> list[list[nn.Module]]:
        return [[self.stem], [self.low], [self.high]]

    def direct_parameters(self) -> list[nn.Parameter]:
        return []

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.high(self.low(self.stem(images_BCHW))).mean((2, 3))


class TinyEmbedder(nn.Module):
    dim = 8

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk, self.head = TinyTrunk(), nn.Linear(16, 8)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(images_BCHW))


def spec(**changes: object) -> SimpleNamespace:
    """What the training room reads of a resolved spec; dotted names change it (``train__num_epochs=3``)."""
    rates = {"base_lr": 1e-2, "bias_lr_factor": 2.0, "momentum": 0.9, "weight_decay": 5e-4, "weight_decay_bias": 0.0}
    result = SimpleNamespace(
        model=SimpleNamespace(backbone="tiny", input_height=16, input_width=16),
        train=SimpleNamespace(
            recipe="tao", batch_size=8, num_epochs=2, accumulate=1, max_gather=True, clip_grad_norm=0.0, compile=False, log_every=1,
            head_epochs=0, frozen_stages=0, freeze_batchnorm=False, train_trunk=True, train_embedder=True,
            validation_interval=1, checkpoint_interval=1, checkpoint_interval_unit="epoch", smooth_loss=True,
            precision="fp32", num_gpus=1, num_nodes=1, gpu_ids=[0],
            ema=SimpleNamespace(enabled=False, decay=0.9), lora=SimpleNamespace(rank=0, alpha=16.0, layers="attention"),
            loss=SimpleNamespace(name="TripletMarginLoss", parameters={}, sampled_classes=None, memory_size=None), seed=0,
            miner=SimpleNamespace(name="MultiSimilarityMiner", parameters={}),
            checkpointer=SimpleNamespace(
                monitor=None, mode=None, enable_topk=False, save_top_k=1, dirpath=None, replace_periodic=False,
                filename="model_best_{epoch:03d}", auto_insert_metric_name=False,
            ),
            optim=SimpleNamespace(
                name="Adam", schedule="step", warmup_iters=2, warmup_factor=0.1, warmup_method="linear", steps=[4, 6],
                gamma=0.1, triplet_loss_margin=0.3, miner_function_margin=0.1, loss_lr=None, layer_decay=1.0, decay_norms=True,
                trunk=SimpleNamespace(**rates), embedder=SimpleNamespace(**rates),
            ),
        ),
        is_set=lambda path: False,
    )  # fmt: skip
    for dotted, value in changes.items():
        *parts, last = dotted.split("__")
        place = result
        for part in parts:
            place = getattr(place, part)
        setattr(place, last, value)
    return result
