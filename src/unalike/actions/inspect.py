"""Inspect: fit to good images, inspect others, measure where the truth is known, write pictures and a page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from unalike import progress
from unalike.actions.results import open_results, output_file, parameters_from
from unalike.errors import DataError, UnreadableImage
from unalike.inspection.anomaly_model import AnomalyModelConfig
from unalike.inspection.few_shot import find_mask, read_mask
from unalike.inspection.inspector import Inspector
from unalike.inspection.normal_images import list_images, load_image
from unalike.inspection.result import DEFECTIVE, Inspection
from unalike.metrics.intervals import clopper_pearson
from unalike.metrics.localization import pixel_auroc, region_overlap
from unalike.metrics.roc import auroc
from unalike.report.html import Report, Tile
from unalike.runs.filenames import INSPECTION_FILE, INSPECTOR_FILE, OVERLAYS_FOLDER, REPORT_FILE
from unalike.spec import settle
from unalike.storage.atomic import atomic_write, write_text

if TYPE_CHECKING:
    from unalike.spec import Experiment

# Pixels that localization is measured on, all images together; beyond them heat maps and masks are halved until they fit.
MEASURED_PIXELS = 20_000_000
SHOWN = 24  # images of each kind in the report


def fit(experiment: Experiment, *, overwrite: bool = False) -> dict[str, Any]:
    """Fit an inspector to images of good parts and write its file.

    Args:
        experiment: Spec whose section ``inspect_fit`` holds the options.
        overwrite: Replace the file, or the results of a former fit in the results folder.

    Returns:
        What the inspector is, as plain data.
    """
    section = experiment.inspect_fit
    settle(experiment, "inspect_fit.patches", max(section.patches, section.memory), "the size of the memory bank")
    with open_results("inspect_fit", experiment, overwrite=overwrite) as run:
        file = output_file(run, section.inspector, INSPECTOR_FILE, field="inspect_fit.inspector", overwrite=overwrite)
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
    return described(inspector, file)


def described(inspector: Inspector, path: str | Path) -> dict[str, Any]:
    """What an inspector is, as plain data."""
    facts = {key: value for key, value in inspector.facts.items() if key != "good_scores"}
    return {
        "inspector": str(path), "trunk": inspector.network.trunk, "licence": inspector.network.licence, **facts,
        "stages": [fact.name for fact in inspector.network.maps], "sight": inspector.tiling.to_dict(),
        "memory": len(inspector.model.memory), "width": inspector.model.memory.width,
        "alarm": None if inspector.threshold is None else inspector.threshold.to_dict(),
        "bytes": Path(path).stat().st_size if Path(path).is_file() else None,
    }  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """What is known of the inspected images: ``good`` is the name of the folder of good ones, ``masks`` where masks lie.

    A mask is ``masks/FOLDER/NAME.png`` or ``.../NAME_mask.png`` for ``FOLDER/NAME.*``, or, with one folder for both, the
    PNG beside the image; what is not black is defective.
    """

    good: str = "good"
    masks: Path | None = None

    def is_good(self, path: str) -> bool:
        """Whether the image lies in the folder of the good ones."""
        return Path(path).parent.name == self.good

    def mask_of(self, path: str) -> Path | None:
        """The mask's file, if there is one."""
        return find_mask(path, self.masks)


def images_of(sources: Sequence[str | Path], truth: Truth | None = None) -> list[str]:
    """The images of files and folders; PNG files that are the mask of another image there are left out."""
    paths = [str(path) for source in sources for path in list_images(source)]
    if truth is None or truth.masks is None:
        return paths
    masks = {str(found.resolve()) for path in paths if (found := truth.mask_of(path)) is not None}
    return [path for path in paths if str(Path(path).resolve()) not in masks]


