"""The HTML report of a new gallery: what its threshold costs in both directions, as a sentence and as a curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unalike.metrics.intervals import Interval
from unalike.recognition.calibration_trials import CalibrationTrials
from unalike.recognition.decision import GalleryCalibration, format_bounds
from unalike.recognition.operating_point import cost_curve
from unalike.report.html import Report
from unalike.report.sentences import count_of, range_note, share_sentence


def write_threshold_report(path: Path, calibration: GalleryCalibration, trials: CalibrationTrials) -> Path:
    """Write the page; returns ``path``."""
    snapshot, share = trials.snapshot, calibration.false_match
    report = Report("Gallery", f"{len(snapshot)} reference images of {np.count_nonzero(snapshot.counts_C)} classes")
    for text in describe_costs(calibration):
        report.sentence(text)
    entries: list[tuple[str, float | str | None]] = [
        ("threshold" if not calibration.provisional else "provisional threshold", calibration.threshold),
        ("unknown images taken for known", f"{share.rate:.1%} ({format_bounds(share.rate, share.low, share.high)})"),
    ]
    if "known_unknown_low" in calibration.figures:
        refusal, low, high = (calibration.figures[f"known_unknown{end}"] for end in ("", "_low", "_high"))
        entries.append(("known images called unknown", f"{refusal:.1%} ({format_bounds(refusal, low, high)})"))
    report.figures(
        entries,
        title="What the threshold costs",
        note=f"Shares of images with their {share.confidence:.0%} intervals: of unknown ones in as many images of as many other classes, of "
        f"known ones the mean; the numbers of a hundred images scatter more. The threshold is compared with {calibration.describe_score()}.",
    )
    accept_rate, refused_curve = cost_curve(trials)
    lines = {"unknown images taken for known": accept_rate, "known images called unknown": refused_curve,
             "chosen threshold": [(calibration.threshold, 0.0), (calibration.threshold, 1.0)]}  # fmt: skip
    report.curves(
        "Both costs by threshold", {"share of images (0 to 1)": {name: line for name, line in lines.items() if line}},
        x_name="threshold (score)",
        note=f"Measured on {trials.made_from}. An image whose best score is below the threshold ({calibration.threshold:.3f}) is called unknown.",
    )  # fmt: skip
    return report.write(path)


def describe_costs(calibration: GalleryCalibration) -> list[str]:
    """Say how many of a hundred images are taken for known, or called unknown, and with what that was measured."""
    false_match, figures = calibration.false_match, calibration.figures
    shares, texts, basis = [], [], []

    def add(share: Interval, subject: str, predicate: str, images: int, classes: int) -> None:
        few = count_of(classes, "class", "classes")
        texts.append(
            share_sentence(share, subject, predicate, images=images, few=few, confidence=false_match.confidence)
        )
        shares.append(share)

    if false_match.trials:
        share = Interval(false_match.rate, false_match.low, false_match.high)
        add(share, "images of unknown things", "are taken for known", false_match.trials, false_match.classes)
        classes = count_of(false_match.classes, "unknown class", "unknown classes")
        basis.append(f"{count_of(false_match.trials, 'trial')} of {classes}")
    if "known_unknown_low" in figures:
        share = Interval(*(figures[f"known_unknown{end}"] for end in ("", "_low", "_high")))
        add(share, "images of known things", "are called unknown", figures["known_images"], figures["known_classes"])
        classes = count_of(figures["known_classes"], "known class", "known classes")
        basis.append(f"{count_of(figures['known_images'], 'image')} of {classes}")
    if not texts:
        return [f"What the threshold costs was not measured: {calibration.needs or 'there are too few images'}."]
    promise = (
        f" The threshold is provisional and promises no rate: {calibration.needs}." if calibration.provisional else ""
    )
    return [*texts, f"Measured with {' and '.join(basis)}{range_note(shares, false_match.confidence)}.{promise}"]
