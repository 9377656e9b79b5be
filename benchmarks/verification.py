"""Verification on rendered brand marks: brands and kinds of tampering that calibration does not contain.

    python benchmarks/verification.py [--brands 100] [--skip 0] [--splits 40] [--rate 0.01] [--seed 0] [--rows rows.npz]
                                      [--frozen]

Every mark (every second one recolored, part by part) is rendered in benign images, tampered with in every kind, and
compared with other drawings; each image is measured against its own mark. Then, over random halves of the brands:
thresholds are calibrated on one half with the kinds SEEN, and evaluated on the other half, on the kinds SEEN, on the kinds
HELD_OUT, and on the kinds NEW, which exist in this file alone (nothing in the package was tuned on them). Reported are the
false non-match rate at false match rates of 1 % and 0.1 %, and whether the rate of false accepts lies inside the confidence
interval of the calibration. Localization accuracy: whether the strongest difference lies in the changed part (with a margin
of 3 % of the mark's longer side). Times are per core.

``--skip`` leaves out the first brands, on which settings were chosen. ``--rows`` saves the measures, or reads them where the
file exists. ``--frozen`` reports how often the frozen trunk proposes the right mark, and the time of a whole verification
(extra ``train``).
"""

from __future__ import annotations

import argparse
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from unalike.actions.demo_images import Mark, pick_marks
from unalike.errors import DataError
from unalike.metrics.roc import fnmr_at_fmr
from unalike.progress import progress
from unalike.runs.environment import usable_cores
from unalike.verification.asset import Asset, open_asset
from unalike.verification.asset_template import AssetTemplate
from unalike.verification.benign import render_benign, warp_layer
from unalike.verification.measures import AssetDifference
from unalike.verification.regions import find_peak
from unalike.verification.tampering import MIN_CHANGED_SHARE, TAMPERING, compute_changed_share, find_parts
from unalike.verification.thresholds import TrialMeasurements, compute_scores, fit_thresholds
from unalike.verification.trials import VerificationTrial, measure_asset, measure_row, render_trials

SEEN = ("recoloured", "part-recoloured", "stretched", "part-missing", "part-added")
HELD_OUT = tuple(kind for kind in TAMPERING if kind not in SEEN)
NEW = ("part-turned", "part-shrunk", "part-hollow")
GROUPS = (("seen", SEEN), ("held_out", HELD_OUT), ("new", NEW))
FALSE_MATCH_RATES = (0.01, 0.001)


def make_asset(name: str, mark: Mark, number: int) -> Asset:
    """An asset of a mark; of every second one up to four parts get a color of their own."""
    color = np.broadcast_to(mark.color.astype(np.uint8), (*mark.mask_MM.shape, 3))
    asset = open_asset(np.dstack([color, mark.mask_MM]), name)
    if number % 2:
        rng = np.random.default_rng(number)
        layer = asset.layer_HW4.copy()
        for mask in find_parts(asset)[:4]:
            layer[mask, :3] = rng.integers(0, 230, 3).astype(np.uint8)
        asset = Asset(name, layer, asset.background, asset.background_color)
    return asset


def render_all(asset: Asset, seed: int) -> list[VerificationTrial]:
    """8 benign images, 2 of each kind of the package, 2 of each new kind, 6 other drawings."""
    trials = list(render_trials([asset], genuine=8, tampered=0, others=6, seed=seed))
    for kind in TAMPERING:
        trials += render_trials([asset], genuine=0, tampered=2, others=0, kinds=[kind], seed=seed)
    for number, kind in enumerate(NEW):
        for copy in range(2):
            rng = np.random.default_rng([seed, zlib.crc32(asset.name.encode()), 4, number, copy])
            layer = tamper_anew(asset, kind, rng)
            if layer is not None:
                rendered = render_benign(asset, rng, layer_HW4=layer)
                trials.append(VerificationTrial(rendered.image_HW3, 0, kind, rendered.pose_23))
    return trials


def tamper_anew(asset: Asset, kind: str, rng: np.random.Generator) -> np.ndarray | None:
    """Rotate a part by 20 to 60 degrees, shrink it to 60 to 85 %, or hollow it; None where no change is visible."""
    # A mark of one part, rotated or shrunk, is the mark rotated or shrunk: no change.
    parts = [mask for mask in find_parts(asset) if mask.sum() < 0.6 * (asset.alpha_HW > 0.05).sum()]
    if not parts:
        return None
    for _ in range(12):
        mask = parts[int(rng.integers(len(parts)))]
        part, rest = asset.layer_HW4.copy(), asset.layer_HW4.copy()
        part[~mask, 3], rest[mask, 3] = 0, 0
        angle, size = np.deg2rad(rng.uniform(20, 60)) * rng.choice([-1, 1]), rng.uniform(0.6, 0.85)
        if kind == "part-hollow":
            width = max(2, round(0.03 * max(asset.size)))
            inner = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.MinFilter(2 * width + 1))
            part[np.asarray(inner) > 127, 3] = 0
        else:
            angle, size = (angle, 1.0) if kind == "part-turned" else (0.0, size)
            rows, columns = np.nonzero(mask)
            center = np.array([columns.mean(), rows.mean()])
            linear = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            color, alpha = warp_layer(part, np.column_stack([linear, center - linear @ center]), asset.size)
            part = np.dstack([color, 255 * alpha]).astype(np.uint8)
        layer = np.array(Image.alpha_composite(Image.fromarray(rest), Image.fromarray(part)))
        if compute_changed_share(asset.layer_HW4, layer) >= MIN_CHANGED_SHARE:
            return layer
    return None


