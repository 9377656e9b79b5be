"""``unalike demo``: train on rendered brand marks, evaluate on brands not seen in training, and write a report.

Render images, evaluate the frozen pretrained trunk, train, evaluate again on the same unseen brands, run inference, export,
report. Every step is a call of the public API; the images are rendered by ``demo_images``, so that nothing is downloaded.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.inference.model_files import PRETRAINED
from unalike.progress import say
from unalike.runs.filenames import (
    PER_CLASS_FILE,
    PREDICTIONS_CSV,
    PREDICTIONS_PARQUET,
    REPORT_FILE,
    RESULT_JSONL,
    STATUS_FILE,
)
from unalike.runs.kpi_names import short_name
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.actions.demo_images import BrandSet
    from unalike.actions.result import Result
    from unalike.metrics.intervals import Interval
    from unalike.report.html import ReportImage
    from unalike.spec.demo import Demo

# Height and width of the network's view: enough for marks of this kind, and small enough for five minutes on two cores.
INPUT_SIDE = 128
EPOCHS = 4
IMAGES_FOLDER, ANSWERS_FILE = "images", "answers.png"
SHOWN_HITS, SHOWN_MISSES, SHOWN_NEIGHBORS = 8, 12, 4
METRICS = (("R@1", "precision_at_1"), ("MAP@R", "mean_average_precision_at_r"))


@dataclass(frozen=True)
class DemoResult:
    """The result of the demo.

    Attributes:
        results_dir: Folder of all results.
        report: The HTML report.
        picture: Queries and their nearest references in one picture.
        images: Folder of the rendered images: ``train``, ``unseen/reference`` and ``unseen/query``.
        checkpoint: The trained model.
        onnx: The exported model.
        figures: Metrics of the frozen trunk and of the trained model, and the gain, by name.
        apart: Whether the 95 % interval of the gain in R@1 lies above zero.
        seconds: Duration.
    """

    results_dir: Path
    report: Path
    picture: Path
    images: Path
    checkpoint: Path | None
    onnx: Path | None
    figures: Mapping[str, float]
    apart: bool
    seconds: float


def run_demo(settings: Demo, *, overwrite: bool = False) -> DemoResult:
    """Run the demo.

    Args:
        settings: The section ``demo`` of a spec.
        overwrite: Replace the results of a former demo.

    Raises:
        RunError: The folder holds a demo and ``overwrite`` is not set.
        MissingExtra: The extra ``demo`` is not installed.
    """
    import unalike
    from unalike.actions.demo_images import keep_brands
    from unalike.actions.demo_picture import write_answers

    start, out, seed = time.monotonic(), Path(settings.out), settings.seed
    refuse_existing(out / "train", overwrite, folder=True)
    say(f"rendering {settings.brands} brands to train on and {settings.unseen} others to recognize")
    images = keep_brands(Path(settings.keep or out / IMAGES_FOLDER), brands=settings.brands, unseen=settings.unseen,
                         seed=seed, overwrite=overwrite)  # fmt: skip
    say("the pretrained trunk without training, on the unseen brands:")
    frozen = unalike.evaluate(_spec_on_unseen(images, out, "evaluate", "frozen", PRETRAINED), overwrite=overwrite)
    _say_figures(frozen)
    trained = unalike.train(_training_spec(images, out, settings.epochs or EPOCHS, seed), overwrite=overwrite)
    checkpoint = str(trained.path)
    say("the trained model, on the same unseen brands:")
    evaluated = unalike.evaluate(_spec_on_unseen(images, out, "evaluate", "trained", checkpoint), overwrite=overwrite)
    _say_figures(evaluated)
    inferred = unalike.infer(_spec_on_unseen(images, out, "inference", "inference", checkpoint), overwrite=overwrite)
    exported = unalike.export(_spec_on_unseen(images, out, "export", "export", checkpoint), overwrite=overwrite)
    gains = compare(read_predictions(frozen.results_dir), read_predictions(evaluated.results_dir))
    report = write_demo_report(out / REPORT_FILE, images, gains, trained.results_dir, evaluated.results_dir,
                               inferred.results_dir)  # fmt: skip
    picture = write_answers(out / ANSWERS_FILE, inferred.results_dir / RESULT_JSONL)
    for line in describe_gains(gains):
        say(line)
    figures = {f"{name} {side}": interval.value for name, *sides in gains
               for side, interval in zip(("frozen", "trained", "gain"), sides, strict=True)}  # fmt: skip
    return DemoResult(out, report, picture, images.root, trained.path, exported.path, figures, gains[0][3].low > 0,
                      round(time.monotonic() - start, 1))  # fmt: skip


def _say_figures(result: Result) -> None:
    for name, value in result.figures.items():
        say(f"{short_name(name)}: {value:.4f}")


def _spec_on_unseen(images: BrandSet, out: Path, action: str, folder: str, checkpoint: str) -> dict[str, Any]:
    """The spec of evaluate, inference or export on the unseen brands."""
    section: dict[str, Any] = {"results_dir": str(out / folder), "checkpoint": checkpoint}
    if action == "inference":
        section |= {"input_path": str(images.query), "inference_input_type": "classification_folder",
                    "topk": SHOWN_NEIGHBORS}  # fmt: skip
    if action == "evaluate":
        section |= {"resample": "classes"}  # the claim is about other brands, so brands are random
    spec: dict[str, Any] = {
        "dataset": {"val_dataset": {"reference": str(images.reference), "query": str(images.query)}},
        action: section,
    }
    if checkpoint == PRETRAINED:
        spec["model"] = _network()
    return spec


def _network() -> dict[str, Any]:
    """The best trunk whose weights are installed; a spec without a backbone would mean TAO's default."""
    from unalike.model.pretrained import best_available_trunk

    return {"backbone": best_available_trunk(), "input_height": INPUT_SIDE, "input_width": INPUT_SIDE}


