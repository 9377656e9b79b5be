"""What cameras do to a picture: how far its vector moves, and what is still found, by trunk and head.

    python benchmarks/camera_changes.py --data DIR [--sets NAME,...] [--split development|report] [--queries 300] [--sample 400]
        [--weights 1,4,16] [--cache DIR] [--out DIR] [--backbone tf_efficientnet_lite0]

Recognition sets of `suite.py`. Heads are fitted to the frozen trunk's features of the images to fit to: none, the closed form that is
taken where no time is left to compare any, and the same with a further term in the scatter within classes, the second moment of the
differences between the features of ``--sample`` images and those of the same images moved by 1 and 2 pixels (``--weights`` times).
Queries are changed one way at a time, references stay as they are. Pixels are those of the network's input: a shift by one
moves the picture by 1/256 of its shorter side, edges repeated.

Per head and change: the 5th percentile and the median of the cosine between the vectors of a picture and of its changed copy, R@1 of the
changed queries, and its paired difference to that of the same head on unchanged ones. For unchanged queries the difference is to the head
without the further term. Writes OUT/camera_changes.jsonl.

Shape letters: N images, F features, D dimensions, Q queries.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import RecognitionSet
from PIL import Image, ImageEnhance, ImageFilter
from recognition_methods import embed_frozen
from suite import load_suite
from suite_recognition import choose_groups, format_interval, in_percent
from unlabeled import score_queries

from unalike.data.imageset import ImageSet
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.inference.embedding import embed_files
from unalike.inference.engine_selection import create_engine
from unalike.metrics.intervals import difference_interval, mean_interval
from unalike.model.frozen_trunk import build_frozen_trunk
from unalike.numerics.normalization import l2_normalize
from unalike.spec import load_spec
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.discriminant import ClassScatter, fit_scatter, sqrt_features
from unalike.training.heads.head_search import HeadSearchSpace

SETS = "grocery-by-scene,coins,flags,emoji-by-class"
SIDE = 256  # what the shorter side is resized to, about
Change = Callable[[Image.Image], Image.Image]


# ---- changes ----


def shift(pixels: float) -> Change:
    """Move a picture to the right and down; the edge is repeated."""

    def change(image: Image.Image) -> Image.Image:
        step = pixels * min(image.size) / SIDE
        array = np.pad(np.asarray(image), ((int(step) + 1,) * 2, (int(step) + 1,) * 2, (0, 0)), mode="edge")
        start = int(step) + 1 - step
        box = (start, start, start + image.width, start + image.height)
        return Image.fromarray(array).resize(image.size, Image.Resampling.BILINEAR, box=box)

    return change


def cut_one_pixel(image: Image.Image) -> Image.Image:
    """Cut one pixel of the file off at the left and at the top."""
    return image.crop((1, 1, image.width, image.height))


def blur(pixels: float) -> Change:
    """Blur by a Gaussian of this standard deviation."""
    return lambda image: image.filter(ImageFilter.GaussianBlur(pixels * min(image.size) / SIDE))


def expose(factor: float) -> Change:
    """Multiply the brightness."""
    return lambda image: ImageEnhance.Brightness(image).enhance(factor)


def compress(quality: int) -> Change:
    """Save as JPEG and read again."""

    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def enlarge(factor: float) -> Change:
    """Cut the center out, so that what is there appears larger."""

    def change(image: Image.Image) -> Image.Image:
        width, height = image.size
        x, y = width * (1 - 1 / factor) / 2, height * (1 - 1 / factor) / 2
        return image.resize(image.size, Image.Resampling.BILINEAR, box=(x, y, width - x, height - y))

    return change


CHANGES: dict[str, Change] = {
    "cut 1 px of the file": cut_one_pixel, "shift 1 px": shift(1), "shift 2 px": shift(2), "shift 4 px": shift(4),
    "blur 1 px": blur(1), "exposure x 0.8": expose(0.8), "exposure x 1.25": expose(1.25), "JPEG 75": compress(75),
    "JPEG 40": compress(40), "5 % larger": enlarge(1.05), "10 % larger": enlarge(1.1),
}  # fmt: skip
JITTER = (shift(1), shift(2))


@dataclass(frozen=True)
class ChangedView:
    """The evaluation view of changed pictures."""

    view: View
    change: Change

    def __call__(self, image: Any, *, max_pixels: int = 0) -> np.ndarray:
        return self.view(np.asarray(self.change(Image.open(image).convert("RGB"))))

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "view"), name)


def embed_changed(engine: Engine, images: ImageSet, view: View, change: Change) -> np.ndarray:
    """Features (N, F) of changed pictures."""
    embedded = embed_files(engine, images.paths, ChangedView(view, change), workers=1, describe="changed")
    assert len(embedded.kept_N) == len(images)
    return embedded.vectors_ND


# ---- heads ----


def with_jitter(scatter: ClassScatter, differences_MF: np.ndarray, weight: float) -> ClassScatter:
    """Add the second moment of differences between views of the same pictures to the scatter.

    Args:
        scatter: The scatter within classes.
        differences_MF: Differences (M, F) of features, after the square root where the scatter has it.
        weight: Of the second moment.
    """
    within_FF = (scatter.axes_FF * scatter.values_F) @ scatter.axes_FF.T
    total_FF = within_FF + weight * differences_MF.T @ differences_MF / len(differences_MF)
    values_F, axes_FF = np.linalg.eigh(total_FF)
    means_CF = scatter.means_CF @ scatter.axes_FF.T @ axes_FF
    return replace(scatter, axes_FF=axes_FF, values_F=np.maximum(values_F, 0), means_CF=means_CF)


def measure_set(data_set: RecognitionSet, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of a set: head by change."""
    lookup, rng = getattr(data_set, options.split), np.random.default_rng(0)
    known = lookup.reference is data_set.fit
    spec = load_spec("train", None, {"model.backbone": options.backbone})
    view = View.from_spec(spec)
    trunk = build_frozen_trunk(options.backbone, (view.height, view.width))
    facts = trunk.trunk.facts
    engine = create_engine(trunk, Preprocessing(view, facts.mean, facts.std), images=5000, quiet=True)
    fit_NF = embed_frozen(data_set.fit, options.backbone)
    reference_NF = fit_NF if known else embed_frozen(lookup.reference, options.backbone)
    rows = np.sort(rng.permutation(len(lookup.query))[: options.queries])
    query = lookup.query.select(rows)
    classes = lookup.reference.classes
    label_Q = np.array([classes.index(label) for label in query.label_names()])
    group_Q = choose_groups(label_Q, np.unique(np.array(query.groups), return_inverse=True)[1])[1]
    changed = {"unchanged": embed_frozen(query, options.backbone)}
    changed |= {name: embed_changed(engine, query, view, change) for name, change in CHANGES.items()}
    sample = data_set.fit.select(np.sort(rng.permutation(len(data_set.fit))[: options.sample]))
    sample_MF = embed_frozen(sample, options.backbone)
    moved = [embed_changed(engine, sample, view, change) for change in JITTER]
    config: HeadConfig = HeadSearchSpace.from_spec(spec, classes=len(data_set.fit.classes)).uncompared_head(
        "known-classes" if known else "new-classes"
    )
    scatter = fit_scatter(fit_NF, data_set.fit.labels_N, sqrt=config.sqrt)

    def root(x_NF: np.ndarray) -> np.ndarray:
        return sqrt_features(x_NF) if config.sqrt else x_NF

    differences_MF = np.concatenate([root(x_MF) - root(sample_MF) for x_MF in moved]).astype(np.float64)
    heads: dict[str, Callable[[np.ndarray], np.ndarray]] = {"none": lambda x_NF: x_NF}
    heads["closed form"] = scatter.whiten(config.shrinkage).head(config.residual)
    for weight in map(float, options.weights.split(",")):
        whitening = with_jitter(scatter, differences_MF, weight).whiten(config.shrinkage)
        heads[f"closed form, views x {weight:g}"] = whitening.head(config.residual)
    result, base_Q = [], None
    for name, head in heads.items():
        reference_ND = head(reference_NF)
        still_QD = l2_normalize(head(changed["unchanged"]))
        still_Q = None
        for change, features_QF in changed.items():
            vectors_QD = l2_normalize(head(features_QF))
            cosine_Q = (vectors_QD * still_QD).sum(axis=1)
            hits_Q, precision_Q = score_queries(reference_ND, vectors_QD, (lookup.reference.labels_N, label_Q))
            still_Q = hits_Q if still_Q is None else still_Q
            base_Q = hits_Q if name == "closed form" and change == "unchanged" else base_Q
            other_Q = base_Q if change == "unchanged" and base_Q is not None else still_Q
            result.append({
                "set": data_set.name, "split": options.split, "queries": len(label_Q), "head": name, "change": change,
                "cosine, 5th percentile": round(float(np.percentile(cosine_Q, 5)), 4), "cosine, median": round(float(np.median(cosine_Q)), 4),
                "R@1": in_percent(mean_interval(hits_Q, group_Q)), "difference": in_percent(difference_interval(other_Q, hits_Q, group_Q)),
                "MAP@R": in_percent(mean_interval(precision_Q, group_Q)),
            })  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default=SETS)
    parser.add_argument("--split", choices=("development", "report"), default="development")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--sample", type=int, default=400)
    parser.add_argument("--weights", default="1,4,16")
    parser.add_argument("--cache", type=Path, default=Path("suite-cache"))
    parser.add_argument("--out", type=Path, default=Path("camera-changes"))
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    options = parser.parse_args()
    sets, missing = load_suite(options.data, options.cache, options.sets.split(","))
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}")
    options.out.mkdir(parents=True, exist_ok=True)
    for data_set in sets.values():
        for row in measure_set(data_set, options):
            with (options.out / "camera_changes.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{row['set']}, n = {row['queries']}, {row['head']}, {row['change']}: cosine {row['cosine, 5th percentile']:.3f} "
                  f"(median {row['cosine, median']:.3f}), R@1 {format_interval(row['R@1'])} "
                  f"({format_interval(row['difference'], '+')}), MAP@R {row['MAP@R']['value']}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
