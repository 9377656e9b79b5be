"""What ``unalike discover`` does: a heap of images becomes folders of like ones, beside a page to look at them.

The user's files are copied or linked, never moved or changed. Everything is written beside the target and renamed at the
end, so that the folder is there whole or not at all.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unalike.actions.result import Result
from unalike.data.archives import is_archive
from unalike.data.imageset import load_images, resolve_source
from unalike.data.notices import Notices
from unalike.discovery.clustering import ImageGroups, group_images
from unalike.discovery.report import write_report
from unalike.errors import RunError, SpecError, missing_extra
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import LoadedModel, load_model, require_model_file
from unalike.progress import progress, say
from unalike.runs.environment import refuse_several_processes
from unalike.runs.filenames import DISCOVERY_FILE, GROUPS_FILE, REPORT_FILE, UNSORTED_FILE
from unalike.storage.atomic import write_text
from unalike.storage.overwrite import refuse_existing

FORMAT_VERSION = 1
KINDS = ("copy", "link", "table")


@dataclass(frozen=True)
class Discovered:
    """Where the groups lie and what was found."""

    folder: Path
    table: Path
    report: Path
    figures: dict[str, Any]


def discover_groups(
    source: str | Path, out: str | Path | None = None, *, model: str | Path | None = None, groups: int | None = None,
    kind: str = "copy", runtime: str = "auto", precision: str = "auto", seed: int = 0,
) -> Discovered:  # fmt: skip
    """Group the images of ``source`` into folders below ``out`` (unset: ``<name>-groups`` here), which must not exist yet.

    ``kind``: ``copy`` the images, ``link`` to them, or write the ``table`` alone. ``model``: any model's file, unset: the
    best trunk installed here, as it came. Raises RunError, DataError, SpecError, ModelError.
    """
    if kind not in KINDS:
        raise SpecError(f"kind {kind!r}", expected=", ".join(KINDS))
    if groups is not None and groups < 1:
        raise SpecError(f"{groups} groups", expected="at least 1")
    if model is not None:
        require_model_file(model)
    target = _target(source, out)
    if kind == "link" and ("://" in str(source) or is_archive(resolve_source(source))):
        raise SpecError("links into an archive or a store", expected="a folder or a manifest of this machine",
                        remedy="leave --link out: the images are copied")  # fmt: skip
    notices = Notices()
    images = load_images(source, labeled=False, notices=notices)
    opened = _open(model, runtime, precision, len(images))
    done = embed_files(opened.engine, list(images.paths), opened.view, notices=notices, max_unreadable=1.0)
    notices.say()
    paths = [images.paths[i] for i in done.kept_N.tolist()]
    found = group_images(done.vectors_ND, groups=groups, seed=seed)
    figures = _figures(found, unreadable=len(done.failures))
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        places = _place(paths, found, partial, kind)
        _write_tables(partial, target, paths, places, found, kind)
        notices.write(partial / "notices.csv")
        write_report(partial / REPORT_FILE, paths, found, figures, _short_names(paths), done.failures)
        record = {"format_version": FORMAT_VERSION, "source": str(source), "kind": kind, "seed": seed, **figures,
                  "cut_cosine": found.cut_cosine, "agreement_by_groups": [list(point) for point in found.agreement_curve],
                  "engine": opened.engine.describe()}  # fmt: skip
        write_text(partial / DISCOVERY_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        partial.rename(target)
    except OSError as error:
        raise RunError(f"{target}: {error.strerror or error}", remedy="choose a folder with room that can be written, or "
                       "--table" if kind != "link" else "leave --link out: the images are copied") from error  # fmt: skip
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _say_outcome(target, found, figures, kind)
    return Discovered(target, target / GROUPS_FILE, target / REPORT_FILE, figures)


def discover(source: str | Path, out: str | Path | None = None, **options: Any) -> Result:
    """Group unlabelled images into folders of like ones; ``path`` is ``groups.csv``. ``options``: see ``discover_groups``."""
    refuse_several_processes("discover")
    found = discover_groups(source, out, **options)
    return Result(found.folder, found.table, {**found.figures, "report": str(found.report)})


def _target(source: str | Path, out: str | Path | None) -> Path:
    """The folder to be made; an error where it exists or lies within the images."""
    name = Path(str(source).rstrip("/")).name.split(".")[0] or "images"
    target = Path(out) if out is not None else Path(f"{name}-groups")
    refuse_existing(target, folder=True)
    heap = Path(source)
    if heap.is_dir() and heap.resolve() in target.resolve().parents:
        raise RunError(f"{target} lies within {source}", expected="a folder beside the images",
                       remedy="name another with -o DIR: the next run would take the groups for images")  # fmt: skip
    return target


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
