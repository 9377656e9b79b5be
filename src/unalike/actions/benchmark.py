"""Benchmark: latency and rate of a model in each runtime of this machine, by batch size, with and without decoding.

The latency of a call counts where a production line waits for it, the rate where many images are embedded at once.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
from unalike.inference.model_files import FILE_RUNTIMES, SUFFIXES
from unalike.installation import install_command
from unalike.progress import say
from unalike.runs.environment import usable_cores
from unalike.runs.filenames import BENCHMARK_FILE
from unalike.runs.inputs import refuse_written_inputs
from unalike.spec.load import check_fields
from unalike.storage.atomic import write_text
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.spec import Experiment

FORMAT_VERSION = 1
# Most image files that are measured, and the size of synthetic ones.
MAX_FILES = 64
SYNTHETIC_SIZE = (480, 640)


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
    if section.output is not None:
        refuse_existing(section.output, overwrite)
        refuse_written_inputs("bench_engine", experiment, [Path(section.output)])
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
    """Measure every runtime that can run a model. The rates are stored for ``runtime: auto``.

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
        ModelError: The model cannot be model.
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
            "view": view.to_dict(), "images": str(data) if data else f"made up, {SYNTHETIC_SIZE[0]} x {SYNTHETIC_SIZE[1]}",
            "decoding": decoding, "engines": rows}  # fmt: skip


def _engines(path: Path, runtimes: Sequence[str] | None, threads: int | None) -> tuple[list[Engine], View]:
    from unalike.inference.loaded_model import load_model

    available = FILE_RUNTIMES.get(path.suffix)
    if available is None:
        what = "is a folder, not a model's file" if path.is_dir() else "is no model of a known kind"
        raise ModelError(f"{path} {what}", expected=f"a file: {', '.join(SUFFIXES)}")
    engines: list[Engine] = []
    view = None
    for name in runtimes or available:
        try:
            model = load_model(path, runtime=name, threads=threads)
        except (MissingExtra, DeviceError, ModelError) as error:
            if runtimes or not path.is_file():
                raise
            say(f"{name} is skipped: {error}")
            continue
        engines.append(model.engine)
        view = model.view
    if view is None:
        raise MissingExtra(f"no runtime for {path.name} is installed", remedy=install_command("openvino"))
    return engines, view


def _files(data: str | Path | None, folder: Path) -> list[Path]:
    """Image files: an even selection of ``data``, or smooth synthetic images (noise would take longer to decode)."""
    if data is not None:
        images = load_images(data, labeled=False).paths
        return list(images[:: max(1, len(images) // MAX_FILES)])[:MAX_FILES]
    from PIL import Image

    rng = np.random.default_rng(0)
    paths = []
    for number in range(16):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        path = folder / f"{number}.jpg"
        Image.fromarray(coarse).resize(SYNTHETIC_SIZE[::-1], Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(path)
    return paths


def _latencies(function: Callable[[], object], seconds: float, min_calls: int = 5) -> list[float]:
    """Durations in seconds of calls for about ``seconds``, at least ``min_calls``, after one warm-up call."""
    function()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < min_calls or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


def _figures(times: Sequence[float], images: int) -> dict[str, float]:
    return {"p50_ms": round(1000 * float(np.percentile(times, 50)), 3),
            "p99_ms": round(1000 * float(np.percentile(times, 99)), 3),
            "images_per_second": round(images * len(times) / sum(times), 2)}  # fmt: skip


def _decoding(paths: Sequence[Path], view: View, seconds: float) -> dict[str, Any]:
    """Decoding of one file at a time, and of all files in as many threads as there are cores."""
    numbers = itertools.count()
    single = _figures(_latencies(lambda: view(paths[next(numbers) % len(paths)]), seconds), 1)
    with ThreadPoolExecutor(max(2, usable_cores())) as pool:
        all_files = _latencies(lambda: list(pool.map(view, paths)), seconds, min_calls=1)
    return {
        **single,
        "threads": max(2, usable_cores()),
        "images_per_second_in_threads": round(len(paths) / min(all_files), 2),
    }


def _row(engine: Engine, sizes: Sequence[int], paths: Sequence[Path], view: View, seconds: float) -> dict[str, Any]:
    description = engine.describe()
    say(f"measuring {description['runtime']} {description['precision']}")
    pixels = np.random.default_rng(0).integers(0, 256, (max(sizes), *engine.input_size, 3), dtype=np.uint8)
    by_batch = [
        {"batch": size, **_figures(_latencies(partial(engine, pixels[:size]), seconds), size)} for size in sizes
    ]
    rate = max(float(entry["images_per_second"]) for entry in by_batch)
    numbers = itertools.count()
    single = _figures(_latencies(lambda: engine(view(paths[next(numbers) % len(paths)])[None]), seconds), 1)
    # Enough files for the whole time, since start and end would dominate a short run.
    count = int(min(max(rate * seconds, len(paths)), 4096))
    files = [paths[number % len(paths)] for number in range(count)]
    start = time.perf_counter()
    embed_files(engine, files, view, describe=f"{description['runtime']} files to vectors")
    file_rate = len(files) / (time.perf_counter() - start)
    return {"runtime": description["runtime"], "precision": description["precision"], "engine": description, "rate": rate, "by_batch": by_batch,
            "file_to_vector": {"p50_ms": single["p50_ms"], "p99_ms": single["p99_ms"], "images_per_second": round(file_rate, 2)}}  # fmt: skip


def format_table(figures: Mapping[str, Any]) -> str:
    """Format the figures as a text table."""
    lines = [
        f"{figures['model']} on {figures['machine']}",
        _decoding_line(figures["decoding"]),
        f"{'engine':22}{'batch':>8}{'p50 ms':>11}{'p99 ms':>11}{'images/s':>11}",
    ]
    for row in figures["engines"]:
        name = f"{row['runtime']} {row['precision']}"
        for entry in row["by_batch"]:
            lines.append(_line(name, str(entry["batch"]), entry))
        lines.append(_line(name, "files", row["file_to_vector"]))
    return "\n".join(lines)


def _decoding_line(decoding: Mapping[str, Any]) -> str:
    threads = f"{decoding['images_per_second_in_threads']:.0f} images/s in {decoding['threads']} threads"
    return f"decoding alone: p50 {decoding['p50_ms']:.2f} ms, p99 {decoding['p99_ms']:.2f} ms, {threads}"


def _line(name: str, batch: str, entry: Mapping[str, float]) -> str:
    return f"{name:22}{batch:>8}{entry['p50_ms']:11.2f}{entry['p99_ms']:11.2f}{entry['images_per_second']:11.1f}"
