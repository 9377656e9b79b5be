"""Which runtime is fastest for a network on this machine: a short race, and its result kept.

OpenVINO and ONNX Runtime are within a few percent of each other in fp32 on some CPUs and a factor of two apart on others,
so no order is right everywhere. Results are kept by machine, versions and network in ``engines.json`` of the cache
folder; a run that is long enough to be worth it fills in what is missing, ``unalike bench-engine`` writes it anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from unalike.data.archives import default_cache_dir
from unalike.storage.atomic import write_text
from unalike.storage.processes import usable_cores

FORMAT_VERSION = 1
ROUNDS = 3
IMAGES = 8
# From this many images on, runtimes that were never compared here on this network race for a second.
MIN_IMAGES = 1000
# The one that stands first by default keeps its place unless another is faster by this factor: less is noise.
MARGIN = 1.1


def machine_key() -> str:
    """CPU, usable cores and the runtimes' versions: what may change the order."""
    versions = []
    for name in ("openvino", "onnxruntime"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return "; ".join([_cpu(), f"{usable_cores()} cores", *versions])


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def content_key(content: bytes) -> str:
    """Sixteen hex digits of a network's file."""
    return hashlib.sha256(content).hexdigest()[:16]


def _store() -> Path:
    return default_cache_dir() / "engines.json"


def _read() -> dict[str, Any]:
    try:
        held = json.loads(_store().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    fits = (
        isinstance(held, dict) and held.get("format_version") == FORMAT_VERSION and isinstance(held.get("rates"), dict)
    )
    return dict(held["rates"]) if fits else {}


def load_rates(network: str) -> dict[str, float]:
    """Images a second of each runtime, as measured here before for this network; empty when it was not."""
    rates = _read().get(f"{machine_key()}; {network}")
    return {str(k): float(v) for k, v in rates.items()} if isinstance(rates, dict) else {}


def save_rates(network: str, rates: Mapping[str, float]) -> None:
    """Note what was measured; a cache that cannot be written is passed over, since it only saves time."""
    path = _store()
    held = {**_read(), f"{machine_key()}; {network}": {name: round(rate, 2) for name, rate in rates.items()}}
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"format_version": FORMAT_VERSION, "rates": held}, indent=1))


def measure_rates(engines: Mapping[str, Any], images: int = IMAGES, rounds: int = ROUNDS) -> dict[str, float]:
    """Images a second of each engine on made-up pixels, the best of several rounds in which they take turns."""
    first = next(iter(engines.values()))
    pixels = np.random.default_rng(0).integers(0, 256, (images, *first.input_size, 3), dtype=np.uint8)
    best = dict.fromkeys(engines, float("inf"))
    for engine in engines.values():
        engine(pixels[:1])
    for _ in range(rounds):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(pixels)
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: images / max(seconds, 1e-9) for name, seconds in best.items()}


def fastest(rates: Mapping[str, float], order: list[str]) -> str:
    """The first of ``order`` that was measured, unless another of them is faster by MARGIN; '' when none was."""
    known = [name for name in order if name in rates]
    if not known:
        return ""
    winner = max(known, key=lambda name: rates[name])
    return winner if rates[winner] > MARGIN * rates[known[0]] else known[0]
