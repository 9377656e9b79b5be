"""Inspection of magnetic tiles (Huang et al., 2018): fit on good images of conditions exp1 and exp2, test on exp3 as well.

    python benchmarks/magnetic_tile.py --data DIR                    the final figures, by the command line's own settings
    python benchmarks/magnetic_tile.py --data DIR --explore          settings compared; sees exp1 and exp2 alone
    python benchmarks/magnetic_tile.py --data DIR --peer anomalib    the same protocol with anomalib's PatchCore

DIR holds a folder a defect and MT_Free; the PNG beside each JPEG is its mask. The conditions are the same tiles under three
exposures, and one tile was photographed several times in a row, so tiles are split by blocks of neighbouring numbers: no
block is both fitted on and tested. Reported: image AUROC, pixel AUROC, PRO (limit 0.3), the false-alarm rate at the threshold
that was fixed on the fitting images, images a second with decoding, memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from data_sources import marks_pixels, tile_mask

from unalike.cli.shared_options import parse_size
from unalike.data.decode import open_image
from unalike.data.masks import read_mask
from unalike.data.tiling import Tiling
from unalike.inference.feature_map_model import load_feature_maps
from unalike.inspection.anomaly_model import AnomalyModel, AnomalyModelConfig
from unalike.inspection.ground_truth import GroundTruth, compute_metrics
from unalike.inspection.inspector import Inspector
from unalike.inspection.normal_images import ReadableImages, sample_patches
from unalike.inspection.patch_features import PatchExtractor, patch_positions
from unalike.inspection.result import Inspection
from unalike.metrics.localization import per_region_overlap, pixel_auroc
from unalike.metrics.roc import auroc
from unalike.numerics.maps import gaussian_filter

FREE = "MT_Free"
BLOCK = 2000  # of the number in a file's name
TRUTH = GroundTruth(FREE)


def condition(path: str) -> str:
    """exp1 to exp3."""
    return Path(path).name.split("_")[0]


def block(path: str) -> int:
    """Block of a photograph's number: neighboring numbers are photographs of the same tile."""
    return int(Path(path).stem.split("_num_")[1]) // BLOCK


def split(root: Path, holdout_share: float = 0.2, by: str = "blocks") -> tuple[list[str], set[str]]:
    """Return all images, and the good ones that are left out of fitting.

    By blocks of numbers, or drawn one by one (``random``) as in published figures, with photographs of one tile on both sides.
    """
    paths = sorted(str(path) for path in root.glob("*/*.jpg"))
    good = [path for path in paths if is_good(path)]
    if by == "random":
        order = np.random.default_rng(0).permutation(len(good))[: round(holdout_share * len(good))]
        return paths, {good[i] for i in order}
    blocks = np.unique([block(path) for path in good])
    np.random.default_rng(0).shuffle(blocks)
    holdout_blocks = set(blocks[: round(holdout_share * len(blocks))].tolist())
    return paths, {path for path in good if block(path) in holdout_blocks}


def selection_defects(paths: list[str]) -> set[str]:
    """The defective tiles of exp1 and exp2 that settings were chosen on (2026-11-26): half of them, by blocks of numbers."""
    blocks = np.unique([block(path) for path in paths if not is_good(path)])
    np.random.default_rng(1).shuffle(blocks)
    selection_blocks = set(blocks[::2].tolist())
    return {
        path for path in paths if not is_good(path) and condition(path) != "exp3" and block(path) in selection_blocks
    }


def is_good(path: str) -> bool:
    """Whether the tile is free of defects."""
    return Path(path).parent.name == FREE


def defect_mask(path: str, size: tuple[int, int]) -> np.ndarray:
    """The marked pixels, bool (H, W); none in good images and in the one whose published mask is empty."""
    mask = tile_mask(Path(path))
    return np.zeros(size, np.bool_) if is_good(path) or not marks_pixels(mask) else read_mask(mask, size)


# ---- comparison of settings, on exp1 and exp2 only ----

