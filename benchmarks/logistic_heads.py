"""Do the weights of a regularized logistic classifier improve the embedding head of automatic training? On frozen features.

    python benchmarks/logistic_heads.py --data DIR [--sets NAME,...] [--cache DIR] [--out DIR] [--backbone tf_efficientnet_lite0]

Development splits of the recognition sets of `suite.py`. The base is the head that automatic training chooses without fine-tuning:
the closed form behind a square root (`training/heads`) that is best on inner splits of the images to train on. The candidates
begin with its whitened features w. A multinomial logistic regression on w with the penalty L ||W||^2 / 2 gives the classes' weights
W; for a large L these are the class means, thus those of discriminant analysis. Candidates are W w as vector, and both vectors side
by side, each of mean length 1, the logistic one times a weight; L and weight are chosen on the same inner splits. Rules of choice:

    score      the candidate with the highest score (mean of R@1 and MAP@R), the base included
    clear      the same among those with R@1 significantly higher than the base and MAP@R not lower, else the base

Prints a line a set and writes OUT/logistic_heads.json: R@1 and MAP@R of the queries, paired differences to the base. At the end, for
each rule and for each candidate that is used on every set: mean difference to the base, and its mean rank beside the base alone.

Shape letters: N images, F features, C classes, D dimensions.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import RecognitionSet
from recognition_methods import Outcome, Task, load_task
from suite import NAMES, load_suite
from suite_recognition import choose_groups, counts, describe_outcome
from unlabeled import score_queries

from unalike.numerics.normalization import l2_normalize
from unalike.storage.atomic import atomic_write
from unalike.training.automatic.holdout import Split, cross_validation_splits, splits_that_count
from unalike.training.automatic.holdout_result import HoldoutResult, evaluate_embeddings
from unalike.training.automatic.scenes import assign_scenes
from unalike.training.heads.discriminant import ClassWhitening, fit_whitening
from unalike.training.heads.head_search import HeadSearchSpace, HeadTrial, best_closed_form, search_heads

PENALTIES, WEIGHTS = (1e-3, 1e-4, 1e-5), (0.5, 1.0, 2.0, float("inf"))
STEPS = 40  # of L-BFGS for one penalty; the next one begins where this one ended


@dataclass(frozen=True)
class LogisticHead:
    """A closed form and the weights of a classifier behind its whitening.

    Attributes:
        whitening: The whitening of the closed form.
        residual: Its residual weight.
        weights: Weights (F, C) by penalty.
        lengths: Mean length of the closed form's vectors, and of W w by penalty, on the images that were fitted to.
    """

    whitening: ClassWhitening
    residual: float
    weights: dict[float, np.ndarray]
    lengths: dict[float, float]

    def vectors(self, features_NF: np.ndarray, penalty: float, weight: float) -> np.ndarray:
        """Vectors (N, D); with weight 0 those of the closed form, with an infinite one W w alone."""
        base_ND = self.whitening.equivalent_vectors(features_NF, self.residual) / self.lengths[0.0]
        if weight == 0:
            return base_ND
        white_NF, _ = self.whitening.components(self.whitening.scatter.project(features_NF))
        logit_NC = white_NF @ self.weights[penalty] / self.lengths[penalty]
        return logit_NC if np.isinf(weight) else np.hstack([base_ND, np.float32(weight) * logit_NC])


def fit_logistic_head(features_NF: np.ndarray, labels_N: np.ndarray, trial: HeadTrial) -> LogisticHead:
    """Fit closed form and classifiers.

    Args:
        features_NF: Features (N, F).
        labels_N: An integer label per image.
        trial: The closed form.
    """
    config = trial.config
    assert config is not None
    whitening = fit_whitening(features_NF, labels_N, sqrt=config.sqrt, shrinkage=config.shrinkage)
    white_NF, _ = whitening.components(whitening.scatter.project(features_NF))
    weights = fit_classifiers(white_NF, labels_N)
    base_ND = whitening.equivalent_vectors(features_NF, config.residual)
    lengths = {0.0: float(np.linalg.norm(base_ND, axis=1).mean())}
    lengths |= {penalty: float(np.linalg.norm(white_NF @ own_FC, axis=1).mean()) for penalty, own_FC in weights.items()}
    return LogisticHead(whitening, config.residual, weights, lengths)


def fit_classifiers(white_NF: np.ndarray, labels_N: np.ndarray) -> dict[float, np.ndarray]:
    """Weights (F, C) of multinomial logistic regressions, by penalty, from the largest to the smallest.

    Args:
        white_NF: Whitened features (N, F); they are divided by the square root of F here.
        labels_N: An integer label per image.
    """
    scale = white_NF.shape[1] ** -0.5
    x_NF = torch.from_numpy(np.ascontiguousarray(white_NF, np.float32)) * scale
    code_N = torch.from_numpy(np.unique(labels_N, return_inverse=True)[1])
    classes = int(code_N.max()) + 1
    weight_FC = torch.zeros(x_NF.shape[1], classes, requires_grad=True)
    bias_C = torch.zeros(classes, requires_grad=True)
    weights = {}
    for penalty in PENALTIES:
        optimizer = torch.optim.LBFGS(
            [weight_FC, bias_C], max_iter=STEPS, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
        )

        def loss(penalty: float = penalty, optimizer: torch.optim.LBFGS = optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            value = torch.nn.functional.cross_entropy(x_NF @ weight_FC + bias_C, code_N)
            value = value + penalty / 2 * weight_FC.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        weights[penalty] = weight_FC.detach().numpy() * scale
    return weights


def compare_heads(task: Task, goal: str) -> dict[str, tuple[Outcome, str]]:
    """Outcome of each head on the queries, with what was chosen, by name; ``base`` is the closed form.

    Args:
        task: A split of a set.
        goal: A key of ``holdout.GOALS``.
    """
    x_MF, label_M = task.fit_MF, task.fit_label_M
    splits = splits_that_count(cross_validation_splits(label_M, assign_scenes(x_MF, label_M), goal), goal)
    closed = best_closed_form(search_heads(x_MF, label_M, splits, goal, space=HeadSearchSpace(sqrt=(True,))), goal)
    assert closed is not None
    results = evaluate_candidates(x_MF, label_M, splits, closed)
    head = fit_logistic_head(x_MF, label_M, closed)

    def outcome(penalty: float, weight: float) -> Outcome:
        vectors = (head.vectors(x, penalty, weight) for x in (task.reference_NF, task.query_QF))
        return Outcome(*score_queries(*vectors, (task.reference_label_N, task.query_label_Q)))

    heads = {key: (outcome(*key), f"{closed.name}; inner score {results[key].score(goal):.4f}") for key in results}
    base = results[0.0, 0.0]
    clear = [key for key in results if results[key].significantly_better(base, goal, by=("R@1",))]
    chosen = {"base": (0.0, 0.0), "score": max(results, key=lambda key: results[key].score(goal)),
              "clear": max(clear, key=lambda key: results[key].score(goal), default=(0.0, 0.0))}  # fmt: skip
    named = {rule: (heads[key][0], f"{describe(*key)}; {heads[key][1]}") for rule, key in chosen.items()}
    return named | {describe(*key): value for key, value in heads.items() if key[1] != 0}


def describe(penalty: float, weight: float) -> str:
    """Name of a candidate."""
    if weight == 0:
        return "closed form"
    return f"logistic {penalty:g}" + ("" if np.isinf(weight) else f" beside the closed form, weight {weight:g}")


def evaluate_candidates(
    x_MF: np.ndarray, label_M: np.ndarray, splits: Sequence[Split], closed: HeadTrial
) -> dict[tuple[float, float], HoldoutResult]:
    """Results on the inner splits by penalty and weight; (0, 0) is the closed form."""
    heads = [fit_logistic_head(x_MF[s.fit_N], label_M[s.fit_N], closed) for s in splits]
    keys = [(0.0, 0.0), *((penalty, weight) for penalty in PENALTIES for weight in WEIGHTS)]
    return {
        key: evaluate_embeddings(splits, label_M, lambda n, s, key=key: (
            l2_normalize(heads[n].vectors(x_MF[s.query_N], *key)), l2_normalize(heads[n].vectors(x_MF[s.reference_N], *key))))
        for key in keys
    }  # fmt: skip


def measure_set(data_set: RecognitionSet, backbone: str) -> dict[str, Any] | None:
    """Figures of every head on a development split; None where the set does not count."""
    task = load_task(data_set, "development", backbone)
    nearest = score_queries(task.reference_NF, task.query_QF, (task.reference_label_N, task.query_label_Q))[0]
    if not counts(data_set, float(nearest.mean())):
        return None
    start = time.monotonic()
    goal = "known-classes" if data_set.development.reference is data_set.fit else "new-classes"
    heads = compare_heads(task, goal)
    kind, group_Q = choose_groups(task.query_label_Q, task.query_group_Q)
    base = heads["base"][0]
    rows = {name: {"chosen": text, **describe_outcome(own, base, group_Q)} for name, (own, text) in heads.items()}
    return {"goal": goal, "queries": len(task.query_label_Q), "intervals over": kind, "heads": rows,
            "seconds": round(time.monotonic() - start)}  # fmt: skip


def summarize(results: dict[str, dict[str, Any]]) -> list[str]:
    """A line a head, over all sets: gain over the base, mean rank of the two, sets with a significant loss or gain.

    Args:
        results: What ``measure_set`` returned, by set.
    """
    lines = []
    names = next(iter(results.values()))["heads"]
    for name in [name for name in names if name != "base"]:
        gains: dict[str, list[float]] = {"R@1": [], "MAP@R": []}
        lower, higher = [], []
        for set_name, result in results.items():
            for figure, own in gains.items():
                difference = result["heads"][name].get(
                    f"{figure} of base less this", {"value": 0.0, "low": 0.0, "high": 0.0}
                )
                own.append(-difference["value"])
                if difference.get("too_few"):
                    continue
                if difference["low"] > 0:
                    lower.append(f"{set_name} {figure}")
                if difference["high"] < 0:
                    higher.append(f"{set_name} {figure}")
        rank = np.mean([1.5 - 0.5 * np.sign(gain) for gain in gains["R@1"]])
        lines.append(f"{name}: R@1 {np.mean(gains['R@1']):+.2f}, MAP@R {np.mean(gains['MAP@R']):+.2f} over {len(results)} sets, rank {rank:.2f} "
                     f"beside {3 - rank:.2f} of the base; lower: {', '.join(lower) or 'none'}; higher: {', '.join(higher) or 'none'}")  # fmt: skip
    return lines


def main() -> None:
    """Measure the sets, and print what each rule chooses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the sources")
    parser.add_argument("--cache", type=Path, default=Path("runs/suite"), help="folder for rendered images")
    parser.add_argument("--sets", default="", help="comma-separated; all recognition sets if left out")
    parser.add_argument("--out", type=Path, default=Path("runs/logistic_heads"))
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    data_sets, missing = load_suite(options.data, options.cache, options.sets.split(",") if options.sets else NAMES)
    for name, reason in missing.items():
        print(f"{name}: left out, {reason}")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "logistic_heads.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name, data_set in data_sets.items():
        if isinstance(data_set, RecognitionSet) and name not in results:
            result = measure_set(data_set, options.backbone)
            if result is None:
                continue
            results[name] = result
            with atomic_write(file) as temporary:
                temporary.write_text(json.dumps(results, indent=1), encoding="utf-8")
        if name in results:
            print(name, results[name]["queries"], results[name]["seconds"], "s")
            for rule in ("base", "score", "clear"):
                print(f"  {rule}: {json.dumps(results[name]['heads'][rule])}", flush=True)
    if results:
        print(*summarize(results), sep="\n")


if __name__ == "__main__":
    main()
