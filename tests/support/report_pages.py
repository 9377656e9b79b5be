"""One example of every page that a command writes, from drawn images and vectors: for tests in a browser and for screenshots.

Each function writes a page into a folder and returns an ``ExamplePage``: the path, and the figures as the command's JSON has
them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image, ImageDraw

from tests.support.drawings import shapes
from tests.support.marks import mark
from unalike.data.decoding import Decoding
from unalike.data.imageset import ImageSet
from unalike.metrics.retrieval import evaluate_ranking
from unalike.metrics.summary import summarize
from unalike.report.evaluation import EmbeddedImages, ExplainedMatches, write_evaluation_report

WORDS = ("anchor", "birch", "comet", "delta", "ember", "falcon", "garnet", "harbor", "indigo", "juniper", "kestrel", "lotus",
         "maple", "nimbus", "onyx", "pebble", "quartz", "raven", "saffron", "tundra")  # fmt: skip
REFERENCES, QUERIES, WIDTH = 3, 5, 24


@dataclass(frozen=True)
class ExamplePage:
    """A page and the figures of the JSON file beside it."""

    path: Path
    figures: Mapping[str, Any]


@cache
def composite(number: int) -> Image.Image:
    """Mark ``number`` on white, 240 pixels a side."""
    return Image.fromarray(mark(number).composite((255, 255, 255))).resize((240, 240))


def photograph(number: int, seed: int) -> Image.Image:
    """Mark ``number`` on a card that lies on a table, 360 x 270, turned and lit as ``seed`` draws it."""
    rng = np.random.default_rng([number, seed])
    table = Image.new("RGB", (360, 270), tuple(int(v) for v in rng.integers(90, 190, 3)))
    side = int(rng.integers(150, 230))
    card = (
        composite(number)
        .resize((side, side))
        .convert("RGBA")
        .rotate(float(rng.uniform(-25, 25)), Image.Resampling.BICUBIC, expand=True)
    )
    table.paste(card, ((360 - card.width) // 2 + int(rng.integers(-40, 41)), (270 - card.height) // 2), card)
    return table.point(
        [min(255, int(level * rng_gain)) for rng_gain in rng.uniform(0.75, 1.1, 3) for level in range(256)]
    )


def marks(folder: Path, classes: int, images: int, first: int = 0) -> ImageSet:
    """Images of drawn marks below ``folder``, one class after the other."""
    paths = []
    for number in range(classes):
        for image in range(images):
            path = folder / WORDS[number] / f"{image}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            photograph(number, first + image).save(path)
            paths.append(path)
    return ImageSet(tuple(paths), np.repeat(np.arange(classes), images), WORDS[:classes], source=str(folder))


def vectors(images: ImageSet, spread: float, seed: int) -> np.ndarray:
    """Vectors around a center for each class, float32 (N, WIDTH)."""
    centers = np.random.default_rng(9).standard_normal((len(images.classes), WIDTH))
    noise = np.random.default_rng(seed).standard_normal((len(images), WIDTH))
    return (centers[images.labels_N] + spread * noise).astype(np.float32)


def _retrieval(folder: Path) -> tuple[EmbeddedImages, EmbeddedImages]:
    query, reference = marks(folder / "query", 14, QUERIES, 50), marks(folder / "reference", 14, REFERENCES)
    query_ND, reference_ND = vectors(query, 1.1, 1), vectors(reference, 0.9, 2)
    reference_ND[4] = query_ND[7]  # a near-duplicate
    return (EmbeddedImages.from_vectors(query_ND, query.labels_N, query.classes, query.paths),
            EmbeddedImages.from_vectors(reference_ND, reference.labels_N, reference.classes, reference.paths))  # fmt: skip


def evaluate(folder: Path) -> ExamplePage:
    """``unalike evaluate``: 14 classes that training never saw."""
    query, reference = _retrieval(folder)
    ranking = evaluate_ranking(query.vectors_ND, query.labels_N, reference.vectors_ND, reference.labels_N)
    summary = summarize(ranking, WORDS[:14], reference_labels=reference.labels_N, unseen_classes=True)
    rows = explain(folder / "explained")
    page, *_ = write_evaluation_report(
        folder, summary, ranking, query, reference, title="Evaluation of marks.pth", neighbors=None,
        subtitle="70 queries against 42 references of 14 classes; marks/query",
        explanations=ExplainedMatches(rows.figures["rows"][:2], "Each map is on its own scale.", folder / "misses.html"),
    )  # fmt: skip
    (folder / "misses.html").write_bytes(rows.path.read_bytes())
    return ExamplePage(page, summary)


def evaluate_few_classes(folder: Path) -> ExamplePage:
    """``unalike evaluate --resample classes`` with two classes: too few for an interval."""
    query, reference = marks(folder / "query", 2, QUERIES, 50), marks(folder / "reference", 2, REFERENCES)
    embedded = [EmbeddedImages.from_vectors(vectors(images, 0.9, seed), images.labels_N, images.classes, images.paths)
                for seed, images in ((1, query), (2, reference))]  # fmt: skip
    ranking = evaluate_ranking(embedded[0].vectors_ND, query.labels_N, embedded[1].vectors_ND, reference.labels_N)
    summary = summarize(ranking, WORDS[:2], resample="classes")
    page, *_ = write_evaluation_report(
        folder, summary, ranking, *embedded, title="Evaluation of marks.pth", subtitle="two classes"
    )
    return ExamplePage(page, summary)


def _history() -> Any:
    from unalike.training.history import History

    steps = [{"epoch": s // 50, "step": s, "train_loss": 2 / (1 + s / 100), "trunk_base_lr": 1e-3 * (1 - s / 1001),
              "embedder_base_lr": 2e-3 * (1 - s / 1001)} for s in range(1, 1001)]  # fmt: skip
    validations = [{"epoch": e, "step": 50 * e, "val Precision at Rank 1": 0.6 + 0.3 * (1 - 0.8**e),
                    "val Mean Average Precision": 0.5 + 0.2 * (1 - 0.8**e)} for e in range(20)]  # fmt: skip
    return History(steps, validations)


def _train_spec() -> Any:
    from unalike.spec import load_spec

    return load_spec("train", {"dataset": {"train_dataset": "marks/train"}, "train": {"num_epochs": 20}})


def train(folder: Path) -> ExamplePage:
    """``unalike train`` of a spec, with validation on held-out images."""
    from unalike.data.from_spec import TrainingSets
    from unalike.training.report import write_training_report
    from unalike.training.trainer import TrainingResult

    query, reference = marks(folder / "query", 14, QUERIES, 50), marks(folder / "reference", 14, REFERENCES)
    seen = (query, vectors(query, 1.1, 1)), (reference, vectors(reference, 0.9, 2))
    ranking = evaluate_ranking(seen[0][1], query.labels_N, seen[1][1], reference.labels_N)
    sets = TrainingSets(reference, reference, query, "a fifth of the images of each class", False)
    result = TrainingResult(folder / "ml_model_best.pth", {}, 12, {}, _history(), sets, ranking, None, seen)
    page, *_ = write_training_report(folder, _train_spec(), result)
    return ExamplePage(page, summarize(ranking, reference.classes))


def train_automatic(folder: Path) -> ExamplePage:
    """``unalike train DATA --minutes 10``: candidates, heads, fine-tuning."""
    from unalike.training.automatic.holdout import Split
    from unalike.training.automatic.holdout_result import KIND_MEANINGS, evaluate_embeddings
    from unalike.training.report import write_automatic_report

    images = marks(folder / "images", 20, 6)
    everything, frozen = np.arange(len(images)), vectors(images, 1.3, 3)
    known, new = everything % 3 == 0, everything >= 60
    splits = [Split("known", everything[~known], everything[~known], everything[known]),
              Split("new", everything[~new], everything[new & ~known], everything[new & known])]  # fmt: skip

    def measure(spread: float) -> Any:
        vectors_ND = vectors(images, spread, 4)
        return evaluate_embeddings(
            splits, images.labels_N, lambda _, split: (vectors_ND[split.query_N], vectors_ND[split.reference_N]), with_images=True
        )  # fmt: skip

    base, best = measure(1.3), measure(0.9)
    reasons = {"frozen trunk": "R@1 of new classes is lower", "head: LDA": "MAP@R of known classes is lower by more than its error",
               "fine-tuned": ""}  # fmt: skip
    candidates = [{"name": name, "reason": reasons[name], "statement": "on new classes it is better than the frozen trunk",
                   **(best if name == "fine-tuned" else base).to_dict(base)} for name in reasons]  # fmt: skip
    record = {
        "minutes": 10.0, "spent_minutes": 9.5, "chosen": "fine-tuned", "rule": "the highest R@1, then MAP@R", "not_tested": "",
        "heads": [{"name": "LDA", "score": 0.71}, {"name": "PCA whitening", "score": 0.69}], "candidates": candidates,
        "evaluation": {"method": "one hold-out", "counts": best.counts(), "meaning": KIND_MEANINGS},
    }  # fmt: skip
    page, *_ = write_automatic_report(folder, _train_spec(), record, _history(), images, frozen, best)
    return ExamplePage(page, record)


def automl(folder: Path) -> ExamplePage:
    """``unalike automl``: twelve trials, one of which failed."""
    from unalike.training.hyperparameter_search.results import TrialRecord, write_report

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    records = []
    for number in range(12):
        values = (
            {}
            if number == 0
            else {"train.optim.lr": float(10 ** rng.uniform(-5, -3)), "train.loss.margin": float(rng.uniform(0, 1))}
        )
        value = None if number == 5 else round(0.7 + 0.2 * float(rng.random()), 4)
        state, reason = ("failed", "out of memory at batch size 256") if number == 5 else ("complete", "")
        curve = {} if value is None else {epoch: value - 0.2 * 0.6**epoch for epoch in range(8)}
        records.append(
            TrialRecord(number, state, value, 7, 8, 61.0, values, {}, reason, f"trial_{number:03d}", "", 1, curve)
        )
    best = max(records, key=lambda record: record.value or 0)
    record = {
        "monitor": "val Precision at Rank 1", "sign": 1, "selected_on": "held-out training classes", "algorithm": "bayesian",
        "best": {"trial": best.trial, "value": best.value}, "counts": {"complete": 11, "failed": 1}, "seconds": 732.0,
        "importance": {"train.optim.lr": 0.71, "train.loss.margin": 0.29},
        "space": {"train.optim.lr": {"base": 1e-4, "range": "1e-5 to 1e-3, log"}, "train.loss.margin": {"base": 0.2, "range": "0 to 1"}},
        "left_out": {"train.optim.momentum": "the optimizer has none"}, "on_your_query": {"test Precision at Rank 1": 0.84},
        "monitored": 0.84,
    }  # fmt: skip
    return ExamplePage(write_report(folder, record, records), record)


def gallery(folder: Path) -> ExamplePage:
    """``unalike gallery build``: what its threshold costs."""
    from unalike.recognition.gallery import Gallery
    from unalike.recognition.gallery_calibration import collect_trials
    from unalike.recognition.operating_point import choose_threshold
    from unalike.recognition.report import write_threshold_report

    rng = np.random.default_rng(0)
    vectors_CID = rng.normal(size=(400, 1, WIDTH)) + 0.45 * rng.normal(size=(400, 4, WIDTH))
    built = Gallery(WIDTH)
    built.enrol(vectors_CID.reshape(-1, WIDTH).astype(np.float32), [f"class {c}" for c in range(400) for _ in range(4)])
    trials = collect_trials(built)
    calibration = choose_threshold(trials)
    folder.mkdir(parents=True, exist_ok=True)
    return ExamplePage(
        write_threshold_report(folder / "gallery_report.html", calibration, trials), calibration.to_dict()
    )


def compare(folder: Path) -> ExamplePage:
    """``unalike compare``: pairs of drawings, two of which differ."""
    from unalike.comparison.comparer import Comparer
    from unalike.comparison.report import PairPreview, make_pairs_report

    entries, previews = [], []
    for number, name in enumerate(("label front", "label back", "carton", "insert")):
        reference = shapes(number)
        image = Image.fromarray(reference)
        if number in (0, 2):
            ImageDraw.Draw(image).rectangle([100, 90, 140 + 10 * number, 120], fill=(255, 0, 160))
        result = Comparer().compare(reference, np.asarray(image))
        pictures = {"reference": result.reference(), "boxes": result.picture(), "heat": result.heat_map()}
        entries.append({"name": name, **result.to_dict()})
        previews.append(PairPreview.from_result(name, result, pictures))
    entries.append({"name": "leaflet", "error": "leaflet.png: not an image"})
    return ExamplePage(make_pairs_report(entries, previews).write(folder / "report.html"), {"pairs": entries})


def plate(seed: int, defect: str = "") -> Image.Image:
    """A brushed plate with four holes, 320 x 240; with a scratch or a stain."""
    rng = np.random.default_rng(seed)
    lines = 165 + rng.normal(0, 5, (240, 1)).repeat(320, axis=1) + rng.normal(0, 2, (240, 320))
    image = Image.fromarray(np.repeat(lines.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))
    draw = ImageDraw.Draw(image)
    for x, y in ((40, 40), (280, 40), (40, 200), (280, 200)):
        draw.ellipse([x - 14, y - 14, x + 14, y + 14], fill=(40, 42, 48))
    x, y = (int(v) for v in rng.integers([90, 70], [200, 150]))
    if defect == "scratch":
        draw.line([(x, y), (x + 60, y + 25)], fill=(235, 235, 235), width=4)
    elif defect == "stain":
        draw.ellipse([x, y, x + 40, y + 32], fill=(120, 96, 60))
    return image


def inspect(folder: Path) -> ExamplePage:
    """``unalike inspect run`` with the truth known: 12 good plates and 8 defective ones."""
    from unalike.inspection.anomaly_map import AnomalyRegion
    from unalike.inspection.ground_truth import GroundTruth, compute_metrics
    from unalike.inspection.report import write_report
    from unalike.inspection.result import DEFECTIVE, GOOD, Inspection
    from unalike.metrics.false_alarm import fit_threshold

    rng = np.random.default_rng(0)
    threshold = fit_threshold(rng.normal(1.0, 0.12, 200), 0.05)
    inspections = []
    for number in range(20):
        kind = "good" if number < 12 else "scratch" if number % 2 else "stain"
        path = folder / "images" / kind / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = plate(number, "" if kind == "good" else kind)
        image.save(path)
        away = np.abs(np.asarray(image, np.float32) - np.asarray(plate(number), np.float32)).mean(axis=2)
        map_hw = away.reshape(30, 8, 40, 8).mean((1, 3)) / 12 + rng.normal(0.5, 0.1, (30, 40))
        score = 0.99 if number == 13 else float(np.sort(map_hw.ravel())[-8:].mean()) + (0.7 if number == 3 else 0.2)
        defective = score > threshold.threshold
        rows, columns = np.nonzero(map_hw > threshold.threshold)
        box = (
            int(columns.min(initial=40)) * 8,
            int(rows.min(initial=30)) * 8,
            int(columns.max(initial=0)) * 8 + 8,
            int(rows.max(initial=0)) * 8 + 8,
        )
        regions = (AnomalyRegion(box, float(map_hw.max()), 64 * len(rows)),) if defective and len(rows) else ()
        inspections.append(Inspection(score, threshold.threshold, DEFECTIVE if defective else GOOD, regions,
                                      map_hw.astype(np.float32), (240, 320), source=str(path)))  # fmt: skip
    truth = GroundTruth(good="good")
    metrics = compute_metrics(inspections, truth)
    inspector = SimpleNamespace(threshold=threshold, network=SimpleNamespace(trunk="efficientnet_lite0"),
                                model=SimpleNamespace(memory=range(1000)), tiling=SimpleNamespace(decoding=Decoding()))  # fmt: skip
    page = write_report(folder / "report.html", inspector, inspections, overlays={}, metrics=metrics, truth=truth)  # type: ignore[arg-type]
    return ExamplePage(page, {"measured": metrics, "decisions": [one.decision for one in inspections]})


class _Limits(SimpleNamespace):
    """Thresholds of verification: what the page needs of them."""

    def __str__(self) -> str:
        return "same from a score of 0.62; one altered copy in a hundred is called the same"


def verify(folder: Path) -> ExamplePage:
    """``unalike verify``: approved marks as they are, altered, and a mark of no set."""
    from unalike.verification.measures import AssetDifference
    from unalike.verification.regions import AlteredRegion
    from unalike.verification.report import write_report
    from unalike.verification.result import ABSENT, ALTERED, ANSWERS, DIFFERENT, SAME, VerificationResult

    assets = [mark(number) for number in range(3)]
    decoding = SimpleNamespace(model_identity=SimpleNamespace(decoding=Decoding()))
    approved: Any = SimpleNamespace(
        assets=assets, gallery=decoding, thresholds=_Limits(limits={"edges": 0.31, "parts": 0.22})
    )
    results = []
    folder.mkdir(parents=True, exist_ok=True)
    for number, answer in enumerate((SAME, SAME, ALTERED, ALTERED, DIFFERENT, ABSENT)):
        image = photograph(number % 3 if answer != ABSENT else 7, 9 + number)
        observed = composite(number % 3).copy()
        heat_HW = np.zeros((240, 240), np.float32)
        if answer == ALTERED:
            ImageDraw.Draw(image).rectangle([150, 100, 215, 160], fill=(250, 250, 250))
            ImageDraw.Draw(observed).rectangle([90, 70, 150, 130], fill=(250, 250, 250))
            heat_HW[70:130, 90:150] = 0.8
        image.save(folder / f"photo {number}.png")
        pixels = np.asarray(observed)
        unused: Any = None
        difference = None if answer == ABSENT else AssetDifference(unused, {}, heat_HW, pixels, pixels, unused, 240.0)
        regions = (AlteredRegion((150, 100, 216, 161), 0.8),) if answer == ALTERED else ()
        score = 0.9 if answer == SAME else 0.3
        results.append((folder / f"photo {number}.png", VerificationResult(
            answer, assets[number % 3].name, score, 0.62, 0.8, {"parts": 2.1} if answer == ALTERED else {}, regions,
            ((110.0, 60.0), (250.0, 60.0), (250.0, 210.0), (110.0, 210.0)), size=(270, 360), difference=difference)))  # fmt: skip
    page = write_report(folder / "out", approved, results)
    return ExamplePage(
        page, {"answers": {answer: sum(one.answer == answer for _, one in results) for answer in ANSWERS}}
    )


def discover(folder: Path) -> ExamplePage:
    """``unalike discover``: groups of marks without labels."""
    from unalike.discovery.clustering import group_images
    from unalike.discovery.report import write_report

    images = marks(folder / "images", 8, 6)
    features_ND = vectors(images, 0.5, 7)
    features_ND[5] = features_ND[4] + 1e-3
    features_ND[-1] = 4 * np.random.default_rng(3).standard_normal(WIDTH)
    groups = group_images(features_ND)
    figures = {"images": len(images), "groups": groups.count, "in_no_group": int((groups.group_N < 0).sum()),
               "near_duplicates": int((groups.duplicate_of_N >= 0).sum()), "unreadable": 1,
               "mean_confidence": float(groups.confidence_N.mean()), "agreement": groups.agreement}  # fmt: skip
    names = [path.name for path in images.paths]
    page = write_report(
        folder / "report.html", images.paths, groups, figures, names, [("images/broken.jpg", "not an image")]
    )
    return ExamplePage(page, figures)


def explain(folder: Path) -> ExamplePage:
    """``unalike inference --explain``: what makes a query and its nearest reference alike."""
    from unalike.actions.explain import explain_matches
    from unalike.explanation.evidence import Evidence
    from unalike.explanation.explainer import Explanation

    query, reference = marks(folder / "query", 3, 2, 50), marks(folder / "reference", 3, 2)

    def explain_pair(first: Path, second: Path) -> Explanation:
        images = [np.asarray(Image.open(path).convert("RGB").resize((300, 200))) for path in (first, second)]
        maps = np.random.default_rng(len(str(first))).random((2, 2, 6, 9)).astype(np.float32) ** 3
        parts = [Evidence(0.83, one, other, True) for one, other in maps]
        return Explanation(*parts, *images)

    explainer = SimpleNamespace(explain=explain_pair, method="exact")
    with mock.patch("unalike.actions.explain.Explainer.from_model", return_value=explainer):
        model: Any = SimpleNamespace(source=Path("marks.pth"))
        explained = explain_matches(folder, model, query, reference, np.array([0, 1, 2, 4, 4, 5]))
    lines = [json.loads(line) for line in (folder / "explain.jsonl").read_text(encoding="utf-8").splitlines()]
    same = sum(line["query_label"] == line["reference_label"] for line in lines)
    return ExamplePage(explained.page, {"pairs": len(lines), "same": same, "rows": explained.rows})


def demo(folder: Path) -> ExamplePage:
    """``unalike demo``: brand marks that training never saw."""
    from unalike.actions.demo import compare as compare_predictions
    from unalike.actions.demo import write_demo_report
    from unalike.actions.demo_images import BrandSet
    from unalike.runs.filenames import PER_CLASS_FILE, RESULT_JSONL, STATUS_FILE

    images, rng = marks(folder / "query", 14, QUERIES, 50), np.random.default_rng(0)
    for name in ("train", "evaluate", "inference"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    before, after, lines = [], [], []
    for path, label in zip(images.paths, images.labels_N.tolist(), strict=True):
        hits = rng.random(2) < (0.65, 0.85)
        guesses = [label if hits[1] else (label + 1) % 14, (label + 3) % 14, (label + 5) % 14]
        lines.append({"path": str(path), "label": WORDS[guesses[0]], "neighbours": [
            {"reference": str(images.paths[QUERIES * guess]), "label": WORDS[guess], "score": 0.9 - 0.1 * rank}
            for rank, guess in enumerate(guesses)]})  # fmt: skip
        row = {"path": str(path), "class": WORDS[label]}
        for rows, hit in ((before, hits[0]), (after, hits[1])):
            rows.append(row | {"precision_at_1": float(hit), "mean_average_precision_at_r": float(hit) * 0.8})
    (folder / "inference" / RESULT_JSONL).write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    with open(folder / "evaluate" / PER_CLASS_FILE, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerows([("class", "queries", "precision_at_1"), *((word, QUERIES, 0.8) for word in WORDS[:14])])
    status = [{"epoch": e, "step": 10 * e, "kpi": {"val Precision at Rank 1": 0.6 + e / 50}} for e in range(10)]
    (folder / "train" / STATUS_FILE).write_text("".join(json.dumps(line) + "\n" for line in status), encoding="utf-8")
    gains = compare_predictions(before, after)
    page = write_demo_report(
        folder / "report.html", BrandSet(folder, tuple("abc"), WORDS[:14]), gains,
        *(folder / name for name in ("train", "evaluate", "inference")),
    )  # fmt: skip
    return ExamplePage(page, {name: [old.to_dict(), new.to_dict()] for name, old, new, _ in gains})


# Name of the page -> function. docs/reports.md shows them in this order.
PAGES: dict[str, Callable[[Path], ExamplePage]] = {
    "evaluate": evaluate, "evaluate-few-classes": evaluate_few_classes, "train": train, "train-automatic": train_automatic,
    "automl": automl, "gallery": gallery, "compare": compare, "inspect": inspect, "verify": verify, "discover": discover,
    "explain": explain, "demo": demo,
}  # fmt: skip