TILINGS = [((416, 320), 1.0, "as-is", "fp32"), ((224, 224), 0.6, "as-is", "fp32"), ((224, 224), 0.6, "even", "fp32")]
CONFIGS: list[dict[str, Any]] = [
    {"whiten": 1.0, "local": 1.0}, {"whiten": 1.0, "local": 0.0}, {"whiten": 0.5, "local": 1.0}, {"whiten": 0.0, "local": 1.0},
    {"whiten": 1.0, "local": 1.0, "smooth": 2.0},
]  # fmt: skip


def explore(root: Path, stages: list[int], max_images: int) -> None:
    """Fit settings on good tiles of exp1 and print their AUROC on the others of exp1 and on exp2."""
    paths, holdout = split(root, 0.4)
    candidates = [path for path in paths if condition(path) != "exp3"]
    fit_paths = [path for path in candidates if is_good(path) and condition(path) == "exp1" and path not in holdout][
        :max_images
    ]
    test_paths = [path for path in candidates if not is_good(path) or path in holdout]
    for size, scale, light, precision in TILINGS:
        engine: Any = load_feature_maps(
            "pretrained", stages=stages, size=size, vector=False, precision=precision
        ).engine
        extractor = PatchExtractor(engine, Tiling(*size, "scale", scale, light))
        start = time.perf_counter()
        tiles = {path: list(_patches(extractor, path)) for path in test_paths}
        rate = len(tiles) / (time.perf_counter() - start)
        patches = sample_patches(ReadableImages(fit_paths), extractor, AnomalyModelConfig(patches=20_000, memory=2_000))
        for settings in CONFIGS:
            config = AnomalyModelConfig(patches=20_000, memory=2_000, **settings)
            model = patches.fit_model(config)
            anomaly_maps = {
                path: _whole_map(model, tiles[path], config.smooth, extractor.stride) for path in test_paths
            }
            print(
                f"size {size} scale {scale} {light} stages {stages} {settings}: {_format_auroc(anomaly_maps)}; {rate:.1f} images/s",
                flush=True,
            )


def _patches(extractor: PatchExtractor, path: str) -> Iterator[tuple[np.ndarray, tuple[int, ...]]]:
    for tile in extractor(open_image(path)):
        height, width, channels = tile.vectors_hwF.shape
        yield tile.vectors_hwF.reshape(-1, channels).astype(np.float16), (tile.top, tile.left, height, width)


def _whole_map(
    model: AnomalyModel, tiles: list[tuple[np.ndarray, tuple[int, ...]]], smooth: float, stride: int
) -> np.ndarray:
    grid = max(t + h for _, (t, _, h, _) in tiles), max(left + w for _, (_, left, _, w) in tiles)
    total_hw, weight_hw = np.zeros(grid, np.float32), np.zeros(grid, np.float32)
    for vectors, (top, left, height, width) in tiles:
        window = np.s_[top : top + height, left : left + width]
        vectors_hwF = vectors.astype(np.float32).reshape(height, width, -1)
        total_hw[window] += model.anomaly_maps(vectors_hwF, patch_positions(top, left, (height, width), grid, stride))[
            0
        ]
        weight_hw[window] += 1
    return gaussian_filter(total_hw / weight_hw, smooth)


