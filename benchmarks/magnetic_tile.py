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

from unalike.cli.options import parse_size
from unalike.data.tiling import Tiling
from unalike.inference.feature_map_model import load_feature_maps
from unalike.inspection.anomaly_model import AnomalyModel, AnomalyModelConfig
from unalike.inspection.few_shot import read_mask
from unalike.inspection.ground_truth import GroundTruth, compute_metrics
from unalike.inspection.inspector import Inspector
from unalike.inspection.normal_images import ReadableImages, load_image, sample_patches
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
    """Neighbouring numbers are photographs of the same tiles."""
    return int(Path(path).stem.split("_num_")[1]) // BLOCK


def split(root: Path, held_share: float = 0.2, by: str = "blocks") -> tuple[list[str], set[str]]:
    """All images, and the good ones that are kept from fitting: whole blocks, or drawn one by one (``random``), as
    published figures do, with photographs of one tile on both sides."""
    paths = sorted(str(path) for path in root.glob("*/*.jpg"))
    good = [path for path in paths if is_good(path)]
    if by == "random":
        drawn = np.random.default_rng(0).permutation(len(good))[: round(held_share * len(good))]
        return paths, {good[place] for place in drawn}
    blocks = np.unique([block(path) for path in good])
    np.random.default_rng(0).shuffle(blocks)
    held = set(blocks[: round(held_share * len(blocks))].tolist())
    return paths, {path for path in good if block(path) in held}


def chosen_on(paths: list[str]) -> set[str]:
    """The defective tiles of exp1 and exp2, half of them by blocks of numbers, that settings were chosen on (2026-11-26)."""
    blocks = np.unique([block(path) for path in paths if not is_good(path)])
    np.random.default_rng(1).shuffle(blocks)
    mine = set(blocks[::2].tolist())
    return {path for path in paths if not is_good(path) and condition(path) != "exp3" and block(path) in mine}


def is_good(path: str) -> bool:
    """Whether the tile is free of defects."""
    return Path(path).parent.name == FREE


# ---- settings compared, on exp1 and exp2 alone ----

TILINGS = [((416, 320), 1.0, "as-is", "fp32"), ((224, 224), 0.6, "as-is", "fp32"), ((224, 224), 0.6, "even", "fp32")]
CONFIGS: list[dict[str, Any]] = [
    {"whiten": 1.0, "local": 1.0}, {"whiten": 1.0, "local": 0.0}, {"whiten": 0.5, "local": 1.0}, {"whiten": 0.0, "local": 1.0},
    {"whiten": 1.0, "local": 1.0, "smooth": 2.0},
]  # fmt: skip


def explore(root: Path, stages: list[int], most: int) -> None:
    """Fit on exp1's good tiles, score exp1's others and exp2: which settings carry from one condition to the next?"""
    paths, held = split(root, 0.4)
    known = [path for path in paths if condition(path) != "exp3"]
    fitted = [path for path in known if is_good(path) and condition(path) == "exp1" and path not in held][:most]
    tested = [path for path in known if not is_good(path) or path in held]
    for size, scale, light, precision in TILINGS:
        engine: Any = load_feature_maps(
            "pretrained", stages=stages, size=size, vector=False, precision=precision
        ).engine
        extractor = PatchExtractor(engine, Tiling(*size, "scale", scale, light))
        start = time.perf_counter()
        kept = {path: list(_patches(extractor, path)) for path in tested}
        rate = len(kept) / (time.perf_counter() - start)
        drawn = sample_patches(ReadableImages(fitted), extractor, AnomalyModelConfig(patches=20_000, memory=2_000))
        for settings in CONFIGS:
            config = AnomalyModelConfig(patches=20_000, memory=2_000, **settings)
            model = drawn.fit_model(config)
            heats = {path: _whole_map(model, kept[path], config.smooth, extractor.stride) for path in tested}
            print(
                f"size {size} scale {scale} {light} stages {stages} {settings}: {_told(heats)}; {rate:.1f} images/s",
                flush=True,
            )


