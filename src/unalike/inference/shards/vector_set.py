"""The vectors of a folder of shards, read as one set with the names and classes of their images.

Shape letters: N vectors, D width of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.errors import DataError
from unalike.inference.shards.plan import PlanFile, ShardPlan
from unalike.inference.shards.shard_file import read_columns, read_record, shard_name, shard_number
from unalike.progress import progress
from unalike.storage.output_folder import OutputFolder


@dataclass(frozen=True)
class VectorSet:
    """Images that were embedded before.

    Attributes:
        images: Names and classes; a name is a text, which may be an address or a member of a tar.
        vectors_ND: float32 (N, D).
        plan: What all their shards share: network, view, runtime, precision.
        unlabeled: Vectors that were left out, since their images have no class.
    """

    images: ImageSet
    vectors_ND: np.ndarray
    plan: ShardPlan
    unlabeled: int = 0


def read_vector_set(source: str | Path) -> VectorSet:
    """Read all vectors of a folder of shards, in the order of its plan.

    Args:
        source: The folder or address.

    Raises:
        DataError: Shards are missing or damaged, their images have no classes, or there is none.
        RunError: A shard belongs to another run.
        MissingExtra: pyarrow is not installed.
    """
    folder = OutputFolder(source)
    file = PlanFile(folder)
    file.close()
    plan = file.plan
    if not plan.labeled:
        raise DataError(f"{folder.name}: vectors without classes", expected="the class of each image",
                        remedy="embed the images again with --labeled")  # fmt: skip
    there = {number for name in folder.names() if (number := shard_number(name)) is not None}
    if missing := sorted(set(range(plan.shards)) - there):
        raise DataError(f"{folder.name}: {len(missing)} of {plan.shards} shards are missing, the first is {shard_name(missing[0])}",
                        expected="all shards of its plan",
                        remedy="finish it: run unalike embed again with --resume")  # fmt: skip
    records = [read_record(folder, plan, shard) for shard in range(plan.shards)]
    vectors_ND = np.empty((sum(record.images for record in records), plan.dim), np.float32)
    names: list[str] = []
    labels: list[str] = []
    with progress(f"reading {folder.name}", plan.shards, "shards") as advance:
        for record in records:
            here_ND = vectors_ND[len(names) : len(names) + record.images]
            columns = _read_shard(folder, plan, record.shard, here_ND)
            names += columns[0]
            labels += columns[1]
            advance()
    return _labeled_set(plan, folder.name, names, labels, vectors_ND)


def _read_shard(
    folder: OutputFolder, plan: ShardPlan, shard: int, vectors_ND: np.ndarray
) -> tuple[list[str], list[str]]:
    """Read a shard: its vectors into ``vectors_ND``; returns names and classes of their images."""
    record, table = read_columns(folder, plan, shard, ("path", "label", "vector"))
    if record.images != len(vectors_ND):
        raise DataError(f"{folder.name}/{shard_name(shard)} was written again while it was read", expected="a finished run",
                        remedy="read it again when that run has ended")  # fmt: skip
    first = 0
    for chunk in table.column("vector").chunks:
        values: Any = chunk.flatten().to_numpy(zero_copy_only=False)
        vectors_ND[first : first + len(chunk)] = values.reshape(len(chunk), -1)
        first += len(chunk)
    return table.column("path").to_pylist(), table.column("label").to_pylist()


def _labeled_set(
    plan: ShardPlan, source: str, names: list[str], labels: list[str], vectors_ND: np.ndarray
) -> VectorSet:
    classes = sorted(set(labels))
    code_of = {name: code for code, name in enumerate(classes)}
    codes_N = np.array([code_of[label] for label in labels], np.int64)
    unlabeled = 0
    if "" in code_of:  # which sorts first
        keep_N = codes_N > 0
        unlabeled = int(np.count_nonzero(~keep_N))
        names = [names[i] for i in np.flatnonzero(keep_N)]
        classes, codes_N, vectors_ND = classes[1:], codes_N[keep_N] - 1, vectors_ND[keep_N]
    if not names:
        raise DataError(f"{source}: {plan.items} {plan.kind}, of which none has a vector and a class",
                        expected="vectors of images with classes")  # fmt: skip
    paths = cast("tuple[Path, ...]", tuple(names))  # an address stays a text; nothing is opened but by the report
    return VectorSet(ImageSet(paths, codes_N, tuple(classes), source=source), vectors_ND, plan, unlabeled)
