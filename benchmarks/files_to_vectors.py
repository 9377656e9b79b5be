"""Image files -> vectors: the engine that unalike chooses beside torch eager, in one run.

    python benchmarks/files_to_vectors.py [--data FOLDER] [--trunk tf_efficientnet_lite0] [--size 224] [--images 256]

Both sides read the same files through the same view. The peer is what one would write by hand: two decoding threads,
``torch.inference_mode``, channels-last, two threads, fp32 and bf16 (autocast), the best of batch 1, 8 and 32. Sides
take turns for ``--rounds`` rounds and the best of each counts: on a shared machine only the ratio means something.
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
from unalike.data.items import load_images
from unalike.data.view import View
from unalike.deploy.choose import engine_for
from unalike.engines.files import embed_files
from unalike.engines.protocol import Engine
from unalike.model.embedder import Shape, assemble


# Public pictures of groceries, where the checkout lies beside them.
class Eager:
    """torch as one writes it by hand."""

    def __init__(self, module: torch.nn.Module, mean: Sequence[float], std: Sequence[float], view: View, bf16: bool):
        self.module = module.eval().to(memory_format=torch.channels_last)
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.std = torch.tensor(std).view(1, 3, 1, 1)
        self.view, self.bf16 = view, bf16

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
    options = arguments.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    progress.set_verbosity(0)
    torch.set_num_threads(2)

    found = load_images(options.data, labelled=False)
    step = max(1, len(found.paths) // options.images)
    paths = list(found.paths[::step])[: options.images]
    view = View(options.size, options.size)
    embedder = assemble(Shape(options.trunk, 256, 3, (options.size, options.size)), pretrained="auto").eval()
    mean, std = embedder.trunk.facts.mean, embedder.trunk.facts.std

    sides: dict[str, object] = {}
    for runtime in options.runtimes:
        engine = engine_for(embedder, mean=mean, std=std, view=view, runtime=runtime)
        told = engine.describe()
        label = f"unalike {runtime}: {told['runtime']} {told['precision']}"
        sides[label] = lambda engine=engine: chosen(engine, paths, view)
    for precision in options.eager:
        eager = Eager(embedder, mean, std, view, precision == "bf16")
        for batch in options.batches:
            sides[f"torch eager {precision} batch {batch}"] = lambda e=eager, b=batch: e.embed(paths, b)
    sides["decoding alone, two threads"] = lambda: list(ThreadPoolExecutor(2).map(view, paths))

    best, vectors = measure(sides, len(paths), options.rounds)
    peer = max((name for name in best if name.startswith("torch")), key=best.__getitem__)
    exact = vectors[next(name for name in vectors if name.startswith("torch"))]
    print(f"{options.trunk}, {options.size} px, {len(paths)} files of {options.data}, best of {options.rounds} rounds")
    print(f"{'':44}{'images/s':>10}{'x best torch':>14}{'worst cosine':>14}")
    for name, rate in best.items():
        near = f"{worst_cosine(exact, vectors[name]):.6f}" if isinstance(vectors[name], np.ndarray) else ""
        print(f"{name:44}{rate:10.1f}{rate / best[peer]:14.2f}{near:>14}")


if __name__ == "__main__":
    main()