def peak_in_change(trial: VerificationTrial, difference: AssetDifference | None, asset: Asset) -> float:
    """1 where the strongest difference lies in the changed part, else 0; NaN where no part was changed."""
    if trial.mask_HW is None or trial.is_global or difference is None:
        return float("nan")
    peak = np.array([*find_peak(difference), 1.0])
    in_image = np.array([*(np.asarray(difference.frame_to_image_23) @ peak), 1.0])
    x, y, _ = np.linalg.inv(np.vstack([trial.pose_23, [0, 0, 1]])) @ in_image
    margin = max(1, round(0.03 * max(asset.size)))
    height, width = trial.mask_HW.shape
    rows = slice(int(np.clip(y - margin, 0, height)), int(np.clip(y + margin + 1, 0, height)))
    columns = slice(int(np.clip(x - margin, 0, width)), int(np.clip(x + margin + 1, 0, width)))
    return float(trial.mask_HW[rows, columns].any())


def measure_brands(brands: int, skip: int, seed: int) -> dict[str, np.ndarray]:
    """Render and measure all trials; arrays ``measures``, ``pointed``, ``asset`` and ``kind``, one row per trial."""
    marks = pick_marks(skip + brands, seed)
    assets = [make_asset(name, mark, number) for number, (name, mark) in enumerate(marks.items())][skip:]
    templates = [AssetTemplate(asset) for asset in assets]
    seconds: list[float] = []

    def measure_brand(number: int) -> list[tuple[VerificationTrial, AssetDifference | None, float]]:
        template, rows = templates[number], []
        _ = template.coarse_maps  # computed outside the timed part
        trials = render_all(assets[number], seed)
        start = time.thread_time()
        for trial in trials:
            difference = measure_asset(template, trial.image_HW3)
            rows.append((trial, difference, peak_in_change(trial, difference, assets[number])))
        seconds.append((time.thread_time() - start) / len(trials))
        return rows

    rows: list[tuple[int, VerificationTrial, AssetDifference | None, float]] = []
    with ThreadPoolExecutor(usable_cores()) as pool, progress("comparing", brands, "brands") as advance:
        for number, brand_rows in enumerate(pool.map(measure_brand, range(brands))):
            rows += [(number, *row) for row in brand_rows]
            advance()
    print(f"{len(rows)} images of {brands} brands, located and measured in {1000 * np.median(seconds):.1f} ms of one core each "
          f"(median of brands; {1000 * min(seconds):.1f} to {1000 * max(seconds):.1f})")  # fmt: skip
    return {
        "measures": np.array([measure_row(difference) for _, _, difference, _ in rows]),
        "correlation": np.array([difference.pose.correlation if difference else 0.0 for _, _, difference, _ in rows]),
        "pointed": np.array([pointed for *_, pointed in rows]),
        "asset": np.array([number for number, *_ in rows]),
        "kind": np.array([trial.kind for _, trial, _, _ in rows]),
    }