def _patches(extractor: PatchExtractor, path: str) -> Iterator[tuple[np.ndarray, tuple[int, ...]]]:
    for tile in extractor(load_image(path)):
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
        total_hw[window] += model.anomaly_map(vectors_hwF, patch_positions(top, left, (height, width), grid, stride))
        weight_hw[window] += 1
    return gaussian_filter(total_hw / weight_hw, smooth)


def _told(heats: dict[str, np.ndarray]) -> str:
    """Image AUROC of exp1 and exp2 by four ways to make one score of a heat map, and by kind for the first."""
    ways = {"max": lambda h: h.max(), "top5": lambda h: np.sort(h.ravel())[-5:].mean(),
            "1%": lambda h: np.sort(h.ravel())[-max(1, h.size // 100) :].mean(), "max-median": lambda h: h.max() - np.median(h)}  # fmt: skip
    parts = []
    for name, way in ways.items():
        score = {path: float(way(heat)) for path, heat in heats.items()}
        found = []
        for what in ("exp1", "exp2", "exp"):
            bad = np.array([s for p, s in score.items() if not is_good(p) and condition(p).startswith(what)])
            good = np.array([s for p, s in score.items() if is_good(p) and condition(p).startswith(what)])
            found.append(f"{auroc(bad, good):.3f}")
        parts.append(f"{name} {' '.join(found)}")
    good = np.array([heat.max() for path, heat in heats.items() if is_good(path)])
    kinds = sorted({Path(path).parent.name for path in heats} - {FREE})
    by_kind = [
        f"{kind[3:6]} {auroc(np.array([h.max() for p, h in heats.items() if kind in p]), good):.2f}" for kind in kinds
    ]
    return "; ".join([*parts, " ".join(by_kind)])


# ---- the final figures ----


def final(
    root: Path, rate: float, settings: dict[str, Any], recipe: dict[str, Any], out: Path | None, by: str = "blocks",
    kept: Path | None = None,
) -> None:  # fmt: skip
    """Fit, fix the threshold, look at what was not fitted on."""
    paths, held = split(root, by=by)
    fitted = [p for p in paths if is_good(p) and condition(p) != "exp3" and p not in held]
    start = time.perf_counter()
    if kept is not None and kept.exists():
        inspector = Inspector.load(kept)
    else:
        inspector = Inspector.fit(
            fitted,
            rate=rate,
            parts=[block(p) for p in fitted],
            config=AnomalyModelConfig.from_dict({**AnomalyModelConfig().to_dict(), **recipe}),
            **settings,
        )
        if kept is not None:
            inspector.save(kept)
    spent = time.perf_counter() - start
    print(f"fitted on {len(fitted)} images in {spent:.0f} s: {inspector.threshold}", flush=True)
    parts = {
        "within (exp1, exp2)": [p for p in paths if condition(p) != "exp3" and (not is_good(p) or p in held)],
        "across (exp3)": [p for p in paths if condition(p) == "exp3"],
        "across, other tiles": [p for p in paths if condition(p) == "exp3" and (not is_good(p) or p in held)],
    }
    seen = chosen_on(paths)
    parts["within, defects not chosen on"] = [p for p in parts["within (exp1, exp2)"] if p not in seen]
    looked = list(dict.fromkeys(p for part in parts.values() for p in part))
    start = time.perf_counter()
    found = {path: inspector.inspect(path) for path in looked}
    speed = len(looked) / (time.perf_counter() - start)
    told = {name: _figures([found[p] for p in part]) for name, part in parts.items()}
    memory = {
        "memory": len(inspector.model.memory),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    told["cost"] = {
        "images_per_s": round(speed, 1),
        "fit_s": round(spent, 1),
        **memory,
        **inspector.network.engine.describe(),
    }
    print(json.dumps(told, indent=1))
    if out is not None:
        out.write_text(json.dumps({"settings": settings, "recipe": recipe, **told}, indent=1) + "\n", encoding="utf-8")


def _figures(found: list[Inspection]) -> dict[str, Any]:
    told = compute_metrics(found, TRUTH)
    heats, masks = [], []
    for one in found:
        size = (max(1, one.size[0] // 2), max(1, one.size[1] // 2))
        heats.append(one.anomaly_map(size))
        whole = (
            np.zeros(one.size, np.bool_)
            if is_good(one.source)
            else read_mask(Path(one.source).with_suffix(".png"), one.size)
        )
        masks.append(whole[: 2 * size[0] : 2, : 2 * size[1] : 2])
    return {**told, "pixel_auroc": pixel_auroc(heats, masks), "pro": per_region_overlap(heats, masks)}


# ---- the peer ----


def peer(root: Path, rate: float, side: int, ratio: float) -> None:
    """anomalib's PatchCore, its own view of an image (square), with the same trunk; its threshold by the same rule."""
    import torch

    from unalike.model.backbones import best_available_trunk, build_trunk

    paths, held = split(root)
    trunk = build_trunk(best_available_trunk(), pretrained="true", input_size=(side, side))
    # After the trunk: building that makes a torchvision for another torch importable.
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(layers=["blocks.2", "blocks.4"], backbone=trunk.name, pre_trained=False)
    body = model.feature_extractor.feature_extractor
    held_weights = trunk.net.state_dict()
    body.load_state_dict({name: held_weights[name] for name in body.state_dict()})
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (trunk.facts.mean, trunk.facts.std))

    def shown(path: str) -> torch.Tensor:
        pixels = np.asarray(load_image(path).resize((side, side)), np.float32) / 255
        return (torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()) - mean) / std

    fitted = [p for p in paths if is_good(p) and condition(p) != "exp3" and p not in held]
    start = time.perf_counter()
    model.train()
    with torch.no_grad():
        for path in fitted:
            model(shown(path))
        model.subsample_embedding(ratio)
        model.eval()
        print(
            f"fitted on {len(fitted)} in {time.perf_counter() - start:.0f} s, memory {len(model.memory_bank)}",
            flush=True,
        )
        tested = [p for p in paths if p not in set(fitted)]
        start = time.perf_counter()
        found = {path: model(shown(path)) for path in tested}
    speed = len(tested) / (time.perf_counter() - start)
    for name, exps in (("within (exp1, exp2)", ("exp1", "exp2")), ("across (exp3)", ("exp3",))):
        part = [p for p in tested if condition(p) in exps]
        scores = {p: float(found[p].pred_score) for p in part}
        good = np.array([s for p, s in scores.items() if is_good(p)])
        bad = np.array([s for p, s in scores.items() if not is_good(p)])
        heats, masks = [], []
        for path in part:
            picture = load_image(path)
            size = (picture.height, picture.width)
            smaller = (size[0] // 2, size[1] // 2)
            heat = torch.nn.functional.interpolate(found[path].anomaly_map, smaller, mode="bilinear")
            heats.append(heat[0, 0].numpy())
            whole = np.zeros(size, np.bool_) if is_good(path) else read_mask(Path(path).with_suffix(".png"), size)
            masks.append(whole[: 2 * smaller[0] : 2, : 2 * smaller[1] : 2])
        print(
            f"{name}: image AUROC {auroc(bad, good):.4f}, pixel AUROC {pixel_auroc(heats, masks):.4f}, PRO {per_region_overlap(heats, masks):.4f}"
        )
    print(
        f"{speed:.1f} images/s, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB; rate {rate} is not settled by it"
    )


def main() -> None:
    """Parse, run one of the three."""
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
    words = parser.parse_args()
    size = parse_size(words.size) or (320, 320)
    stages = [int(word) for word in words.stages.split(",")]
    if words.explore:
        explore(words.data, stages, words.most)
    elif words.peer:
        peer(words.data, words.rate, size[0], words.ratio)
    else:
        settings = {"size": size, "scale": words.scale, "fit": "scale", "light": words.light,
                    "stages": stages, "precision": words.precision}  # fmt: skip
        final(words.data, words.rate, settings, words.recipe, words.out, words.split, words.keep)


if __name__ == "__main__":
    main()
