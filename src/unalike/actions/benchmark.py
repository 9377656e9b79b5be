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
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.actions.result import Result
from unalike.actions.results_folder import open_results
from unalike.actions.spec_resolution import parameters_from, spec_with
from unalike.data.imageset import load_images
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.errors import DeviceError, MissingExtra, ModelError
from unalike.inference import runtime_benchmark
from unalike.inference.embedding import embed_files
from unalike.progress import say
from unalike.runs.filenames import BENCHMARK_FILE
from unalike.spec.load import check_fields
from unalike.storage.atomic import write_text

if TYPE_CHECKING:
    from unalike.spec import Experiment
from unalike.runs.environment import usable_cores

FORMAT_VERSION = 1
FILES = 64
MADE_UP = (480, 640)
RUNTIMES = {".onnx": ("openvino", "onnxruntime"), ".xml": ("openvino",), ".engine": ("tensorrt",), ".plan": ("tensorrt",),
            ".pth": ("torch", "openvino", "onnxruntime"), ".ckpt": ("torch", "openvino", "onnxruntime")}  # fmt: skip


def bench_engine(model: str | Path, **options: Any) -> Result:
    """Measure latency and rate of a model in every runtime of this machine.

    Args:
        model: A .pth, .onnx, .xml or .engine.
        **options: The other fields of the section ``bench_engine`` of a spec (``unalike.spec.benchmark``).
    """
    return run_benchmark(spec_with("bench_engine", model=model, **options))


def run_benchmark(experiment: Experiment, *, overwrite: bool = False) -> Result:
    """Measure the runtimes that a spec names; the figures are written where it names a file or a results folder."""
    section = experiment.bench_engine
    with open_results("bench_engine", experiment, overwrite=overwrite) as run:
        figures = measure_engines(**parameters_from(section, measure_engines))
        output = Path(section.output) if section.output else run.dir / BENCHMARK_FILE if run is not None else None
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            write_text(output, json.dumps(figures, indent=1) + "\n")
        if run is not None and output is not None:
            run.own(output)
            run.conclude(f"measured: {section.model}", {row["runtime"]: row["rate"] for row in figures["engines"]})
    return Result(output.parent if output else Path("."), output, figures)


def measure_engines(
    model: str | Path, *, data: str | Path | None = None, batches: str | Sequence[int] = (1, 8, 32), seconds: float = 2.0,
    runtimes: str | Sequence[str] | None = None, threads: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure every runtime that can run a model. What is found is kept for ``runtime: auto``.

    Args:
        model: A .pth, .onnx, .xml or .engine.
        data: Images to decode; synthetic JPEG files by default.
        batches: Images a call, also as ``1,8,32``.
        seconds: Duration of each measurement.
        runtimes: Only these.
        threads: CPU cores that a runtime may use.

    Returns:
        Plain data: latencies in milliseconds, rates in images a second.

    Raises:
        SpecError: An option is not valid.
        ModelError: The model cannot be opened.
        DeviceError: One of ``runtimes`` cannot run it.
    """
    section = check_fields("bench_engine", model=model, data=data, batches=batches, seconds=seconds, runtimes=runtimes,
                           threads=threads)  # fmt: skip
    path, sizes = Path(model), sorted(set(section.batches))
    engines, view = _engines(path, section.runtimes, threads)
    with tempfile.TemporaryDirectory(prefix="unalike-bench-") as folder:
        paths = _files(data, Path(folder))
        decoding = _decoding(paths, view, seconds)
        rows = [_row(engine, sizes, paths, view, seconds) for engine in engines]
    if path.suffix == ".onnx":
        runtime_benchmark.save_rates(
            runtime_benchmark.content_key(path.read_bytes()), {row["runtime"]: row["rate"] for row in rows}
        )
    return {"format_version": FORMAT_VERSION, "model": str(path), "machine": runtime_benchmark.machine_key(),
            "view": view.to_dict(), "images": str(data) if data else f"made up, {MADE_UP[0]} x {MADE_UP[1]}",
            "decoding": decoding, "engines": rows}  # fmt: skip


def _engines(path: Path, runtimes: Sequence[str] | None, threads: int | None) -> tuple[list[Engine], View]:
    from unalike.inference.loaded_model import load_model

    known = RUNTIMES.get(path.suffix)
    if known is None:
        raise ModelError(f"{path.name}: unknown kind of model", expected=", ".join(RUNTIMES))
    engines: list[Engine] = []
    view = None
    for name in runtimes or known:
        try:
            opened = load_model(path, runtime=name, threads=threads)
        except (MissingExtra, DeviceError, ModelError) as error:
            if runtimes or not path.is_file():
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
