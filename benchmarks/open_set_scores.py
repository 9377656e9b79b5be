"""Which score tells strangers from known images best? Rules of `open_set_rules.py`, by DIR at FPIR 0.1 and 0.01.

    python benchmarks/open_set_scores.py --data DIR [--sets NAME,...] [--split development|report] [--heads frozen,closed]
        [--demo DIR] [--rules NAME,...] [--base NAME] [--splits 10] [--samples 200] [--cache DIR] [--out DIR] [--backbone tf_efficientnet_lite0]

Recognition sets of `suite.py`. In every split half of the classes, drawn by seed, are enrolled with their references; their queries
are the known images, the queries of the other classes the strangers. ``frozen``: features of the trunk; ``closed``: vectors of the
closed-form head that automatic training takes for the goal, fitted to the set's images to train on; where those are the references
themselves (known classes), to the enrolled ones alone, so that no stranger's class was trained on. The cohort is a sample of the images
to train on, of classes that are not enrolled.

With `--demo DIR`, the results of `unalike demo`: vectors of its trained model of the unseen brands, as the set ``demo``; and ``demo, each
left out``: all brands enrolled, each query once as known and once as unknown, compared without its brand (what `unalike evaluate` reports).

DIR (detection and identification rate) is the mean over the splits, each with its own threshold. Intervals (95 %) of the difference to
the base (``nearest``): percentiles of a bootstrap over the classes of the set, the same samples for both rules and all splits. A rule counts
where its mean rank over the sets is better than that of the base and no interval is wholly below 0. Vectors are kept in OUT/vectors.

Shape letters: R references, Q queries, C classes, D dimensions, B samples.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import RecognitionSet
from open_set_rules import RULES, ClassCosines, EnrolledClasses, compare, enroll
from recognition_methods import Task, load_task
from suite import NAMES, load_suite
from suite_recognition import counts

from unalike.metrics.roc import between
from unalike.numerics.normalization import l2_normalize
from unalike.storage.atomic import atomic_write

FPIRS = (0.1, 0.01)
COHORT = 500  # vectors
LEAST_CLASSES = 8  # of a gallery and of the strangers: sets with fewer are measured, and do not count
Record = dict[str, Any]


@dataclass(frozen=True)
class Trials:
    """Scores of one rule in one split.

    Attributes:
        known_score_N, known_right_N, known_class_N: Of known queries.
        unknown_score_M, unknown_class_M: Of strangers.
    """

    known_score_N: np.ndarray
    known_right_N: np.ndarray
    known_class_N: np.ndarray
    unknown_score_M: np.ndarray
    unknown_class_M: np.ndarray


# ---- vectors ----


def read_task(data_set: RecognitionSet, options: argparse.Namespace) -> Task:
    """Features of a set, computed once."""
    file = options.out / "vectors" / f"{data_set.name}-{options.split}-{options.backbone}.npz"
    if not file.exists():
        task = load_task(data_set, options.split, options.backbone)
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **vars(task))
    with np.load(file) as content:
        return Task(**dict(content))


def read_demo(folder: Path, out: Path) -> Task:
    """Vectors of the demo's trained model: its brands to train on, references and queries of the unseen ones."""
    import unalike
    from unalike.data.imageset import load_images

    arrays: list[np.ndarray] = []
    codes: dict[str, int] = {}
    for part in ("train", "unseen/reference", "unseen/query"):
        images = load_images(folder / "images" / part)
        file = out / "vectors" / f"demo-{part.replace('/', '-')}.npz"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            unalike.embed(folder / "images" / part, file, checkpoint=str(folder / "train" / "ml_model_best.pth"))
        with np.load(file) as content:
            vectors = content["vectors"]
        names = images.label_names()
        label_N = np.array([codes.setdefault(name, len(codes)) for name in names])
        arrays += [vectors, label_N, np.array([f"{name} {number}" for number, name in enumerate(names)])]
    return Task(*arrays)


