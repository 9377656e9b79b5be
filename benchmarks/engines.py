"""Every engine side by side in one run, from JPEG files to vectors: torch eager, ONNX Runtime, OpenVINO fp32, bf16, INT8.

    python benchmarks/engines.py --data FOLDER [--trunk tf_efficientnet_lite0] [--size 224] [--images 256] [--rounds 3]

For ResNet-50: --trunk resnet_50 (its weights do not matter for speed; without a hub they are random). torch eager is what
one would write by hand (see files_to_vectors.py): fp32 and, where the CPU computes in it, bf16, the best of batch 1, 8 and
32. Measurements take turns and the best round of each counts. Apart from files to vectors it measures decoding alone and each
network alone, and prints the rate from files to vectors relative to the network's own rate and to the bound that follows from both:
one image needs 1/decoding + 1/network of all cores. INT8 is calibrated on other images of the same folder. Rates are of
the clock; "by CPU" is the ratio before it from processor times, which mean more on a shared machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from files_to_vectors import Eager

from unalike import progress
from unalike.data.imageset import load_images
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.deploy.onnx_export import build_facts, trace
from unalike.deploy.quantization.accuracy_table import cosines
from unalike.deploy.quantization.activation_ranges import sample_calibration_images
from unalike.deploy.quantization.mixed_precision import QuantizationRequest, quantize_network
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.openvino_engine import OpenVinoEngine, has_fast_bf16
from unalike.inference.embedding import embed_files
from unalike.model.embedder import EmbedderConfig, create_embedder
from unalike.runs.environment import usable_cores


def timed(action: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return (wall-clock seconds, processor seconds, result)."""
    clock, processor = time.perf_counter(), time.process_time()
    result = action()
    return time.perf_counter() - clock, time.process_time() - processor, result


def parsed() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, help="folder of photographs")
    arguments.add_argument("--trunk", default="tf_efficientnet_lite0")
    arguments.add_argument("--size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=256)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--calibration", type=int, default=64, help="images behind INT8's ranges")
    arguments.add_argument("--worst-cosine", type=float, default=0.0, help="INT8's goal; 0 quantizes every layer")
    arguments.add_argument("--out", type=Path, help="write the figures there as JSON")
    return arguments.parse_args()


def engines_of(content: bytes, quantized: bytes) -> dict[str, Any]:
    """Every exported format in every runtime, by name."""
    engines: dict[str, Any] = {"ONNX Runtime fp32": OnnxEngine(content),
                               "OpenVINO fp32": OpenVinoEngine(content, precision="fp32")}  # fmt: skip
    if has_fast_bf16():
        engines["OpenVINO bf16"] = OpenVinoEngine(content, precision="bf16")
    engines["OpenVINO INT8"] = OpenVinoEngine(quantized)
    engines["ONNX Runtime INT8"] = OnnxEngine(quantized)
    return engines