def _format_auroc(anomaly_maps: dict[str, np.ndarray]) -> str:
    """Image AUROC of exp1 and exp2 by four scores of an anomaly map, and by kind of defect for the first score."""
    reductions = {"max": lambda h: h.max(), "top5": lambda h: np.sort(h.ravel())[-5:].mean(),
            "1%": lambda h: np.sort(h.ravel())[-max(1, h.size // 100) :].mean(), "max-median": lambda h: h.max() - np.median(h)}  # fmt: skip
    parts = []
    for name, reduce in reductions.items():
        score = {path: float(reduce(anomaly_map)) for path, anomaly_map in anomaly_maps.items()}
        values = []
        for prefix in ("exp1", "exp2", "exp"):
            bad = np.array([s for p, s in score.items() if not is_good(p) and condition(p).startswith(prefix)])
            good = np.array([s for p, s in score.items() if is_good(p) and condition(p).startswith(prefix)])
            values.append(f"{auroc(bad, good):.3f}")
        parts.append(f"{name} {' '.join(values)}")
    good = np.array([anomaly_map.max() for path, anomaly_map in anomaly_maps.items() if is_good(path)])
    kinds = sorted({Path(path).parent.name for path in anomaly_maps} - {FREE})
    by_kind = [
        f"{kind[3:6]} {auroc(np.array([h.max() for p, h in anomaly_maps.items() if kind in p]), good):.2f}"
        for kind in kinds
    ]
    return "; ".join([*parts, " ".join(by_kind)])


# ---- final figures ----


def evaluate(
    root: Path, rate: float, settings: dict[str, Any], recipe: dict[str, Any], out: Path | None, by: str = "blocks",
    inspector_file: Path | None = None,
) -> None:  # fmt: skip
    """Fit, calibrate the threshold and inspect the images that were not used for fitting."""
    paths, holdout = split(root, by=by)
    fit_paths = [p for p in paths if is_good(p) and condition(p) != "exp3" and p not in holdout]
    start = time.perf_counter()
    if inspector_file is not None and inspector_file.exists():
        inspector = Inspector.load(inspector_file)
    else:
        inspector = Inspector.fit(
            fit_paths,
            rate=rate,
            parts=[block(p) for p in fit_paths],
            config=AnomalyModelConfig.from_dict({**AnomalyModelConfig().to_dict(), **recipe}),
            **settings,
        )
        if inspector_file is not None:
            inspector.save(inspector_file)
    fit_seconds = time.perf_counter() - start
    print(f"fitted on {len(fit_paths)} images in {fit_seconds:.0f} s: {inspector.threshold}", flush=True)
    parts = {
        "within (exp1, exp2)": [p for p in paths if condition(p) != "exp3" and (not is_good(p) or p in holdout)],
        "across (exp3)": [p for p in paths if condition(p) == "exp3"],
        "across, other tiles": [p for p in paths if condition(p) == "exp3" and (not is_good(p) or p in holdout)],
    }
    selection_paths = selection_defects(paths)
    parts["within, defects not chosen on"] = [p for p in parts["within (exp1, exp2)"] if p not in selection_paths]
    test_paths = list(dict.fromkeys(p for part in parts.values() for p in part))
    start = time.perf_counter()
    inspections = {path: inspector.inspect(path) for path in test_paths}
    rate_per_s = len(test_paths) / (time.perf_counter() - start)
    figures = {name: _figures([inspections[p] for p in part]) for name, part in parts.items()}
    memory = {
        "memory": len(inspector.model.memory),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    figures["cost"] = {
        "images_per_s": round(rate_per_s, 1),
        "fit_s": round(fit_seconds, 1),
        **memory,
        **inspector.network.engine.describe(),
    }
    print(json.dumps(figures, indent=1))
    if out is not None:
        out.write_text(
            json.dumps({"settings": settings, "recipe": recipe, **figures}, indent=1) + "\n", encoding="utf-8"
        )


def _figures(inspections: list[Inspection]) -> dict[str, Any]:
    metrics = compute_metrics(inspections, TRUTH)
    anomaly_maps, masks = [], []
    for inspection in inspections:
        size = (max(1, inspection.size[0] // 2), max(1, inspection.size[1] // 2))
        anomaly_maps.append(inspection.anomaly_map(size))
        mask = defect_mask(inspection.source, inspection.size)
        masks.append(mask[: 2 * size[0] : 2, : 2 * size[1] : 2])
    return {**metrics, "pixel_auroc": pixel_auroc(anomaly_maps, masks), "pro": per_region_overlap(anomaly_maps, masks)}


# ---- anomalib ----


def peer(root: Path, rate: float, side: int, ratio: float) -> None:
    """Evaluate anomalib's PatchCore with its own square view and the same trunk."""
    import torch

    from unalike.model.backbones import best_available_trunk, build_trunk

    paths, holdout = split(root)
    trunk = build_trunk(best_available_trunk(), pretrained="true", input_size=(side, side))
    # After the trunk: building that makes a torchvision for another torch importable.
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(layers=["blocks.2", "blocks.4"], backbone=trunk.name, pre_trained=False)
    body = model.feature_extractor.feature_extractor
    weights = trunk.net.state_dict()
    body.load_state_dict({name: weights[name] for name in body.state_dict()})
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (trunk.facts.mean, trunk.facts.std))

    def load_input(path: str) -> torch.Tensor:
        pixels = np.asarray(open_image(path).resize((side, side)), np.float32) / 255
        return (torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()) - mean) / std

    fit_paths = [p for p in paths if is_good(p) and condition(p) != "exp3" and p not in holdout]
    start = time.perf_counter()
    model.train()
    with torch.no_grad():
        for path in fit_paths:
            model(load_input(path))
        model.subsample_embedding(ratio)
        model.eval()
        print(
            f"fitted on {len(fit_paths)} in {time.perf_counter() - start:.0f} s, memory {len(model.memory_bank)}",
            flush=True,
        )
        test_paths = [p for p in paths if p not in set(fit_paths)]
        start = time.perf_counter()
        outputs = {path: model(load_input(path)) for path in test_paths}
    rate_per_s = len(test_paths) / (time.perf_counter() - start)
    for name, exps in (("within (exp1, exp2)", ("exp1", "exp2")), ("across (exp3)", ("exp3",))):
        part = [p for p in test_paths if condition(p) in exps]
        scores = {p: float(outputs[p].pred_score) for p in part}
        good = np.array([s for p, s in scores.items() if is_good(p)])
        bad = np.array([s for p, s in scores.items() if not is_good(p)])
        anomaly_maps, masks = [], []
        for path in part:
            picture = open_image(path)
            size = (picture.height, picture.width)
            smaller = (size[0] // 2, size[1] // 2)
            anomaly_map = torch.nn.functional.interpolate(outputs[path].anomaly_map, smaller, mode="bilinear")
            anomaly_maps.append(anomaly_map[0, 0].numpy())
            mask = defect_mask(path, size)
            masks.append(mask[: 2 * smaller[0] : 2, : 2 * smaller[1] : 2])
        print(
            f"{name}: image AUROC {auroc(bad, good):.4f}, pixel AUROC {pixel_auroc(anomaly_maps, masks):.4f}, PRO {per_region_overlap(anomaly_maps, masks):.4f}"
        )
    print(
        f"{rate_per_s:.1f} images/s, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB; rate {rate} does not apply to it"
    )


def main() -> None:
    """Parse the options and run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--explore", action="store_true")
    parser.add_argument("--peer", choices=("anomalib",))
    parser.add_argument("--keep", type=Path, help="the inspector's file: loaded where it exists, else written")
    parser.add_argument("--split", choices=("blocks", "random"), default="blocks")
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--size", default="416x320", help="height x width of the network; --peer: side")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--light", default="as-is")
    parser.add_argument("--stages", default="16")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--most", type=int, default=130, help="with --explore: good images to fit on")
    parser.add_argument("--ratio", type=float, default=0.01, help="with --peer: of patches kept")
    parser.add_argument("--recipe", type=json.loads, default={}, help='such as {"memory": 2000}')
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    size = parse_size(options.size) or (320, 320)
    stages = [int(text) for text in options.stages.split(",")]
    if options.explore:
        explore(options.data, stages, options.most)
    elif options.peer:
        peer(options.data, options.rate, size[0], options.ratio)
    else:
        settings = {"size": size, "scale": options.scale, "fit": "scale", "light": options.light,
                    "stages": stages, "precision": options.precision}  # fmt: skip
        evaluate(options.data, options.rate, settings, options.recipe, options.out, options.split, options.keep)


if __name__ == "__main__":
    main()
