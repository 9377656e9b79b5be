"""Archives of pretrained weights for machines without a network: ``unalike trunks pack`` writes one, ``unpack`` reads it.

An archive is a zip file without compression: ``trunks.json`` with the facts, place and SHA-256 of each file, then the files.
Names in it choose no paths: a file goes into the hub's cache by the repository, commit and name that its record states, each
of which is checked, or into the folders of ``model.pretrained``.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from unalike.errors import WeightsError
from unalike.model import hub_files
from unalike.model.pretrained import WEIGHT_PACKAGES, package_cache, torch_cache
from unalike.model.trunk_catalog import TrunkEntry
from unalike.model.weight_files import WEIGHT_SUFFIXES
from unalike.progress import progress
from unalike.storage.atomic import atomic_write
from unalike.storage.cache import CACHE_VARIABLE, cache_failures
from unalike.storage.digests import file_sha256
from unalike.storage.outside_files import open_file, reader_errors, reason, shorten

FORMAT_VERSION = 1
RECORD = "trunks.json"
MAX_RECORD_BYTES, MAX_TRUNKS = 1 << 20, 1000
COPY_BYTES = 1 << 20
_FILE = re.compile(r"[A-Za-z0-9][\w.-]{0,200}", re.ASCII)
_REMEDY = "copy it again, or write it anew with unalike trunks pack"


def write_archive(entries: Sequence[TrunkEntry], path: Path) -> None:
    """Write the weights of trunks into one file.

    Args:
        entries: of ``trunk_catalog.describe_trunk``, all with weights on this machine.
        path: the archive to write.

    Raises:
        WeightsError: a file cannot be read, or the archive cannot be written.
    """
    records = [_record(entry, f"weights/{number:03d}") for number, entry in enumerate(entries)]
    total = sum(record["bytes"] for record in records)
    try:
        with (
            atomic_write(path) as partial,
            zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive,
            progress("packing", total // hub_files.MEGABYTE, "MB") as advance,
        ):
            archive.writestr(RECORD, json.dumps({"format_version": FORMAT_VERSION, "trunks": records}, indent=1))
            for entry, record in zip(entries, records, strict=True):
                assert entry.path is not None
                archive.write(entry.path.resolve(), record["member"])
                advance(record["bytes"] // hub_files.MEGABYTE)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {reason(error)}") from error


def unpack_archive(path: Path) -> list[dict[str, Any]]:
    """Put the weights of an archive where ``model.pretrained`` looks; each is there whole, or not at all.

    Args:
        path: the archive.

    Returns:
        ``name``, ``path`` and ``bytes`` of each trunk.

    Raises:
        WeightsError: it is no such archive, is damaged, states places outside the caches, or the disk has no room.
        DataError: a cache cannot be written.
    """
    rows = []
    foreign = reader_errors(f"{path} is damaged, or no archive of weights", expected="a file of unalike trunks pack",
                            remedy=_REMEDY, error=WeightsError)  # fmt: skip
    with open_file(path, error=WeightsError) as file, foreign, zipfile.ZipFile(file) as archive:
        records = _read_records(path, file, archive)
        _check_room(path, sum(record["bytes"] for record in records if record["place"] == "hub"))
        for record in records:
            target = _place(path, archive, record)
            rows.append({"name": record["name"], "path": str(target), "bytes": record["bytes"]})
    return rows


# ---- writing ----


def _record(entry: TrunkEntry, member: str) -> dict[str, Any]:
    """What an archive states of a trunk: facts, place, size and SHA-256 of its weights."""
    assert entry.path is not None
    facts = {
        "name": entry.name, "weights": entry.weights, "license": entry.license, "input_size": list(entry.input_size),
        "source": entry.source, "mean": list(entry.mean), "std": list(entry.std),
    }  # fmt: skip
    size, sha256 = entry.path.stat().st_size, file_sha256(entry.path)
    return {**facts, **_place_of(entry), "member": member, "bytes": size, "sha256": sha256}


def _place_of(entry: TrunkEntry) -> dict[str, str]:
    """Where a machine has to put the weights."""
    assert entry.path is not None
    if entry.origin == "package":
        return {"place": "package", "file": entry.weights}
    if entry.path.parent == torch_cache():
        return {"place": "torch", "file": entry.path.name}
    return {"place": "hub", "repository": entry.source, "commit": entry.path.parent.name, "file": entry.path.name}


# ---- reading ----


def _read_records(path: Path, file: io.BufferedReader, archive: zipfile.ZipFile) -> list[dict[str, Any]]:
    """The records of an archive, checked against its members; raises WeightsError for any contradiction."""
    infos = archive.infolist()
    members = {info.filename: info for info in infos}
    if len(members) != len(infos) or len(infos) > MAX_TRUNKS + 1:
        raise WeightsError(
            f"{path}: {len(infos)} members, {len(members)} names", expected=f"at most {MAX_TRUNKS}, each once"
        )
    if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in infos):
        raise WeightsError(
            f"{path}: compressed or encrypted members", expected="a file of unalike trunks pack", remedy=_REMEDY
        )
    if sum(info.file_size for info in infos) > os.fstat(file.fileno()).st_size:
        raise WeightsError(f"{path}: its members are larger than itself", remedy=_REMEDY)
    if RECORD not in members or members[RECORD].file_size > MAX_RECORD_BYTES:
        raise WeightsError(f"{path}: no {RECORD} of at most 1 MiB", expected="a file of unalike trunks pack")
    content = json.loads(archive.read(RECORD))
    if content["format_version"] != FORMAT_VERSION:
        raise WeightsError(f"{path}: format_version {shorten(repr(content['format_version']))}", expected=str(FORMAT_VERSION),
                           remedy="use the version of unalike that wrote it")  # fmt: skip
    records = [_checked(path, record) for record in content["trunks"]]
    stated = {record["member"]: record["bytes"] for record in records}
    if len(stated) != len(records) or stated != {
        name: info.file_size for name, info in members.items() if name != RECORD
    }:
        raise WeightsError(f"{path}: its members are not those that {RECORD} states", remedy=_REMEDY)
    return records


def _checked(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose place is one of the caches'; raises WeightsError otherwise."""
    place, file = record["place"], str(record["file"])
    is_right = _is_weight_file(file) if place == "torch" else place == "package" and file in WEIGHT_PACKAGES
    if place == "hub":
        repository, commit = str(record["repository"]), str(record["commit"])
        is_name = hub_files.REPOSITORY.fullmatch(repository) is not None and ".." not in repository
        is_right = is_name and hub_files.COMMIT.fullmatch(commit) is not None and _is_weight_file(file)
    if not is_right:
        target = shorten(f"{place!r}, {record.get('repository', '')}/{file}")
        raise WeightsError(f"{path}: {shorten(repr(record.get('name')))} would be written to {target}",
                           expected="a file of the hub's cache, torch's or a weight package", remedy=_REMEDY)  # fmt: skip
    if not hub_files.SHA256.fullmatch(record["sha256"]) or not isinstance(record["bytes"], int):
        raise WeightsError(f"{path}: {shorten(repr(record.get('name')))} has no SHA-256 or size", remedy=_REMEDY)
    return dict(record)


