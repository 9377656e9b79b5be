"""The whole way of TAO's retail example on the Grocery Store photographs, from archives in an S3 server to an engine.

    python benchmarks/workflow.py --data DIR [--out DIR] [--images N] [--unknown N] [--policy off|auto] [key=value ...]

Arranges photographs as the seven archives of TAO's layout (classes known and unknown to training), puts them into a
local S3 server (moto, of the extra `dev`), and runs examples/workflow.py on s3://grocery: train, evaluate and inference
on unknown classes, export, an OpenVINO engine, evaluate and inference of the engine. Prints its table and, as a JSON
line, the seconds and figures of every job. --images is how many photographs of a class are taken at most.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from unalike.jobs import Workspace
from unalike.jobs.tao_layout import DATA_SOURCES

BUCKET = "grocery"
# Set -> share of a class's photographs.
KNOWN = {"train": 0.6, "reference": 0.16, "val": 0.12, "test": 0.12}
UNKNOWN = {"reference": 0.5, "test": 0.5}


def photographs(data: Path, images: int) -> dict[str, list[Path]]:
    """Class -> its photographs of the training split, in their order, so that series stay together."""
    paths_by_class: dict[str, list[Path]] = defaultdict(list)
    for line in (data / "train.txt").read_text(encoding="utf-8").splitlines():
        path = line.split(",")[0].strip()
        paths_by_class[Path(path).parent.name].append(data / path)
    return {name: paths[:images] for name, paths in paths_by_class.items()}


def arrange(data: Path, out: Path, images: int, unknown: int, seed: int) -> list[Path]:
    """The archives of TAO's layout below ``out``; classes are drawn by the seed, sets cut one after another."""
    classes = photographs(data, images)
    names = sorted(classes)
    random.Random(seed).shuffle(names)
    root = Path(next(iter(DATA_SOURCES["train"].values()))).parents[1]
    archives = []
    for kind, members, shares in (("unknown", names[:unknown], UNKNOWN), ("known", names[unknown:], KNOWN)):
        for part in shares:
            file = out / root / f"{kind}_classes" / f"{part}.tar.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(file, "w:gz", compresslevel=1) as archive:
                for name in members:
                    for path in cut(classes[name], shares, part):
                        archive.add(path, f"{part}/{name}/{path.name}")
            archives.append(file)
    return archives


def cut(paths: list[Path], shares: dict[str, float], part: str) -> list[Path]:
    """The share of one set, at least one photograph of each class."""
    start = 0.0
    for name, share in shares.items():
        if name == part:
            low, high = round(start * len(paths)), round((start + share) * len(paths))
            return paths[low : max(high, low + 1)]
        start += share
    raise KeyError(part)


@contextlib.contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """moto's server in a process of its own, on a free port; yields its address."""
    with log.open("w") as out:
        command = [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        while not (match := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())):
            if process.poll() is not None:
                raise SystemExit(f"the S3 server did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield match[1]
    finally:
        process.kill()
        process.wait()


def upload(files: list[Path], out: Path) -> None:
    import s3fs

    store = s3fs.S3FileSystem()
    store.mkdir(BUCKET)
    for file in files:
        store.put_file(str(file), f"{BUCKET}/{file.relative_to(out)}")
        print(f"s3://{BUCKET}/{file.relative_to(out)}: {file.stat().st_size / 1e6:.1f} MB", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the data set's folder, with train.txt")
    parser.add_argument("--out", type=Path, default=Path("runs/workflow"))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--unknown", type=int, default=20, help="classes that training does not see")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policy", default="off", choices=("auto", "off"))
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return 0
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with s3_server(out / "s3.log") as address:
        os.environ |= {
            "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1", "UNALIKE_CACHE": str(out / "cache"),
            "UNALIKE_WORKSPACE": str(out / f"jobs-{options.policy}"),
        }  # fmt: skip
        upload(arrange(options.data, out / "archives", options.images, options.unknown, options.seed), out / "archives")
        example = Path(__file__).parents[1] / "examples" / "workflow.py"
        command = [sys.executable, str(example), f"s3://{BUCKET}", "--policy", options.policy, *options.overrides]
        code = subprocess.run(command, check=False).returncode
        for job in Workspace().jobs():
            row = {"action": job.action, "status": job.status, "trial": job.trial, **dict(job.figures)}
            row["seconds"] = None if job.started is None or job.ended is None else round(job.ended - job.started, 1)
            print(json.dumps(row), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
