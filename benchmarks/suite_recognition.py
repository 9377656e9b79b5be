"""Recognition on the data sets of `suite.py`, beside simple methods: one table of R@1, MAP@R and paired differences.

    python benchmarks/suite_recognition.py --data DIR [--sets NAME,...] [--methods NAME,...] [--split development|report]
        [--minutes 2] [--seed 1] [--out DIR] [--cache DIR] [--backbone tf_efficientnet_lite0] [--table FILE]
        [--recorded]

Methods on the same frozen features: `nearest` (the frozen trunk as the package uses it: nearest reference by cosine), `lda` (class
means, covariance within classes shrunk by Ledoit and Wolf, from the images to train on), `logistic` and `svm` (scikit-learn; C by
inner cross-validation). Classifiers learn from the references and name a class: they have R@1 alone. Methods that train a network
for `--minutes` on the images to train on: `automatic` (automatic training of this package) and `pml` (timm and
pytorch-metric-learning, `benchmarks/automatic.py`).

A set counts with 8 classes, 300 images and R@1 of `nearest` from 40 to 95 %; the table says which do not. Intervals (95 %) are
those of `unalike.metrics.intervals`: classes are random where there are enough, else series. Differences are paired: `automatic`,
or `nearest` where that was not run, less each other method. The mean rank is by R@1 over the sets that count, of the methods
that were run on all of these. Settings are chosen on development splits; report splits confirm a choice once.

The result of each method on each set is kept in OUT/outcomes and not computed twice; with ``--recorded`` no other is computed. The
table is written to OUT/SPLIT.json and OUT/SPLIT.md (or FILE.json, FILE.md).

Shape letters: Q queries.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import RecognitionSet
from recognition_methods import FROZEN_METHODS, METHODS, TRAINED_METHODS, Budget, Outcome, Task, load_task
from suite import NAMES, load_suite

import unalike
from unalike.errors import DataError
from unalike.metrics.intervals import Interval, difference_interval, enough_groups, mean_interval
from unalike.storage.atomic import atomic_write

LEAST_CLASSES, LEAST_IMAGES, R1_RANGE = 8, 300, (0.40, 0.95)
PRODUCT, FROZEN = "automatic", "nearest"
Record = dict[str, Any]


# ---- running methods ----


def outcome_file(name: str, data_set: RecognitionSet, options: argparse.Namespace) -> Path:
    """File of a method's outcome; its name has all that the outcome depends on."""
    setting = f"{options.minutes:g}-{options.seed}" if name in TRAINED_METHODS else options.backbone
    return Path(options.out) / "outcomes" / f"{data_set.name}-{options.split}-{name}-{setting}.npz"


def read_outcome(file: Path) -> Outcome:
    """Read an outcome that ``write_outcome`` wrote."""
    with np.load(file) as content:
        return Outcome(content["hit"], content.get("precision"), json.loads(str(content["details"])))


def write_outcome(outcome: Outcome, file: Path) -> None:
    """Write an outcome in one step."""
    arrays = {"hit": outcome.hit_Q, "details": np.array(json.dumps(outcome.details))}
    if outcome.precision_Q is not None:
        arrays["precision"] = outcome.precision_Q
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)


def run_method(name: str, data_set: RecognitionSet, task: Task, options: argparse.Namespace) -> Outcome | None:
    """Run a method, or read what it gave before; None where it does not fit the set, which is said, or is not to be run."""
    file = outcome_file(name, data_set, options)
    if file.exists():
        return read_outcome(file)
    if options.recorded and name != FROZEN:
        return None
    start, load = time.monotonic(), os.getloadavg()[0]
    if name in TRAINED_METHODS:
        folder = options.out / "runs" / file.stem
        folder.mkdir(parents=True, exist_ok=True)
        try:
            outcome = TRAINED_METHODS[name](data_set, options.split, Budget(options.minutes, options.seed, folder))
        except DataError as error:
            print(f"{name} left out: {error}", flush=True)
            return None
    else:
        outcome = FROZEN_METHODS[name](task)
    outcome.details.update({"seconds": round(time.monotonic() - start, 1), "load": round(load, 1)})
    write_outcome(outcome, file)
    return outcome


