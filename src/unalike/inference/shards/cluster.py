"""Workers of a sharded embedding on a Ray cluster: an actor pool of Ray Data, each actor with a network of its own.

Ray starts an actor whose process ended again, and gives its shards to another one; a shard that was written is not embedded
again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from unalike import errors
from unalike.errors import DeviceError, UnalikeError
from unalike.inference.shards.worker import ShardReport, ShardWorker, WorkerOptions
from unalike.progress import say
from unalike.runs.ray_cluster import connect_ray, worker_resources
from unalike.telemetry import disable_telemetry

# Shards are given out in at most so many blocks; each is a task of Ray.
MAX_BLOCKS = 10_000
RAY_MODULES = ("ray", "ray.data")


class ShardActor:
    """The class of which Ray Data makes an actor pool; a batch is a column ``shard`` of shard numbers."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        disable_telemetry()
        self._options = WorkerOptions(**options)
        self._worker: ShardWorker | None = None

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, list[Any]]]:
        """Embed shards; gives a row for each as soon as it is written, or one with the error of a user."""
        for shard in batch["shard"]:
            row: dict[str, Any] = {"shard": int(shard), "images": 0, "unreadable": 0, "skipped": False, "error": ""}
            row |= dict.fromkeys(("found", "expected", "remedy"), "")
            try:
                self._worker = self._worker or ShardWorker(self._options)
                row |= asdict(self._worker(int(shard)))
            except UnalikeError as error:
                row |= {"error": type(error).__name__, "found": error.found, "expected": error.expected}
                row["remedy"] = error.remedy
            yield {name: [value] for name, value in row.items()}


def embed_on_ray(
    options: WorkerOptions, shards: Sequence[int], *, workers: int | None, address: str | None
) -> Iterator[ShardReport]:
    """Embed shards on a Ray cluster.

    Args:
        options: What each worker opens; folder, network and images must be there for all machines.
        shards: Numbers of the shards.
        workers: Number of workers; None: one a GPU, or one a machine where there are no GPUs.
        address: Address of the cluster; None starts one on this machine.

    Yields:
        What became of each shard, in the order in which they are done.

    Raises:
        UnalikeError: What a worker raised.
        DeviceError: There is no cluster.
        MissingExtra: Ray is not installed.
    """
    start = time.monotonic()
    ray = connect_ray(address, section="embed", modules=RAY_MODULES)
    count, resources = worker_resources(ray, workers, section="embed")
    if "num_gpus" not in resources:
        options = replace(options, threads=int(resources["num_cpus"]))
        resources["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": str(resources["num_cpus"])}}
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # its own progress, beside which ours is shown
    ray.data.DataContext.get_current().enable_progress_bars = False
    blocks = ray.data.from_items(
        [{"shard": shard} for shard in shards], override_num_blocks=min(len(shards), MAX_BLOCKS)
    )
    rows = blocks.map_batches(
        ShardActor, batch_size=1, compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2),
        fn_constructor_args=(asdict(options),), **resources,
    ).iter_rows()  # fmt: skip
    try:
        for number, row in enumerate(rows):
            if not number:
                say(f"Ray: {count} workers, the first shard after {time.monotonic() - start:.1f} s", level=2)
            if row["error"]:
                kind = getattr(errors, row["error"], UnalikeError)
                raise kind(row["found"], expected=row["expected"], remedy=row["remedy"])
            yield ShardReport(row["shard"], row["images"], row["unreadable"], row["skipped"])
    except ray.exceptions.RayError as error:
        raise DeviceError(f"a worker of the Ray cluster failed: {' '.join(str(error).split())[-300:]}",
                          remedy="run the command again with --resume; shards that are written are kept") from error  # fmt: skip
