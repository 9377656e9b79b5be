"""A shard: a Parquet file of vectors with the paths and classes of their images, which is there whole or not at all.

Its metadata name the plan, the network and the images that could not be read, so that a folder of shards tells by itself
what is done.

Shape letters: B vectors of a batch, D width of a vector.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from unalike.errors import DataError, ModelError, RunError
from unalike.inference.shards.plan import METADATA_KEY, ShardPlan, pyarrow
from unalike.sanitize import valid_unicode
from unalike.storage.output_folder import OutputFolder
from unalike.storage.outside_files import reader_errors

_NAME = re.compile(r"vectors-(\d{6,})\.parquet")
_ROWS = 4096  # rows of a group, which is written when it is full


@dataclass(frozen=True)
class ShardRecord:
    """What a shard's metadata say.

    Attributes:
        shard: Its number.
        images: Vectors in it.
        unreadable: (name, reason) of each image without one.
    """

    shard: int
    images: int
    unreadable: tuple[tuple[str, str], ...]


def shard_name(shard: int) -> str:
    """The name of a shard's file, by its 0-based number."""
    return f"vectors-{shard:06d}.parquet"


def shard_number(name: str) -> int | None:
    """The number of the shard that a file name means; None for another file."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


class ShardWriter:
    """Appends vectors to a shard; see ``write_shard``."""

    def __init__(self, plan: ShardPlan, writer: Any, schema: Any) -> None:
        self._plan, self._writer, self._schema = plan, writer, schema
        self._names: list[str] = []
        self._labels: list[str] = []
        self._vectors: list[np.ndarray] = []
        self.images = 0
        self.unreadable: list[tuple[str, str]] = []

    def add(self, names: Sequence[str], labels: Sequence[str], vectors_BD: np.ndarray) -> None:
        """Add vectors, float32 (B, D), with the names and classes of their images.

        Raises:
            ModelError: Vectors of another width than the plan's.
        """
        if vectors_BD.shape != (len(names), self._plan.dim):
            raise ModelError(f"the network gives vectors of shape {vectors_BD.shape}",
                             expected=f"{len(names)} vectors of width {self._plan.dim}, as the plan says")  # fmt: skip
        finite_B = np.isfinite(vectors_BD).all(1)
        for row in np.flatnonzero(~finite_B).tolist():
            self.unreadable.append((names[row], "the network gives no finite vector"))
        rows = np.flatnonzero(finite_B).tolist()
        self._names += [names[row] for row in rows]
        self._labels += [labels[row] for row in rows]
        self._vectors.append(np.ascontiguousarray(vectors_BD[rows], np.float32))
        if len(self._names) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are in memory."""
        if not self._names:
            return
        pa, _ = pyarrow()
        values = pa.array(np.concatenate(self._vectors).reshape(-1))
        columns = [pa.array(valid_unicode(self._names)), pa.FixedSizeListArray.from_arrays(values, self._plan.dim)]
        if self._plan.labeled:
            columns.insert(1, pa.array(valid_unicode(self._labels)))
        self._writer.write_table(pa.table(columns, self._schema), row_group_size=_ROWS)
        self.images += len(self._names)
        self._names, self._labels, self._vectors = [], [], []


@contextmanager
def write_shard(folder: OutputFolder, plan: ShardPlan, shard: int, facts: dict[str, Any]) -> Iterator[ShardWriter]:
    """Write a shard; the file appears when the context is left without an error.

    Args:
        folder: Where shards are.
        plan: What all of them share.
        shard: Its 0-based number.
        facts: How it was computed (runtime, precision), for its metadata.
    """
    pa, pq = pyarrow()
    fields = [("path", pa.string()), ("vector", pa.list_(pa.float32(), plan.dim))]
    if plan.labeled:
        fields.insert(1, ("label", pa.string()))
    schema = pa.schema(fields)
    with folder.write(shard_name(shard)) as path, pq.ParquetWriter(path, schema, write_page_checksum=True) as file:
        writer = ShardWriter(plan, file, schema)
        yield writer
        writer.flush()
        metadata = {
            "format_version": 1, "plan": plan.key, "shard": shard, "network": plan.network, "dim": plan.dim,
            "view": plan.view, "images": writer.images, "unreadable": writer.unreadable, **facts,
        }  # fmt: skip
        file.add_key_value_metadata({METADATA_KEY: json.dumps(metadata).encode()})


def read_record(folder: OutputFolder, plan: ShardPlan, shard: int) -> ShardRecord:
    """Read what a shard says of itself.

    Raises:
        RunError: It belongs to another plan, or its vectors have another width.
        DataError: It is damaged.
    """
    with folder.open(shard_name(shard)) as stream:
        return _open_shard(stream, folder, plan, shard)[1]


def read_columns(folder: OutputFolder, plan: ShardPlan, shard: int, columns: Sequence[str]) -> tuple[ShardRecord, Any]:
    """Read what a shard says of itself, and columns of it as a table, of one file: another run may replace it meanwhile.

    Raises:
        RunError: As ``read_record``.
        DataError: It is damaged, or is written over in place.
    """
    with folder.open(shard_name(shard)) as stream:
        before = _status(stream)
        file, record = _open_shard(stream, folder, plan, shard)
        with reader_errors(f"{folder.name}/{shard_name(shard)} cannot be read", expected="a shard as unalike embed wrote it",
                           remedy="delete it, and run unalike embed again with --resume"):  # fmt: skip
            table = file.read(columns=list(columns))
            if _status(stream) != before:
                raise ValueError("it was written to while it was read")
            if table.column_names != list(columns):
                raise ValueError(f"it has columns {', '.join(table.column_names)}")
            if len(table) != record.images:
                raise ValueError(f"{len(table)} rows, its metadata say {record.images}")
            return record, table


def _status(stream: BinaryIO) -> tuple[int, int] | None:
    """Size and time of the last change of a file of this machine; None for one of a store."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, AttributeError):
        return None
    return status.st_size, status.st_mtime_ns


def _open_shard(stream: BinaryIO, folder: OutputFolder, plan: ShardPlan, shard: int) -> tuple[Any, ShardRecord]:
    """The opened file, and what it says of itself; raises as ``read_record``."""
    _, pq = pyarrow()
    name = f"{folder.name}/{shard_name(shard)}"
    try:
        file = pq.ParquetFile(stream, page_checksum_verification=True)
        values = json.loads(file.metadata.metadata[METADATA_KEY])
        width = file.schema_arrow.field("vector").type.list_size
        record = ShardRecord(shard, int(values["images"]), tuple((str(n), str(why)) for n, why in values["unreadable"]))
        network, plan_key = str(values["network"]), values["plan"]
    except Exception as error:  # pyarrow raises exceptions of many classes
        raise DataError(
            f"{name}: no shard ({error})", remedy="delete it, and run the command again with --resume"
        ) from error
    if (plan_key, network, width) != (plan.key, plan.network, plan.dim):
        raise RunError(f"{name} belongs to another run: network {network}, width {width}",
                       expected=f"network {plan.network}, width {plan.dim}, of the same plan",
                       remedy="name another folder, or begin again with --overwrite")  # fmt: skip
    return file, record
