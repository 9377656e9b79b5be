"""Benchmark of runtimes: which is fastest for a network on this machine; results are kept in the cache folder.

OpenVINO and ONNX Runtime are within a few percent of each other in fp32 on some CPUs and a factor of two apart on others, so
that no order is right everywhere. Rates are kept by machine, versions and network in ``engines.json`` of the cache folder. A
run that is long enough measures what is missing; ``unalike bench-engine`` measures again.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from unalike.engines.protocol import Engine
from unalike.errors import DataError
from unalike.runs.environment import usable_cores
from unalike.storage.atomic import write_text
from unalike.storage.cache import default_cache_dir
from unalike.storage.digests import content_sha256
from unalike.storage.file_lock import file_lock

FORMAT_VERSION = 1
# A measurement: repeats of which the best counts, and images of each.
REPEATS = 3
IMAGES = 8
# From this many images on, runtimes that were never compared on this machine and network are measured for a second first.
MIN_IMAGES = 1000
# The first runtime of an order is kept unless another is faster by this factor: less is noise.
MARGIN = 1.1


def machine_key() -> str:
    """CPU, usable cores and versions of the runtimes: what may change the order."""
    versions = []
    for name in ("openvino", "onnxruntime"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return "; ".join([_cpu_name(), f"{usable_cores()} cores", *versions])


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def content_key(content: bytes) -> str:
    """Key of a network by the content of its file."""
    return digest_key(content_sha256(content))


def digest_key(sha256: str) -> str:
    """Key of a network by the SHA-256 of its file: the first 16 hexadecimal digits."""
    return sha256[:16]


def _file() -> Path:
    return default_cache_dir() / "engines.json"


def _read() -> dict[str, Any]:
    """All kept rates; empty where there is no readable file of this version."""
    try:
        content = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
        return {}
    return dict(content["rates"]) if isinstance(content.get("rates"), dict) else {}


def load_rates(network: str) -> dict[str, float]:
    """Images a second of each runtime, as measured before on this machine for this network; empty where they were not."""
    rates = _read().get(f"{machine_key()}; {network}")
    if not isinstance(rates, dict) or not all(isinstance(rate, int | float) for rate in rates.values()):
        return {}
    return {str(name): float(rate) for name, rate in rates.items()}


def save_rates(network: str, rates: Mapping[str, float]) -> None:
    """Keep images a second of each runtime. A cache that cannot be written is ignored, since it only saves time."""
    path = _file()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError, DataError), file_lock(path, timeout_s=5.0):
        all_rates = {**_read(), f"{machine_key()}; {network}": {name: round(rate, 2) for name, rate in rates.items()}}
        write_text(path, json.dumps({"format_version": FORMAT_VERSION, "rates": all_rates}, indent=1))


def measure_rates(engines: Mapping[str, Engine], images: int = IMAGES, repeats: int = REPEATS) -> dict[str, float]:
    """Measure engines in turns on random pixels.

    Args:
        engines: by name, all of one input size.
        images: number of images of one measurement.
        repeats: number of measurements, of which the best counts.

    Returns:
        Images a second of each engine.
    """
    first = next(iter(engines.values()))
    pixels = np.random.default_rng(0).integers(0, 256, (images, *first.input_size, 3), dtype=np.uint8)
    best = dict.fromkeys(engines, float("inf"))
    for engine in engines.values():
        engine(pixels[:1])
    for _ in range(repeats):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(pixels)
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: images / max(seconds, 1e-9) for name, seconds in best.items()}


def fastest(rates: Mapping[str, float], order: Sequence[str]) -> str:
    """The first of ``order`` that has a rate, unless another of them is faster by MARGIN; '' when none has."""
    names = [name for name in order if name in rates]
    if not names:
        return ""
    winner = max(names, key=lambda name: rates[name])
    return winner if rates[winner] > MARGIN * rates[names[0]] else names[0]
