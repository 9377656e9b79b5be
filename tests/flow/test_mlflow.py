"""A training, an evaluation and an export by the real actions, filed in a real tracking store, in a file and behind a real server.

The server is the program ``mlflow`` of the full package, in an environment of its own that the variable MLFLOW_PROGRAM names
(``pip install 'mlflow[auth]'``); without it the tests of the server are skipped.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flow.conftest import draw_class
from tests.support.program import PLAINLY, TINY, unalike
from unalike.runs import mlflow_tracking


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for part, count, seed in (("train", 4, 1), ("query", 2, 2)):
        for number in range(4):
            draw_class(root / part / f"class {number}", number, count, seed)
    return root


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of MLflow's settings is left behind."""
    for name in mlflow_tracking.CLIENT_SETTINGS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_the_way_of_a_model_in_a_file(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = mlflow_tracking._make_client(uri)
    client.create_experiment("marks", artifact_location=(tmp_path / "artifacts").as_uri())
    check_the_way_of_a_model(photos, tmp_path, client)


def check_the_way_of_a_model(photos: Path, tmp_path: Path, client: Any) -> None:
    """Train, evaluate and export; all of it arrives in the experiment ``marks`` of the store that the environment names."""
    data = [f"dataset.val_dataset.reference={photos / 'train'}", f"dataset.val_dataset.query={photos / 'query'}"]
    out, named = tmp_path / "out", "mlflow.experiment=marks"
    done = unalike("train", photos / "train", "-r", out, PLAINLY, *TINY, "train.num_epochs=2", *data, named)
    assert done.returncode == 0 and "MLflow" not in done.stderr, done.stderr
    model = out / "train" / "ml_model_best.pth"
    for words in (("evaluate", model, *data), ("export", model)):
        done = unalike(*words, "-r", out, named)
        assert done.returncode == 0 and "MLflow" not in done.stderr, done.stderr
    number = client.get_experiment_by_name("marks").experiment_id
    runs = {run.data.tags["unalike.action"]: run for run in client.search_runs([number])}
    assert runs.keys() == {"train", "evaluate", "export"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    check_training(client, runs["train"], model)
    metrics = runs["evaluate"].data.metrics
    low, value, high = (metrics[f"final/test Precision at Rank 1{end}"] for end in (" low", "", " high"))
    assert low <= value <= high and low < high
    assert {"metrics.json", "report.html"} <= {
        item.path for item in client.list_artifacts(runs["evaluate"].info.run_id)
    }
    (version,) = client.search_model_versions("name = 'marks'")
    assert version.run_id == runs["train"].info.run_id and version.source.endswith("/model")
    (onnx,) = client.list_artifacts(runs["export"].info.run_id, "model")
    assert onnx.path.endswith(".onnx")


def check_training(client: Any, run: Any, model: Path) -> None:
    """Two epochs of losses and of the validation, the settled spec, report and checkpoint."""
    assert run.data.params["train.num_epochs"] == "2" and run.data.params["model.backbone"] == "test_efficientnet"
    for name in ("val Precision at Rank 1", "train_loss"):
        history = client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in history] == [0, 1], name
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"report.html", "experiment.yaml", "run.json", "model_card.json", "model"} <= files
    (checkpoint,) = client.list_artifacts(run.info.run_id, "model")
    assert checkpoint.path == "model/ml_model_best.pth" and checkpoint.file_size == model.stat().st_size


# ---- a real server ----

PATIENCE_S, PASSWORD = 180.0, "of one test 7"


@contextlib.contextmanager
def tracking_server(folder: Path, *words: str) -> Iterator[str]:
    """The address of a real server, whose runs and artifacts lie below a folder; skipped where there is no such program."""
    program = os.environ.get("MLFLOW_PROGRAM")
    if not program:
        pytest.skip("MLFLOW_PROGRAM names no program mlflow of the full package")
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    folder.mkdir()
    command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri",
               f"sqlite:///{folder / 'runs.db'}", "--artifacts-destination", str(folder / "artifacts"), *words]  # fmt: skip
    settings = {**os.environ, "MLFLOW_FLASK_SERVER_SECRET_KEY": "of a test", "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD}
    with (folder / "log.txt").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=settings)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server, folder)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(PATIENCE_S)


def wait_for(address: str, server: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        assert server.poll() is None, (folder / "log.txt").read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    pytest.fail(f"no answer of {address}: {(folder / 'log.txt').read_text()}")


@pytest.mark.slow
def test_the_way_of_a_model_over_http(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracking_server(tmp_path / "server") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        check_the_way_of_a_model(photos, tmp_path, mlflow_tracking._make_client(address))
        assert [*(tmp_path / "server" / "artifacts").rglob("*.onnx")], "the server has the model, not the client's disk"


@pytest.mark.slow
def test_a_server_that_asks_for_a_password(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("train", photos / "train", PLAINLY, *TINY, "train.num_epochs=1", "mlflow.experiment=marks")
    with tracking_server(tmp_path / "server", "--app-name", "basic-auth") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        for number, (user, password) in enumerate((("", ""), ("admin", "geheim"))):
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            done = unalike(*words, "-r", tmp_path / f"refused{number}")
            assert done.returncode == 0 and done.stderr.count("MLflow at") == 1, done.stderr
            assert "goes on without it" in done.stderr and "geheim" not in done.stderr, done.stderr
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        done = unalike(*words, "-r", tmp_path / "taken")
        assert done.returncode == 0 and "MLflow" not in done.stderr, done.stderr
        client = mlflow_tracking._make_client(address)
        (run,) = client.search_runs([client.get_experiment_by_name("marks").experiment_id])
        assert run.info.status == "FINISHED" and run.data.params["train.num_epochs"] == "1"