class Measurements:
    """One network in every format, the photographs, and the best round of each measurement."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.view = options, View(options.size, options.size)
        all_paths = load_images(options.data, labeled=False).paths
        self.paths = list(all_paths[:: max(1, len(all_paths) // options.images)])[: options.images]
        pretrained = "auto" if "efficientnet_lite" in options.trunk else "false"
        shape = EmbedderConfig(options.trunk, 256, 3, (options.size, options.size))
        embedder = create_embedder(shape, pretrained=pretrained).eval()
        preprocessing = Preprocessing(self.view, embedder.trunk.facts.mean, embedder.trunk.facts.std)
        facts = build_facts(embedder, preprocessing)
        content = trace(embedder, (options.size, options.size), facts).SerializeToString()
        others = [path for path in all_paths if path not in set(self.paths)] or self.paths
        calibration = sample_calibration_images(
            others, self.view, count=options.calibration, validation_count=32, seed=0
        )
        quantized = quantize_network(
            content, facts, calibration, QuantizationRequest(worst_cosine=options.worst_cosine or -1.0)
        )
        print(f"INT8: {len(quantized.kept)} layers kept in higher precision", file=sys.stderr)
        self.engines = engines_of(content, quantized.content)
        self.eager = {precision: Eager(embedder, preprocessing, precision == "bf16")
                      for precision in (("fp32", "bf16") if has_fast_bf16() else ("fp32",))}  # fmt: skip
        self.best: dict[str, list[float]] = {}  # name -> least clock and processor time, seconds
        self.vectors: dict[str, np.ndarray] = {}

    def actions(self) -> dict[str, dict[str, Callable[[], Any]]]:
        """What is timed: files to vectors, the network alone, decoding alone."""
        paths, images = self.paths, np.stack([self.view(path) for path in self.paths])
        pool = ThreadPoolExecutor(usable_cores())
        from_files: dict[str, Callable[[], Any]] = {
            f"torch eager {precision}, batch {batch}": lambda e=eager, b=batch: e.embed(paths, b)  # type: ignore[misc]
            for precision, eager in self.eager.items() for batch in (1, 8, 32)
        }  # fmt: skip
        for name, engine in self.engines.items():
            from_files[name] = lambda e=engine: embed_files(e, paths, self.view).vectors_ND
        networks: dict[str, Callable[[], Any]] = {n: (lambda e=engine: e(images)) for n, engine in self.engines.items()}
        return {"files": from_files, "network": networks, "decoding": {"": lambda: list(pool.map(self.view, paths))}}

    def measure(self) -> None:
        actions = self.actions()
        for _ in range(self.options.rounds):
            for kind, sides in actions.items():
                for name, action in sides.items():
                    clock, processor, result = timed(action)
                    if kind == "files":
                        self.vectors[name] = result
                    best = self.best.setdefault(f"{kind} {name}", [clock, processor])
                    self.best[f"{kind} {name}"] = [min(best[0], clock), min(best[1], processor)]
                    print(f"  {kind} {name}: {clock:.1f} s", file=sys.stderr, flush=True)

    def rate(self, what: str) -> float:
        """Images a second by the clock."""
        return len(self.paths) / self.best[what][0]

    def rows(self) -> list[dict[str, Any]]:
        exact, rows = self.vectors["torch eager fp32, batch 8"], []
        for name, vectors in self.vectors.items():
            files = self.rate(f"files {name}")
            near = float(cosines(exact, vectors).min())
            row: dict[str, Any] = {"name": name, "files_per_second": files, "worst_cosine": near}
            if name in self.engines:
                network = self.rate(f"network {name}")
                bound = 1 / (1 / self.rate("decoding ") + 1 / network)
                reference = self.best["network OpenVINO fp32"]
                row |= {"network_per_second": network, "share_of_network": files / network, "share_of_bound": files / bound,
                        "share_by_processor_time": self.best[f"network {name}"][1] / self.best[f"files {name}"][1],
                        "times_openvino_fp32": network / self.rate("network OpenVINO fp32"),
                        "by_processor_time": reference[1] / self.best[f"network {name}"][1]}  # fmt: skip
            rows.append(row)
        return rows


def line_of(row: dict[str, Any]) -> str:
    line = f"{row['name']:28}{row['files_per_second']:9.1f}"
    if "network_per_second" not in row:
        return f"{line}{'':55}{row['worst_cosine']:14.5f}"
    line += f"{row['network_per_second']:11.1f}{100 * row['share_of_network']:6.0f}%{100 * row['share_by_processor_time']:7.0f}%"
    line += f"{100 * row['share_of_bound']:9.0f}%"
    return f"{line}{row['times_openvino_fp32']:11.2f}{row['by_processor_time']:8.2f}{row['worst_cosine']:14.5f}"


def main() -> None:
    options = parsed()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    progress.set_verbosity(0)
    torch.set_num_threads(usable_cores())
    measurements = Measurements(options)
    measurements.measure()
    rows, decoding = measurements.rows(), measurements.rate("decoding ")
    print(f"{options.trunk}, {options.size} px, {len(measurements.paths)} files of {options.data}, best of {options.rounds} rounds, "
          f"{usable_cores()} cores; decoding alone {decoding:.0f} images/s")  # fmt: skip
    heads = f"{'files/s':>9}{'network/s':>11}{'of it':>7}{'by CPU':>8}{'of bound':>10}{'x OV fp32':>11}{'by CPU':>8}{'worst cosine':>14}"
    print(f"{'':28}{heads}")
    for row in rows:
        print(line_of(row))
    if options.out:
        options.out.write_text(json.dumps({"trunk": options.trunk, "decoding": decoding, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
