"""What ``unalike verify`` does: open or make an approved set, hold pictures against it, write what was found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from unalike.data.archives import ARCHIVE_SUFFIXES
from unalike.data.imageset import IMAGE_SUFFIXES, load_images
from unalike.data.manifests import MANIFEST_SUFFIXES
from unalike.errors import DataError, SpecError, UnreadableImage
from unalike.progress import progress, say
from unalike.storage.overwrite import refuse_existing
from unalike.verification.result import ANSWERS, SAME, VerificationResult
from unalike.verification.tampering import TAMPERING
from unalike.verification.verifier import Verifier

# Pictures of every answer in the page.
MOST_SHOWN = 60


def open_reference(
    reference: str | Path, model: str | Path | None, rate: float | None, trials: int | None, kinds: Collection[str] | None,
    seed: int, runtime: str, precision: str,
) -> Verifier:  # fmt: skip
    """A folder of assets, calibrated now; or a saved set, calibrated again only where a rate is asked for."""
    path = Path(reference)
    if path.is_file() and not path.name.lower().endswith((*ARCHIVE_SUFFIXES, *MANIFEST_SUFFIXES, *IMAGE_SUFFIXES)):
        verifier = Verifier.load(path, model, runtime=runtime, precision=precision)
        if rate is None and verifier.thresholds is not None:
            return verifier
    else:
        verifier = Verifier.build(reference, model, runtime=runtime, precision=precision)
    chosen = TAMPERING if kinds is None else kinds
    say(f"calibrated: {verifier.calibrate(0.01 if rate is None else rate, trials=trials, kinds=chosen, seed=seed)}")
    return verifier


def verify(
    reference: str | Path, sources: Sequence[str | Path] = (), model: str | Path | None = None, *,
    asset: str | None = None, save: str | Path | None = None, out: str | Path | None = None, rate: float | None = None,
    trials: int | None = None, kinds: Collection[str] | None = None, seed: int = 0, runtime: str = "auto",
    precision: str = "auto", overwrite: bool = False,
) -> Mapping[str, Any]:  # fmt: skip
    """Hold every picture of ``sources`` (files and folders) against the approved set.

    ``reference``: a folder of assets, or a set that ``save`` wrote. ``out``: a folder for pictures, ``verdicts.jsonl`` and
    ``report.html``. Returns the set's facts, a verdict a picture, and what could not be read.
    """
    if not sources and save is None:
        raise SpecError("no pictures", expected="pictures to verify, or --save FILE to keep the calibrated assets")
    if save is not None:
        refuse_existing(save, overwrite)
    if out is not None:
        refuse_existing(out, overwrite, folder=True)
    paths = [path for source in sources for path in load_images(source, labeled=False).paths]
    if sources and not paths:
        raise DataError("no pictures", expected="image files or folders that hold some")
    verifier = open_reference(reference, model, rate, trials, kinds, seed, runtime, precision)
    if asset is not None:
        verifier.asset_number(asset)
    if save is not None:
        say(f"kept: {verifier.save(save)}")
    results, unreadable = _verify_files(verifier, paths, asset)
    if out is not None:
        from unalike.verification.report import write_report

        write_report(Path(out), verifier.approved, results, max_images=MOST_SHOWN)
    thresholds = verifier.thresholds
    assert thresholds is not None
    counts = {answer: sum(result.answer == answer for _, result in results) for answer in ANSWERS}
    return {
        "reference": str(reference),
        "assets": len(verifier.approved.assets),
        "calibration": thresholds.to_dict(),
        "answers": {name: count for name, count in counts.items() if count} if results else {},
        "verdicts": [{"path": str(path), **result.to_dict()} for path, result in results],
        "unreadable": [{"path": name, "reason": reason} for name, reason in unreadable],
        **({"saved": str(save)} if save is not None else {}),
        **({"out": str(out)} if out is not None else {}),
    }


def _verify_files(
    verifier: Verifier, paths: Sequence[Path], asset: str | None
) -> tuple[list[tuple[Path, VerificationResult]], list[tuple[str, str]]]:
    results, unreadable = [], []
    with progress("verifying", len(paths)) as advance:
        for path in paths:
            try:
                results.append((path, verifier.verify(path, asset)))
            except UnreadableImage as error:
                unreadable.append((str(path), str(error)))
            advance()
    if unreadable and not results:
        raise DataError(f"none of {len(paths)} pictures can be read, the first: {unreadable[0][1]}", expected="images")
    if unreadable:
        say(f"{len(unreadable)} pictures cannot be read, the first: {unreadable[0][1]}")
    return results, unreadable


def all_same(summary: Mapping[str, Any]) -> bool:
    """Whether every picture was read and is the same as an asset."""
    return not summary["unreadable"] and all(verdict["answer"] == SAME for verdict in summary["verdicts"])
