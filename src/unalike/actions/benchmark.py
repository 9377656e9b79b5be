"""How fast a model runs on this machine: each engine by batch size, decoding apart and included.

A call's latency is what a production line waits for; the rate is what a night's worth of images needs.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from unalike.actions.result import Result
from unalike.data.imageset import load_images
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.errors import DeviceError, MissingExtra, ModelError, SpecError
from unalike.inference import runtime_benchmark
from unalike.inference.embedding import embed_files
from unalike.progress import say
from unalike.storage.atomic import write_text
from unalike.storage.processes import usable_cores

FORMAT_VERSION = 1
FILES = 64
MADE_UP = (480, 640)
RUNTIMES = {".onnx": ("openvino", "onnxruntime"), ".xml": ("openvino",), ".engine": ("tensorrt",), ".plan": ("tensorrt",),
            ".pth": ("torch", "openvino", "onnxruntime"), ".ckpt": ("torch", "openvino", "onnxruntime")}  # fmt: skip


def measure_engines(
    model: str | Path, *, data: str | Path | None = None, batches: str | Sequence[int] = (1, 8, 32), seconds: float = 2.0,
    runtimes: str | Sequence[str] | None = None, threads: int | None = None, output: str | Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The figures of every engine that can run ``model``: plain data, also written to ``output`` as JSON.

    ``seconds`` a measurement; ``batches`` images a call. Latencies in milliseconds, rates in images a second. What it
    finds is kept for ``runtime: auto``. Raises ModelError, DeviceError (a runtime asked for by name), SpecError.
    """
    path, sizes = Path(model), _sizes(batches)
    engines, view = _engines(path, runtimes, threads)
    with tempfile.TemporaryDirectory(prefix="unalike-bench-") as folder:
        paths = _files(data, Path(folder))
        decoding = _decoding(paths, view, seconds)
        rows = [_row(engine, sizes, paths, view, seconds) for engine in engines]
    if path.suffix == ".onnx":
        runtime_benchmark.save_rates(
            runtime_benchmark.content_key(path.read_bytes()), {row["runtime"]: row["rate"] for row in rows}
        )
    found = {"format_version": FORMAT_VERSION, "model": str(path), "machine": runtime_benchmark.machine_key(),
             "view": view.to_dict(), "images": str(data) if data else f"made up, {MADE_UP[0]} x {MADE_UP[1]}",
             "decoding": decoding, "engines": rows}  # fmt: skip
    if output is not None:
        _write(Path(output), found)
    return found


def bench_engine(model: str | Path, **options: Any) -> Result:
    """Latency and rate of a model in every engine of this machine; ``options`` are those of ``measure_engines``."""
    output = options.pop("output", None)
    figures = measure_engines(model, output=output, **options)
    return Result(Path(output).parent if output else Path("."), Path(output) if output else None, figures)


def _sizes(batches: str | Sequence[int]) -> list[int]:
    words = batches.split(",") if isinstance(batches, str) else [str(size) for size in batches]
    if not words or any(not word.strip().isdigit() or int(word) < 1 for word in words):
        raise SpecError(f"batches {batches!r}", expected="numbers >= 1 with commas between them, such as 1,8,32")
    return sorted({int(word) for word in words})


def _engines(path: Path, runtimes: str | Sequence[str] | None, threads: int | None) -> tuple[list[Engine], View]:
    from unalike.inference.loaded_model import load_model

    known = RUNTIMES.get(path.suffix)
    if known is None:
        raise ModelError(f"{path.name}: unknown kind of model", expected=", ".join(RUNTIMES))
    asked = runtimes.split(",") if isinstance(runtimes, str) else list(runtimes or ())
    engines: list[Engine] = []
    view = None
    for name in asked or known:
        try:
            opened = load_model(path, runtime=name, threads=threads)
        except (MissingExtra, DeviceError, ModelError) as error:
            if asked or not path.is_file():
                raise
            say(f"{name} is passed over: {error}")
            continue
        engines.append(opened.engine)
        view = opened.view
    if view is None:
        raise MissingExtra(f"no runtime for {path.name} is installed", remedy="pip install 'unalike[openvino]'")
    return engines, view


