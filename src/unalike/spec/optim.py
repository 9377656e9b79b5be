"""Section ``train.optim``: optimizer, learning rates, schedule and the margins of the default loss and miner."""

from __future__ import annotations

from typing import Literal

from unalike.spec.declare import Section, field, section


class Group(Section):
    """One parameter group: the trunk's or the embedder's."""

    bias_lr_factor: float = field(
        1.0, "Biases learn at this many times the group's rate.",
        ge=0, low=1.0, high=10.0, math_cond=">= 1", automl_enabled=True,
    )  # fmt: skip
    base_lr: float = field(
        0.00035, "Learning rate after warm-up.",
        gt=0, low=0.0, high=1.0, math_cond="> 0.0", automl_enabled=True, settled=True,
    )  # fmt: skip
    momentum: float = field(
        0.9, "Momentum of SGD; the Adam family has its own and does not read it.",
        ge=0, le=1, low=0.0, high=1.0, math_cond="> 0.0", automl_enabled=True,
    )  # fmt: skip
    weight_decay: float = field(
        0.0005, "Weight decay of weights; 0 switches it off.",
        ge=0, low=0.0, high=1.0, math_cond="> 0.0", automl_enabled=True, settled=True,
    )  # fmt: skip
    weight_decay_bias: float = field(
        0.0005, "Weight decay of biases; 0 switches it off.",
        ge=0, low=0.0, high=1.0, math_cond="> 0.0", automl_enabled=True, settled=True,
    )  # fmt: skip


class Optim(Section):
    name: Literal["Adam", "SGD", "Adamax", "AdamW"] = field(
        "Adam", "Optimiser. AdamW keeps weight decay apart from the gradient's own scaling.", settled=True
    )
    steps: list[int] = field(
        [40, 70], "Epochs at which the step schedule multiplies the rate by gamma, in rising order.", automl_enabled=False,
        units="epochs",
    )  # fmt: skip
    gamma: float = field(
        0.1, "What the step schedule multiplies the rate by at each of its steps.",
        gt=0, le=1, low=0.0, high=1.0, math_cond="> 0.0", automl_enabled=True,
    )  # fmt: skip
    warmup_factor: float = field(
        0.01, "Warm-up starts at this share of the learning rate.",
        ge=0, le=1, low=0.0, high=1.0, math_cond="> 0.0", automl_enabled=True, settled=True,
    )  # fmt: skip
    warmup_iters: int = field(
        10, "Length of the warm-up, counted in epochs; 0 starts at the full rate.",
        ge=0, low=1, high=10000, math_cond="> 0", automl_enabled=True, units="epochs", settled=True,
    )  # fmt: skip
    warmup_method: Literal["linear", "constant"] = field(
        "linear", "Warm-up rises in a line to the full rate, or stays constant at its start and then jumps."
    )
    triplet_loss_margin: float = field(
        0.3, "Margin of TripletMarginLoss: how much nearer the own class must be than any other.",
        ge=0, low=0.0, high=2.0, math_cond="> 0.0", automl_enabled=True,
    )  # fmt: skip
    embedder: Group = section(Group, "Rates and decay of the embedder, the head that makes the vector.")
    trunk: Group = section(Group, "Rates and decay of the trunk, the (usually pretrained) network below the head.")
    miner_function_margin: float = field(
        0.1, "Epsilon of MultiSimilarityMiner: how far into easy pairs it still reaches.",
        ge=0, low=0.0, high=2.0, math_cond="> 0.0", automl_enabled=True,
    )  # fmt: skip
    schedule: Literal["step", "cosine"] = field(
        "step", "After warm-up: fall by gamma at each of `steps`, or along half a cosine to zero at the last epoch.",
        settled=True, ours=True,
    )  # fmt: skip
    layer_decay: float = field(
        1.0, "Each stage of the trunk learns at this many times the rate of the next higher one, a block of a transformer being a "
        "stage; 1: all alike. Pretrained transformers are fine-tuned with 0.65 to 0.9.",
        gt=0, le=1, ours=True, automl_enabled=False,
    )  # fmt: skip
    decay_norms: bool = field(
        True, "Weight decay also of one-dimensional weights (scales of normalization layers), class tokens and position tables; "
        "transformers are fine-tuned with false.", ours=True,
    )  # fmt: skip
    loss_lr: float | None = field(
        None, "Learning rate of a loss that has weights of its own (proxies, class centers); unset means the embedder's.",
        gt=0, settled=True, ours=True,
    )  # fmt: skip