def run(experiment: Experiment, *, overwrite: bool = False) -> dict[str, Any]:
    """Inspect images; in a results folder result.json, overlays and report.html are written.

    Args:
        experiment: Spec whose section ``inspect_run`` holds the options. With ``good`` or ``truth`` in it, the answers are
            measured.
        overwrite: Replace the results of a former inspection in the folder.
    """
    section = experiment.inspect_run
    truth = None
    if section.good is not None or section.truth is not None:
        truth = Truth(section.good or "good", Path(section.truth) if section.truth else None)
    with open_results("inspect_run", experiment, overwrite=overwrite) as opened:
        assert section.inspector is not None and section.images is not None
        inspector = Inspector.load(section.inspector, **parameters_from(section, Inspector.load))
        folder = None if opened is None else opened.dir
        inspections, unreadable, pictures = _inspect(
            inspector, images_of(section.images, truth), folder, section.overlays
        )
        measured = None if truth is None else measure(inspections, truth)
        result = {
            "inspector": section.inspector, "engine": inspector.network.engine.describe(),
            "alarm": None if inspector.threshold is None else inspector.threshold.to_dict(),
            "images": len(inspections), "defective": sum(one.decision == DEFECTIVE for one in inspections),
            "measured": measured,
            "answers": [{**one.to_dict(), "overlay": _relative(pictures.get(one.source), folder)} for one in inspections],
            "unreadable": unreadable,
        }  # fmt: skip
        if opened is not None:
            write_text(opened.dir / INSPECTION_FILE, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
            opened.own(opened.dir / INSPECTION_FILE)
            page = _report(inspector, inspections, measured, pictures, truth)
            result["report"] = str(page.write(opened.dir / REPORT_FILE))
            opened.conclude(
                f"inspected: {len(inspections)} images", {key: result[key] for key in ("images", "defective")}
            )
    return result


def _inspect(
    inspector: Inspector, paths: Sequence[str], folder: Path | None, overlays: str
) -> tuple[list[Inspection], list[dict[str, str]], dict[str, Path]]:
    """The inspections, the unreadable images with their reasons, and the overlays that were written below ``folder``."""
    if not paths:
        raise DataError("no images to inspect", expected="image files, or folders that hold some")
    inspections, unreadable, pictures = [], [], {}
    with progress.progress("inspecting", len(paths)) as advance:
        for number, (name, answer) in enumerate(zip(paths, inspector.inspect_many(paths), strict=True)):
            advance(1)
            if isinstance(answer, UnreadableImage):
                unreadable.append({"path": name, "reason": str(answer)})
                continue
            inspections.append(answer)
            if folder is not None and (overlays == "all" or (overlays == "defective" and answer.decision == DEFECTIVE)):
                pictures[name] = _overlay(answer, folder / OVERLAYS_FOLDER / f"{number:05d}_{Path(name).stem}.png")
    if unreadable:
        progress.say(f"{len(unreadable)} images cannot be read, the first: {unreadable[0]['reason']}")
    if not inspections:
        raise DataError(f"none of {len(paths)} images can be read", expected="images")
    return inspections, unreadable, pictures


def _overlay(answer: Inspection, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = answer.overlay(load_image(answer.source))
    with atomic_write(path) as partial:
        made.save(partial, "PNG")
    return path


def _relative(path: Path | None, folder: Path | None) -> str | None:
    return None if path is None or folder is None else str(path.relative_to(folder))


# ---- where the truth is known ----


def measure(found: Sequence[Inspection], truth: Truth) -> dict[str, Any]:
    """Image AUROC, and pixel AUROC and PRO where there are masks; rates at the threshold with exact 95 % intervals.

    Images without a mask outside the folder of good ones count as defective, and not for the pixels.
    """
    good = [one for one in found if truth.is_good(one.source)]
    bad = [one for one in found if not truth.is_good(one.source)]
    if not good or not bad:
        raise DataError(
            f"{len(good)} good and {len(bad)} defective images",
            expected=f"some of both: good ones in a folder {truth.good!r}", remedy="name it with --good",
        )  # fmt: skip
    told: dict[str, Any] = {
        "good": len(good), "defects": len(bad),
        "image_auroc": auroc(np.array([one.score for one in bad]), np.array([one.score for one in good])),
    }  # fmt: skip
    kinds = sorted({Path(one.source).parent.name for one in bad})
    told["by_kind"] = {
        kind: auroc(
            np.array([one.score for one in bad if Path(one.source).parent.name == kind]),
            np.array([one.score for one in good]),
        )
        for kind in kinds
    }
    if not math.isnan(found[0].threshold):
        told["false_alarms"] = _share(good)
        told["found"] = _share(bad)
    told.update(_localised(good, bad, truth))
    return told


def _share(images: Sequence[Inspection]) -> dict[str, float | None]:
    return clopper_pearson(sum(one.decision == DEFECTIVE for one in images), len(images)).to_dict()


def _localised(good: Sequence[Inspection], bad: Sequence[Inspection], truth: Truth) -> dict[str, Any]:
    pairs = [(one, mask) for one in bad if (mask := truth.mask_of(one.source)) is not None]
    if not pairs:
        return {}
    pixels = sum(one.size[0] * one.size[1] for one in [*good, *(one for one, _ in pairs)])
    step = 1
    while pixels / step**2 > MEASURED_PIXELS:
        step *= 2
    heats, masks = [], []
    for one, path in [*((one, None) for one in good), *pairs]:
        size = (max(1, one.size[0] // step), max(1, one.size[1] // step))
        heats.append(one.anomaly_map(size).astype(np.float32))
        masks.append(np.zeros(size, np.bool_) if path is None else _shrunk(read_mask(path, one.size), size))
    return {"masks": len(pairs), "pixel_auroc": pixel_auroc(heats, masks), "pro": region_overlap(heats, masks)}


def _shrunk(mask_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(mask_HW).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(picture, np.bool_)


# ---- the page ----


def _report(
    inspector: Inspector, found: Sequence[Inspection], measured: dict[str, Any] | None, pictures: dict[str, Path],
    truth: Truth | None,
) -> Report:  # fmt: skip
    threshold = inspector.threshold
    page = Report(
        "Inspection", f"{len(found)} images; {inspector.network.trunk}, memory of {len(inspector.model.memory)}"
    )
    cards: list[tuple[str, Any]] = [
        ("images", str(len(found))), ("defective", str(sum(one.decision == DEFECTIVE for one in found)))
    ]  # fmt: skip
    if threshold is not None:
        cards += [
            ("threshold", f"{threshold.threshold:.4g}"),
            ("false alarms expected", f"{threshold.expected_rate:.2%}"),
        ]
    page.figures(cards, note="" if threshold is None else str(threshold))
    if measured is not None:
        named = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "pro": "PRO"}
        page.figures([(named[key], measured[key]) for key in named if key in measured], title="Against the truth")
        page.table("Image AUROC by kind of defect", [{"kind": k, "auroc": v} for k, v in measured["by_kind"].items()])
    hottest = sorted(found, key=lambda one: -one.score)
    rows = []
    for one in hottest[:SHOWN]:
        right = None if truth is None else (one.decision == DEFECTIVE) != truth.is_good(one.source)
        first = Tile(one.source, Path(one.source).name, one.score, right)
        seen = pictures.get(one.source)
        picture = Image.open(seen) if seen is not None else one.overlay(load_image(one.source), 480)
        rows.append((first, [Tile(picture, f"{one.decision}, {len(one.regions)} spots")]))
    page.gallery(
        "The most suspicious", rows, note="The image, and its heat: clear below half the threshold, red above it."
    )
    table = [
        {"image": Path(one.source).name, "decision": one.decision, "score": one.score, "spots": len(one.regions),
         "hottest box": str(list(one.regions[0].box)) if one.regions else None}
        for one in hottest
    ]  # fmt: skip
    return page.table("All images", table)
