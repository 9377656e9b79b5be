"""What shorter vectors cost: heads in closed form of 32 to 512 dimensions beside all of them.

    python benchmarks/vector_width.py --data DIR [--sets NAME,...] [--split development|report] [--cache DIR] [--out DIR]
        [--backbone tf_efficientnet_lite0]

Recognition sets of `suite.py`, the frozen trunk's features, the head that is taken where no time is left to compare any, shortened as
`model.feat_dim` shortens it. Writes OUT/vector_width.jsonl: R@1 and MAP@R by width, with paired differences to all dimensions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from recognition_methods import load_task
from suite import NAMES, load_suite
from suite_recognition import choose_groups, format_interval, in_percent
from unlabeled import score_queries

from unalike.metrics.intervals import difference_interval, mean_interval
from unalike.spec import load_spec
from unalike.training.heads.discriminant import fit_whitening
from unalike.training.heads.head_search import HeadSearchSpace

WIDTHS = (None, 512, 256, 128, 64, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default=",".join(NAMES))
    parser.add_argument("--split", choices=("development", "report"), default="development")
    parser.add_argument("--cache", type=Path, default=Path("suite-cache"))
    parser.add_argument("--out", type=Path, default=Path("vector-width"))
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    options = parser.parse_args()
    sets, missing = load_suite(options.data, options.cache, options.sets.split(","))
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}")
    options.out.mkdir(parents=True, exist_ok=True)
    spec = load_spec("train", None, {"model.backbone": options.backbone})
    for name, data_set in sets.items():
        if not hasattr(data_set, "fit"):
            continue  # inspection and comparison
        task = load_task(data_set, options.split, options.backbone)
        known = getattr(data_set, options.split).reference is data_set.fit
        space = HeadSearchSpace.from_spec(spec, classes=len(np.unique(task.fit_label_M)))
        config = space.uncompared_head("known-classes" if known else "new-classes")
        whitening = fit_whitening(task.fit_MF, task.fit_label_M, sqrt=config.sqrt, shrinkage=config.shrinkage)
        group_Q = choose_groups(task.query_label_Q, np.unique(task.query_group_Q, return_inverse=True)[1])[1]
        base, longest = None, whitening.head(config.residual)
        for width in WIDTHS:
            if width is not None and width >= longest.matrix_FD.shape[1]:
                continue
            head = longest if width is None else longest.shorten(task.fit_MF, width)
            vectors = head(task.reference_NF), head(task.query_QF)
            scores = score_queries(*vectors, (task.reference_label_N, task.query_label_Q))
            base = base or scores
            row = {"set": name, "split": options.split, "queries": len(task.query_label_Q), "head": config.name,
                   "width": head.matrix_FD.shape[1], "asked": width}  # fmt: skip
            for metric, values_Q, base_Q in zip(("R@1", "MAP@R"), scores, base, strict=True):
                row[metric] = in_percent(mean_interval(values_Q, group_Q))
                row[f"{metric} less all"] = in_percent(difference_interval(base_Q, values_Q, group_Q))
            with (options.out / "vector_width.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{name}, n = {row['queries']}, {row['width']} dimensions: R@1 {format_interval(row['R@1'])} "
                  f"({format_interval(row['R@1 less all'], '+')}), MAP@R {row['MAP@R']['value']} "
                  f"({format_interval(row['MAP@R less all'], '+')})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
