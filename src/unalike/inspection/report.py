"""The HTML report of inspected images: counts, metrics, the images with the highest scores, a table of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from unalike.data.decode import open_image
from unalike.data.decoding import Decoding
from unalike.inspection.ground_truth import GroundTruth
from unalike.inspection.inspector import Inspector
from unalike.inspection.result import DEFECTIVE, GOOD, UNDECIDED, Inspection
from unalike.metrics.intervals import Interval
from unalike.report.html import Report, ReportImage
from unalike.report.sentences import count_of, range_note, share_sentence

MAX_IMAGES = 24
THUMBNAIL_SIDE = 480
METRIC_NAMES = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "pro": "PRO"}


def write_report(
    path: Path, inspector: Inspector, inspections: Sequence[Inspection], *, overlays: Mapping[str, Path],
    metrics: Mapping[str, Any] | None = None, truth: GroundTruth | None = None,
) -> Path:  # fmt: skip
    """Write one self-contained HTML file.

    Args:
        path: The file to write.
        inspector: The inspector.
        inspections: The results of all readable images.
        overlays: Image path -> overlay file, for those that were written; others are drawn.
        metrics: ``ground_truth.compute_metrics``, where the truth is known.
        truth: The ground truth; marks right and wrong decisions.

    Returns:
        ``path``.
    """
    threshold = inspector.threshold
    page = Report(
        "Inspection", f"{len(inspections)} images; {inspector.network.trunk}, memory of {len(inspector.model.memory)}"
    )
    cards: list[tuple[str, Any]] = [
        ("images", str(len(inspections))), ("defective", str(sum(one.decision == DEFECTIVE for one in inspections)))
    ]  # fmt: skip
    if threshold is not None:
        cards += [
            ("threshold", f"{threshold.threshold:.4g}"),
            ("false alarms expected", f"{threshold.expected_rate:.2%}"),
        ]
    for text in describe_inspections(inspections, metrics):
        page.sentence(text)
    by_score = sorted(inspections, key=lambda inspection: -inspection.score)
    page.gallery(
        "Highest scores",
        [_row(inspection, overlays, truth, inspector.tiling.decoding) for inspection in by_score[:MAX_IMAGES]],
        note="The image and its anomaly map: transparent below half the threshold, red above it.",
        columns=("image", "anomaly map"), score="score",
    )  # fmt: skip
    page.figures(cards, note="" if threshold is None else str(threshold))
    if metrics is not None:
        page.figures([(METRIC_NAMES[key], metrics[key]) for key in METRIC_NAMES if key in metrics], title="Metrics")
        by_kind = [{"kind": kind, "auroc": value} for kind, value in metrics["by_kind"].items()]
        page.table("Image AUROC by kind of defect", by_kind)
    table = [
        {"image": Path(one.source).name, "decision": one.decision, "score": one.score, "regions": len(one.regions),
         "box of the highest": str(list(one.regions[0].box)) if one.regions else None}
        for one in by_score
    ]  # fmt: skip
    return page.table("All images", table).write(path)


def _row(
    inspection: Inspection, overlays: Mapping[str, Path], truth: GroundTruth | None, decoding: Decoding
) -> tuple[ReportImage, list[ReportImage]]:
    """An image, and beside it its overlay."""
    source = inspection.source
    caption = Path(source).name
    if truth is not None and inspection.decision != UNDECIDED:
        good = truth.is_good(source)
        agrees = (inspection.decision == DEFECTIVE) != good
        caption += f"; {'as' if agrees else 'but'} in truth {'good' if good else 'defective'}"
    overlay = overlays.get(source)
    picture = (
        inspection.overlay(open_image(source, decoding=decoding), THUMBNAIL_SIDE)
        if overlay is None
        else Image.open(overlay)
    )
    passes = {GOOD: True, DEFECTIVE: False}.get(inspection.decision)
    image = ReportImage(source, caption, inspection.score, passes, inspection.decision)
    return image, [ReportImage(picture, count_of(len(inspection.regions), "region"))]


def describe_inspections(inspections: Sequence[Inspection], metrics: Mapping[str, Any] | None) -> list[str]:
    """Say how many images are defective and, where the truth is known, how many defects were found and how many alarms are false.

    Args:
        inspections: The results.
        metrics: ``ground_truth.compute_metrics``; None where the truth is not known.
    """
    images, defective = len(inspections), sum(one.decision == DEFECTIVE for one in inspections)
    count_text = f"Of {count_of(images, 'image')}, {defective:,} {'is' if defective == 1 else 'are'} defective."
    if any(one.decision == UNDECIDED for one in inspections):
        count_text = f"{count_of(images, 'image')} {'has' if images == 1 else 'have'} a score; without a threshold none is called defective."
    if metrics is None or "found" not in metrics:
        return [count_text]
    shares = [
        ("found", "defective images", "are found", "defects"),
        ("false_alarms", "good images", "are called defective", "good"),
    ]
    rates = [Interval.from_dict(metrics[key]) for key, *_ in shares]
    texts = [share_sentence(rate, subject, predicate, images=metrics[count], few=count_of(metrics[count], "image"))
             for rate, (_, subject, predicate, count) in zip(rates, shares, strict=True)]  # fmt: skip
    basis = f"{count_of(metrics['defects'], 'defective image')} and {count_of(metrics['good'], 'good one')}"
    return [*texts, f"Measured with {basis}{range_note(rates)}. {count_text}"]
