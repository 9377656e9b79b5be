"""Compare: find pairs of images, compare them, write difference images, JSON and an HTML report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from PIL import Image

from unalike.actions.results_folder import open_results
from unalike.actions.spec_resolution import parameters_from
from unalike.comparison.answer import Answer
from unalike.comparison.comparer import Comparer
from unalike.comparison.report import PairPreview, make_pairs_report
from unalike.comparison.result import ComparisonResult
from unalike.data.archives import is_archive, split_member, unpack_source
from unalike.data.decode import IMAGE_SUFFIXES
from unalike.data.imageset import resolve_source
from unalike.data.manifests import find_file
from unalike.data.regions import image_file
from unalike.data.tables import read_table
from unalike.errors import DataError, RunError
from unalike.progress import progress, say
from unalike.runs.filenames import COMPARISON_FILE, REPORT_FILE, bounded_stem
from unalike.source_names import source_name
from unalike.storage.atomic import atomic_write, write_text
from unalike.storage.fetch import uri_of
from unalike.storage.outside_files import require_file, shorten

if TYPE_CHECKING:
    from unalike.spec import Experiment

# Pairs whose images are in the report, the most different ones; its table has all pairs.
MAX_PREVIEWS = 200
COLUMNS = ("reference", "image")


@dataclass(frozen=True)
class Pair:
    """Two image files and the name of the difference images written for them."""

    reference: Path
    image: Path
    name: str


def find_pairs(first: str | Path, second: str | Path | None = None) -> list[Pair]:
    """Find the pairs of images to compare.

    Args:
        first: The reference: an image, or a folder of them. Without ``second``, a CSV table with the columns reference and
            image, whose paths are relative to it.
        second: An image, or a folder of them. The images of two folders are paired by relative path without suffix; those
            without a partner are skipped, with a message.

    Raises:
        DataError: A file is missing, or there are no pairs.
    """
    first = _local_source(first)
    if second is None:
        return _pairs_from_table(first)
    second = _local_source(second)
    for path in (first, second):
        if not path.is_dir():
            require_file(image_file(path))
    if not second.is_dir():
        if first.is_dir():
            raise DataError(f"{first} is a folder and {second} a file", expected="the reference first",
                            remedy=shlex.join(["unalike", "compare", str(second), str(first)]))  # fmt: skip
        return [Pair(first, second, second.stem)]
    images = _images_by_name(second)
    if not first.is_dir():
        return [Pair(first, path, name) for name, path in images.items()]
    return _pairs_from_folders(first, second, _images_by_name(first), images)


def _local_source(source: str | Path) -> Path:
    """The path of a source; archives, their members (``archive!member``) and addresses are fetched and unpacked."""
    if is_archive(source) and (path := resolve_source(source)).is_file():
        return unpack_source(source, local_file=path)
    return resolve_source(source) if uri_of(source) or split_member(source) else Path(source)


def _pairs_from_folders(first: Path, second: Path, references: dict[str, Path], images: dict[str, Path]) -> list[Pair]:
    common = [name for name in references if name in images]
    if not common:
        raise DataError(f"no image of {second} has the name of one of {first}", expected="the same names in both",
                        remedy="or a table: unalike compare PAIRS.csv, with the columns reference and image")  # fmt: skip
    single_names = sorted([*(references.keys() ^ images.keys())])
    if single_names:
        names = ", ".join(single_names[:5]) + (", ..." if len(single_names) > 5 else "")
        say(f"{len(single_names)} images without a partner were skipped: {names}")
    return [Pair(references[name], images[name], name) for name in common]


def _images_by_name(folder: Path) -> dict[str, Path]:
    """The images below a folder by relative path without suffix; hidden files are left out."""
    images: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if (
            path.suffix.lower() not in IMAGE_SUFFIXES
            or not path.is_file()
            or any(part.startswith(".") for part in relative.parts)
        ):
            continue
        name = relative.with_suffix("").as_posix()
        if name in images:
            raise DataError(f"{folder}: {images[name].name} and {path.name} have the same name", expected="one of them")
        images[name] = path
    if not images:
        raise DataError(f"{folder}: no images")
    return images


def _pairs_from_table(table: Path) -> list[Pair]:
    if table.suffix.lower() != ".csv":
        raise DataError(f"only {table} to compare", expected="two images, two folders, or a table of pairs (.csv)",
                        remedy="unalike compare REFERENCE IMAGE")  # fmt: skip
    content = read_table(table, COLUMNS, path_columns=COLUMNS)
    if set(COLUMNS) - set(content.columns):
        raise DataError(f"{table}: columns {shorten(', '.join(content.names))}",
                        expected="rows with the columns reference and image")  # fmt: skip
    pairs, keys = [], set()
    rows = list(zip(*(content.columns[name] for name in COLUMNS), strict=True))
    if not rows:
        raise DataError(f"{table}: no rows", expected="rows with the columns reference and image")
    for line, (reference, image) in enumerate(rows, 2):
        if not reference or not image:
            raise DataError(f"{table}, row {line - 1}: a field is empty", expected="reference and image")
        second = find_file(table.parent, image)
        name = Path(image.replace("\\", "/")).with_suffix("").as_posix().strip("/").replace("..", "_")
        while name in keys:
            name += f"-{line}"
        keys.add(name)
        pairs.append(Pair(find_file(table.parent, reference), second, name))
    return pairs


def compare(experiment: Experiment, *, overwrite: bool = False) -> dict[str, Any]:
    """Compare the pairs that a spec names; in a results folder, difference images, ``comparison.json`` and ``report.html`` are written.

    Args:
        experiment: Spec whose section ``compare`` holds the options.
        overwrite: Replace the results of a former comparison in the folder.

    Returns:
        Counts ``same``, ``different`` and ``refused``, and ``pairs``, an entry for each pair.

    Raises:
        DataError: A single pair, or every pair, cannot be compared. One of several is named in its entry.
    """
    section = experiment.compare
    with open_results("compare", experiment, overwrite=overwrite) as run:
        assert section.reference is not None
        pairs = find_pairs(section.reference, section.image)
        comparer = Comparer(**parameters_from(section, Comparer))
        if len(pairs) > 1:
            comparer.fit_decoding(dict.fromkeys(path for pair in pairs for path in (pair.reference, pair.image)))
        entries, previews = _compare_pairs(comparer, pairs, None if run is None else run.dir)
        result = summary(entries)
        if run is not None:
            page = make_pairs_report(entries, previews)
            result |= {"report": str(page.write(run.dir / REPORT_FILE)), "record": str(run.dir / COMPARISON_FILE)}
            text = json.dumps({"format_version": 1, **result}, ensure_ascii=False, indent=1)
            write_text(run.dir / COMPARISON_FILE, text + "\n")
            run.own(run.dir / COMPARISON_FILE)
            run.conclude(
                f"compared: {len(pairs)} pairs",
                {name: result[name] for name in ("same", "different", "incomplete", "refused")},
            )
    return result


def _compare_pairs(
    comparer: Comparer, pairs: Sequence[Pair], folder: Path | None
) -> tuple[list[dict[str, Any]], list[PairPreview]]:
    """Compare pairs; an entry for each, and the previews for the report. Images are written below ``folder``."""
    entries: list[dict[str, Any]] = []
    previews: list[PairPreview] = []
    with progress("comparing", len(pairs) if len(pairs) > 1 else 0, "pairs") as advance:
        for pair in pairs:
            try:
                comparison = comparer.compare(pair.reference, pair.image, show_progress=len(pairs) == 1)
            except DataError as error:
                if len(pairs) == 1:
                    raise
                entries.append({**_entry_of(pair), "error": str(error)})
            else:
                entries.append({**_entry_of(pair), **comparison.to_dict()})
                if folder is not None:
                    pictures = _pictures(comparison)
                    entries[-1]["pictures"] = _save_pictures(pictures, folder, pair.name)
                    _keep_preview(previews, PairPreview.from_result(pair.name, comparison, pictures))
            advance()
    if all("error" in entry for entry in entries):
        raise DataError(f"none of {len(entries)} pairs could be compared, the first: {entries[0]['error']}")
    return entries, previews


def summary(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count the pairs by answer, and those that could not be compared; with the entries."""
    return {
        **{answer: sum(entry.get("answer") == answer for entry in entries) for answer in get_args(Answer)},
        "refused": sum("error" in entry for entry in entries),
        "pairs": list(entries),
    }


