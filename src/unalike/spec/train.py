"""Section ``train``: how long, on what, with which loss, and what is kept."""

from __future__ import annotations

from typing import Any, Literal

from unalike.spec.declare import Section, Text, field, section
from unalike.spec.optim import Optim

DEVICE_HELP = "Indices of the GPUs to use, as many as num_gpus; left out, the first ones."


class Cudnn(Section):
    benchmark: bool = field(False, "Let cuDNN time its algorithms first: faster with fixed sizes, less repeatable.")
    deterministic: bool = field(True, "Use only cuDNN algorithms that give the same bits every time.")


class Checkpointer(Section):
    enable_topk: bool = field(False, "Keep the best checkpoints under names of their own, beside those at intervals.")
    replace_periodic: bool = field(False, "Keep only the best checkpoints (and the latest), none at intervals.")
    monitor: Text = field(None, "Figure that decides what is best; unset means `val Precision at Rank 1`.")
    mode: Literal["min", "max"] | None = field(
        None, "Whether less or more of the monitored figure is better; unset: more."
    )
    save_top_k: int = field(1, "How many best checkpoints are kept; -1 keeps every one.", ge=-1, low=1)
    filename: str = field(
        "model_best_{epoch:03d}", "Name of a best checkpoint; {epoch}, {step} and the monitored figure may stand in it.",
        min_length=1,
    )  # fmt: skip
    dirpath: Text = field(None, "Folder of the best checkpoints; unset means the run's own.")
    auto_insert_metric_name: bool = field(False, "Write the figure's name in front of its value in the file name.")


class Loss(Section):
    name: str = field(
        "TripletMarginLoss", "Loss by its name in pytorch-metric-learning, such as CosFaceLoss or MultiSimilarityLoss.",
        min_length=1, settled=True, ours=True,
    )  # fmt: skip
    parameters: dict[str, Any] = field(
        {}, "Arguments of the loss by name; the triplet loss takes its margin and smoothing from `optim` and `smooth_loss`.",
        settled=True, ours=True, automl_enabled=False,
    )  # fmt: skip
    sampled_classes: int | None = field(
        None, "Classes whose proxies a step of a proxy loss compares: those of the batch and others drawn; unset: all. For sets "
        "of so many classes that their proxies take too much memory.", ge=2, low=2, ours=True, automl_enabled=False,
    )  # fmt: skip
    memory_size: int | None = field(
        None, "Vectors of earlier batches that each batch is compared with beside its own (cross-batch memory), for losses of pairs "
        "and triplets; unset: none. For small batches.", ge=1, low=64, ours=True, automl_enabled=False,
    )  # fmt: skip


class Miner(Section):
    name: str | None = field(
        "MultiSimilarityMiner", "Miner by its name in pytorch-metric-learning; null mines nothing and uses every pair.",
        min_length=1, settled=True, ours=True,
    )  # fmt: skip
    parameters: dict[str, Any] = field(
        {}, "Arguments of the miner by name; MultiSimilarityMiner takes its epsilon from `optim.miner_function_margin`.",
        settled=True, ours=True, automl_enabled=False,
    )  # fmt: skip


class Ema(Section):
    enabled: bool = field(
        False, "Keep a running average of the weights, and measure and save that.", settled=True, ours=True
    )
    decay: float = field(
        0.999, "Share of the old average that stays at each step.", ge=0, lt=1, settled=True, ours=True
    )


class Lora(Section):
    rank: int = field(
        0, "Rank of the updates that layers of the trunk learn while all else in the trunk stays as it is (LoRA); 0: none. "
        "Saved weights hold the updates merged.", ge=0, le=1024, ours=True, automl_enabled=False,
    )  # fmt: skip
    alpha: float = field(16.0, "Updates count alpha / rank.", gt=0, low=1.0, high=64.0, ours=True, automl_enabled=False)
    layers: Literal["attention", "all"] = field(
        "attention", "Layers with updates: the linear layers of the attention, or all linear layers of the trunk.", ours=True,
    )  # fmt: skip


class Finish(Section):
    enabled: bool = field(
        False, "After the last epoch blend trained with original trunk weights and fit the head anew, in closed form.",
        settled=True, ours=True,
    )  # fmt: skip
    trained_share: float = field(
        0.7, "Interpolation weight between the initial (0) and the trained (1) weights.", ge=0, le=1,
        ours=True,
    )  # fmt: skip
    residual: float = field(
        0.5, "Weight of what does not tell the training classes apart: 0 is best for these, more is kinder to new ones.",
        ge=0, le=1, settled=True, ours=True,
    )  # fmt: skip
    shrinkage: float = field(
        1.0, "How much of the scatter within classes is evened out, in multiples of Ledoit and Wolf's share; more than 1 is "
        "kinder to new classes.", ge=0, high=4, settled=True, ours=True,
    )  # fmt: skip
    mirrored: bool = field(False, "Fit the head to the images turned left to right too.", settled=True, ours=True)
    label_weights: bool = field(
        False, "Images whose nearest neighbors contradict their label weigh less in the fit, for sets with wrong labels.",
        settled=True, ours=True, automl_enabled=False,
    )  # fmt: skip
    loss: Literal["CosFaceLoss", "MultiSimilarityLoss", "ProxyAnchorLoss"] | None = field(
        None, "Train the fitted head on by this loss, on the trunk's features; unset: the closed form as it is (CosFaceLoss with "
        "model.head mlp, which none fits).",
        settled=True, ours=True, automl_enabled=False,
    )  # fmt: skip


