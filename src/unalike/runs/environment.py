"""The environment of a run: ranks, package versions, the command line."""

from __future__ import annotations

import os
import sys

from unalike.errors import (
    RunError,
)


def refuse_several_processes(action: str) -> None:
    """Several processes would write the same files (TAO D15); one is enough for all but training."""
    if process_rank() != 0:
        raise RunError(f"{action} was started as process {process_rank()} of several", expected="one process",
                       remedy=f"start unalike {action} without torchrun or srun")  # fmt: skip


# Whose versions a run records: what may change a number.
RECORDED_PACKAGES = (
    "numpy", "Pillow", "torch", "timm", "lightning-fabric", "pytorch-metric-learning", "scikit-learn", "optuna",
    "onnx", "onnxruntime", "openvino", "safetensors", "faiss-cpu",
)  # fmt: skip


SECRET_WORDS = ("key", "token", "password", "secret")


def process_rank() -> int:
    """This process's rank by torchrun's, SLURM's or Fabric's environment; 0 when it is alone."""
    env = os.environ
    if env.get("RANK", "").isdigit():
        return int(env["RANK"])
    if int(env.get("SLURM_NTASKS") or 1) > 1 and env.get("SLURM_PROCID", "").isdigit():
        return int(env["SLURM_PROCID"])
    return int(env.get("NODE_RANK") or 0) or int(env.get("LOCAL_RANK") or 0)


def process_count() -> int:
    """How many processes share this run by torchrun's or SLURM's environment; 1 when it is alone."""
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        if os.environ.get(name, "").isdigit():
            return max(1, int(os.environ[name]))
    return 1


def _shown_command() -> list[str]:
    """The command line, with the values of keys and tokens left out."""
    shown = []
    for word in sys.argv:
        name, equals, _ = word.partition("=")
        secret = equals and any(part in name.lower().rsplit(".", 1)[-1].split("_") for part in SECRET_WORDS)
        shown.append(f"{name}=***" if secret else word)
    return shown


_found_versions: dict[str, str] = {}


def versions() -> dict[str, str]:
    """Installed versions of what may change a number; read from package metadata, nothing is imported."""
    if not _found_versions:
        from importlib import metadata

        for name in RECORDED_PACKAGES:
            try:
                _found_versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
    return dict(_found_versions)