def measure_set(data_set: RecognitionSet, methods: Sequence[str], options: argparse.Namespace) -> Record:
    """Run the methods on a split of a set, `nearest` in any case.

    Returns:
        Facts of the set and, by method, figures in percent with their intervals.
    """
    task = load_task(data_set, options.split, options.backbone)
    kind, group_Q = choose_groups(task.query_label_Q, task.query_group_Q)
    outcomes: dict[str, Outcome] = {}
    for name in dict.fromkeys((FROZEN, *methods)):
        outcome = run_method(name, data_set, task, options)
        if outcome is not None:
            outcomes[name] = outcome
            print(
                f"{data_set.name}: {name} R@1 {100 * outcome.hit_Q.mean():.1f} {json.dumps(outcome.details)}",
                flush=True,
            )
    base = PRODUCT if PRODUCT in outcomes else FROZEN
    return {
        "rule": data_set.rule, "queries": len(task.query_label_Q), "references": len(task.reference_label_N),
        "images to train on": len(task.fit_label_M), "classes": len(np.unique(task.query_label_Q)),
        "series": len(np.unique(task.query_group_Q)), "intervals over": kind,
        "counts": counts(data_set, float(outcomes[FROZEN].hit_Q.mean())), "differences of": base,
        "methods": {name: describe_outcome(outcome, outcomes[base], group_Q) for name, outcome in outcomes.items()},
    }  # fmt: skip


def choose_groups(label_Q: np.ndarray, series_Q: np.ndarray) -> tuple[str, np.ndarray]:
    """What intervals treat as random."""
    return ("classes", label_Q) if enough_groups(label_Q) else ("series", series_Q)


def counts(data_set: RecognitionSet, nearest: float) -> bool:
    """Whether a set is large and hard enough, and not too hard, to count.

    Args:
        data_set: The set.
        nearest: R@1 of the frozen trunk, 0 to 1.
    """
    parts = data_set.parts().values()
    images = {path for part in parts for path in part.paths}
    classes = {label for part in parts for label in part.classes}
    return len(classes) >= LEAST_CLASSES and len(images) >= LEAST_IMAGES and R1_RANGE[0] <= nearest <= R1_RANGE[1]


def describe_outcome(outcome: Outcome, base: Outcome, group_Q: np.ndarray) -> Record:
    """Figures of a method, and by how much those of ``base`` are higher; percent."""
    record: Record = {}
    for figure, own_Q, base_Q in (("R@1", outcome.hit_Q, base.hit_Q), ("MAP@R", outcome.precision_Q, base.precision_Q)):
        if own_Q is None:
            continue
        record[figure] = in_percent(mean_interval(own_Q, group_Q))
        if base is not outcome and base_Q is not None:
            record[f"{figure} of base less this"] = in_percent(difference_interval(own_Q, base_Q, group_Q))
    return {**record, "details": outcome.details}


def in_percent(interval: Interval) -> Record:
    """An interval for JSON, in percent."""
    values = interval.to_dict()
    return {k: round(100 * v, 2) if isinstance(v, float) else v for k, v in values.items()}


def rank_methods(sets: Mapping[str, Record]) -> dict[str, float]:
    """Mean rank by R@1 over the sets that count, of the methods that were run on all of these; 1 is best, ties share ranks."""
    rows = [{name: m["R@1"]["value"] for name, m in s["methods"].items()} for s in sets.values() if s["counts"]]
    names = [name for name in METHODS if rows and all(name in row for row in rows)]
    return {
        name: round(float(np.mean([
            0.5 + sum(row[other] > row[name] for other in names) + 0.5 * sum(row[other] == row[name] for other in names)
            for row in rows])), 2)
        for name in names
    }  # fmt: skip


# ---- the table ----


def format_interval(values: Record | None, sign: str = "") -> str:
    """``57.4 (51.7 to 62.9)``; in words where there are too few groups."""
    if values is None:
        return "-"
    text = f"{values['value']:{sign}.1f}"
    if values.get("too_few") or values["low"] is None:
        return f"{text} (too few to say)"
    return f"{text} ({values['low']:{sign}.1f} to {values['high']:{sign}.1f})"


