"""Verify: load or build an approved set, compare images with it, write results, images and an HTML report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.actions.results_folder import open_results
from unalike.actions.spec_resolution import parameters_from
from unalike.data.archives import ARCHIVE_SUFFIXES
from unalike.data.decoding_fit import log_conversions
from unalike.data.imageset import IMAGE_SUFFIXES, load_images
from unalike.data.manifests import MANIFEST_SUFFIXES
from unalike.errors import DataError, SpecError, UnreadableImage
from unalike.progress import progress, say
from unalike.runs.filenames import VERDICTS_FILE
from unalike.runs.inputs import refuse_written_inputs
from unalike.source_names import source_name
from unalike.storage.overwrite import refuse_existing
from unalike.verification.benign import check_kinds
from unalike.verification.compared_image import check_box
from unalike.verification.result import ANSWERS, SAME, VerificationResult
from unalike.verification.tampering import TAMPERING
from unalike.verification.thresholds import check_rate
from unalike.verification.verifier import Verifier

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.spec.verify import Verify

# Most images of each answer in the report.
MAX_IMAGES = 60


def open_verifier(section: Verify, threads: int | None = None) -> Verifier:
    """Load a saved set, or build a verifier from a folder of assets; calibrated here, unless a saved set has no new rate.

    Args:
        section: the options.
        threads: CPU cores that the network and the calibration may use; unset, the runtime's choice, and all.
    """
    assert section.reference is not None
    path, model = Path(section.reference), section.model
    engine: dict[str, Any] = {"runtime": section.runtime, "precision": section.precision, "threads": threads}
    if path.is_file() and not path.name.lower().endswith((*ARCHIVE_SUFFIXES, *MANIFEST_SUFFIXES, *IMAGE_SUFFIXES)):
        verifier = Verifier.load(path, model, **engine)
        if section.rate is None and verifier.thresholds is not None:
            _say_unused_options(section)
            return verifier
    else:
        verifier = Verifier.build(section.reference, model, ground=section.ground, range=section.range, **engine)
    options = parameters_from(section, verifier.calibrate)
    options = {name: value for name, value in options.items() if value is not None}
    thresholds = verifier.calibrate(**{**options, "threads": threads})
    say(f"calibrated: {thresholds}")
    return verifier


def _say_unused_options(section: Verify) -> None:
    """Say which options of a calibration are not used, where the calibration of a saved set is."""
    defaults = type(section)()
    names = [n for n in ("trials", "kinds", "confidence", "seed") if getattr(section, n) != getattr(defaults, n)]
    if names:
        say(f"not used: {', '.join(names)}; {section.reference} is calibrated (--rate calibrates it anew)")


def verify(experiment: Experiment, *, overwrite: bool = False) -> dict[str, Any]:
    """Verify images against an approved set; in a results folder, images, ``verdicts.jsonl`` and ``report.html`` are written.

    Args:
        experiment: Spec whose section ``verify`` holds the options.
        overwrite: Replace the saved set, and the results of a former verification in the folder.

    Returns:
        Facts of the set, a result for each image, and the images that cannot be read.
    """
    section = experiment.verify
    if not section.images and section.save is None:
        raise SpecError("no images", expected="images to verify, or --save FILE to keep the calibrated assets")
    if section.save is not None:
        refuse_existing(section.save, overwrite)
        refuse_written_inputs("verify", experiment, [Path(section.save)])
    check_kinds(TAMPERING if section.kinds is None else section.kinds, TAMPERING, "kind of tampering")
    check_rate(0.01 if section.rate is None else section.rate, section.confidence)
    if section.box is not None:
        check_box(section.box)
    with open_results("verify", experiment, overwrite=overwrite) as run:
        paths = [path for source in section.images or () for path in load_images(source, labeled=False).paths]
        if section.images and not paths:
            raise DataError("no images", expected="image files, or folders of images")
        verifier = open_verifier(section)
        if section.asset is not None:
            verifier.asset_number(section.asset)
        if section.save is not None:
            say(f"saved: {verifier.save(section.save)}")
        results, unreadable = _verify_files(verifier, paths, section.asset, section.box)
        result = _summary(section, verifier, results, unreadable)
        if run is not None:
            from unalike.verification.report import write_report

            write_report(run.dir, verifier.approved, results, max_images=MAX_IMAGES)
            run.own(run.dir / VERDICTS_FILE)
            run.conclude(f"verified: {len(results)} images", result["answers"])
            result["out"] = str(run.dir)
    return result


def _summary(
    section: Verify,
    verifier: Verifier,
    results: Sequence[tuple[Path, VerificationResult]],
    unreadable: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """The result as plain data."""
    thresholds = verifier.thresholds
    assert thresholds is not None
    counts = {answer: sum(result.answer == answer for _, result in results) for answer in ANSWERS}
    return {
        "reference": section.reference,
        "assets": len(verifier.approved.assets),
        "calibration": thresholds.to_dict(),
        "answers": {name: count for name, count in counts.items() if count} if results else {},
        "verdicts": [{"path": source_name(path), **result.to_dict()} for path, result in results],
        "unreadable": [{"path": name, "reason": reason} for name, reason in unreadable],
        **({"saved": section.save} if section.save is not None else {}),
    }


def _verify_files(
    verifier: Verifier, paths: Sequence[Path], asset: str | None, box: Sequence[int] | None
) -> tuple[list[tuple[Path, VerificationResult]], list[tuple[str, str]]]:
    results, unreadable = [], []
    log_conversions(paths, verifier.view.decoding)
    with progress("verifying", len(paths)) as advance:
        for path in paths:
            try:
                results.append((path, verifier.verify(path, asset, box)))
            except UnreadableImage as error:
                unreadable.append((str(path), str(error)))
            advance()
    if unreadable and not results:
        raise DataError(f"none of {len(paths)} images can be read, the first: {unreadable[0][1]}", expected="images")
    if unreadable:
        say(f"{len(unreadable)} images cannot be read, the first: {unreadable[0][1]}")
    return results, unreadable


def all_same(result: Mapping[str, Any]) -> bool:
    """Whether every image was read and is the same as an asset."""
    return not result["unreadable"] and all(verdict["answer"] == SAME for verdict in result["verdicts"])
