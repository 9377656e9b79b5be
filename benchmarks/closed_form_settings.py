"""Which closed form without a choice by cross-validation? Fixed settings of the discriminant head on frozen features.

    python benchmarks/closed_form_settings.py --data DIR [--sets NAME,...] [--cache DIR] [--out DIR] [--backbone tf_efficientnet_lite0]
        [--confirm]

Development splits of the recognition sets of `suite.py`. Automatic training takes a closed form as it is where there is no time to
compare heads. The base is (square root, residual 0.5, Ledoit and Wolf's shrinkage); the others have other residuals, multiples of that
shrinkage, or no square root. Writes OUT/closed_form_settings.json: R@1 and MAP@R of the queries with paired differences to the base;
prints, apart for known and for new classes, each setting's mean difference to the base, and its mean rank beside the base alone.
With ``--confirm`` the same on the report splits, of the base and the setting that automatic training takes for the goal alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import RecognitionSet
from logistic_heads import summarize
from recognition_methods import Outcome, Task, load_task
from suite import NAMES, load_suite
from suite_recognition import choose_groups, counts, describe_outcome
from unlabeled import score_queries

from unalike.storage.atomic import atomic_write
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.discriminant import fit_scatter
from unalike.training.heads.head_search import HeadSearchSpace

RESIDUALS, SHRINKAGES = (0.0, 0.2, 0.5, 1.0), (1.0, 2.0, 4.0, 8.0, 16.0)
BASE = HeadConfig(sqrt=True, residual=0.5, shrinkage=1.0)


def evaluate_settings(task: Task, settings: Sequence[HeadConfig]) -> dict[str, Outcome]:
    """Outcome by name of the setting; the base comes first.

    Args:
        task: A split of a set.
        settings: The settings, the base among them.
    """
    outcomes: dict[str, Outcome] = {"base": Outcome(np.zeros(0))}
    labels = (task.reference_label_N, task.query_label_Q)
    for sqrt in sorted({config.sqrt for config in settings}, reverse=True):
        scatter = fit_scatter(task.fit_MF, task.fit_label_M, sqrt=sqrt)
        for config in (config for config in settings if config.sqrt == sqrt):
            whitening = scatter.whiten(config.shrinkage)
            vectors = (whitening.equivalent_vectors(x, config.residual) for x in (task.reference_NF, task.query_QF))
            outcomes["base" if config == BASE else config.name] = Outcome(*score_queries(*vectors, labels))
    return outcomes


def measure_set(data_set: RecognitionSet, backbone: str, confirm: bool) -> dict[str, Any] | None:
    """Figures of the settings on a split; None where the set does not count."""
    task = load_task(data_set, "report" if confirm else "development", backbone)
    nearest_Q = score_queries(task.reference_NF, task.query_QF, (task.reference_label_N, task.query_label_Q))[0]
    if not counts(data_set, float(nearest_Q.mean())):
        return None
    group_Q = choose_groups(task.query_label_Q, task.query_group_Q)[1]
    goal = "known-classes" if data_set.development.reference is data_set.fit else "new-classes"
    every = [
        HeadConfig(sqrt, residual, shrinkage)
        for sqrt, shrinkage, residual in product((True, False), SHRINKAGES, RESIDUALS)
    ]
    outcomes = evaluate_settings(task, [BASE, HeadSearchSpace().uncompared_head(goal)] if confirm else every)
    return {
        "goal": goal,
        "heads": {name: describe_outcome(o, outcomes["base"], group_Q) for name, o in outcomes.items()},
    }


def main() -> None:
    """Measure the sets, and print a summary for known and for new classes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the sources")
    parser.add_argument("--cache", type=Path, default=Path("runs/suite"), help="folder for rendered images")
    parser.add_argument("--sets", default="", help="comma-separated; all recognition sets if left out")
    parser.add_argument("--out", type=Path, default=Path("runs/closed_form_settings"))
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--confirm", action="store_true", help="report splits; only what automatic training takes")
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    data_sets, missing = load_suite(options.data, options.cache, options.sets.split(",") if options.sets else NAMES)
    for name, reason in missing.items():
        print(f"{name}: left out, {reason}")
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    for name, data_set in data_sets.items():
        result = (
            measure_set(data_set, options.backbone, options.confirm) if isinstance(data_set, RecognitionSet) else None
        )
        if result is not None:
            results[name] = result
            print(name, json.dumps(result["heads"]["base"]), flush=True)
    with atomic_write(options.out / f"closed_form_settings{'_confirmed' * options.confirm}.json") as temporary:
        temporary.write_text(json.dumps(results, indent=1), encoding="utf-8")
    for goal in ("known-classes", "new-classes"):
        own = {name: result for name, result in results.items() if result["goal"] == goal}
        if own:
            print(f"{goal}: {', '.join(own)}", *summarize(own), sep="\n")


if __name__ == "__main__":
    main()
