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
from unalike.inspection.result import DEFECTIVE, Inspection
from unalike.report.html import Report, ReportImage

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
    page.figures(cards, note="" if threshold is None else str(threshold))
    if metrics is not None:
        page.figures([(METRIC_NAMES[key], metrics[key]) for key in METRIC_NAMES if key in metrics], title="Metrics")
        by_kind = [{"kind": kind, "auroc": value} for kind, value in metrics["by_kind"].items()]
        page.table("Image AUROC by kind of defect", by_kind)
    by_score = sorted(inspections, key=lambda inspection: -inspection.score)
    page.gallery(
        "Highest scores",
        [_row(inspection, overlays, truth, inspector.tiling.decoding) for inspection in by_score[:MAX_IMAGES]],
        note="The image and its anomaly map: transparent below half the threshold, red above it.",
    )
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
    correct = None if truth is None else (inspection.decision == DEFECTIVE) != truth.is_good(source)
    overlay = overlays.get(source)
    picture = (
        inspection.overlay(open_image(source, decoding=decoding), THUMBNAIL_SIDE)
        if overlay is None
        else Image.open(overlay)
    )
    label = f"{inspection.decision}, {len(inspection.regions)} regions"
    return ReportImage(source, Path(source).name, inspection.score, correct), [ReportImage(picture, label)]
