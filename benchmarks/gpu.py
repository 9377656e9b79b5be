"""One GPU: rates of training and embedding, memory, and parity of the exported formats, in one run that is meant to take six minutes.

    python benchmarks/gpu.py [--minutes 5.5] [--backbones resnet_50,vit_small_patch16_224] [--out gpu.json]
    python benchmarks/gpu.py --smoke

No data and no network are needed: the photographs are drawn (JPEG, 500 x 400), the weights are random, which says nothing
against rates; parity of INT8 on random weights is harder than on trained ones. ``--smoke`` runs every line on a CPU, at tiny sizes: its
figures mean nothing. Each part is printed as soon as it is measured; what does not install or fit is named, and what would pass the
time limit is left out and named.

For each backbone, in bf16 with channels-last images:

- training from JPEG: this project's loader and step (every image decoded in every epoch; then from the cache of decoded images; then with
  torch.compile), beside a plain script of torchvision's transforms, DataLoader workers, timm and pytorch-metric-learning;
- the network alone: forward, backward and update on images that lie on the GPU: what both could reach;
- memory at its highest;
- embedding: torch fp32, bf16 and fp16, ONNX Runtime (CUDA), TensorRT fp32, fp16 and INT8, from uint8 images in memory; cosine of the vectors with
  those of torch in fp32: least and mean.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loading import transforms_of_torchvision
from PIL import Image
from pytorch_metric_learning import losses, miners
from torch import nn

from unalike.data.batches.augment import Augmentation
from unalike.data.batches.loader import TrainingLoader
from unalike.data.batches.pixel_cache import PixelCache
from unalike.data.batches.sampler import ClassBalancedSampler
from unalike.data.imageset import ImageSet, load_images
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.deploy.onnx_export import build_facts, trace
from unalike.deploy.onnx_graph import read_graph_facts, read_network
from unalike.deploy.quantization.activation_ranges import CalibrationImages
from unalike.deploy.quantization.mixed_precision import QuantizationRequest, quantize_network
from unalike.deploy.tensorrt_build import BuildOptions, build_engine
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.tensorrt_engine import TensorRtEngine
from unalike.engines.torch_engine import TorchEngine
from unalike.errors import MissingExtra
from unalike.model.embedder import EmbedderConfig, build_embedder, create_embedder
from unalike.progress import set_verbosity
from unalike.spec import load_spec
from unalike.training.checkpoints import CheckpointManager
from unalike.training.devices import make_fabric
from unalike.training.freezing import Freezer
from unalike.training.loop import TrainingLoop
from unalike.training.losses import build_criterion
from unalike.training.optimizer import build_optimizer
from unalike.training.schedule import LRSchedule

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "onnxruntime-gpu",
    "onnxruntime",
    "tensorrt",
    "pytorch-metric-learning",
    "lightning-fabric",
)
INSTANCES = 4


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        images, classes: Photographs drawn, and their classes.
        size: Side of the network's input, in pixels.
        batch: Images of a training step, and of one call of an engine.
        warm, steps: Steps before and within a measurement of training.
        calls: Calls of an engine that are timed.
        workers: Threads of our loader, processes of the plain one.
    """

    images: int
    classes: int
    size: int
    batch: int
    warm: int
    steps: int
    calls: int
    workers: int


FULL = Sizes(
    images=2048, classes=128, size=224, batch=128, warm=6, steps=24, calls=30, workers=len(os.sched_getaffinity(0))
)
SMOKE = Sizes(images=32, classes=4, size=64, batch=8, warm=1, steps=2, calls=1, workers=1)


class Report:
    """Figures, printed as they come, and the time that is left."""

    def __init__(self, minutes: float) -> None:
        self.end, self.rows = time.monotonic() + 60 * minutes, list[dict[str, Any]]()

    def add(self, part: str, **figures: Any) -> None:
        self.rows.append({"part": part, **figures})
        print(f"{part:52}" + "  ".join(f"{key} {value}" for key, value in figures.items()), flush=True)

    @contextmanager
    def part(self, name: str, seconds: float) -> Iterator[bool]:
        """Measure one part; whether it fits into the time. What fails is named and does not end the run."""
        if self.end - time.monotonic() < seconds:
            self.add(name, left_out=f"{seconds:.0f} s would pass the time limit")
            yield False
            return
        try:
            yield True
        except MissingExtra as error:
            self.add(name, not_installed=str(error).splitlines()[0][:120])
        except Exception as error:  # noqa: BLE001  a runtime that is not installed must not cost the other figures
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.add(
                name,
                failed=f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''} ({Path(last.filename).name}:{last.lineno})",
            )
        finally:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> str:
    return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if torch.cuda.is_available() else "-"