class Train(Section):
    recipe: Literal["tao", "unalike"] = field(
        "unalike",
        "Who fills in what you leave out: `unalike` settles learning fields by trunk, data and machine; `tao` takes TAO's "
        "defaults. A spec without this key means `tao`, and so does a plain training of a job (automl_policy off); `unalike train` "
        "without a spec means `unalike`.",
        ours=True,
        schema={"default": "tao"},
    )
    num_gpus: int = field(1, "GPUs a machine; 1 without a GPU runs on the CPU.", ge=1, le=1024, low=1, popular=True)
    gpu_ids: list[int] = field([0], DEVICE_HELP, automl_enabled=False, popular=True, settled=True)
    num_nodes: int = field(1, "Machines that train together.", ge=1, le=65536, low=1, popular=True)
    cluster: Literal["local", "ray"] = field(
        "local",
        "Who starts the processes: nobody but you (one process, torchrun or srun), or Ray Train on a Ray cluster.",
        ours=True,
    )
    address: Text = field(
        None,
        "Address of the Ray cluster; unset starts one on this machine. All its machines must see images and results folder.",
        ours=True,
    )
    workers: int | None = field(
        None,
        "Processes on the Ray cluster, each with one device; unset means num_nodes x num_gpus where you set one of them, else one "
        "a GPU, or one a machine without GPUs.",
        ge=1,
        le=10_000,
        ours=True,
    )
    seed: int = field(1234, "Seed of every random draw; -1 draws a new one each run.", ge=-1, le=2**32 - 1, low=-1)
    cudnn: Cudnn = section(Cudnn, "Switches of NVIDIA's convolution library; without effect on a CPU.")
    num_epochs: int = field(
        10, "Passes over the training images.", ge=1, low=1, popular=True, units="epochs", settled=True
    )
    epoch_images: int | None = field(
        None, "Images that an epoch draws, others in every epoch; unset: all of them.", ge=1, units="images", ours=True,
        settled=True, automl_enabled=False,
    )  # fmt: skip
    checkpoint_interval: int = field(
        1,
        "A checkpoint is written every so many epochs (or steps), and always after the last.",
        ge=1,
        low=1,
        popular=True,
    )
    checkpoint_interval_unit: Literal["epoch", "step"] = field("epoch", "What checkpoint_interval counts.")
    validation_interval: int = field(
        1, "Validation runs every so many epochs, and always after the last.", ge=1, low=1, popular=True, units="epochs"
    )
    resume_training_checkpoint_path: Text = field(None, "Checkpoint to go on from, optimiser and position included.")
    results_dir: Text = field(None, "Folder of this training's output; unset means `train` below the top results_dir.")
    checkpointer: Checkpointer = section(Checkpointer, "Which checkpoints are kept because they are good.")
    optim: Optim = section(Optim, "Optimiser, learning rates and schedule.")
    clip_grad_norm: float = field(
        0.0, "Gradients longer than this are shortened to it; 0 leaves them alone.", ge=0, math_cond=">= 0.0"
    )
    report_accuracy_per_class: bool = field(
        True,
        "Write the validation of the checkpoint to use class by class too, as per_class.csv.",
    )
    smooth_loss: bool = field(True, "Use the smooth (log-sum-exp) form of the triplet loss.")
    batch_size: int = field(
        4, "Images a step and device; a batch always holds at least two classes.", ge=1, le=65536, units="images",
        settled=True,
    )  # fmt: skip
    val_batch_size: int = field(4, "Images at once in validation.", ge=1, le=65536, units="images")
    train_trunk: bool = field(
        True,
        "Let the trunk learn; false freezes it whole, normalization statistics included. Where train_embedder is false too, "
        "finish.enabled true fits the head in closed form, and nothing else is done.",
    )
    train_embedder: bool = field(True, "Let the embedder learn.")
    precision: Literal["fp32", "bf16", "fp16"] = field(
        "fp32", "Number format of the training step; fp16 needs a GPU.", settled=True, ours=True
    )
    accumulate: int = field(1, "Steps whose gradients are added up before the weights move.", ge=1, le=65536, ours=True)
    channels_last: bool = field(True, "Keep images in memory channel by pixel, which convolutions prefer.", ours=True)
    compile: bool = field(
        False, "Compile the network with torch.compile: slow to start, faster on long runs.", ours=True
    )
    frozen_stages: int = field(
        0, "How many of the trunk's lowest stages stay as they are.", ge=0, settled=True, ours=True
    )
    freeze_batchnorm: bool = field(
        False, "Keep BatchNorm statistics of the pretrained trunk instead of those of small batches.", settled=True,
        ours=True,
    )  # fmt: skip
    head_epochs: int = field(
        0, "First epochs in which only embedder and loss learn.", ge=0, units="epochs", settled=True, ours=True
    )
    warm_start: bool = field(
        False, "Begin with the head that fits the trunk as it is, in closed form (`finish`), and the loss at the classes' means.",
        settled=True, ours=True,
    )  # fmt: skip
    loss: Loss = section(Loss, "The loss, by name, with its parameters.", settled=True, ours=True)
    miner: Miner = section(Miner, "Which pairs or triplets of a batch the loss looks at.", settled=True, ours=True)
    ema: Ema = section(Ema, "Running average of the weights.", settled=True, ours=True)
    drop_path: float = field(
        0.0, "Share of a batch's images that skip a residual block, rising to this at the top of the trunk (stochastic depth); "
        "against overfitting of large transformers.", ge=0, lt=1, ours=True, automl_enabled=False,
    )  # fmt: skip
    lora: Lora = section(Lora, "Low-rank updates of a frozen trunk (LoRA).", ours=True)
    finish: Finish = section(Finish, "What is done with the weights after the last epoch.", settled=True, ours=True)
    max_gather: bool = field(
        True,
        "Gather embeddings of all devices (with gradient), so that each image meets the negatives of all.",
        ours=True,
    )
    log_every: int = field(10, "Progress is written every so many steps.", ge=1, units="steps", ours=True)
