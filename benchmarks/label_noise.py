"""What wrong labels cost a head in closed form, and what label weights give back.

    python benchmarks/label_noise.py --data DIR [--sets NAME,...] [--split development|report] [--cache DIR] [--out DIR]
        [--rates 0,0.03,0.1,0.3] [--seeds 3] [--backbone tf_efficientnet_lite0]

Recognition sets of `suite.py`, the frozen trunk's features, the head that is taken where no time is left to compare any. Of the images to
fit to, a share gets the label of another class, drawn evenly; references and queries keep theirs. ``plain``: all images count alike.
``weights``: label weights in any case. ``delivered``: label weights where automatic training would take them. ``right labels alone``: the
images with a wrong label are left out. Writes OUT/label_noise.jsonl: R@1 and MAP@R, means over the seeds, with paired differences to
``plain`` (values of a query are averaged over the seeds), and the shares of suspected labels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from data_sets import RecognitionSet
from recognition_methods import Task, load_task
from suite import NAMES, load_suite
from suite_recognition import choose_groups, format_interval, in_percent
from unlabeled import score_queries

from unalike.metrics.intervals import difference_interval, mean_interval
from unalike.spec import load_spec
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.discriminant import FittedHead, fit_whitening
from unalike.training.heads.head_search import HeadSearchSpace
from unalike.training.heads.label_weights import MIN_SUSPECTED_SHARE, label_weights, suspected_share

PLAIN, WEIGHTS, DELIVERED, RIGHT = "plain", "weights", "delivered", "right labels alone"


def flip_labels(label_M: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """Give a share of the images the label of another class, drawn evenly."""
    rng = np.random.default_rng([seed, round(1000 * rate)])
    classes = np.unique(label_M)
    flipped_M = label_M.copy()
    for row in np.flatnonzero(rng.random(len(label_M)) < rate):
        flipped_M[row] = rng.choice(classes[classes != label_M[row]])
    return flipped_M


def fit_heads(task: Task, label_M: np.ndarray, config: HeadConfig) -> tuple[dict[str, FittedHead], float]:
    """The heads of all ways, and the share of suspected labels."""
    right_M = label_M == task.fit_label_M
    share = suspected_share(task.fit_MF, label_M)

    def fit(weights_M: np.ndarray | None) -> FittedHead:
        return fit_whitening(
            task.fit_MF, label_M, sqrt=config.sqrt, shrinkage=config.shrinkage, weights_N=weights_M
        ).head(config.residual)

    heads = {PLAIN: fit(None), WEIGHTS: fit(label_weights(task.fit_MF, label_M))}
    heads[DELIVERED] = heads[WEIGHTS if share >= MIN_SUSPECTED_SHARE else PLAIN]
    heads[RIGHT] = heads[PLAIN] if right_M.all() else fit(np.where(right_M, 1.0, 1e-6))
    return heads, share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default=",".join(NAMES))
    parser.add_argument("--split", choices=("development", "report"), default="development")
    parser.add_argument("--cache", type=Path, default=Path("suite-cache"))
    parser.add_argument("--out", type=Path, default=Path("label-noise"))
    parser.add_argument("--rates", default="0,0.03,0.1,0.3")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    options = parser.parse_args()
    sets, missing = load_suite(options.data, options.cache, options.sets.split(","))
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}")
    options.out.mkdir(parents=True, exist_ok=True)
    spec = load_spec("train", None, {"model.backbone": options.backbone})
    for name, data_set in sets.items():
        if not isinstance(data_set, RecognitionSet):
            continue
        task = load_task(data_set, options.split, options.backbone)
        known = getattr(data_set, options.split).reference is data_set.fit
        space = HeadSearchSpace.from_spec(spec, classes=len(np.unique(task.fit_label_M)))
        config = space.uncompared_head("known-classes" if known else "new-classes")
        group_Q = choose_groups(task.query_label_Q, np.unique(task.query_group_Q, return_inverse=True)[1])[1]
        for rate in map(float, options.rates.split(",")):
            values: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
            shares = []
            for seed in range(options.seeds if rate else 1):
                heads, share = fit_heads(task, flip_labels(task.fit_label_M, rate, seed), config)
                shares.append(share)
                for way, head in heads.items():
                    scores = score_queries(
                        head(task.reference_NF), head(task.query_QF), (task.reference_label_N, task.query_label_Q)
                    )
                    values.setdefault(way, []).append(scores)
            mean = {way: np.mean(rows, axis=0) for way, rows in values.items()}
            for way, metric_Q in mean.items():
                row = {"set": name, "split": options.split, "queries": len(task.query_label_Q), "head": config.name, "rate": rate,
                       "seeds": len(shares), "way": way, "suspected": shares}  # fmt: skip
                for metric, values_Q, plain_Q in zip(("R@1", "MAP@R"), metric_Q, mean[PLAIN], strict=True):
                    row[metric] = in_percent(mean_interval(values_Q, group_Q))
                    row[f"{metric} less plain"] = in_percent(difference_interval(plain_Q, values_Q, group_Q))
                with (options.out / "label_noise.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{name}, n = {row['queries']}, {100 * rate:g} % wrong, {100 * np.mean(shares):.1f} % suspected, {way}: "
                      f"R@1 {format_interval(row['R@1'])} ({format_interval(row['R@1 less plain'], '+')}), MAP@R "
                      f"{row['MAP@R']['value']} ({format_interval(row['MAP@R less plain'], '+')})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
