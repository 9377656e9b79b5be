"""Image files -> vectors: the engine that unalike chooses beside torch eager, in one run.

    python benchmarks/files_to_vectors.py [--data FOLDER] [--trunk tf_efficientnet_lite0] [--size 224] [--images 256]
                                          [--roofline]

Both sides read the same files through the same view. The peer is what one would write by hand: two decoding threads,
``torch.inference_mode``, channels-last, two threads, fp32 and bf16 (autocast), the best of batch 1, 8 and 32. Sides
take turns for ``--rounds`` rounds and the best of each counts: on a shared machine only the ratio means something.

``--roofline`` adds what this machine could do at most: a large matrix product in OpenVINO in each type of number, so the
network at that rate; and the network alone, without files, with as many requests in flight as it likes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from unalike import progress
from unalike.data.imageset import load_images
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.engines.openvino_engine import import_openvino
from unalike.engines.protocol import Engine
from unalike.inference.embedding import embed_files
from unalike.inference.engine_selection import create_engine
from unalike.model.embedder import EmbedderConfig, create_embedder

DECODING = "decoding alone, two threads"


class Eager:
    """torch as one writes it by hand."""

    def __init__(self, module: torch.nn.Module, preprocessing: Preprocessing, bf16: bool):
        self.module = module.eval().to(memory_format=torch.channels_last)
        self.mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
        self.std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
        self.view, self.bf16 = preprocessing.view, bf16

    def embed(self, paths: Sequence[Path], batch: int) -> np.ndarray:
        rows = []
        with ThreadPoolExecutor(2) as pool, torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, self.bf16):
            images = pool.map(self.view, paths)  # decodes ahead while the network works
            waiting: list[np.ndarray] = []
            for number, image in enumerate(images, 1):
                waiting.append(image)
                if len(waiting) == batch or number == len(paths):
                    pixels = torch.from_numpy(np.stack(waiting)).permute(0, 3, 1, 2).float().div(255)
                    rows.append(self.module(pixels.sub(self.mean).div(self.std)).float().numpy())
                    waiting = []
        return np.concatenate(rows)


def chosen(engine: Engine, paths: Sequence[Path], view: View) -> np.ndarray:
    return embed_files(engine, paths, view).vectors_ND


def worst_cosine(a_ND: np.ndarray, b_ND: np.ndarray) -> float:
    products = (a_ND * b_ND).sum(1) / np.linalg.norm(a_ND, axis=1) / np.linalg.norm(b_ND, axis=1)
    return float(products.min())


# ---- what this machine could do at most ----


def product_rate(kind: str, side: int = 2048, rounds: int = 12) -> float:
    """Multiply-adds a second, in billions, of a ``side`` x ``side`` product in OpenVINO on all cores; the best of many."""
    openvino = import_openvino()
    from openvino import opset13 as op

    def eighths(entry: object, low: float, levels: int) -> object:
        return op.fake_quantize(entry, *(op.constant(np.float32(end)) for end in (low, 127, low, 127)), levels)

    entry = op.parameter([side, side], openvino.Type.f32)
    weights = np.random.default_rng(0).integers(-127, 128, (side, side)).astype(np.float32)
    factors = (entry, op.constant(weights))
    if kind == "int8":
        factors = (eighths(factors[0], -128, 256), eighths(factors[1], -127, 255))
    graph = openvino.Model([op.matmul(*factors, False, False)], [entry], "product")
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if kind == "bf16" else "f32"}
    request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()
    inputs, best = {0: np.ones((side, side), np.float32)}, float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        request.infer(inputs)
        best = min(best, time.perf_counter() - start)
    return side**3 / best / 1e9


def multiply_adds(module: torch.nn.Module, size: int) -> int:
    """Of one image through convolutions and linear layers."""
    total = 0

    def count(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        weight = layer.weight
        total += output.numel() * weight[0].numel()  # type: ignore[index, operator, union-attr]

    layers = [layer for layer in module.modules() if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        module(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return total


def alone(engine: Engine, images_NHWC: np.ndarray, rounds: int) -> float:
    """Images a second from memory."""
    engine(images_NHWC[:32])
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        engine(images_NHWC)
        best = min(best, time.perf_counter() - start)
    return len(images_NHWC) / best


def tell_roofline(
    work: int, engines: dict[str, Engine], images_NHWC: np.ndarray, decoding: float, wanted: float, rounds: int
) -> None:
    print(f"\nThe network takes {work / 1e9:.3f} billion multiply-adds an image; four times torch is {wanted:.0f} images/s, so "
          f"{wanted * work / 1e9:.0f} billion a second and {1 / (1 / wanted - 1 / decoding):.0f} images/s of the network alone "
          f"while decoding takes its share." if decoding > wanted else "\nDecoding alone is slower than four times torch.")  # fmt: skip
    print(f"{'a large product in OpenVINO':44}{'G/s':>10}{'network':>14}{'with decoding':>15}")
    capable = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for kind, name in (("fp32", "FP32"), ("bf16", "BF16"), ("int8", "INT8")):
        if name in capable:
            rate = product_rate(kind)
            most = rate * 1e9 / work
            print(f"{kind:44}{rate:10.0f}{most:14.0f}{1 / (1 / most + 1 / decoding):15.0f}")
    for name, engine in engines.items():
        rate = alone(engine, images_NHWC, rounds)
        print(
            f"{name + ', network alone':44}{rate * work / 1e9:10.0f}{rate:14.0f}{1 / (1 / rate + 1 / decoding):15.0f}"
        )


def measure(sides: dict[str, object], count: int, rounds: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Images a second of every side, best of ``rounds``, sides taking turns; and the vectors of the last round."""
    best, vectors = dict.fromkeys(sides, 0.0), {}
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            vectors[name] = run()  # type: ignore[operator]
            seconds = time.perf_counter() - start
            best[name] = max(best[name], count / seconds)
            print(f"  {name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return best, vectors


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", help="folder of images")
    arguments.add_argument("--trunk", default="tf_efficientnet_lite0")
    arguments.add_argument("--size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=256)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--runtimes", nargs="+", default=["auto", "onnxruntime"])
    arguments.add_argument("--eager", nargs="+", default=["fp32", "bf16"], help="precisions of the peer")
    arguments.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32], help="batch sizes of the peer")
    arguments.add_argument("--precisions", nargs="+", default=["auto"], help="of runtime auto: auto, bf16, fp32")
    arguments.add_argument("--roofline", action="store_true", help="what this machine could do at most")
    options = arguments.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    progress.set_verbosity(0)
    torch.set_num_threads(2)

    images = load_images(options.data, labeled=False)
    step = max(1, len(images.paths) // options.images)
    paths = list(images.paths[::step])[: options.images]
    view = View(options.size, options.size)
    embedder = create_embedder(
        EmbedderConfig(options.trunk, 256, 3, (options.size, options.size)), pretrained="auto"
    ).eval()
    preprocessing = Preprocessing(view, embedder.trunk.facts.mean, embedder.trunk.facts.std)

    sides: dict[str, object] = {}
    engines: dict[str, Engine] = {}
    for runtime in options.runtimes:
        for precision in options.precisions if runtime == "auto" else ["auto"]:
            engine = create_engine(embedder, preprocessing, runtime=runtime, precision=precision)
            description = engine.describe()
            label = f"unalike {runtime} {precision}: {description['runtime']} {description['precision']}"
            engines[label] = engine
            sides[label] = lambda engine=engine: chosen(engine, paths, view)
    for precision in options.eager:
        eager = Eager(embedder, preprocessing, precision == "bf16")
        for batch in options.batches:
            sides[f"torch eager {precision} batch {batch}"] = lambda e=eager, b=batch: e.embed(paths, b)
    sides[DECODING] = lambda: list(ThreadPoolExecutor(2).map(view, paths))

    best, vectors = measure(sides, len(paths), options.rounds)
    peer = max((name for name in best if name.startswith("torch")), key=best.__getitem__)
    first = next(name for name in vectors if name.startswith("torch"))
    print(f"{options.trunk}, {options.size} px, {len(paths)} files of {options.data}, best of {options.rounds} rounds; "
          f"cosines with {first}")  # fmt: skip
    print(f"{'':44}{'images/s':>10}{'x best torch':>14}{'worst cosine':>14}")
    for name, rate in best.items():
        near = f"{worst_cosine(vectors[first], vectors[name]):.6f}" if isinstance(vectors[name], np.ndarray) else ""
        print(f"{name:44}{rate:10.1f}{rate / best[peer]:14.2f}{near:>14}")
    if options.roofline:
        images_NHWC = np.stack([view(path) for path in paths])
        work = multiply_adds(embedder, options.size)
        tell_roofline(work, engines, images_NHWC, best[DECODING], 4 * best[peer], options.rounds)


if __name__ == "__main__":
    main()
