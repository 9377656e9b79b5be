"""Embed a set that does not fit into memory: plan its shards, let workers write them, and list what could not be read."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.data.notices import Notices
from unalike.errors import DataError, RunError, UnreadableImage
from unalike.inference.loaded_model import LoadedModel, load_model, require_model_file
from unalike.inference.model_files import PRETRAINED, is_pretrained
from unalike.inference.shards.cluster import RAY_MODULES, embed_on_ray
from unalike.inference.shards.image_reader import ImageReader, stream_tar
from unalike.inference.shards.plan import (
    PlanFile,
    ShardPlan,
    check_unchanged,
    source_digest,
    write_plan,
)
from unalike.inference.shards.shard_file import ShardRecord, read_record, shard_number
from unalike.inference.shards.source import FILES, ShardSource, open_source
from unalike.inference.shards.worker import MANY_IMAGES, ShardReport, ShardWorker, WorkerOptions, network_key
from unalike.progress import progress, say
from unalike.runs.ray_cluster import check_cluster
from unalike.runs.vector_folder import PLAN_FILE
from unalike.sanitize import csv_cell
from unalike.storage.filesystems import uri_of
from unalike.storage.output_folder import OutputFolder

if TYPE_CHECKING:
    from unalike.spec.embed import Embed

SUMMARY_FILE, UNREADABLE_FILE = "summary.json", "unreadable.csv"
# Images from which the decoding is chosen where the network's file leaves it open: the first of the source.
DECODING_SAMPLE = 512


def is_shard_folder(output: str) -> bool:
    """Whether an output names a folder of shards: a folder that exists, or a path or address without a suffix."""
    if output.endswith(("/", os.sep)):
        return True
    if uri_of(output):
        return not os.path.splitext(output)[1]
    return os.path.isdir(output) or not Path(output).suffix


def embed_shards(section: Embed, *, overwrite: bool = False, resume: bool = False) -> dict[str, Any]:
    """Embed a source into a folder of Parquet shards.

    Args:
        section: The options.
        overwrite: Remove the shards of a former run.
        resume: Keep them, and embed those that lack.

    Returns:
        Figures: images (vectors in all shards), unreadable, dim, shards, shards_written (by this run), and for a store its
        address.

    Raises:
        DataError: There are no images, none of them can be read, or a store cannot be reached.
        RunError: The folder holds other files, or shards of another source, network or settings.
        MissingExtra: Ray is not installed, or pyarrow.
        DeviceError: There is no Ray cluster.
    """
    assert section.source is not None and section.output is not None
    folder = OutputFolder(section.output)
    check_shard_folder(folder, overwrite=overwrite, resume=resume)
    if section.cluster == "ray":  # before the images, which may take long to list
        check_cluster(section.address, section="embed", modules=RAY_MODULES)
    folder.create()
    with folder.locked():
        plan, model = _settle_plan(section, folder, resume and folder.exists(PLAN_FILE))
        finished = sorted(number for name in folder.names() if (number := shard_number(name)) is not None)
        records = [read_record(folder, plan, shard) for shard in finished]
        missing = sorted(set(range(plan.shards)) - set(finished))
        if records:
            say(f"{folder.name}: {len(records)} of {plan.shards} shards are there, {len(missing)} are embedded now")
        _embed_missing(section, folder, plan, model, missing, sum(map(_read_images, records)))
        return _summarize(folder, plan, len(missing))


def check_shard_folder(folder: OutputFolder, *, overwrite: bool, resume: bool) -> None:
    """Raise RunError for a folder with other files, or with shards where neither overwriting nor resuming was asked for."""
    names = folder.names()
    ours = {
        name for name in names if name in (PLAN_FILE, SUMMARY_FILE, UNREADABLE_FILE) or shard_number(name) is not None
    }
    if names and not ours:
        raise RunError(f"{folder.name} is not empty", expected="a new or an empty folder, or one of shards",
                       remedy="choose another name")  # fmt: skip
    if ours and not (overwrite or resume):
        raise RunError(f"{folder.name} holds shards", expected="a new or an empty folder",
                       remedy="add --resume to go on with them, or --overwrite to begin again")  # fmt: skip
    if ours and resume and PLAN_FILE not in names:
        raise RunError(f"{folder.name} holds shards without {PLAN_FILE}", expected="the plan that they belong to",
                       remedy="add --overwrite in place of --resume to begin again")  # fmt: skip


def _remove_shards(folder: OutputFolder, names: set[str]) -> None:
    """Remove what a former run wrote; the plan last, so that a kill leaves no shards without it."""
    for name in sorted(names):
        if shard_number(name) is not None or name in (SUMMARY_FILE, UNREADABLE_FILE):
            folder.remove(name)
    if PLAN_FILE in names:
        folder.remove(PLAN_FILE)


def _settle_plan(section: Embed, folder: OutputFolder, resume: bool) -> tuple[ShardPlan, LoadedModel]:
    """Write the plan, or read that of an interrupted run and compare it with what it would be now."""
    assert section.source is not None
    if section.model is not None and not is_pretrained(section.model):
        require_model_file(section.model)  # before the images, which may take long to list
    notices = Notices()
    source = open_source(section.source, labeled=section.labeled, notices=notices)
    notices.say()
    if source.kind != FILES and section.shard_size != type(section).model_fields["shard_size"].default:
        say("embed.shard_size is not used: each tar file is a shard")
    model = load_model(
        section.model or PRETRAINED, runtime=section.runtime, precision=section.precision,
        images=MANY_IMAGES, quiet=False,
    )  # fmt: skip
    settings: dict[str, Any] = {
        "labeled": section.labeled, "network": network_key(model), "dim": model.engine.dim,
        "runtime": section.runtime, "precision": section.precision,
    }  # fmt: skip
    if not resume:
        model = _with_fitted_decoding(model, source)
        _remove_shards(folder, folder.names())
        return write_plan(folder, source, section.shard_size, {**settings, "view": model.view.to_dict()}), model
    file = PlanFile(folder)
    file.close()
    digest, items, shards = source_digest(source, section.shard_size)
    new = ShardPlan(source.name, source.kind, shard_size=section.shard_size, view=file.plan.view, digest=digest,
                    items=items, shards=shards, **settings)  # fmt: skip
    check_unchanged(folder, file.plan, new)
    return file.plan, model


def _with_fitted_decoding(model: LoadedModel, source: ShardSource) -> LoadedModel:
    """The network with a decoding that leaves nothing open, chosen from the first images of the source."""
    if model.view.decoding.is_complete:
        return model
    return model.fitted(list(islice(_first_images(source, model), DECODING_SAMPLE)))


def _first_images(source: ShardSource, model: LoadedModel) -> Iterator[Path | bytes]:
    """What the first images are opened from; those that cannot be read are left out."""
    reader = ImageReader(model.view)
    for item in source.items():
        if source.kind == FILES:
            with contextlib.suppress(UnreadableImage):
                yield reader.content(item.path)
        else:
            yield from (image.content for image in stream_tar(item.path) if image.content)


def _embed_missing(
    section: Embed,
    folder: OutputFolder,
    plan: ShardPlan,
    model: LoadedModel,
    missing: Sequence[int],
    images_before: int,
) -> None:
    """Embed shards, here or on a cluster, and show the progress of all workers together."""
    if not missing:
        return
    total = len(missing) if plan.kind != FILES else max(1, plan.items - images_before)
    with progress("embedding", total, plan.kind) as advance:
        for report in _reports(section, folder, model, missing, advance):
            if section.cluster == "ray":
                advance(report.images + report.unreadable if plan.kind == FILES else 1)


def _reports(
    section: Embed, folder: OutputFolder, model: LoadedModel, missing: Sequence[int], advance: Any
) -> Iterator[ShardReport]:
    options = WorkerOptions(folder.address, _worker_model(section.model))
    if section.cluster == "ray":
        yield from embed_on_ray(options, missing, workers=section.workers, address=section.address)
        return
    worker = ShardWorker(options, model)
    for shard in missing:
        yield worker(shard, advance)


def _worker_model(model: str | None) -> str:
    """The network as another process finds it: an address, a name of a pretrained trunk, or an absolute path."""
    if model is None or uri_of(model) or is_pretrained(model):
        return model or PRETRAINED
    return os.path.abspath(os.path.expanduser(model))


def _read_images(record: ShardRecord) -> int:
    return record.images + len(record.unreadable)


def _summarize(folder: OutputFolder, plan: ShardPlan, count: int) -> dict[str, Any]:
    """Write what could not be read, and the summary, from what the shards say of themselves; return the figures."""
    images = unreadable = 0
    first = ""
    with (
        folder.write(UNREADABLE_FILE) as path,
        path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(["path", "reason", "shard"])
        for shard in range(plan.shards):
            record = read_record(folder, plan, shard)
            images, unreadable = images + record.images, unreadable + len(record.unreadable)
            for name, reason in record.unreadable:
                first = first or f"{name} ({reason})"
                writer.writerow([csv_cell(name), csv_cell(reason), shard])
    figures: dict[str, Any] = {"images": images, "unreadable": unreadable, "dim": plan.dim, "shards": plan.shards}
    with folder.write(SUMMARY_FILE) as path:
        path.write_text(json.dumps({"format_version": 1, **figures, "plan": plan.key, **plan.to_dict()}, indent=1))
    if unreadable:
        say(
            f"{unreadable} image{'s' * (unreadable != 1)} unreadable, see {folder.name.rstrip('/')}/{UNREADABLE_FILE}; first: {first}"
        )
    if not images and not unreadable:
        raise DataError(f"{plan.source} holds no images", expected="images of a known format")
    if not images:
        raise DataError(f"{plan.source}: none of its {unreadable} images can be read; first: {first}",
                        expected="images that can be decoded")  # fmt: skip
    folder.remove_partials()
    figures["shards_written"] = count
    return figures | ({"address": folder.name} if uri_of(folder.address) else {})
