"""The HTML report of a new gallery: what its threshold costs in both directions, as a sentence and as a curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unalike.recognition.calibration_trials import CalibrationTrials
from unalike.recognition.decision import GalleryCalibration
from unalike.recognition.operating_point import cost_curve
from unalike.report.html import Report


def write_threshold_report(path: Path, calibration: GalleryCalibration, trials: CalibrationTrials) -> Path:
    """Write the page; returns ``path``."""
    snapshot, share = trials.snapshot, calibration.false_match
    report = Report("Gallery", f"{len(snapshot)} reference images of {np.count_nonzero(snapshot.counts_C)} classes")
    entries: list[tuple[str, float | str | None]] = [
        ("threshold" if not calibration.provisional else "provisional threshold", calibration.threshold),
        ("unknown images taken for known", f"{share.rate:.1%} ({share.low:.1%} to {share.high:.1%})"),
    ]
    if "known_unknown_low" in calibration.figures:
        refusal, low, high = (calibration.figures[f"known_unknown{end}"] for end in ("", "_low", "_high"))
        entries.append(("known images called unknown", f"{refusal:.1%} ({low:.1%} to {high:.1%})"))
    note = f"{calibration.costs()[0].upper()}{calibration.costs()[1:]}."
    if calibration.provisional:
        note += f" No rate is promised: {calibration.needs}."
    report.figures(entries, title="What the threshold costs", note=note)
    accept_rate, refused_curve = cost_curve(trials)
    lines = {"unknown images taken for known": accept_rate, "known images called unknown": refused_curve}
    report.curves(
        "Both costs by threshold", {"share of images": {name: line for name, line in lines.items() if line}},
        x_name="threshold (cosine score)",
        note=f"Measured on {trials.made_from}. An image whose best score is below the threshold ({calibration.threshold:.3f}) is called unknown.",
    )  # fmt: skip
    return report.write(path)
