"""Inspect: fit an inspector, or teach it further images, and write its file; inspect images and write results and a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike import progress
from unalike.actions.results_folder import open_results, output_file
from unalike.actions.spec_resolution import parameters_from
from unalike.data.decode import open_image
from unalike.data.decoding import Decoding
from unalike.data.decoding_fit import log_conversions
from unalike.errors import DataError, UnreadableImage
from unalike.inspection.anomaly_model import AnomalyModelConfig
from unalike.inspection.ground_truth import GroundTruth, compute_metrics, list_test_images
from unalike.inspection.inspector import Inspector
from unalike.inspection.learned_images import learn_images
from unalike.inspection.report import write_report
from unalike.inspection.result import DEFECTIVE, Inspection
from unalike.runs.filenames import INSPECTION_FILE, INSPECTOR_FILE, OVERLAYS_FOLDER, REPORT_FILE, bounded_stem
from unalike.source_names import source_name
from unalike.spec import settle
from unalike.spec.nodes import check_mandatory
from unalike.storage.atomic import atomic_write, write_text

# Facts of an inspector with an entry an image, or of no use to a reader.
IMAGE_FACTS = ("good_scores", "good_names", "learned_digests", "sizes")

if TYPE_CHECKING:
    from unalike.spec import Experiment


def fit(experiment: Experiment, *, overwrite: bool = False) -> dict[str, Any]:
    """Fit an inspector to images of good parts and write its file.

    Args:
        experiment: Spec whose section ``inspect_fit`` holds the options.
        overwrite: Replace the file, or the results of a former fit in the results folder.

    Returns:
        A description of the inspector, as plain data.
    """
    section = experiment.inspect_fit
    _say_unused_fit_options(experiment)
    settle(experiment, "inspect_fit.patches", max(section.patches, section.memory), "the size of the memory bank")
    with open_results("inspect_fit", experiment, overwrite=overwrite) as run:
        file = output_file(run, experiment, "inspect_fit.inspector", INSPECTOR_FILE, overwrite=overwrite)
        config = AnomalyModelConfig(**parameters_from(section, AnomalyModelConfig))
        options = parameters_from(section, Inspector.fit)
        options |= {"size": None if section.size is None else tuple(section.size), "defects": section.defects or ()}
        inspector = Inspector.fit(**options, config=config)
        inspector.save(file)
        if inspector.threshold is not None:
            progress.say(str(inspector.threshold))
        if run is not None:
            run.own(file)
            run.conclude(f"written: {file}", {"images": inspector.facts["images"]})
    return describe(inspector, file)


def learn(experiment: Experiment, *, overwrite: bool = False) -> dict[str, Any]:
    """Teach an inspector further images of good parts, and write the result as another file.

    Args:
        experiment: Spec whose section ``inspect_learn`` holds the options.
        overwrite: Replace the file.

    Returns:
        A description of the inspector, the thresholds before and after, and how many of the images were above them.
    """
    section = experiment.inspect_learn
    check_mandatory("inspect_learn", section)
    assert section.inspector is not None and section.images is not None
    file = output_file(None, experiment, "inspect_learn.output", INSPECTOR_FILE, overwrite=overwrite)
    inspector = Inspector.load(section.inspector, **parameters_from(section, Inspector.load))
    learned = learn_images(inspector, list_test_images(section.images), rate=section.rate, parts=section.parts)
    learned.inspector.save(file)
    summary = describe(learned.inspector, file)
    threshold, former = learned.inspector.threshold, inspector.threshold
    if threshold is None:
        return summary
    progress.say(str(threshold))
    if learned.unlike:
        names = ", ".join(learned.unlike[:3]) + (", ..." if len(learned.unlike) > 3 else "")
        progress.say(
            f"far from all other good images, perhaps defective: {names}; if so, teach {section.inspector} again without "
            f"{'it' if len(learned.unlike) == 1 else 'them'}"
        )
    progress.say(
        f"of further images like the {learned.images} learned, {learned.expected_rate:.1%} false alarms are expected, between "
        f"{learned.low:.1%} and {learned.high:.1%} (95%, {learned.held_out} of {learned.images} when each is left out); "
        "more images of the kind lower that"
    )
    return summary | {
        "former_threshold": None if former is None else former.threshold, "threshold": threshold.threshold,
        "defective_before": learned.before, "defective_held_out": learned.held_out, "defective_after": learned.after, "expected_of_learned": {"value": learned.expected_rate, "low": learned.low, "high": learned.high},
        "unlike": list(learned.unlike),
    }  # fmt: skip


def _say_unused_fit_options(experiment: Experiment) -> None:
    """Say which options of ``inspect_fit`` that the user set have no effect, and why."""
    section = experiment.inspect_fit
    reasons = {
        "without a rate no threshold is set, and nothing is measured": ("defects", "masks", "parts", "folds") if section.rate is None else (),
        "masks are those of the defective images: defects": ("masks",) if section.rate is not None and section.defects is None else (),
        "whole images are not cut into tiles": ("scale",) if section.fit == "whole" else (),
    }  # fmt: skip
    for reason, fields in reasons.items():
        names = [name for name in fields if experiment.is_set(f"inspect_fit.{name}")]
        if names:
            progress.say(f"not used: {', '.join(names)}; {reason}")


def describe(inspector: Inspector, path: str | Path) -> dict[str, Any]:
    """Describe an inspector as plain data."""
    facts = {key: value for key, value in inspector.facts.items() if key not in IMAGE_FACTS}
    return {
        "inspector": str(path), "trunk": inspector.network.trunk, "licence": inspector.network.licence, **facts,
        "stages": [fact.name for fact in inspector.network.maps], "sight": inspector.tiling.to_dict(),
        "memory": len(inspector.model.memory), "width": inspector.model.memory.width,
        "alarm": None if inspector.threshold is None else inspector.threshold.to_dict(),
        "bytes": Path(path).stat().st_size if Path(path).is_file() else None,
    }  # fmt: skip


def inspect(experiment: Experiment, *, overwrite: bool = False) -> dict[str, Any]:
    """Inspect images; in a results folder, ``result.json``, overlays and ``report.html`` are written.

    Args:
        experiment: Spec whose section ``inspect_run`` holds the options. With ``good`` or ``truth``, metrics
            are computed.
        overwrite: Replace the results of a former inspection in the folder.
    """
    section = experiment.inspect_run
    truth = None
    if section.good is not None or section.truth is not None:
        truth = GroundTruth(section.good or "good", Path(section.truth) if section.truth else None)
    with open_results("inspect_run", experiment, overwrite=overwrite) as run:
        assert section.inspector is not None and section.images is not None
        inspector = Inspector.load(section.inspector, **parameters_from(section, Inspector.load))
        folder = None if run is None else run.dir
        if folder is None and experiment.is_set("inspect_run.overlays") and section.overlays != "none":
            progress.say("not used: overlays; they are written into a results folder (results_dir)")
        paths = list_test_images(section.images, truth)
        inspections, unreadable, overlays = _inspect(inspector, paths, folder, section.overlays)
        metrics = None if truth is None else compute_metrics(inspections, truth)
        result = {
            "inspector": section.inspector, "engine": inspector.network.engine.describe(),
            "alarm": None if inspector.threshold is None else inspector.threshold.to_dict(),
            "images": len(inspections), "defective": sum(inspection.decision == DEFECTIVE for inspection in inspections),
            "measured": metrics,
            "answers": [
                {**inspection.to_dict(), "overlay": _relative(overlays.get(inspection.source), folder)}
                for inspection in inspections
            ],
            "unreadable": unreadable,
        }  # fmt: skip
        if run is not None:
            write_text(run.dir / INSPECTION_FILE, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
            run.own(run.dir / INSPECTION_FILE)
            page = write_report(
                run.dir / REPORT_FILE, inspector, inspections, overlays=overlays, metrics=metrics, truth=truth
            )
            result["report"] = str(page)
            run.conclude(f"inspected: {len(inspections)} images", {key: result[key] for key in ("images", "defective")})
    return result


def _inspect(
    inspector: Inspector, paths: Sequence[str], folder: Path | None, overlays: str
) -> tuple[list[Inspection], list[dict[str, str]], dict[str, Path]]:
    """Inspect images; returns the inspections, the unreadable images with reasons, and the overlays written below ``folder``."""
    if not paths:
        raise DataError("no images to inspect", expected="image files, or folders of images")
    inspections, unreadable, files = [], [], {}
    log_conversions(paths, inspector.tiling.decoding)
    with progress.progress("inspecting", len(paths)) as advance:
        for number, (name, result) in enumerate(zip(paths, inspector.inspect_many(paths), strict=True)):
            advance(1)
            if isinstance(result, UnreadableImage):
                unreadable.append({"path": source_name(name), "reason": str(result)})
                continue
            inspections.append(result)
            if folder is not None and (overlays == "all" or (overlays == "defective" and result.decision == DEFECTIVE)):
                file = folder / OVERLAYS_FOLDER / f"{number:05d}_{bounded_stem(Path(name).stem)}.png"
                files[name] = _write_overlay(result, file, inspector.tiling.decoding)
    if unreadable:
        progress.say(f"{len(unreadable)} images cannot be read, the first: {unreadable[0]['reason']}")
    if not inspections:
        raise DataError(f"none of {len(paths)} images can be read", expected="images")
    return inspections, unreadable, files


def _write_overlay(inspection: Inspection, path: Path, decoding: Decoding) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    overlay = inspection.overlay(open_image(inspection.source, decoding=decoding))
    with atomic_write(path) as partial:
        overlay.save(partial, "PNG")
    return path


def _relative(path: Path | None, folder: Path | None) -> str | None:
    return None if path is None or folder is None else str(path.relative_to(folder))
