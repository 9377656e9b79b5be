"""Discover: group unlabeled images into folders of similar ones, with a page to look at them.

The user's files are copied or linked, never moved or changed. Everything is written beside the results folder and renamed
into it at the end.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.actions.request import spec_with
from unalike.actions.result import Result
from unalike.actions.results import check_mandatory, failed_without_results, open_results
from unalike.data.archives import is_archive
from unalike.data.imageset import load_images, resolve_source
from unalike.data.notices import Notices
from unalike.discovery.clustering import ImageGroups, group_images
from unalike.discovery.report import write_report
from unalike.errors import RunError, SpecError, missing_extra
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import LoadedModel, load_model, require_model_file
from unalike.progress import progress, say
from unalike.runs.filenames import DISCOVERY_FILE, GROUPS_FILE, REPORT_FILE, UNSORTED_FILE
from unalike.runs.folder import results_folder
from unalike.spec import settle
from unalike.storage.atomic import write_text
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.spec.discover import Discover

FORMAT_VERSION = 1


def discover(source: str | Path, out: str | Path | None = None, **options: Any) -> Result:
    """Group unlabeled images into folders of similar ones.

    Args:
        source: Images: a folder, an archive or a manifest.
        out: New folder for the groups; ``<source>-groups`` here by default.
        **options: The other fields of the section ``discover`` of a spec (``unalike.spec.discover``).

    Returns:
        The result; ``path`` is ``groups.csv``.
    """
    return run_discovery(spec_with("discover", source=source, results_dir=out, **options))


def run_discovery(experiment: Experiment, *, overwrite: bool = False) -> Result:
    """Group the images that a spec names into folders below its results folder, which must be new or empty.

    Args:
        experiment: Spec whose section ``discover`` holds the options.
        overwrite: Use the folder of a run that did not finish; one that holds groups is never replaced.

    Raises:
        RunError: The folder cannot be used, or not be written.
        SpecError: Links into an archive or a store are wanted.
        DataError: No image can be read.
    """
    check_mandatory("discover", experiment)
    section = experiment.discover
    if results_folder("discover", experiment) is None:
        name = Path(str(section.source).rstrip("/")).name.split(".")[0] or "images"
        settle(experiment, "discover.results_dir", f"{name}-groups", "the name of the source")
    source = str(section.source)
    _check_target(results_folder("discover", experiment), source, overwrite)
    if section.kind == "link" and ("://" in source or is_archive(resolve_source(source))):
        raise SpecError("links into an archive or a store", expected="a folder or a manifest of this machine",
                        remedy="leave --link out: the images are copied")  # fmt: skip
    with open_results("discover", experiment, overwrite=overwrite) as run:
        assert run is not None
        figures = _group(section, source, run.dir)
        run.own(*(run.dir / name for name in (GROUPS_FILE, UNSORTED_FILE, DISCOVERY_FILE)))
        run.conclude(f"grouped: {figures['images']} images", figures)
    return Result(run.dir, run.dir / GROUPS_FILE, {**figures, "report": str(run.dir / REPORT_FILE)})


def _group(section: Discover, source: str, target: Path) -> dict[str, Any]:
    """Embed and group the images, and put everything into the folder at once; the figures."""
    if section.model is not None:
        require_model_file(section.model)
    notices = Notices()
    images = load_images(source, labeled=False, notices=notices)
    opened = _open(section.model, section.runtime, section.precision, len(images))
    done = embed_files(opened.engine, list(images.paths), opened.view, notices=notices, max_unreadable=1.0)
    notices.say()
    paths = [images.paths[i] for i in done.kept_N.tolist()]
    groups = group_images(done.vectors_ND, groups=section.groups, seed=section.seed)
    figures = _figures(groups, unreadable=len(done.failures))
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        places = _place(paths, groups, partial, section.kind)
        _write_tables(partial, target, paths, places, groups, section.kind)
        notices.write(partial / "notices.csv")
        write_report(partial / REPORT_FILE, paths, groups, figures, _short_names(paths), done.failures)
        record = {"format_version": FORMAT_VERSION, "source": source, "kind": section.kind, "seed": section.seed, **figures,
                  "cut_cosine": groups.cut_cosine, "agreement_by_groups": [list(point) for point in groups.agreement_curve],
                  "engine": opened.engine.describe()}  # fmt: skip
        write_text(partial / DISCOVERY_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        for path in sorted(partial.iterdir()):
            path.rename(target / path.name)
    except OSError as error:
        raise RunError(f"{target}: {error.strerror or error}", remedy="choose a folder with room that can be written, or "
                       "--table" if section.kind != "link" else "leave --link out: the images are copied") from error  # fmt: skip
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _say_outcome(target, groups, figures, section.kind)
    return figures


def _check_target(target: Path | None, source: str, overwrite: bool) -> None:
    """Refuse a folder that holds groups, which the user may have corrected, and one within the images."""
    assert target is not None
    if (target / GROUPS_FILE).exists():
        refuse_existing(target, folder=True)
    if not overwrite and target.exists() and not failed_without_results(target):
        refuse_existing(target, folder=True)
    heap = Path(source)
    if heap.is_dir() and heap.resolve() in target.resolve().parents:
        raise RunError(f"{target} lies within {source}", expected="a folder beside the images",
                       remedy="name another with -o DIR: the next run would take the groups for images")  # fmt: skip


def _open(model: str | Path | None, runtime: str, precision: str, count: int) -> LoadedModel:
    if model is not None:
        return load_model(model, runtime=runtime, precision=precision, images=count, quiet=False)
    if importlib.util.find_spec("torch") is None:
        raise missing_extra("torch", "train", "a trunk as it came (an exported model, -m FILE.onnx, does without)")
    from unalike.actions.model_source import load_frozen
    from unalike.spec import load_spec

    return load_frozen(load_spec("embed"), runtime=runtime, precision=precision, images=count)


def _short_names(paths: Sequence[Path]) -> list[str]:
    """A name for each image that no other has: its own, with as many of its folders before it as that takes."""
    names = [path.name for path in paths]
    for depth in range(2, max((len(path.parts) for path in paths), default=0) + 1):
        count = Counter(name.casefold() for name in names)
        if len(count) == len(names):
            return names
        names = ["_".join(path.parts[-depth:]).replace(os.sep, "") if count[name.casefold()] > 1 else name
                 for path, name in zip(paths, names, strict=True)]  # fmt: skip
    count, seen = Counter(name.casefold() for name in names), Counter[str]()
    for i, name in enumerate(names):  # one file that is listed twice
        if count[name.casefold()] > 1:
            seen[name.casefold()] += 1
            names[i] = f"{Path(name).stem}_{seen[name.casefold()]}{Path(name).suffix}"
    return names


def _place(paths: Sequence[Path], groups: ImageGroups, folder: Path, kind: str) -> list[Path]:
    """Put the images into the folder; returns where each lies, relative to it (the image's own path for a table).

    Those of no group lie beside the group folders, where training passes them over and says so.
    """
    if kind == "table":
        return [path.absolute() for path in paths]
    names = _short_names(paths)
    places = [Path(groups.group_name(g)) / name if g >= 0 else Path(name)
              for g, name in zip(groups.group_N.tolist(), names, strict=True)]  # fmt: skip
    for number in range(groups.count):
        (folder / groups.group_name(number)).mkdir()
    with progress("writing groups", len(paths)) as advance:
        for path, place in zip(paths, places, strict=True):
            if kind == "link":
                (folder / place).symlink_to(path.absolute())
            else:
                shutil.copy2(path, folder / place)
            advance()
    return places


def _write_tables(
    folder: Path, target: Path, paths: Sequence[Path], places: Sequence[Path], groups: ImageGroups, kind: str
) -> None:
    """``groups.csv`` is a manifest that ``unalike train`` takes; ``unsorted.csv`` holds the images of no group."""
    grouped, alone = [], []
    for i, (path, place) in enumerate(zip(paths, places, strict=True)):
        copy = int(groups.duplicate_of_N[i])
        tail = [str(path.absolute()), str(places[copy]) if copy >= 0 else ""]
        near = groups.group_name(int(groups.next_group_N[i])) if groups.next_group_N[i] >= 0 else ""
        group = int(groups.group_N[i])
        if group >= 0:
            grouped.append([str(place), groups.group_name(group), f"{groups.confidence_N[i]:.3f}", near, *tail])
        else:
            alone.append([str(place), near, *tail])
    order = sorted(range(len(grouped)), key=lambda n: (grouped[n][1], n))
    _write_csv(folder / GROUPS_FILE, ["path", "label", "confidence", "next_group", "source", "near_duplicate_of"],
               [grouped[n] for n in order])  # fmt: skip
    _write_csv(folder / UNSORTED_FILE, ["path", "next_group", "source", "near_duplicate_of"], alone)


def _write_csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


def _figures(groups: ImageGroups, *, unreadable: int) -> dict[str, Any]:
    sizes = groups.sizes()
    return {
        "images": len(groups.group_N), "groups": groups.count, "largest_group": int(sizes.max(initial=0)),
        "in_no_group": int((groups.group_N < 0).sum()), "near_duplicates": int((groups.duplicate_of_N >= 0).sum()),
        "unreadable": unreadable,
        "mean_confidence": float(groups.confidence_N[groups.group_N >= 0].mean()) if groups.count else None,
        "agreement": None if np.isnan(groups.agreement) else round(groups.agreement, 4),
    }  # fmt: skip


def _say_outcome(target: Path, groups: ImageGroups, figures: dict[str, Any], kind: str) -> None:
    say(f"{figures['images']} images: {figures['groups']} groups, {figures['in_no_group']} in no group, "
        f"{figures['near_duplicates']} near-duplicates")  # fmt: skip
    if figures["agreement"] is not None and groups.agreement < 0.4:
        say(
            f"two halves of the features agree little on what belongs together ({groups.agreement:.2f}; 1 is all): look twice"
        )
    if not groups.count:
        say("no two images are alike enough to make a group; --groups N merges all the same")
    how, what = ("the table", target / GROUPS_FILE) if kind == "table" else ("moving files", target)
    say(
        f"look: {target / REPORT_FILE}; correct by {'changing ' if kind == 'table' else ''}{how}; then: unalike train {what}"
    )