def measure_steps(step: Callable[[], int], sizes: Sizes) -> float:
    """Images a second of ``sizes.steps`` steps after ``sizes.warm``; a step returns its number of images."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    for _ in range(sizes.warm):
        step()
    synchronize()
    start, count = time.perf_counter(), 0
    for _ in range(sizes.steps):
        count += step()
    synchronize()
    return count / (time.perf_counter() - start)


def draw_photographs(folder: Path, sizes: Sizes) -> ImageSet:
    """JPEG files of smooth colors and noise, of about the size of photographs on the web."""

    def draw(number: int) -> None:
        rng = np.random.default_rng(number)
        small = rng.integers(0, 255, (16, 20, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(small).resize((500, 400), Image.Resampling.BICUBIC), np.int16)
        noise = rng.integers(-12, 12, picture.shape, dtype=np.int16)
        path = folder / f"c{number % sizes.classes:04}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)

    with ThreadPoolExecutor(sizes.workers) as pool:
        list(pool.map(draw, range(sizes.images)))
    return load_images(folder)


# ---- training ----


class _Steps:
    """A loader of one step, which is never iterated: the steps are made one by one."""

    def __len__(self) -> int:
        return 1 << 30

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:
        raise NotImplementedError


def our_loop(backbone: str, sizes: Sizes, folder: Path, *, compiles: bool) -> TrainingLoop:
    """The loop of a training as ``unalike train`` builds it, in bf16 where the device computes in it."""
    experiment = load_spec("train", {
        "model": {"backbone": backbone, "pretrained": False, "input_height": sizes.size, "input_width": sizes.size},
        "train": {"precision": "bf16" if torch.cuda.is_available() else "fp32", "compile": compiles, "batch_size": sizes.batch},
    })  # fmt: skip
    fabric = make_fabric(experiment)
    embedder = build_embedder(experiment)
    fabric.to_device(embedder)
    nn.Module.to(embedder, memory_format=torch.channels_last)  # type: ignore[call-overload]
    criterion = fabric.to_device(build_criterion(experiment, classes=sizes.classes, dim=embedder.dim))
    torch.backends.cuda.matmul.allow_tf32 = True
    loop = TrainingLoop(
        fabric=fabric, embedder=embedder, criterion=criterion, optimizer=build_optimizer(experiment, embedder, criterion),
        freezer=Freezer(embedder, experiment), loader=_Steps(), schedule=LRSchedule.from_spec(experiment, 1000), experiment=experiment,
        checkpoint_manager=CheckpointManager(folder, experiment.train), validate=None, payload=lambda weights, epochs: {},
        image_names=lambda indices: [], listener=lambda event, facts: None, stop_requested=lambda: 0,
    )  # fmt: skip
    loop.freezer.set_train_modes(head_only=False)
    return loop


def our_batches(images: ImageSet, sizes: Sizes, mode: str) -> Iterator[Any]:
    """Batches of our loader, epoch after epoch; with ``mode`` memory the images are decoded before the first."""
    cache = PixelCache(images, shorter_side=round(1.5 * sizes.size), mode=mode, limit_bytes=16 << 30)
    if mode == "memory":
        with ThreadPoolExecutor(sizes.workers) as pool:
            list(pool.map(cache.get, range(len(images))))
    augmentation = Augmentation(sizes.size, sizes.size, mean=MEAN, std=STD)
    sampler = ClassBalancedSampler(images.labels_N, batch_size=sizes.batch, num_instance=INSTANCES)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loader = TrainingLoader(images, cache, augmentation, sampler, workers=sizes.workers, device=device)
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


def measure_ours(
    report: Report, backbone: str, images: ImageSet, sizes: Sizes, folder: Path, *, compiles: bool
) -> None:
    name = f"{backbone}: ours" + (", torch.compile" if compiles else "")
    loop = our_loop(backbone, sizes, folder, compiles=compiles)
    for mode in ("memory",) if compiles else ("none", "memory"):
        batches = our_batches(images, sizes, mode)

        def step() -> int:
            batch = next(batches)  # noqa: B023  used up within this round
            loop.train_step(batch, update=True)
            return len(batch.labels_B)

        rate = measure_steps(step, sizes)
        batches.close()  # type: ignore[attr-defined]
        source = "from JPEG" if mode == "none" else "from the cache"
        report.add(f"{name}, {source}", images_per_second=round(rate, 1), memory=peak_memory())


def plain_network(backbone: str, sizes: Sizes) -> tuple[nn.Module, Callable[[torch.Tensor, torch.Tensor], None]]:
    """The network of the plain script, and its step on images and labels of the device."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = create_embedder(EmbedderConfig(backbone, 256, 3, (sizes.size, sizes.size)), pretrained="false")
    network = network.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    loss, miner = losses.TripletMarginLoss(margin=0.3), miners.MultiSimilarityMiner()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=device == "cuda")

    def step(images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            vectors = network(images_BCHW)
        vectors = vectors.float()
        loss(vectors, labels_B, miner(vectors, labels_B)).backward()
        optimizer.step()

    return network, step


class PlainImages(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Files, opened and transformed one by one, as scripts of torchvision do."""

    def __init__(self, images: ImageSet, size: int) -> None:
        t = transforms_of_torchvision()
        self.paths, self.labels = [str(path) for path in images.paths], images.labels_N.tolist()
        self.transform = t.Compose([t.RandomResizedCrop(size), t.RandomHorizontalFlip(), t.ColorJitter(0.5, 0.3, 0.1), t.ToTensor(),
                                    t.Normalize(MEAN, STD)])  # fmt: skip

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.labels[index]


def measure_plain(report: Report, backbone: str, images: ImageSet, sizes: Sizes) -> None:
    """A script that somebody would write with torchvision, timm and pytorch-metric-learning, without mistakes."""
    _, train = plain_network(backbone, sizes)
    sampler = ClassBalancedSampler(images.labels_N, batch_size=sizes.batch, num_instance=INSTANCES)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rounds = -(-(sizes.warm + sizes.steps) // len(sampler)) + 1
    order = [rows.tolist() for epoch in range(rounds) for rows in sampler.epoch(epoch)]
    loader = torch.utils.data.DataLoader(
        PlainImages(images, sizes.size), batch_sampler=order, num_workers=0 if sizes is SMOKE else sizes.workers,
        pin_memory=device == "cuda",
    )  # fmt: skip
    batches = iter(loader)

    def step() -> int:
        pixels, labels = next(batches)
        pixels = pixels.to(device, non_blocking=True, memory_format=torch.channels_last)
        train(pixels, labels.to(device, non_blocking=True))
        return len(labels)

    rate = measure_steps(step, sizes)
    report.add(f"{backbone}: plain script, from JPEG", images_per_second=round(rate, 1), memory=peak_memory())


def measure_network(report: Report, backbone: str, sizes: Sizes) -> None:
    """Forward, backward and update on the same images of the device again and again."""
    _, train = plain_network(backbone, sizes)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pixels = torch.randn(sizes.batch, 3, sizes.size, sizes.size, device=device).contiguous(
        memory_format=torch.channels_last
    )
    labels = torch.arange(sizes.batch, device=device) // INSTANCES

    def step() -> int:
        train(pixels, labels)
        return sizes.batch

    report.add(
        f"{backbone}: network alone", images_per_second=round(measure_steps(step, sizes), 1), memory=peak_memory()
    )


# ---- embedding ----


def cosines(vectors_ND: np.ndarray, expected_ND: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors_ND, axis=1) * np.linalg.norm(expected_ND, axis=1)
    return np.asarray((vectors_ND * expected_ND).sum(1) / np.maximum(lengths, 1e-12))


class Embedding:
    """One network in every runtime and precision of this machine."""

    def __init__(self, report: Report, backbone: str, images: ImageSet, sizes: Sizes) -> None:
        self.report, self.backbone, self.sizes = report, backbone, sizes
        shape = EmbedderConfig(backbone, 256, 3, (sizes.size, sizes.size))
        self.network = create_embedder(shape, pretrained="false").eval()
        self.view = View(sizes.size, sizes.size)
        count = min(len(images), 2 * sizes.batch)
        with ThreadPoolExecutor(sizes.workers) as pool:
            self.pixels_NHWC = np.stack(list(pool.map(self.view, [images.paths[i] for i in range(count)])))
        self.expected_ND: np.ndarray | None = None
        self.has_gpu = torch.cuda.is_available()

    def measure(self, name: str, engine: Any) -> None:
        """Rate of an engine, and its vectors beside those of torch in fp32."""
        batch = self.pixels_NHWC[: self.sizes.batch]
        vectors = np.concatenate(
            [engine(part) for part in np.array_split(self.pixels_NHWC, -(-len(self.pixels_NHWC) // self.sizes.batch))]
        )
        start = time.perf_counter()
        for _ in range(self.sizes.calls):
            engine(batch)  # which returns vectors in the computer's memory: nothing is left to wait for
        rate = self.sizes.calls * len(batch) / (time.perf_counter() - start)
        if self.expected_ND is None:
            self.expected_ND = vectors
        parity = cosines(vectors, self.expected_ND)
        self.report.add(f"{self.backbone}: {name}", images_per_second=round(rate, 1), cosine_least=round(float(parity.min()), 6),
                        cosine_mean=round(float(parity.mean()), 6))  # fmt: skip

    def torch_engines(self) -> None:
        device = "cuda" if self.has_gpu else "cpu"
        for precision in ("fp32", "bf16", "fp16") if self.has_gpu else ("fp32", "bf16"):
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
            self.measure(
                f"torch {precision}",
                TorchEngine(self.network, MEAN, STD, (self.sizes.size,) * 2, device, precision, self.sizes.batch),
            )
        self.network.to("cpu")

    def exported_engines(self, folder: Path) -> None:
        """ONNX Runtime and TensorRT on the network as a file: fp32, fp16 and INT8 (calibrated on drawn images)."""
        facts = build_facts(self.network, Preprocessing(self.view, MEAN, STD))
        content = trace(self.network, (self.sizes.size,) * 2, facts).SerializeToString()
        half = len(self.pixels_NHWC) // 2
        calibration = CalibrationImages(
            self.pixels_NHWC[: min(64, half)], self.pixels_NHWC[half : half + min(32, half)]
        )
        device = "cuda:0" if self.has_gpu else "cpu"
        for precision, seconds in (("fp32", 20), ("fp16", 30), ("int8", 45)):
            with self.report.part(f"{self.backbone}: {precision} file", seconds) as fits:
                if not fits:
                    continue
                proto = read_network(content, "the network")
                if precision != "fp32":
                    request = QuantizationRequest(data_type=precision.upper(), worst_cosine=-1.0)
                    proto = quantize_network(content, facts, calibration, request).proto
                network = proto.SerializeToString()
                with self.report.part(f"{self.backbone}: ONNX Runtime {precision}", seconds / 2) as runs:
                    if runs:
                        self.measure(f"ONNX Runtime {precision}", OnnxEngine(network, device=device))
                with self.report.part(f"{self.backbone}: TensorRT {precision}", 2 * seconds) as runs:
                    if runs:
                        path = folder / f"{self.backbone}-{precision}.engine"
                        build_engine(
                            network,
                            path,
                            read_graph_facts(proto, "the network", None, None),
                            BuildOptions(1, self.sizes.batch, self.sizes.batch),
                        )
                        self.measure(f"TensorRT {precision}", TensorRtEngine(path))


# ---- all ----


def measure_backbone(report: Report, backbone: str, images: ImageSet, sizes: Sizes, folder: Path) -> None:
    """Every figure of one backbone, the most important first."""
    parts: tuple[tuple[str, float, Callable[[], None]], ...] = (
        ("network alone", 10, lambda: measure_network(report, backbone, sizes)),
        ("ours", 20, lambda: measure_ours(report, backbone, images, sizes, folder, compiles=False)),
        ("plain script", 30, lambda: measure_plain(report, backbone, images, sizes)),
        ("ours, torch.compile", 60, lambda: measure_ours(report, backbone, images, sizes, folder, compiles=True)),
    )
    for name, seconds, measure in parts:
        with report.part(f"{backbone}: {name}", seconds) as fits:
            if fits:
                measure()
    with report.part(f"{backbone}: embedding", 20) as fits:
        if fits:
            embedding = Embedding(report, backbone, images, sizes)
            embedding.torch_engines()
            embedding.exported_engines(folder)


def describe_machine(report: Report) -> None:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    report.add(
        "machine",
        gpu=gpu,
        cores=len(os.sched_getaffinity(0)),
        load=round(os.getloadavg()[0], 1),
        python=platform.python_version(),
        **versions,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.5, help="parts that would pass this limit are left out")
    parser.add_argument("--backbones", default="resnet_50,vit_small_patch16_224")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on a CPU too; the figures mean nothing")
    parser.add_argument("--out", type=Path, help="write the figures there as JSON")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.smoke:
        print("skipped: no GPU here (--smoke runs the script on a CPU at tiny sizes)")
        return 0
    sizes, report = SMOKE if options.smoke else FULL, Report(options.minutes)
    set_verbosity(0)
    describe_machine(report)
    with tempfile.TemporaryDirectory() as name:
        images = draw_photographs(Path(name) / "images", sizes)
        for backbone in options.backbones.split(","):
            measure_backbone(report, backbone, images, sizes, Path(name))
    if options.out:
        options.out.write_text(json.dumps(report.rows, indent=1))
    failures = [row["part"] for row in report.rows if "failed" in row]
    print(f"{len(report.rows)} figures" + (f", failed: {', '.join(failures)}" if failures else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