def _files(data: str | Path | None, folder: Path) -> list[Path]:
    """Image files: an even choice of those given, or made-up photographs (noise would cost a decoder more)."""
    if data is not None:
        found = load_images(data, labeled=False).paths
        return list(found[:: max(1, len(found) // FILES)])[:FILES]
    from PIL import Image

    draws = np.random.default_rng(0)
    paths = []
    for number in range(16):
        coarse = draws.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        path = folder / f"{number}.jpg"
        Image.fromarray(coarse).resize(MADE_UP[::-1], Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(path)
    return paths


def _latencies(action: Any, seconds: float, least: int = 5) -> list[float]:
    """Seconds of each call for about ``seconds``, at least ``least`` calls, after one that does not count."""
    action()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return times


def _figures(times: Sequence[float], images: int) -> dict[str, float]:
    return {"p50_ms": round(1000 * float(np.percentile(times, 50)), 3),
            "p99_ms": round(1000 * float(np.percentile(times, 99)), 3),
            "images_per_second": round(images * len(times) / sum(times), 2)}  # fmt: skip


def _decoding(paths: Sequence[Path], view: View, seconds: float) -> dict[str, Any]:
    """One file in one thread, and all of them in as many threads as cores."""
    turn = iter(range(10**9))
    single = _figures(_latencies(lambda: view(paths[next(turn) % len(paths)]), seconds), 1)
    with ThreadPoolExecutor(max(2, usable_cores())) as pool:
        whole = _latencies(lambda: list(pool.map(view, paths)), seconds, least=1)
    return {
        **single,
        "threads": max(2, usable_cores()),
        "images_per_second_in_threads": round(len(paths) / min(whole), 2),
    }


def _row(engine: Engine, sizes: Sequence[int], paths: Sequence[Path], view: View, seconds: float) -> dict[str, Any]:
    told = engine.describe()
    say(f"measuring {told['runtime']} {told['precision']}")
    pixels = np.random.default_rng(0).integers(0, 256, (max(sizes), *engine.input_size, 3), dtype=np.uint8)
    by_batch = [
        {"batch": size, **_figures(_latencies(lambda size=size: engine(pixels[:size]), seconds), size)}
        for size in sizes
    ]
    rate = max(float(part["images_per_second"]) for part in by_batch)
    turn = iter(range(10**9))
    single = _figures(_latencies(lambda: engine(view(paths[next(turn) % len(paths)])[None]), seconds), 1)
    # As many files as keep it busy for the time: a short run would measure its own beginning and end.
    count = int(min(max(rate * seconds, len(paths)), 4096))
    files = [paths[number % len(paths)] for number in range(count)]
    start = time.perf_counter()
    embed_files(engine, files, view, describe=f"{told['runtime']} files to vectors")
    whole = len(files) / (time.perf_counter() - start)
    return {"runtime": told["runtime"], "precision": told["precision"], "engine": told, "rate": rate, "by_batch": by_batch,
            "file_to_vector": {"p50_ms": single["p50_ms"], "p99_ms": single["p99_ms"], "images_per_second": round(whole, 2)}}  # fmt: skip


def table(figures: Mapping[str, Any]) -> str:
    """The figures as lines for a person."""
    lines = [
        f"{figures['model']} on {figures['machine']}",
        _decoding_line(figures["decoding"]),
        f"{'engine':22}{'batch':>8}{'p50 ms':>11}{'p99 ms':>11}{'images/s':>11}",
    ]
    for row in figures["engines"]:
        name = f"{row['runtime']} {row['precision']}"
        for part in row["by_batch"]:
            lines.append(_line(name, str(part["batch"]), part))
        lines.append(_line(name, "files", row["file_to_vector"]))
    return "\n".join(lines)


def _decoding_line(decoding: Mapping[str, Any]) -> str:
    threads = f"{decoding['images_per_second_in_threads']:.0f} images/s in {decoding['threads']} threads"
    return f"decoding alone: p50 {decoding['p50_ms']:.2f} ms, p99 {decoding['p99_ms']:.2f} ms, {threads}"


def _line(name: str, batch: str, part: Mapping[str, float]) -> str:
    return f"{name:22}{batch:>8}{part['p50_ms']:11.2f}{part['p99_ms']:11.2f}{part['images_per_second']:11.1f}"


def _write(path: Path, found: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(found, indent=1) + "\n")
