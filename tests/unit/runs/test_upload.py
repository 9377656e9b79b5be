"""Results whose folder is an address: sent as they come, refused or gone on with as on a disk."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("moto")
pytest.importorskip("s3fs")

import s3fs

from tests.support.stores import call, s3_server
from unalike.errors import DeviceError, RunError
from unalike.runs import upload
from unalike.runs.folder import open_run
from unalike.sanitize import redact

URI = "s3://results/run"
SECRET = "https://h/x.zip?sig=s3cr3t"


class Spec(SimpleNamespace):
    def to_yaml(self, *, redacted: bool = False) -> str:
        return f"dataset: {redact(SECRET) if redacted else SECRET}\n"


def spec(uri: str = URI) -> Spec:
    return Spec(results_dir=uri, train=SimpleNamespace(results_dir=None, seed=7))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as address:
        yield address


@pytest.fixture
def store(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The server, empty but for the bucket; this machine's cache, empty too."""
    call(f"{server}/moto-api/reset", b"", "POST")
    call(f"{server}/results", b"", "PUT")
    for name, value in {
        "AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1", "UNALIKE_CACHE": str(tmp_path / "cache"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(upload, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(upload, "BACKOFF_S", 0.01)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    yield s3fs.S3FileSystem(use_listings_cache=False)


def names(store: Any) -> set[str]:
    return {path.removeprefix("results/run/train/") for path in store.find("results/run/train")}


def statuses(store: Any) -> list[str]:
    return [json.loads(line)["status"] for line in store.cat("results/run/train/status.json").splitlines()]


def until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def save(run: Any, name: str, data: bytes) -> None:
    """A checkpoint as the keeper leaves it: whole at once, and the link to it."""
    (run.dir / f".{name}").write_bytes(data)
    os.replace(run.dir / f".{name}", run.dir / name)
    (run.dir / ".link").symlink_to(name)
    os.replace(run.dir / ".link", run.dir / "ml_model_latest.pth")


def test_checkpoints_as_they_come_and_all_the_rest_at_the_end(store: Any) -> None:
    with open_run("train", spec()) as run:
        assert statuses(store) == ["STARTED"]
        save(run, "model_epoch_000_step_00001.pth", b"first")
        (run.dir / "ml_model_best.pth").write_bytes(b"first")
        until(lambda: {"model_epoch_000_step_00001.pth", "ml_model_latest.pth"} <= names(store))
        save(run, "model_epoch_001_step_00002.pth", b"second")
        (run.dir / "top.pth").write_bytes(b"x")
        until(lambda: {"model_epoch_001_step_00002.pth", "top.pth"} <= names(store))
        (run.dir / "top.pth").unlink()  # fallen out of the best
        (run.dir / "metrics.json").write_text("{}")
    assert names(store) == {
        "status.json", "run.json", "experiment.yaml", "metrics.json", "ml_model_best.pth", "ml_model_latest.pth",
        "model_epoch_000_step_00001.pth", "model_epoch_001_step_00002.pth",
    }  # fmt: skip
    assert store.cat("results/run/train/ml_model_latest.pth") == b"second"
    assert statuses(store)[-1] == "SUCCESS" and json.loads(store.cat("results/run/train/run.json"))["exit"] == 0
    assert b"s3cr3t" not in b"".join(store.cat_file(path) for path in store.find("results/run"))


def test_failure_is_told_there_too(store: Any) -> None:
    with pytest.raises(DeviceError), open_run("train", spec()):
        raise DeviceError(f"no such device, see {SECRET}")
    assert statuses(store) == ["STARTED", "FAILURE"]
    assert b"s3cr3t" not in store.cat("results/run/train/status.json")


def test_a_run_that_is_there_is_refused_gone_on_with_or_replaced(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_run("train", spec()) as run:
        save(run, "model_epoch_000_step_00001.pth", b"first")
        save(run, "model_epoch_001_step_00002.pth", b"second")
    store.pipe("results/run/train/mine.txt", b"not ours")
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "another machine"))
    with pytest.raises(RunError, match="s3://results/run/train holds another run.*--resume"):
        open_run("train", spec())
    with open_run("train", spec(), resume=True) as run:
        assert run.resuming
        assert (run.dir / "ml_model_latest.pth").read_bytes() == b"second"
        assert not (run.dir / "model_epoch_000_step_00001.pth").exists()  # not needed
        (run.dir / "metrics.json").write_text("{}")
    assert {"metrics.json", "model_epoch_000_step_00001.pth"} <= names(store)
    assert statuses(store) == ["STARTED", "SUCCESS", "STARTED", "SUCCESS"]
    with open_run("train", spec(), overwrite=True) as run:
        assert not run.resuming
    assert names(store) == {"status.json", "run.json", "experiment.yaml", "mine.txt"}
    assert store.cat("results/run/train/mine.txt") == b"not ours"
    assert statuses(store) == ["STARTED", "SUCCESS"]


def test_another_machines_work_is_not_undone_by_what_lies_here(store: Any, tmp_path: Path) -> None:
    with open_run("train", spec()) as run:
        save(run, "model_epoch_000_step_00001.pth", b"first")
    store.pipe("results/run/train/ml_model_latest.pth", b"from elsewhere")
    with open_run("train", spec(), resume=True) as run:
        assert (run.dir / "ml_model_latest.pth").read_bytes() == b"from elsewhere"
        assert (run.dir / "model_epoch_000_step_00001.pth").read_bytes() == b"first"


def test_a_folder_that_was_emptied_there_is_begun_anew(store: Any) -> None:
    with open_run("train", spec()) as run:
        save(run, "model_epoch_000_step_00001.pth", b"first")
    store.rm("results/run/train", recursive=True)
    with open_run("train", spec()) as run:
        assert not run.resuming
    assert names(store) == {"status.json", "run.json", "experiment.yaml"}


def test_results_that_cannot_be_sent_are_a_failure_that_says_where_they_lie(
    store: Any, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match="results_dir s3://nowhere.*there is no 'nowhere'"), \
            open_run("train", spec("s3://nowhere/run")):  # fmt: skip
        raise AssertionError("begun without a place for its results")
    with pytest.raises(RunError, match="what the run wrote lies in"), open_run("train", spec()) as run:
        (run.dir / "metrics.json").write_text("{}")
        store.rm("results/run", recursive=True)
        call(f"{server}/results", None, "DELETE")
    assert json.loads((run.dir / "status.json").read_text().splitlines()[-1])["status"] == "FAILURE"
    assert json.loads((run.dir / "run.json").read_text())["exit"] != 0
    with pytest.raises(RunError, match="expected a folder, or an address that can be written"):
        open_run("train", spec("https://h/results"))
