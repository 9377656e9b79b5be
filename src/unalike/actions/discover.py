"""Discover: group unlabeled images into folders of similar ones, with tables and a report.

The user's files are copied or linked, never moved or changed. Everything is written beside the results folder and renamed
into it at the end.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.actions.result import Result
from unalike.actions.results_folder import open_results
from unalike.actions.spec_resolution import spec_with
from unalike.data.archives import is_archive
from unalike.data.decode import open_image
from unalike.data.imageset import load_images, resolve_source
from unalike.data.notices import Notices
from unalike.data.regions import split_region
from unalike.discovery.clustering import ImageGroups, group_images
from unalike.discovery.neighbor_whitening import NeighborWhitening
from unalike.discovery.report import write_report
from unalike.errors import RunError, SpecError, missing_extra
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import LoadedModel, load_model, require_model_file
from unalike.numerics.normalization import l2_normalize
from unalike.progress import progress, say
from unalike.runs.filenames import (
    DISCOVERY_FILE,
    GROUPS_FILE,
    MAX_NAME_BYTES,
    REPORT_FILE,
    UNSORTED_FILE,
    VECTORS_FILE,
    bounded_stem,
)
from unalike.runs.folder import results_folder
from unalike.runs.record import failed_without_results
from unalike.sanitize import redact
from unalike.source_names import absolute_source_name
from unalike.spec import settle
from unalike.spec.nodes import check_mandatory
from unalike.storage.atomic import atomic_write, temporary_path, write_text
from unalike.storage.csv_file import write_csv
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.spec.discover import Discover

FORMAT_VERSION = 1
KEPT_WIDTH = 256  # numbers of a whitened vector that are kept: 512 bytes an image


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
    check_mandatory("discover", experiment.discover)
    section = experiment.discover
    if results_folder("discover", experiment) is None:
        name = Path(str(section.source).rstrip("/")).name.split(".")[0] or "images"
        settle(experiment, "discover.results_dir", f"{name}-groups", "the name of the source")
        # A folder of which the user did not say that it is to exist is not made for a call that fails at once.
        load_images(str(section.source), labeled=False, notices=Notices())
    source = str(section.source)
    _check_target(results_folder("discover", experiment), source, overwrite)
    if section.kind == "link" and ("://" in source or is_archive(resolve_source(source))):
        raise SpecError("links into an archive or a store", expected="a folder or a manifest of this machine",
                        remedy="leave --link out: the images are copied")  # fmt: skip
    with open_results("discover", experiment, overwrite=overwrite) as run:
        assert run is not None
        figures = _group(section, source, run.dir)
        run.own(*(run.dir / name for name in (GROUPS_FILE, UNSORTED_FILE, DISCOVERY_FILE, VECTORS_FILE)))
        run.conclude(f"grouped: {figures['images']} images", figures)
    return Result(run.dir, run.dir / GROUPS_FILE, {**figures, "report": str(run.dir / REPORT_FILE)})


def _group(section: Discover, source: str, target: Path) -> dict[str, Any]:
    """Embed and group the images, and move all results into the folder at once; returns the figures."""
    if section.model is not None:
        require_model_file(section.model)
    notices = Notices()
    images = load_images(source, labeled=False, notices=notices)
    model = _load_model(section.model, section.runtime, section.precision, len(images))
    model = model.fitted(images.paths)
    embedded = embed_files(model.engine, list(images.paths), model.view, notices=notices, max_unreadable=1.0)
    notices.say()
    paths = [images.paths[i] for i in embedded.kept_N.tolist()]
    groups = group_images(embedded.vectors_ND, groups=section.groups, seed=section.seed)
    figures = _figures(groups, unreadable=len(embedded.failures))
    partial = temporary_path(target)
    try:
        partial.mkdir(parents=True)
        output_paths = _write_images(paths, groups, partial, section.kind)
        _write_tables(partial, paths, output_paths, groups)
        _write_vectors(partial, output_paths, embedded.vectors_ND, section.seed)
        notices.write(partial / "notices.csv")
        write_report(partial / REPORT_FILE, paths, groups, figures, _unique_names(paths), embedded.failures)
        record = {"format_version": FORMAT_VERSION, "source": redact(source), "kind": section.kind, "seed": section.seed, **figures,
                  "cut_cosine": groups.cut_cosine, "agreement_by_groups": [list(point) for point in groups.agreement_curve],
                  "engine": model.engine.describe()}  # fmt: skip
        write_text(partial / DISCOVERY_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        for path in sorted(partial.iterdir()):
            path.rename(target / path.name)
    except OSError as error:
        raise RunError(f"{target}: {error.strerror or error}", remedy="choose a folder with room that can be written, or "
                       "--table" if section.kind != "link" else "leave --link out: the images are copied") from error  # fmt: skip
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _print_summary(target, groups, figures, section.kind)
    return figures


def _check_target(target: Path | None, source: str, overwrite: bool) -> None:
    """Refuse a folder that holds groups, which the user may have corrected, and one within the images."""
    assert target is not None
    if (target / GROUPS_FILE).exists():
        refuse_existing(target, folder=True)
    if not overwrite and target.exists() and not failed_without_results(target):
        refuse_existing(target, folder=True)
    images = Path(source)
    if images.is_dir() and images.resolve() in target.resolve().parents:
        raise RunError(f"{target} lies within {source}", expected="a folder beside the images",
                       remedy="name another with -o DIR: the next run would read the groups as images")  # fmt: skip


def _load_model(model: str | Path | None, runtime: str, precision: str, count: int) -> LoadedModel:
    if model is not None:
        return load_model(model, runtime=runtime, precision=precision, images=count, quiet=False)
    if importlib.util.find_spec("torch") is None:
        raise missing_extra("torch", "train", "a pretrained trunk (an exported model, -m FILE.onnx, needs no torch)")
    from unalike.actions.model_from_spec import load_frozen
    from unalike.spec import load_spec

    return load_frozen(load_spec("inference"), runtime=runtime, precision=precision, images=count)


def _file_path(path: Path) -> Path:
    """The path of an image; of a region, a name for the file that it is cut into."""
    file, box = split_region(path)
    return path if box is None else Path(file).with_name(f"{Path(file).stem}#{','.join(map(str, box))}.png")


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """Unique names of images: the file name, preceded by as many folder names as that takes."""
    paths = [_file_path(path) for path in paths]
    names = [path.name for path in paths]
    for depth in range(2, max((len(path.parts) for path in paths), default=0) + 1):
        count = Counter(name.casefold() for name in names)
        if len(count) == len(names):
            return names
        names = ["_".join(path.parts[-depth:]).replace(os.sep, "") if count[name.casefold()] > 1 else name
                 for path, name in zip(paths, names, strict=True)]  # fmt: skip
    count, occurrences = Counter(name.casefold() for name in names), Counter[str]()
    for i, name in enumerate(names):  # the same file listed twice
        if count[name.casefold()] > 1:
            occurrences[name.casefold()] += 1
            names[i] = f"{Path(name).stem}_{occurrences[name.casefold()]}{Path(name).suffix}"
    return names


def _bounded(name: str) -> str:
    return name if len(os.fsencode(name)) <= MAX_NAME_BYTES else f"{bounded_stem(Path(name).stem)}{Path(name).suffix}"


def _write_images(paths: Sequence[Path], groups: ImageGroups, folder: Path, kind: str) -> list[str]:
    """Copy or link the images into folders by group; images of no group go beside these, where training skips them.

    Returns:
        Path of each written file relative to ``folder``; for ``kind="table"``, which writes none, the image's own name.
    """
    if kind == "table":
        return [absolute_source_name(path) for path in paths]
    names = [_bounded(name) for name in _unique_names(paths)]
    output_paths = [str(Path(groups.group_name(g)) / name) if g >= 0 else name
              for g, name in zip(groups.group_N.tolist(), names, strict=True)]  # fmt: skip
    for number in range(groups.count):
        (folder / groups.group_name(number)).mkdir()
    with progress("writing groups", len(paths)) as advance:
        for path, file in zip(paths, output_paths, strict=True):
            if split_region(path)[1] is not None:
                open_image(path).save(folder / file, "PNG")
            elif kind == "link":
                (folder / file).symlink_to(path.absolute())
            else:
                shutil.copy2(path, folder / file)
            advance()
    return output_paths


def _write_tables(folder: Path, paths: Sequence[Path], output_paths: Sequence[str], groups: ImageGroups) -> None:
    """Write ``groups.csv``, a manifest that ``unalike train`` reads, and ``unsorted.csv``, the images of no group."""
    group_rows, single_rows = [], []
    for i, (path, file) in enumerate(zip(paths, output_paths, strict=True)):
        original = int(groups.duplicate_of_N[i])
        source_columns = [absolute_source_name(path), output_paths[original] if original >= 0 else ""]
        next_group = groups.group_name(int(groups.next_group_N[i])) if groups.next_group_N[i] >= 0 else ""
        group = int(groups.group_N[i])
        if group >= 0:
            group_rows.append(
                [file, groups.group_name(group), f"{groups.confidence_N[i]:.3f}", next_group, *source_columns]
            )
        else:
            single_rows.append([file, next_group, *source_columns])
    order = sorted(range(len(group_rows)), key=lambda n: (group_rows[n][1], n))
    header = ("path", "label", "confidence", "next_group", "source", "near_duplicate_of")
    write_csv(folder / GROUPS_FILE, (group_rows[n] for n in order), header)
    write_csv(folder / UNSORTED_FILE, single_rows, ("path", "next_group", "source", "near_duplicate_of"))


def _write_vectors(folder: Path, output_paths: Sequence[str], features_NF: np.ndarray, seed: int) -> None:
    """Write the whitened vectors by which single images are chosen when groups are named (``--name``)."""
    unit_ND = l2_normalize(NeighborWhitening.fit(features_NF, seed=seed).transform(features_NF))
    if unit_ND.shape[1] > KEPT_WIDTH:
        unit_ND = unit_ND @ np.linalg.eigh(unit_ND.T @ unit_ND)[1][:, -KEPT_WIDTH:]
    with atomic_write(folder / VECTORS_FILE) as file:
        np.savez(file, images=np.array(output_paths, str), vectors=unit_ND.astype(np.float16))


def _figures(groups: ImageGroups, *, unreadable: int) -> dict[str, Any]:
    """Counts and means for the record, the report and JSON."""
    sizes = groups.sizes()
    return {
        "images": len(groups.group_N), "groups": groups.count, "largest_group": int(sizes.max(initial=0)),
        "in_no_group": int((groups.group_N < 0).sum()), "near_duplicates": int((groups.duplicate_of_N >= 0).sum()),
        "unreadable": unreadable,
        "mean_confidence": float(groups.confidence_N[groups.group_N >= 0].mean()) if groups.count else None,
        "agreement": None if np.isnan(groups.agreement) else round(groups.agreement, 4),
    }  # fmt: skip


def training_source(folder: Path, kind: str) -> Path:
    """What is trained on of a folder that discover wrote: the folder, in which the images lie by group, or of ``table`` its table."""
    return folder / GROUPS_FILE if kind == "table" else folder


def _print_summary(target: Path, groups: ImageGroups, figures: dict[str, Any], kind: str) -> None:
    say(f"{figures['images']} images: {figures['groups']} groups, {figures['in_no_group']} in no group, "
        f"{figures['near_duplicates']} near-duplicates")  # fmt: skip
    if figures["agreement"] is not None and groups.agreement < 0.4:
        say(
            f"the groups of two halves of the features agree little ({groups.agreement:.2f} of 1): review them with care"
        )
    if not groups.count:
        say("no two images are similar enough to form a group; --groups N merges them anyway")
    how, what = "the table" if kind == "table" else "moving files", training_source(target, kind)
    say(
        f"review {target / REPORT_FILE}; correct by {'changing ' if kind == 'table' else ''}{how}; then: unalike train {shlex.quote(str(what))}"
    )