def embed_split(task: Task, head: str, goal: str, enrolled: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors of the references and queries of the task, and of the images to train on.

    Args:
        task: Features.
        head: ``frozen`` or ``closed``.
        goal: ``known-classes`` or ``new-classes``.
        enrolled: Classes of the gallery: with the goal ``known-classes`` the head is fitted to those alone.
    """
    features = (task.reference_NF, task.query_QF, task.fit_MF)
    if head == "closed":
        from unalike.training.heads.discriminant import fit_scatter
        from unalike.training.heads.head_search import HeadSearchSpace

        config = HeadSearchSpace().uncompared_head(goal)
        chosen_M = np.isin(task.fit_label_M, enrolled) if goal == "known-classes" else np.ones(len(task.fit_MF), bool)
        whitening = fit_scatter(task.fit_MF[chosen_M], task.fit_label_M[chosen_M], sqrt=config.sqrt).whiten(
            config.shrinkage
        )
        features = tuple(whitening.equivalent_vectors(x, config.residual) for x in features)
    reference_RD, query_QD, fit_MD = (l2_normalize(x) for x in features)
    return reference_RD, query_QD, fit_MD


# ---- trials ----


def choose_cohort(fit_MD: np.ndarray, fit_label_M: np.ndarray, enrolled: np.ndarray, seed: int) -> np.ndarray:
    """A sample of the images to train on whose class is not enrolled; none where those are enrolled classes' images."""
    rows = np.flatnonzero(~np.isin(fit_label_M, enrolled))
    return fit_MD[np.sort(np.random.default_rng(seed).permutation(rows)[:COHORT])]


def run_rules(
    rules: Sequence[str], known: ClassCosines, unknown: ClassCosines, gallery: EnrolledClasses,
    known_code_N: np.ndarray, known_class_N: np.ndarray, unknown_class_M: np.ndarray,
) -> dict[str, Trials]:  # fmt: skip
    """Trials of every rule."""
    trials = {}
    for name in rules:
        score_N, code_N = RULES[name](known, gallery)
        score_M, _ = RULES[name](unknown, gallery)
        trials[name] = Trials(score_N, code_N == known_code_N, known_class_N, score_M, unknown_class_M)
    return trials


def run_split(task: Task, head: str, goal: str, rules: Sequence[str], seed: int) -> dict[str, Trials]:
    """Trials of every rule with half of the classes enrolled."""
    names = np.unique(task.reference_label_N)
    enrolled = np.sort(np.random.default_rng(seed).permutation(names)[: (len(names) + 1) // 2])
    reference_RD, query_QD, fit_MD = embed_split(task, head, goal, enrolled)
    own_R = np.isin(task.reference_label_N, enrolled)
    cohort_MD = fit_MD[:0]
    if goal == "new-classes":
        cohort_MD = choose_cohort(fit_MD, task.fit_label_M, names, seed)
    code_R = np.searchsorted(enrolled, task.reference_label_N[own_R])
    gallery = enroll(reference_RD[own_R], code_R, task.reference_group_N[own_R], cohort_MD)
    known_Q = np.isin(task.query_label_Q, enrolled)
    parts = (compare(query_QD[part_Q], gallery.vectors_RD, code_R, cohort_MD) for part_Q in (known_Q, ~known_Q))
    code_N = np.searchsorted(enrolled, task.query_label_Q[known_Q])
    return run_rules(rules, *parts, gallery, code_N, task.query_label_Q[known_Q], task.query_label_Q[~known_Q])


def leave_out_each(task: Task, rules: Sequence[str]) -> dict[str, Trials]:
    """Trials of every rule with all classes enrolled; each query is known, and unknown without its class."""
    names = np.unique(task.reference_label_N)
    reference_RD, query_QD, fit_MD = embed_split(task, "frozen", "new-classes", names)
    code_R, code_Q = (np.searchsorted(names, label) for label in (task.reference_label_N, task.query_label_Q))
    cohort_MD = choose_cohort(fit_MD, task.fit_label_M, names, 0)
    gallery = enroll(reference_RD, code_R, task.reference_group_N, cohort_MD)
    known = compare(query_QD, reference_RD, code_R, cohort_MD)
    return run_rules(rules, known, known.without(code_Q), gallery, code_Q, task.query_label_Q, task.query_label_Q)


# ---- figures ----


def weighted_dir(trials: Trials, weight_of: np.ndarray, fpirs: Sequence[float] = FPIRS) -> np.ndarray:
    """DIR at each FPIR where each class counts with a weight; as ``metrics.roc.dir_at_fpir`` where all weigh alike.

    Args:
        trials: Scores.
        weight_of: Weight by class.
        fpirs: False positive identification rates.
    """
    known_weight_N, weight_M = weight_of[trials.known_class_N], weight_of[trials.unknown_class_M]
    if not known_weight_N.sum() or not weight_M.sum():
        return np.full(len(fpirs), np.nan)
    order = np.argsort(-trials.unknown_score_M, kind="stable")
    order = order[weight_M[order] > 0]
    score_M, sum_M = trials.unknown_score_M[order], np.cumsum(weight_M[order])
    values = []
    for fpir in fpirs:
        first = int(np.searchsorted(sum_M, fpir * sum_M[-1] * (1 + 1e-12), "right"))  # the first score that is too much
        above_M = score_M[:first][score_M[:first] > score_M[first]]
        threshold = between(
            float(score_M[first]), float(above_M[-1]) if len(above_M) else np.nextafter(score_M[first], np.inf)
        )
        hits_N = trials.known_right_N & (trials.known_score_N >= threshold)
        values.append(float(hits_N @ known_weight_N / known_weight_N.sum()))
    return np.array(values)


def measure(
    splits: Sequence[Mapping[str, Trials]], classes: int, samples: int, seed: int = 0, base: str = "nearest"
) -> Record:
    """Figures of every rule over the splits: DIR and its difference to ``base`` with an interval, in percent."""
    rng = np.random.default_rng(seed)
    plain = np.ones(classes)
    weights = [
        plain,
        *(np.bincount(rng.integers(0, classes, classes), minlength=classes).astype(float) for _ in range(samples)),
    ]
    values = {
        name: np.array(
            [np.nanmean([weighted_dir(split[name], weight) for split in splits], axis=0) for weight in weights]
        )
        for name in splits[0]
    }  # (1 + B, FPIRS)
    record: Record = {}
    for name, value_BF in values.items():
        difference_BF = 100 * (value_BF - values[base])
        record[name] = {
            "names right": round(100 * float(np.mean([split[name].known_right_N.mean() for split in splits])), 1)
        }
        for column, fpir in enumerate(FPIRS):
            low, high = np.nanpercentile(difference_BF[1:, column], (2.5, 97.5)) if samples else (np.nan, np.nan)
            record[name][f"DIR at {fpir:g}"] = round(100 * float(value_BF[0, column]), 1)
            record[name][f"difference at {fpir:g}"] = [
                round(float(x), 1) for x in (difference_BF[0, column], low, high)
            ]
    return record


def rank_rules(sets: Mapping[str, Record]) -> dict[str, tuple[float, float, list[str]]]:
    """By rule: mean rank of the rule beside the base, mean difference, and where it is lower for certain."""
    rules = {}
    rows = {name: record["rules"] for name, record in sets.items() if record["counts"]}
    for rule in next(iter(sets.values()))["rules"]:
        gains = [own[rule][f"difference at {fpir:g}"] for own in rows.values() for fpir in FPIRS]
        ranks = [1.5 if gain[0] == 0 else 1 + (gain[0] < 0) for gain in gains]
        worse = [
            f"{name} {fpir:g}"
            for name, own in rows.items()
            for fpir in FPIRS
            if own[rule][f"difference at {fpir:g}"][2] < 0
        ]
        rules[rule] = (
            round(float(np.mean(ranks)), 2), *(round(float(np.mean([own[rule][f"difference at {fpir:g}"][0] for own in rows.values()])), 2) for fpir in FPIRS), worse
        )  # fmt: skip
    return rules


# ---- command ----


def format_table(sets: Mapping[str, Record]) -> str:
    """A line a rule: mean rank beside the base (1 better everywhere, 2 worse), mean differences, certain losses."""
    lines = ["| rule | mean rank | at 0.1 | at 0.01 | lower for certain |", "|---|---|---|---|---|"]
    for rule, (rank, *gains, worse) in sorted(rank_rules(sets).items(), key=lambda item: -sum(item[1][1:3])):
        lines.append(f"| {rule} | {rank:.2f} | {gains[0]:+.1f} | {gains[1]:+.1f} | {', '.join(worse)} |")
    return "\n".join(lines)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder of the sources")
    parser.add_argument("--cache", type=Path, default=Path("runs/suite"), help="folder for rendered images")
    parser.add_argument("--sets", default="", help="comma-separated; all recognition sets if left out")
    parser.add_argument("--split", choices=("development", "report"), default="development")
    parser.add_argument("--heads", default="frozen,closed")
    parser.add_argument("--demo", type=Path, help="results of the demo")
    parser.add_argument("--rules", default=",".join(RULES), help="comma-separated")
    parser.add_argument("--base", default="nearest", help="rule that the others are compared with")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--samples", type=int, default=200, help="of the bootstrap")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--out", type=Path, default=Path("runs/open_set_scores"))
    return parser.parse_args()


def describe(splits: Sequence[Mapping[str, Trials]], does_count: bool, samples: int, base: str) -> Record:
    """Sizes and figures of a set."""
    first = splits[0]["nearest"]
    names = np.union1d(first.known_class_N, first.unknown_class_M)
    return {
        "counts": does_count and len(names) >= 2 * LEAST_CLASSES, "classes": len(names), "known": len(first.known_score_N),
        "strangers": len(first.unknown_score_M), "rules": measure(splits, int(names.max()) + 1, samples, base=base),
    }  # fmt: skip


def measure_sets(options: argparse.Namespace, rules: Sequence[str]) -> Iterator[tuple[str, Record]]:
    """Name and figures of every set and head."""
    seeds = range(options.splits)
    if options.data is not None:
        data_sets, missing = load_suite(options.data, options.cache, options.sets.split(",") if options.sets else NAMES)
        for name, reason in missing.items():
            print(f"{name}: left out, {reason}")
        for name, data_set in data_sets.items():
            if not isinstance(data_set, RecognitionSet):
                continue
            goal = "known-classes" if data_set.development.reference is data_set.fit else "new-classes"
            task = read_task(data_set, options)
            for head in options.heads.split(","):
                splits = [run_split(task, head, goal, rules, seed) for seed in seeds]
                yield f"{name}, {head}", describe(splits, counts(data_set, 0.5), options.samples, options.base)
    if options.demo is not None:
        task = read_demo(options.demo, options.out)
        splits = [run_split(task, "frozen", "new-classes", rules, seed) for seed in seeds]
        yield "demo", describe(splits, True, options.samples, options.base)
        yield "demo, each left out", describe([leave_out_each(task, rules)], True, options.samples, options.base)


def main() -> None:
    """Measure the sets, print a table and write OUT/SPLIT.json."""
    options = read_options()
    if options.data is None and options.demo is None:
        print("skipped: no data (give --data DIR or --demo DIR)")
        return
    rules = [name for name in RULES if name in {"nearest", options.base, *options.rules.split(",")}]
    sets: dict[str, Record] = {}
    for name, record in measure_sets(options, rules):
        sets[name] = record
        sizes = {key: value for key, value in record.items() if key != "rules"}
        print(name, json.dumps(sizes), json.dumps(record["rules"]["nearest"]), flush=True)
    result = {"date": date.today().isoformat(), "split": options.split, "splits": options.splits,
              "samples": options.samples, "sets": sets}  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic_write(options.out / f"{options.split}.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(format_table(sets))


if __name__ == "__main__":
    main()