def format_table(result: Record, title: str, figure: str, sign: str = "") -> list[str]:
    """Lines of a Markdown table: a row a set, a column a method that has the figure."""
    sets = result["sets"]
    names = [name for name in METHODS if any(figure in s["methods"].get(name, {}) for s in sets.values())]
    if not names:
        return []
    lines = [
        f"## {title}",
        "",
        "| set | queries | classes | " + " | ".join(names) + " |",
        "|---|---|---|" + "---|" * len(names),
    ]
    for name, s in sets.items():
        cells = [format_interval(s["methods"].get(method, {}).get(figure), sign) for method in names]
        note = "" if s["counts"] else " (does not count)"
        lines.append(f"| {name}{note} | {s['queries']} | {s['classes']} | " + " | ".join(cells) + " |")
    if figure == "R@1" and result["mean rank"]:
        ranks = [f"{result['mean rank'][name]:.2f}" if name in result["mean rank"] else "-" for name in names]
        lines.append("| mean rank | | | " + " | ".join(ranks) + " |")
    return [*lines, ""]


def format_result(result: Record) -> str:
    """The result as Markdown."""
    bases = " or ".join(sorted({f"`{s['differences of']}`" for s in result["sets"].values()}))
    setting = (
        f"Percent, with 95 % intervals over classes, or over series where classes are few. Trunk of the methods on frozen "
        f"features: {result['backbone']}. Methods that train: {result['minutes']:g} minutes, seed {result['seed']}. unalike {result['unalike']}."
    )
    head = [f"# Recognition, {result['split']} splits, {result['date']}", "", setting, ""]
    tables = [("R@1", "R@1", ""), ("MAP@R", "MAP@R", ""),
              (f"R@1 of {bases} less that of the method, paired", "R@1 of base less this", "+"),
              (f"MAP@R of {bases} less that of the method, paired", "MAP@R of base less this", "+")]  # fmt: skip
    return "\n".join(
        [*head, *(line for title, figure, sign in tables for line in format_table(result, title, figure, sign))]
    )


def write_result(sets: Mapping[str, Record], options: argparse.Namespace) -> Record:
    """Write the table as JSON and Markdown."""
    result = {"date": datetime.now(UTC).date().isoformat(), "unalike": unalike.__version__, "split": options.split,
              "backbone": options.backbone, "minutes": options.minutes, "seed": options.seed,
              "mean rank": rank_methods(sets), "sets": dict(sets)}  # fmt: skip
    table = options.table or options.out / options.split
    for suffix, text in ((".json", json.dumps(result, indent=1) + "\n"), (".md", format_result(result))):
        file = table.with_name(table.name + suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return result


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the sources")
    parser.add_argument("--cache", type=Path, default=Path("runs/suite"), help="folder for rendered images")
    parser.add_argument("--sets", default="", help="comma-separated; all recognition sets if left out")
    parser.add_argument("--methods", default=",".join(FROZEN_METHODS), help=f"comma-separated: {', '.join(METHODS)}")
    parser.add_argument("--split", choices=("development", "report"), default="development")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--minutes", type=float, default=2, help="of each method that trains")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/suite_recognition"))
    parser.add_argument("--recorded", action="store_true", help="no new runs: a table of those in OUT")
    parser.add_argument("--table", type=Path, help="where the table is written, without suffix")
    return parser.parse_args()


def main() -> None:
    """Run the methods, and write and print the table."""
    options = read_options()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    methods = options.methods.split(",")
    if unknown := set(methods) - set(METHODS):
        raise DataError(f"no method {min(unknown)!r}", expected=", ".join(METHODS))
    data_sets, missing = load_suite(options.data, options.cache, options.sets.split(",") if options.sets else NAMES)
    for name, reason in missing.items():
        print(f"{name}: left out, {reason}")
    sets = {}
    for name, data_set in data_sets.items():
        if isinstance(data_set, RecognitionSet):
            sets[name] = measure_set(data_set, methods, options)
    print(format_result(write_result(sets, options)))


if __name__ == "__main__":
    main()