def evaluate_split(rows: dict[str, np.ndarray], rate: float, split: int) -> dict[str, float] | None:
    """Calibrate on half of the brands, with the seen kinds, then with all but the new ones; evaluate on the other half."""
    brands = np.unique(rows["asset"])
    own_N = np.isin(rows["asset"], np.random.default_rng(split).permutation(brands)[: len(brands) // 2])
    trials, figures = to_measurements(rows), {}
    for known, groups in ((SEEN, GROUPS), (TAMPERING, (("new_after_all", NEW),))):
        try:
            calibration_N = own_N & np.isin(rows["kind"], [*known, "genuine", "other"])
            thresholds = fit_thresholds(trials.select(calibration_N), rate)
        except DataError as error:
            print(error)
            return None
        score_N = compute_scores(trials, thresholds.limits)
        genuine, other = (score_N[~own_N & (rows["kind"] == kind)] for kind in ("genuine", "other"))
        prefix = "" if known == SEEN else "all_kinds_"
        figures |= {f"{prefix}fnmr": float(np.mean(genuine < thresholds.threshold)),
                    f"{prefix}other_far": float(np.mean(other >= thresholds.threshold))}  # fmt: skip
        for name, kinds in groups:
            guarantee = thresholds.false_accept if name == "seen" else thresholds.false_accept_unseen
            assert guarantee is not None
            impostor = score_N[~own_N & np.isin(rows["kind"], kinds)]
            far = float(np.mean(impostor >= thresholds.threshold))
            figures |= {f"{name}_stated": guarantee.rate, f"{name}_low": guarantee.low, f"{name}_high": guarantee.high,
                        f"{name}_far": far, f"{name}_inside": float(guarantee.low <= far <= guarantee.high)}  # fmt: skip
            for fmr in FALSE_MATCH_RATES:
                figures[f"{name}_fnmr_at_{fmr:g}"] = fnmr_at_fmr(genuine, impostor, fmr)[0]
    return figures


def to_measurements(rows: dict[str, np.ndarray]) -> TrialMeasurements:
    """The rows as trials; the similarity, which was not measured, is 1."""
    similarity_N = np.ones(len(rows["asset"]))
    return TrialMeasurements(
        rows["measures"], rows["asset"], rows["kind"].astype(object), similarity_N, rows["correlation"]
    )


def evaluate_frozen_trunk(brands: int, seed: int) -> None:
    """Print how often the frozen trunk proposes the right mark, and the time of a verification."""
    from unalike.inference.feature_map_model import load_feature_maps
    from unalike.verification.verifier import MAX_CANDIDATES, Verifier

    marks = pick_marks(brands, seed)
    assets = [make_asset(name, mark, number) for number, (name, mark) in enumerate(marks.items())]
    trunk = load_feature_maps("pretrained", vector=True)
    verifier = Verifier.of(assets, trunk.engine, trunk.view)
    verifier.calibrate(0.05, trials=2, seed=seed)
    first, among, seconds, same = [], [], [], []
    for number, asset in enumerate(assets):
        image = render_benign(asset, np.random.default_rng([seed, number, 5])).image_HW3
        similarity = verifier.matcher.similarities(verifier.matcher.embed([image])[0])
        order = np.argsort(-similarity)
        first.append(order[0] == number)
        among.append(number in order[:MAX_CANDIDATES])
        start = time.perf_counter()
        result = verifier.verify(image)
        seconds.append(time.perf_counter() - start)
        same.append(result.answer == "same" and result.asset == asset.name)
    print(f"frozen {trunk.trunk}, {brands} marks, one benign image each: the right mark nearest {np.mean(first):.1%}, "
          f"among {MAX_CANDIDATES} {np.mean(among):.1%}; called the same {np.mean(same):.1%}; "
          f"{1000 * np.median(seconds):.0f} ms an image (median)")  # fmt: skip


def print_all_brands(rows: dict[str, np.ndarray], rate: float) -> None:
    """Print error rates by kind with thresholds calibrated on all brands and all kinds but the new ones."""
    trials = to_measurements(rows)
    thresholds = fit_thresholds(trials.select(~np.isin(rows["kind"], NEW)), rate)
    print("all brands, all kinds but the new:", thresholds)
    score_N = compute_scores(trials, thresholds.limits)
    genuine = score_N[rows["kind"] == "genuine"]
    for name, kinds in GROUPS:
        impostor = score_N[np.isin(rows["kind"], kinds)]
        rates = ", ".join(f"{fnmr_at_fmr(genuine, impostor, fmr)[0]:.2%} at {fmr:g}" for fmr in FALSE_MATCH_RATES)
        print(f"all brands together, kinds {name}: FNMR {rates} ({len(impostor)} altered images)")
    for kind in np.unique(rows["kind"]).tolist():
        of_kind = rows["kind"] == kind
        share = float(np.mean(score_N[of_kind] >= thresholds.threshold))
        pointed = rows["pointed"][of_kind]
        pointed = pointed[~np.isnan(pointed)]
        note = f"  strongest in the changed part {pointed.mean():.1%} of {len(pointed)}" if len(pointed) else ""
        print(f"{kind:16} {of_kind.sum():5} images, called the same {share:.2%}{note}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brands", type=int, default=100)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--splits", type=int, default=40)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--frozen", action="store_true")
    options = parser.parse_args()
    if options.frozen:
        evaluate_frozen_trunk(options.brands, options.seed)
        return
    if options.rows and options.rows.exists():
        rows = dict(np.load(options.rows, allow_pickle=False))
    else:
        rows = measure_brands(options.brands, options.skip, options.seed)
        if options.rows:
            np.savez(options.rows, **rows)
    splits = [evaluate_split(rows, options.rate, split) for split in range(options.splits)]
    figures = [split for split in splits if split]
    for name in figures[0] if figures else ():
        values = np.array([split[name] for split in figures])
        mean, median, low, high = values.mean(), np.median(values), values.min(), values.max()
        print(f"{name:20} mean {mean:.4f}  median {median:.4f}  from {low:.4f} to {high:.4f}")
    print_all_brands(rows, options.rate)


if __name__ == "__main__":
    main()