def _is_weight_file(name: str) -> bool:
    return _FILE.fullmatch(name) is not None and name.endswith((*WEIGHT_SUFFIXES, ".npz"))


def _check_room(path: Path, size: int) -> None:
    """Raise WeightsError where the disk of the hub's cache lacks the room; of what goes elsewhere nothing is asked."""
    if not size:
        return
    folder = hub_files.hub_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise WeightsError(
            f"{folder} cannot be written: {reason(error)}", remedy="set HF_HOME to another folder"
        ) from error
    if size > free:
        raise WeightsError(f"{path} holds {size / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free",
                           remedy="free some space, or set HF_HOME to a folder on a larger disk")  # fmt: skip


def _place(path: Path, archive: zipfile.ZipFile, record: Mapping[str, Any]) -> Path:
    """Copy one file to its place; nothing is there under its name unless size and SHA-256 are those of the record."""
    if record["place"] != "hub":
        is_package = record["place"] == "package"
        target = package_cache(record["file"]) if is_package else torch_cache() / record["file"]
        with cache_failures(target.parent, CACHE_VARIABLE if is_package else "TORCH_HOME"):
            _copy_member(path, archive, record, target)
        return target
    blob = hub_files.repository_folder(record["repository"]) / "blobs" / record["sha256"]
    with cache_failures(hub_files.hub_cache(), "HF_HOME"):
        _copy_member(path, archive, record, blob)
        return hub_files.place_file(blob, record["repository"], record["commit"], record["file"])


def _copy_member(path: Path, archive: zipfile.ZipFile, record: Mapping[str, Any], target: Path) -> None:
    if target.is_file() and target.stat().st_size == record["bytes"] and file_sha256(target) == record["sha256"]:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        archive.open(record["member"]) as source,
        atomic_write(target) as partial,
        progress(f"unpacking {record['name']}", record["bytes"] // hub_files.MEGABYTE, "MB") as advance,
    ):
        with partial.open("wb") as out:
            sha256 = _copy(source, out, advance)
        if sha256 != record["sha256"]:
            raise WeightsError(
                f"{path}: the weights of {record['name']} are not those that were packed", remedy=_REMEDY
            )


def _copy(source: IO[bytes], target: IO[bytes], advance: Callable[..., None]) -> str:
    """Copy a stream to another; returns the SHA-256 of its content."""
    digest = hashlib.sha256()
    while chunk := source.read(COPY_BYTES):
        digest.update(chunk)
        target.write(chunk)
        advance(len(chunk) // hub_files.MEGABYTE)
    return digest.hexdigest()
