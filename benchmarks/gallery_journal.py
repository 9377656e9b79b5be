"""Seconds and memory of enrolling one image in a large gallery: appended to the journal, beside writing the file anew.

    python benchmarks/gallery_journal.py [--counts 10000,100000,1000000] [--dim 256] [--turns 5] [--out DIR]

Both ways take turns, each in a process of its own that opens the file, enrolls one vector and saves. Prints one JSON line a count:
median, lowest and highest seconds from opening to the saved file, and the largest growth of resident memory in MB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from unalike.recognition.gallery import Gallery

ONE = """
import json, sys, time
from pathlib import Path
import numpy as np
from unalike.recognition import gallery_file
from unalike.recognition.gallery import Gallery
def peak(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
path, way, dim = sys.argv[1], sys.argv[2], int(sys.argv[3])
if way == "anew":
    gallery_file.JOURNAL_BYTES = gallery_file.JOURNAL_SHARE = 0
before, start = peak(), time.monotonic()
with Gallery.edit(path) as gallery:
    gallery.enrol(np.ones((1, dim)), ["one more"], ["one.jpg"])
print(json.dumps({"seconds": time.monotonic() - start, "megabytes": peak() - before}))
"""


def make(path: Path, count: int, dim: int) -> None:
    """A gallery of random vectors, 1,000 classes."""
    draws, gallery = np.random.default_rng(0), Gallery(dim)
    for first in range(0, count, 50_000):
        rows = range(first, min(first + 50_000, count))
        vectors_ND = draws.standard_normal((len(rows), dim), np.float32)
        gallery.enrol(vectors_ND, [f"class {row % 1000}" for row in rows], [f"/a/folder/{row}.jpg" for row in rows])
    gallery.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="10000,100000,1000000")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/gallery_journal"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for count in map(int, arguments.counts.split(",")):
        path = arguments.out / f"{count}.gallery"
        make(path, count, arguments.dim)
        rows: dict[str, list[dict[str, float]]] = {"appended": [], "anew": []}
        for _ in range(arguments.turns):
            for way, measured in rows.items():
                command = [sys.executable, "-c", ONE, str(path), way, str(arguments.dim)]
                measured.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        figures = {
            way: {"seconds": [round(f(row["seconds"] for row in measured), 4) for f in (statistics.median, min, max)],
                  "megabytes": round(max(row["megabytes"] for row in measured), 1)}
            for way, measured in rows.items()
        }  # fmt: skip
        print(json.dumps({"count": count, "dim": arguments.dim, "turns": arguments.turns,
                          "load": round(os.getloadavg()[0], 1), **figures}), flush=True)  # fmt: skip
        path.unlink()


if __name__ == "__main__":
    main()