def _training_spec(images: BrandSet, out: Path, epochs: int, seed: int) -> dict[str, Any]:
    """The spec of plain training with the documented values, but without mirroring (marks are not symmetric) and with strong
    color jitter (color does not identify a mark)."""
    return {
        "model": _network(),
        "dataset": {
            "train_dataset": str(images.train),
            "prob": 0.0,
            "color_augmentation": {"enabled": True, "brightness": 0.4, "contrast": 0.4, "saturation": 0.8, "hue": 0.5},
        },
        "train": {"recipe": "unalike", "num_epochs": epochs, "seed": seed, "results_dir": str(out / "train")},
        "automl_policy": "off",
    }


# ---- results ----


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """The rows of an evaluation's ``predictions.parquet`` or ``.csv``, sorted by path."""
    rows: list[dict[str, Any]]
    if (folder / PREDICTIONS_PARQUET).exists():
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(folder / PREDICTIONS_PARQUET).to_pylist()
    else:
        with open(folder / PREDICTIONS_CSV, encoding="utf-8", newline="") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
    return sorted(rows, key=lambda row: str(row["path"]))


def compare(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> list[tuple[str, Interval, Interval, Interval]]:
    """(metric, frozen, trained, paired difference) with 95 % intervals over unseen brands, on the same queries."""
    import numpy as np

    from unalike.metrics.intervals import difference_interval, mean_interval

    after_by_path = {row["path"]: row for row in after}
    pairs = [(row, after_by_path[row["path"]]) for row in before if row["path"] in after_by_path]
    groups = np.array([row["class"] for row, _ in pairs])
    gains = []
    for name, column in METRICS:
        old, new = (np.array([float(pair[side][column]) for pair in pairs]) for side in (0, 1))
        gains.append(
            (name, mean_interval(old, groups), mean_interval(new, groups), difference_interval(old, new, groups))
        )
    return gains


def describe_gains(gains: Sequence[tuple[str, Interval, Interval, Interval]]) -> list[str]:
    """One line for each metric: both values, the gain, and whether its interval excludes zero."""
    from unalike.metrics.intervals import TOO_FEW

    lines = []
    for name, old, new, gain in gains:
        apart = (
            "apart: training helped"
            if gain.low > 0
            else "NOT apart"
            if not gain.excludes_zero
            else "apart: training HARMED"
        )
        bounds = TOO_FEW if gain.too_few else f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
        lines.append(
            f"{name} on unseen brands: frozen {100 * old.value:.1f} %, trained {100 * new.value:.1f} %, "
            f"gain {100 * gain.value:+.1f} ({bounds}, 95 %, paired); {apart}"
        )
    return lines


def write_demo_report(
    path: Path, images: BrandSet, gains: Sequence[tuple[str, Interval, Interval, Interval]], training: Path,
    evaluation: Path, inference: Path,
) -> Path:  # fmt: skip
    """Write one self-contained HTML file with figures, curves, hits, misses and the table of classes.

    Args:
        path: The file.
        images: The rendered brands.
        gains: The result of ``compare``.
        training, evaluation, inference: Results folders of the actions.
    """
    from unalike.report.html import Report
    from unalike.report.sentences import count_of, range_note, share_sentence

    lines = [json.loads(line) for line in (inference / RESULT_JSONL).read_text(encoding="utf-8").splitlines()]
    hits = [line for line in lines if line["label"] == _brand(line["path"])]
    misses = [line for line in lines if line["label"] != _brand(line["path"])]
    with open(evaluation / PER_CLASS_FILE, encoding="utf-8", newline="") as file:
        per_class = [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]
    report = Report(
        "Brand marks not seen in training",
        f"Trained on {len(images.train_brands)} brands (some of them held out to choose the epoch), measured on "
        f"{len(images.unseen_brands)} others: "
        f"{len(lines)} queries against {len(images.unseen_brands)} brands' reference images.",
    )
    sizes = f"{len(lines):,} queries, {len(images.unseen_brands):,} brands"
    report.sentence(share_sentence(gains[0][2], "images of new things", "get the right name", images=len(lines),
                                   few=count_of(len(images.unseen_brands), "brand")))  # fmt: skip
    report.sentence(f"Measured with {len(lines):,} images of {len(images.unseen_brands):,} brands that training never saw{range_note(gains[0][1:3])}. "
                    + share_sentence(gains[0][1], "images", "get it without that training", images=len(lines)))  # fmt: skip
    report.gallery("Misses", [_row(line) for line in misses[:: max(1, len(misses) // SHOWN_MISSES)][:SHOWN_MISSES]],
                   note=f"{len(misses)} of {len(lines)}: each query with its nearest references.", columns=("query", "nearest reference", "next nearest"))  # fmt: skip
    report.gallery("Hits", [_row(line) for line in hits[:: max(1, len(hits) // SHOWN_HITS)][:SHOWN_HITS]],
                   note=f"{len(hits)} of {len(lines)}.", columns=("query", "nearest reference", "next nearest"))  # fmt: skip
    report.comparison([(*row, sizes) for row in gains], before="frozen", after="trained",
                      title="Frozen and trained on the same queries",
                      note=" ".join(f"{line}." for line in describe_gains(gains)))  # fmt: skip
    report.curves("Training", _curves(training))
    report.table("Every unseen brand", per_class)
    return report.write(path)


def _brand(path: str) -> str:
    return Path(path).parent.name


def _row(line: Mapping[str, Any]) -> tuple[ReportImage, list[ReportImage]]:
    from unalike.report.html import ReportImage

    truth = _brand(line["path"])
    return ReportImage(line["path"], truth), [
        ReportImage(neighbor["reference"], neighbor["label"], neighbor["score"], neighbor["label"] == truth)
        for neighbor in line["neighbours"]
    ]


def _number(text: str) -> int | float | str | None:
    try:
        return int(text)
    except ValueError:
        pass  # not an integer; perhaps a float
    try:
        return float(text)
    except ValueError:
        return text or None


def _curves(training: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Plot title -> line -> points, from ``status.json``: the loss, and the validation metrics."""
    points: dict[str, list[tuple[float, float]]] = {}
    for text in (training / STATUS_FILE).read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        # Epochs count from 0; a validation is plotted at the end of its epoch, a step at its fraction of all epochs.
        epoch = float(line.get("epoch", 0)) + 1
        if "max_step" in line:
            epoch = line["step"] * line["max_epoch"] / line["max_step"]
        for name, value in (line.get("kpi") or {}).items():
            if value is not None and "epoch" in line:
                points.setdefault(name, []).append((epoch, float(value)))
    metrics = ("val Precision at Rank 1", "val Mean Average Precision")
    plots = {"training loss": ("train_loss",), "held-out training brands": metrics}
    return {
        title: {short_name(name): points[name] for name in names if name in points} for title, names in plots.items()
    }
