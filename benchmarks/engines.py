"""Every engine side by side in one run, from JPEG files to vectors: torch eager, ONNX Runtime, OpenVINO fp32, bf16, INT8.

    python benchmarks/engines.py --data FOLDER [--trunk tf_efficientnet_lite0] [--size 224] [--images 256] [--rounds 3]

For ResNet-50: --trunk resnet_50 (its weights do not matter for speed; without a hub they are random). torch eager is what
one would write by hand (see files_to_vectors.py): fp32 and, where the CPU computes in it, bf16, the best of batch 1, 8 and
32. Sides take turns and the best round of each counts. Apart from files to vectors it measures decoding alone and each
network alone, and gives what files to vectors reaches of the network's own rate, and of the bound that follows from both:
one image needs 1/decoding + 1/network of all cores. INT8 is calibrated on other images of the same folder. Rates are
clock, "by CPU" is processor time against OpenVINO fp32: on a shared machine only that and the ratios mean something.
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
from unalike.data.items import load_images
from unalike.data.view import View
from unalike.deploy.calibration import calibration_images
from unalike.deploy.comparison import cosines
from unalike.deploy.fewer_bits import Request, make_fewer_bits
from unalike.deploy.onnx_export import facts_of, trace
from unalike.engines.files import embed_files
from unalike.engines.onnx_engine import OnnxEngine, usable_cores
from unalike.engines.openvino_engine import OpenVinoEngine, has_fast_bf16
from unalike.model.embedder import Shape, assemble


def timed(action: Callable[[], Any]) -> tuple[float, float, Any]:
    """(clock seconds, processor seconds, what it gave)."""
    clock, processor = time.perf_counter(), time.process_time()
    found = action()
    return time.perf_counter() - clock, time.process_time() - processor, found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, help="folder of photographs")
    arguments.add_argument("--trunk", default="tf_efficientnet_lite0")
    arguments.add_argument("--size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=256)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--calibration", type=int, default=64, help="images behind INT8's ranges")
    arguments.add_argument("--worst-cosine", type=float, default=0.0, help="INT8's goal; 0 quantises every layer")
    arguments.add_argument("--out", type=Path, help="write the figures there as JSON")
    options = arguments.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    progress.set_verbosity(0)
    torch.set_num_threads(usable_cores())

    view = View(options.size, options.size)
    found = load_images(options.data, labelled=False).paths
    paths = list(found[:: max(1, len(found) // options.images)])[: options.images]
    others = [path for path in found if path not in set(paths)] or paths
    lite = "efficientnet_lite" in options.trunk
    shape = Shape(options.trunk, 256, 3, (options.size, options.size))
    embedder = assemble(shape, pretrained="auto" if lite else "false").eval()
    mean, std = embedder.trunk.facts.mean, embedder.trunk.facts.std
    facts = facts_of(embedder, view=view, mean=mean, std=std)
    content = trace(embedder, (options.size, options.size), facts).SerializeToString()
    calibration = calibration_images(others, view, count=options.calibration, others=32, seed=0)
    request = Request(worst_cosine=options.worst_cosine or -1.0)
    quantised = make_fewer_bits(content, facts, calibration, request)
    print(f"INT8: {len(quantised.kept)} layers kept in higher precision", file=sys.stderr)

    engines: dict[str, Any] = {"ONNX Runtime fp32": OnnxEngine(content),
                               "OpenVINO fp32": OpenVinoEngine(content, precision="fp32")}  # fmt: skip
    if has_fast_bf16():
        engines["OpenVINO bf16"] = OpenVinoEngine(content, precision="bf16")
        engines["OpenVINO auto"] = OpenVinoEngine(content)  # bf16 but for the early layers
    engines["OpenVINO INT8"] = OpenVinoEngine(quantised.content)
    engines["ONNX Runtime INT8"] = OnnxEngine(quantised.content)
    whole: dict[str, Callable[[], Any]] = {}
    for precision in ("fp32", "bf16") if has_fast_bf16() else ("fp32",):
        eager = Eager(embedder, mean, std, view, precision == "bf16")
        for batch in (1, 8, 32):
            whole[f"torch eager {precision}, batch {batch}"] = lambda e=eager, b=batch: e.embed(paths, b)
    for name, engine in engines.items():
        whole[name] = lambda e=engine: embed_files(e, paths, view).vectors_ND
    images = np.stack([view(path) for path in paths])
    alone = {name: (lambda e=engine: e(images)) for name, engine in engines.items()}

    with ThreadPoolExecutor(usable_cores()) as pool:
        best: dict[str, list[float]] = {}
        vectors: dict[str, np.ndarray] = {}
        for _ in range(options.rounds):
            for kind, sides in (("files", whole), ("network", alone)):
                for name, action in sides.items():
                    clock, processor, vectors[name] = timed(action)
                    held = best.setdefault(f"{kind} {name}", [clock, processor])
                    best[f"{kind} {name}"] = [min(held[0], clock), min(held[1], processor)]
                    print(f"  {kind} {name}: {clock:.1f} s", file=sys.stderr, flush=True)
            clock, processor, _ = timed(lambda: list(pool.map(view, paths)))
            held = best.setdefault("decoding", [clock, processor])
            best["decoding"] = [min(held[0], clock), min(held[1], processor)]

    count, decoding = len(paths), len(paths) / best["decoding"][0]
    print(f"{options.trunk}, {options.size} px, {count} files of {options.data}, best of {options.rounds} rounds, "
          f"{usable_cores()} cores; decoding alone {decoding:.0f} images/s")  # fmt: skip
    print(
        f"{'':28}{'files/s':>9}{'network/s':>11}{'of it':>7}{'of bound':>10}{'x OV fp32':>11}{'by CPU':>8}{'worst cosine':>14}"
    )
    exact, rows = vectors["torch eager fp32, batch 8"], []
    for name in whole:
        clock, _ = best[f"files {name}"]
        row: dict[str, Any] = {"name": name, "files_per_second": count / clock,
                               "worst_cosine": float(cosines(exact, vectors[name]).min())}  # fmt: skip
        line = f"{name:28}{count / clock:9.1f}"
        if name in alone:
            (network, processor), reference = best[f"network {name}"], best["network OpenVINO fp32"]
            rate = count / network
            bound = 1 / (1 / decoding + 1 / rate)
            row |= {"network_per_second": rate, "share_of_network": count / clock / rate, "share_of_bound": count / clock / bound,
                    "times_openvino_fp32": reference[0] / network, "by_processor_time": reference[1] / processor}  # fmt: skip
            line += f"{rate:11.1f}{100 * row['share_of_network']:6.0f}%{100 * row['share_of_bound']:9.0f}%{row['times_openvino_fp32']:11.2f}"
            line += f"{row['by_processor_time']:8.2f}"
        else:
            line += " " * 47
        print(f"{line}{row['worst_cosine']:14.5f}")
        rows.append(row)
    if options.out:
        options.out.write_text(json.dumps({"trunk": options.trunk, "decoding": decoding, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