def _entry_of(pair: Pair) -> dict[str, Any]:
    return {"name": pair.name, "reference": source_name(pair.reference), "image": source_name(pair.image)}


def _keep_preview(previews: list[PairPreview], preview: PairPreview) -> None:
    """Add a preview; beyond MAX_PREVIEWS the least different pair is removed."""
    previews.append(preview)
    if len(previews) > MAX_PREVIEWS:
        previews.remove(min(previews, key=lambda preview: preview.score))


def _pictures(result: ComparisonResult) -> dict[str, Image.Image]:
    """The images written for a pair: reference, boxes, overlay, a heat map for each level, and what the image lacks."""
    pictures = {"reference": result.reference(), "boxes": result.picture(), "overlay": result.overlay()}
    if result.heat_hw is not None:
        pictures["heat"] = result.heat_map("pixels")
    if result.features is not None:
        pictures["heat_features"] = result.heat_map("features")
    if result.coverage.reference.boxes:
        pictures["missing"] = result.missing()
    return pictures


def _save_pictures(pictures: dict[str, Image.Image], folder: Path, name: str) -> dict[str, str]:
    paths = {}
    for kind, picture in pictures.items():
        path = folder / Path(name).parent / f"{bounded_stem(Path(name).name)}_{kind}.jpg"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as partial:
                picture.save(partial, "JPEG", quality=88)
        except OSError as error:
            raise RunError(f"{path}: {error.strerror or error}", remedy="choose a folder that can be written") from error  # fmt: skip
        paths[kind] = str(path)
    return paths
