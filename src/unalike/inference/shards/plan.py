"""The plan of a sharded embedding: which images each shard holds, and the settings that all its shards share.

``plan.parquet`` has one group of rows a shard, with the columns ``path`` and ``label``. Its metadata hold the settings and a
digest of the source, by which a run that goes on tells whether anything changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from unalike.errors import DataError, RunError, missing_extra
from unalike.inference.shards.source import FILES, Item, ShardSource
from unalike.runs.vector_folder import PLAN_FILE
from unalike.storage.digests import text_sha256
from unalike.storage.output_folder import OutputFolder

METADATA_KEY = b"unalike"
FORMAT_VERSION = 1
# Settings -> what an error calls them.
SETTINGS = {
    "source": "source", "labeled": "--labeled", "shard_size": "shard size", "network": "network", "runtime": "runtime",
    "precision": "precision",
}  # fmt: skip


@dataclass(frozen=True)
class ShardPlan:
    """What all shards of an embedding share.

    Attributes:
        source: Name of the source.
        kind: ``images`` or ``tars``, see ``ShardSource``.
        labeled: Whether there is a column of classes.
        shard_size: Images a shard; of tars, each is a shard.
        network: Key of the network.
        dim: Width of a vector.
        view: The evaluation view, plain data.
        runtime, precision: As they were asked for.
        digest: Digest of the source's listing.
        items: Number of images, or of tars.
        shards: Number of shards.
    """

    source: str
    kind: str
    labeled: bool
    shard_size: int
    network: str
    dim: int
    view: dict[str, Any]
    runtime: str
    precision: str
    digest: str = ""
    items: int = 0
    shards: int = 0

    @property
    def key(self) -> str:
        """Digest (20 hexadecimal digits) that every shard of this plan names."""
        return text_sha256(json.dumps(self.to_dict(), sort_keys=True), 20)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for the file."""
        return {"format_version": FORMAT_VERSION, **self.__dict__}


def item_groups(source: ShardSource, shard_size: int) -> Iterator[list[Item]]:
    """The items of each shard: ``shard_size`` images, or one tar."""
    items = source.items()
    size = shard_size if source.kind == FILES else 1
    while group := list(islice(items, size)):
        yield group


def source_digest(source: ShardSource, shard_size: int) -> tuple[str, int, int]:
    """The digest of a source's listing, and the numbers of its items and shards; nothing is kept in memory."""
    digest, items, shards = hashlib.sha256(), 0, 0
    for group in item_groups(source, shard_size):
        _update(digest, group)
        items, shards = items + len(group), shards + 1
    return digest.hexdigest(), items, shards


def _update(digest: hashlib._Hash, group: Sequence[Item]) -> None:
    lines = "".join(f"{item.path}\0{item.label}\0{item.mark}\n" for item in group)
    digest.update(lines.encode("utf-8", "surrogateescape"))


def write_plan(folder: OutputFolder, source: ShardSource, shard_size: int, settings: dict[str, Any]) -> ShardPlan:
    """List a source into the plan of a new folder, a shard at a time.

    Args:
        folder: Where the shards are written.
        source: The images.
        shard_size: Images a shard.
        settings: The other attributes of the plan, as far as they are known before it is written.

    Raises:
        DataError: There are no images.
        MissingExtra: pyarrow is not installed.
    """
    pa, pq = pyarrow()
    schema = pa.schema([("path", pa.large_binary()), ("label", pa.string())])
    digest, items, shards = hashlib.sha256(), 0, 0
    with folder.write(PLAN_FILE) as path, pq.ParquetWriter(path, schema) as writer:
        for group in item_groups(source, shard_size):
            _update(digest, group)
            items, shards = items + len(group), shards + 1
            columns = [[item.path.encode("utf-8", "surrogateescape") for item in group], [item.label for item in group]]
            writer.write_table(pa.table(columns, schema), row_group_size=len(group))
        if not items:
            raise DataError(f"{source.name} holds no images")
        plan = ShardPlan(source.name, source.kind, shard_size=shard_size, digest=digest.hexdigest(), items=items,
                         shards=shards, **settings)  # fmt: skip
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(plan.to_dict()).encode()})
    return plan


class PlanFile:
    """An opened plan: its settings, and the items of any shard. Raises DataError for a file that is no plan."""

    def __init__(self, folder: OutputFolder) -> None:
        _, pq = pyarrow()
        self._context = folder.open(PLAN_FILE)
        stream = self._context.__enter__()
        try:
            self._file = pq.ParquetFile(stream)
            values = json.loads(self._file.metadata.metadata[METADATA_KEY])
            if values.pop("format_version") != FORMAT_VERSION:
                raise ValueError("another version of unalike wrote it")
            self.plan = ShardPlan(**values)
            if self._file.num_row_groups != self.plan.shards:
                raise ValueError(f"{self._file.num_row_groups} groups of rows for {self.plan.shards} shards")
        except Exception as error:  # pyarrow raises exceptions of many classes
            self.close()
            raise DataError(f"{folder.name}/{PLAN_FILE}: no plan of shards ({error})", expected="a folder that unalike embed wrote",
                            remedy="name another folder, or begin again with --overwrite") from error  # fmt: skip

    def items(self, shard: int) -> list[tuple[str, str]]:
        """(path, label) of each item of a shard, 0-based."""
        table = self._file.read_row_group(shard, columns=["path", "label"])
        paths = [path.decode("utf-8", "surrogateescape") for path in table.column("path").to_pylist()]
        return list(zip(paths, table.column("label").to_pylist(), strict=True))

    def close(self) -> None:
        """Close the file."""
        self._context.__exit__(None, None, None)


def check_unchanged(folder: OutputFolder, earlier: ShardPlan, new: ShardPlan) -> None:
    """Raise RunError where a plan differs from the one that a folder was begun with."""
    remedy = "name another folder, or begin again with --overwrite"
    for name, description in SETTINGS.items():
        old, value = getattr(earlier, name), getattr(new, name)
        if old != value:
            raise RunError(
                f"{folder.name} was begun with another {description}: {old}", expected=str(value), remedy=remedy
            )
    if (earlier.digest, earlier.items) != (new.digest, new.items):
        raise RunError(f"{new.source} has changed since {folder.name} was begun: {new.items} {new.kind}",
                       expected=f"the {earlier.items} {earlier.kind} of then, unchanged", remedy=remedy)  # fmt: skip


def pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet. Raises MissingExtra where they are not installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet", "embedding into shards") from error
    return pa, pq
