"""Sharded embedding killed by SIGKILL: on this machine the run, on a Ray cluster a worker; every image is there once. And S3."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support import networks
from tests.support.program import process
from tests.support.sharding import image_bytes, read_shards, write_images, write_tar
from tests.support.stores import call, s3_server

IMAGES, SHARD_SIZE = 6000, 100
PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "net.onnx").write_bytes(networks.exported_bytes())
    write_images(folder / "photos", IMAGES, bad=(17, 4000))
    return folder


def line(place: Path, out: str, *options: object) -> list[str]:
    words = ["embed", place / "photos", "-o", place / out, "-m", place / "net.onnx", "--labeled", "--runtime", "onnxruntime",
             "--shard-size", SHARD_SIZE, *options]  # fmt: skip
    return [str(word) for word in words]


def shards(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("vectors-*.parquet")}


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "unalike", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)  # fmt: skip


def wait_for_shards(run: subprocess.Popen[str], folder: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while len(shards(folder)) < count:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline, "no shard appeared"
        time.sleep(0.005)


def require_each_image_once(folder: Path) -> None:
    names = sorted(Path(path).stem for path in read_shards(folder)["path"].to_pylist())
    assert names == [f"{number:05d}" for number in range(IMAGES) if number not in (17, 4000)]
    assert len(shards(folder)) == IMAGES // SHARD_SIZE


def test_a_killed_run_goes_on_without_doing_a_shard_twice(place: Path) -> None:
    folder, kept = place / "out", {}
    for options, more in ([], 5), (["--resume"], 20):
        run = start(line(place, "out", *options))
        wait_for_shards(run, folder, len(kept) + more)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        now = shards(folder)
        assert kept.items() <= now.items(), "a shard was written again"
        assert len(now) < IMAGES // SHARD_SIZE, "killed too late to show anything"
        read_shards(folder)  # each that is there is whole
        kept = now
    done = process(*line(place, "out", "--resume", "--json"))
    assert done.returncode == 0, done.stderr
    assert f'"shards_written": {IMAGES // SHARD_SIZE - len(kept)}' in done.stdout
    assert kept.items() <= shards(folder).items()
    require_each_image_once(folder)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")], "a temporary file is left"


def test_a_killed_worker_of_a_ray_cluster_loses_no_image(place: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install unalike[cluster]")
    run = start(line(place, "ray", "--cluster", "ray", "--workers", 2, "--json"))
    try:
        wait_for_shards(run, place / "ray", 3)
        workers = [child for child in psutil.Process(run.pid).children(recursive=True) if _is_worker(child)]
        assert len(workers) == 2, "two workers embed"
        workers[0].kill()
        kept = shards(place / "ray")
        assert len(kept) < IMAGES // SHARD_SIZE, "killed too late to show anything"
        out, err = run.communicate(timeout=PATIENCE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 0, err
    assert f'"images": {IMAGES - 2}, "unreadable": 2' in out and f'"shards_written": {IMAGES // SHARD_SIZE}' in out
    assert kept.items() <= shards(place / "ray").items(), "a shard was written again"
    require_each_image_once(place / "ray")
    assert process(*line(place, "out", "--resume")).returncode == 0, "which has nothing to do after the test before"
    assert read_shards(place / "ray").equals(read_shards(place / "out")), "the vectors are those of one process"


def test_tars_of_s3_become_shards_in_s3(place: Path, tmp_path: Path) -> None:
    with s3_server(tmp_path / "log") as url:
        call(f"{url}/shop", method="PUT")
        for part in range(2):
            members = {f"{number}.png": image_bytes(number) for number in range(part * 40, part * 40 + 40)}
            call(f"{url}/shop/in/{part}.tar", write_tar(tmp_path / f"{part}.tar", members).read_bytes(), "PUT")
        environment = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        words = [
            "embed",
            "s3://shop/in",
            "-o",
            "s3://shop/out",
            "-m",
            place / "net.onnx",
            "--runtime",
            "onnxruntime",
            "--json",
        ]
        for count, option in enumerate(([], ["--resume"])):
            done = process(*words, *option, env=environment)
            assert done.returncode == 0, done.stderr
            assert (
                f'"images": 80, "unreadable": 0, "dim": 16, "shards": 2, "shards_written": {2 * (1 - count)}'
                in done.stdout
            )
        keys = re.findall(r"<Key>out/([^<]*)", call(f"{url}/shop?list-type=2&prefix=out").decode())
    assert keys == [
        "plan.parquet",
        "summary.json",
        "unreadable.csv",
        "vectors-000000.parquet",
        "vectors-000001.parquet",
    ]


def _is_worker(child: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any("ShardActor" in word for word in child.cmdline())
    return False
