"""Devices and processes of a training: Lightning Fabric from the spec's fields and the launcher's environment."""

from __future__ import annotations

import atexit
import logging
import os
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

from unalike.errors import DeviceError
from unalike.progress import say, warn

if TYPE_CHECKING:
    from unalike.spec import Experiment

FABRIC_PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def launched_processes(num_nodes: int = 1) -> int | None:
    """Return the number of processes that a launcher (torchrun, srun) started on this node, or None without a launcher.

    A SLURM job without ``srun`` has SLURM_* variables too, but only one process; so has an interactive step with a shell.

    Args:
        num_nodes: number of nodes among which SLURM's tasks are divided.
    """
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment and environment.get("LOCAL_WORLD_SIZE", "").isdigit():
        return int(environment["LOCAL_WORLD_SIZE"])
    if (
        "SLURM_PROCID" in environment
        and "SLURM_STEP_ID" in environment
        and environment.get("SLURM_STEP_NUM_TASKS", "").isdigit()
    ):
        if environment.get("SLURM_JOB_NAME") in ("bash", "interactive"):
            return None
        return max(1, int(environment["SLURM_STEP_NUM_TASKS"]) // num_nodes)
    return None


def _gpu_count(experiment: Experiment, process_count: int | None) -> int:
    """Return ``train.num_gpus``, or the launched processes where the user set none; raise DeviceError if the two differ."""
    count = experiment.train.num_gpus
    if process_count is None or process_count == count:
        return count
    if not experiment.is_set("train.num_gpus"):
        return process_count
    raise DeviceError(f"train.num_gpus is {count} and the launcher started {process_count} processes on this node",
                      expected="as many processes as GPUs", remedy=f"set train.num_gpus={process_count}")  # fmt: skip


def fast_bf16(cuda: bool) -> bool:
    """Return whether bf16 is faster than fp32 here: on GPUs that support it, on CPUs with AVX512-BF16 or AMX.

    Elsewhere a CPU emulates it: 2.4 against 31.6 images/s in a training step of EfficientNet-Lite0 at 176 px on two
    AVX2 cores (2026-11-23).
    """
    if cuda:
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def check_devices(num_gpus: int, gpu_ids: list[int], *, ids_were_set: bool, where: str = "train") -> list[int]:
    """Return the indices of the GPUs to use; an empty list for the CPU.

    Args:
        num_gpus: number of GPUs in the spec; 1 on a machine without a GPU means the CPU.
        gpu_ids: indices in the spec.
        ids_were_set: whether the user set ``gpu_ids``; else the first ``num_gpus`` are taken.
        where: the spec's section, for messages.

    Raises:
        DeviceError: this machine does not have these GPUs, or number and indices disagree.
    """
    if ids_were_set and len(gpu_ids) != num_gpus:
        raise DeviceError(f"{where}.gpu_ids is {gpu_ids} and {where}.num_gpus is {num_gpus}",
                          expected=f"{num_gpus} indices", remedy="make the two agree")  # fmt: skip
    ids = gpu_ids if ids_were_set else list(range(num_gpus))
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if available == 0 and num_gpus <= 1:
        if num_gpus == 1:
            say("num_gpus: 1, no GPU here: running on the CPU", once=True)
        return []
    if num_gpus > available or any(i >= available for i in ids):
        raise DeviceError(f"{where} asks for {num_gpus} GPUs (gpu_ids {ids})", expected=f"at most the {available} that "
                          "this machine has", remedy=f"lower {where}.num_gpus")  # fmt: skip
    return ids


def make_fabric(experiment: Experiment) -> Fabric:
    """Create the Fabric of this process: CPU, one GPU, or DDP over GPUs, nodes and processes that a launcher started.

    Raises:
        DeviceError: this machine does not have these GPUs, or its device cannot train in this precision.
    """
    train = experiment.train
    process_count = launched_processes(train.num_nodes)
    cuda = torch.cuda.is_available()
    accelerator, devices = "cpu", 1
    ids: list[int] = []
    if process_count is not None and process_count > 1 and not cuda:
        devices = process_count
    else:
        count = _gpu_count(experiment, process_count) if cuda else train.num_gpus
        ids = check_devices(count, train.gpu_ids, ids_were_set=experiment.is_set("train.gpu_ids"))
        if ids:
            accelerator, devices = "cuda", len(ids)
    if train.precision == "fp16" and accelerator == "cpu":
        raise DeviceError("train.precision is fp16 and training runs on a CPU", expected="bf16 or fp32",
                          remedy="set train.precision=bf16")  # fmt: skip
    if train.precision == "bf16" and not fast_bf16(accelerator == "cuda"):
        warn("train.precision is bf16, which this machine only emulates: fp32 is many times faster here")
    # Head-only epochs leave the trunk without gradients for a while, which DDP must expect; whether the recipe
    # settles on some is not known yet.
    head_first = train.head_epochs > 0 or (train.recipe == "unalike" and not experiment.is_set("train.head_epochs"))
    several = devices * train.num_nodes > 1
    strategy = DDPStrategy(find_unused_parameters=head_first) if several else "auto"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # this program prints devices and precision itself
    # Fabric takes SLURM_NTASKS alone for a sign that srun started everything, and would wait for the others.
    plugins = LightningEnvironment() if process_count is None and "SLURM_NTASKS" in os.environ else None
    return Fabric(accelerator=accelerator, devices=ids or devices, num_nodes=train.num_nodes, strategy=strategy,
                  plugins=plugins, precision=FABRIC_PRECISION[train.precision])  # fmt: skip


def launch(fabric: Fabric) -> None:
    """Launch ``fabric``'s processes and connect them; the connection is closed when the interpreter exits.

    Fabric closes it for NCCL alone. A gloo process group that is still open at interpreter exit now and then ends its
    process with "terminate called without an active exception" (pytorch/pytorch#190489).
    """
    is_connected = _is_connected()
    fabric.launch()
    if _is_connected() and not is_connected:
        atexit.register(_disconnect)


def _is_connected() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _disconnect() -> None:
    if _is_connected():
        torch.distributed.destroy_process_group()
