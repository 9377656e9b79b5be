"""The environment of a run: ranks of processes, usable cores, package versions, the command line."""

from __future__ import annotations

import os
import sys
from functools import cache

from unalike.errors import RunError

# Packages whose versions a run records: they may change a number.
RECORDED_PACKAGES = (
    "numpy", "Pillow", "torch", "timm", "lightning-fabric", "pytorch-metric-learning", "scikit-learn", "optuna",
    "onnx", "onnxruntime", "openvino", "safetensors", "faiss-cpu",
)  # fmt: skip
SECRET_WORDS = ("key", "token", "password", "secret")


def refuse_several_processes(action: str) -> None:
    """Raise RunError in all but the first of several processes: they would write the same files (TAO D15)."""
    if process_rank() != 0:
        raise RunError(f"{action} was started as process {process_rank()} of several", expected="one process",
                       remedy=f"start unalike {action} without torchrun or srun")  # fmt: skip


def process_rank() -> int:
    """This process's rank by torchrun's, SLURM's or Fabric's environment; 0 when it is alone."""
    env = os.environ
    if env.get("RANK", "").isdigit():
        return int(env["RANK"])
    if int(env.get("SLURM_NTASKS") or 1) > 1 and env.get("SLURM_PROCID", "").isdigit():
        return int(env["SLURM_PROCID"])
    return int(env.get("NODE_RANK") or 0) or int(env.get("LOCAL_RANK") or 0)


def is_torchrun_process() -> bool:
    """Whether torchrun, or a worker of Ray Train as torchrun does, started this process; the group may be one process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def process_count() -> int:
    """Number of processes that share this run by torchrun's or SLURM's environment; 1 when it is alone."""
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        if os.environ.get(name, "").isdigit():
            return max(1, int(os.environ[name]))
    return 1


def usable_cores() -> int:
    """Number of cores that this process may run on: a container's share, not the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def redacted_command() -> list[str]:
    """The command line of this process, without the values of keys, tokens and passwords."""
    arguments = []
    for argument in sys.argv:
        name, equals, _ = argument.partition("=")
        secret = equals and any(word in name.lower().rsplit(".", 1)[-1].split("_") for word in SECRET_WORDS)
        arguments.append(f"{name}=***" if secret else argument)
    return arguments


@cache
def _installed_versions() -> dict[str, str]:
    from importlib import metadata

    versions = {}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def versions() -> dict[str, str]:
    """Versions of the installed packages that may change a number, from their metadata; nothing is imported."""
    return dict(_installed_versions())
