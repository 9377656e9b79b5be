"""Runs in MLflow: what arrives in a real store, that nothing happens unasked, and that no server holds the work up."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from unalike import __version__, progress
from unalike.errors import UnalikeError
from unalike.installation import install_command
from unalike.runs import mlflow_tracking
from unalike.runs.folder import open_run
from unalike.runs.mlflow_tracking import TRACKED_ACTIONS, open_tracking, tracking_uri
from unalike.spec import load_spec

VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", *mlflow_tracking.CLIENT_SETTINGS)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of MLflow's variables is set before a test, nor after it."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(progress, "_said", set())


def spec_for(folder: Path, uri: str = "", action: str = "train", **section: Any) -> Any:
    values = {"results_dir": str(folder), action: {}, "mlflow": {**({"tracking_uri": uri} if uri else {}), **section}}
    return load_spec(action, values, ["train.num_epochs=2"])


def train(spec: Any, *, resume: bool = False, epochs: range = range(2), stop: BaseException | None = None) -> Path:
    """What a training does with its run: two epochs with a curve, a report, a checkpoint."""
    with open_run("train", spec, resume=resume) as run:
        for epoch in epochs:
            for step in range(3):
                run.status("RUNNING", "training", kpi={"train_loss": 2.0 - epoch - 0.1 * step}, epoch=epoch, step=step)
            run.status("RUNNING", "validation", kpi={"val Precision at Rank 1": 0.5 + 0.1 * epoch}, epoch=epoch, step=3)
        if stop is not None:
            raise stop
        (run.dir / "report.html").write_text("<p>report</p>")
        checkpoint = run.dir / "ml_model_best.pth"
        checkpoint.write_bytes(b"weights")
        run.add_intervals({"known classes R@1": (0.55, 0.65)})
        run.conclude("trained", {"known classes R@1": 0.6, "classes": 4, "not measured": None}, outputs=[checkpoint])
        return run.dir


def client_of(uri: str) -> Any:
    return mlflow_tracking._make_client(uri)


def only_run(uri: str, experiment: str = "unalike") -> Any:
    client = client_of(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    return run


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty tracking store: making its tables takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    client_of(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    """A real tracking store in a file, whose artifacts go to a folder beside it."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    client = client_of(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.create_experiment("unalike", artifact_location=(tmp_path / "artifacts").as_uri())
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_a_training_arrives_in_a_real_store(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(spec_for(tmp_path / "out", uri, run_name="first try"))
    assert capsys.readouterr() == ("", "")  # MLflow prints nothing into our output
    run, client = only_run(uri), client_of(uri)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first try")
    assert run.data.params["train.num_epochs"] == "2" and run.data.params["model.backbone"]
    assert run.data.tags["unalike.action"] == "train" and run.data.tags["unalike.folder"] == str(folder)

    def curve(name: str) -> list[tuple[int, float]]:
        return [(point.step, round(point.value, 6)) for point in client.get_metric_history(run.info.run_id, name)]

    assert curve("val Precision at Rank 1") == [(0, 0.5), (1, 0.6)]
    assert curve("train_loss") == [(0, 1.8), (1, 0.8)]  # the last of each epoch
    final = {name: value for name, value in run.data.metrics.items() if name.startswith("final/")}
    assert final == {"final/known classes R at 1": 0.6, "final/known classes R at 1 low": 0.55,
                     "final/known classes R at 1 high": 0.65, "final/classes": 4.0}  # fmt: skip
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"report.html", "experiment.yaml", "run.json", "status.json", "model"} <= names
    model = Path(client.download_artifacts(run.info.run_id, "model/ml_model_best.pth", str(tmp_path)))
    assert model.read_bytes() == b"weights"
    assert json.loads((folder / "run.json").read_text())["mlflow_run"] == run.info.run_id


def versions(uri: str, name: str = "unalike") -> list[Any]:
    return list(client_of(uri).search_model_versions(f"name = '{name}'"))


def test_the_model_of_a_training_becomes_a_version_in_the_registry(uri: str, tmp_path: Path) -> None:
    train(spec_for(tmp_path / "out", uri))
    (version,) = versions(uri)
    run, client = only_run(uri), client_of(uri)
    assert (version.version, version.run_id, version.status) in {
        (1, run.info.run_id, "READY"),
        ("1", run.info.run_id, "READY"),
    }
    assert version.tags == {"unalike.version": __version__, "unalike.action": "train"}
    assert version.source == f"{run.info.artifact_uri}/model"
    folder = Path(unquote(urlparse(client.get_model_version_download_uri("unalike", version.version)).path))
    assert (folder / "ml_model_best.pth").read_bytes() == b"weights"
    train(spec_for(tmp_path / "second", uri))
    assert sorted(int(one.version) for one in versions(uri)) == [1, 2]
    train(spec_for(tmp_path / "second", uri), resume=True, epochs=range(1, 2))
    assert len(versions(uri)) == 2, "a resumed run is registered once"


def test_a_registered_model_is_called_as_the_experiment(uri: str, tmp_path: Path) -> None:
    client_of(uri).create_experiment("/Users/ann: shelf", artifact_location=(tmp_path / "shelf").as_uri())
    train(spec_for(tmp_path / "out", uri, experiment="/Users/ann: shelf"))
    assert [version.name for version in versions(uri, "Users_ann_ shelf")] == ["Users_ann_ shelf"]


def test_only_a_training_that_finished_is_registered(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UnalikeError):
        train(spec_for(tmp_path / "out", uri), stop=UnalikeError("no more"))
    with open_run("evaluate", spec_for(tmp_path / "eval", uri, action="evaluate")) as run:
        run.conclude("measured", {"known classes R@1": 0.6})
    assert client_of(uri).search_registered_models() == []


def test_a_server_without_a_registry_costs_one_warning(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"http://someone:geheim@127.0.0.1:{free_port()}")
    train(spec_for(tmp_path / "out", uri))
    said = capsys.readouterr().err
    assert said.count("warning:") == 1 and "not in the model registry" in said and "geheim" not in said, said
    run, client = only_run(uri), client_of(uri)
    assert run.info.status == "FINISHED" and client.list_artifacts(run.info.run_id, "model")


def test_the_environment_names_store_and_experiment(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "shelf")
    client_of(uri).create_experiment("shelf", artifact_location=(tmp_path / "shelf").as_uri())
    train(spec_for(tmp_path / "out"))
    assert only_run(uri, "shelf").info.run_name == "train out"
    spec = spec_for(tmp_path / "out", "sqlite:///other.db")
    assert tracking_uri(spec) == "sqlite:///other.db"  # the spec rules


def test_a_resumed_run_is_the_same_run(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UnalikeError):
        train(spec_for(tmp_path / "out", uri), epochs=range(1), stop=UnalikeError("no more"))
    assert only_run(uri).info.status == "FAILED"
    train(spec_for(tmp_path / "out", uri), resume=True, epochs=range(1, 2))
    run = only_run(uri)
    assert run.info.status == "FINISHED" and run.data.metrics["final/classes"] == 4.0
    history = client_of(uri).get_metric_history(run.info.run_id, "val Precision at Rank 1")
    assert [point.step for point in history] == [0, 1]


def test_a_stopped_run_is_killed(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UnalikeError):
        train(spec_for(tmp_path / "out", uri), stop=KeyboardInterrupt())
    run = only_run(uri)
    assert run.info.status == "KILLED" and run.data.metrics["train_loss"] == pytest.approx(0.8)


def test_nothing_is_imported_unless_a_store_is_named(tmp_path: Path) -> None:
    program = f"""
import sys
from unalike.runs.folder import open_run
from unalike.spec import load_spec
spec = load_spec("train", {{"results_dir": {str(tmp_path)!r}, "train": {{}}}})
with open_run("train", spec) as run:
    run.status("RUNNING", "training", kpi={{"train_loss": 1.0}}, epoch=0)
print([name for name in sys.modules if name.startswith("mlflow")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "[]\n"


def test_actions_that_make_or_measure_no_model_are_not_filed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    filed = [action for action in ("train", "evaluate", "inference", "export", "discover") if
             open_tracking(action, load_spec(action)) is not None]  # fmt: skip
    assert filed == ["train", "evaluate", "export"] and set(filed) <= set(TRACKED_ACTIONS)


# ---- servers that are not there, or do not answer ----


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


@contextmanager
def silent_server() -> Iterator[int]:
    """Takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(20)
        yield int(server.getsockname()[1])


@contextmanager
def refusing_server(seen: list[str]) -> Iterator[int]:
    """Answers 401 to every request, whose headers it keeps."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(401)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def assert_goes_on(spec: Any, out: Path, capsys: pytest.CaptureFixture[str], reason: str = "") -> None:
    """The training ends well, with one warning, and no password in it or in a file."""
    folder = train(spec)
    said = capsys.readouterr().err
    assert said.count("warning:") == 1 and "train goes on without it" in said and reason in said, said
    assert json.loads((folder / "status.json").read_text().splitlines()[-1])["status"] == "SUCCESS"
    assert "geheim" not in said
    assert not [path for path in folder.iterdir() if b"geheim" in path.read_bytes()]


def test_a_server_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = spec_for(tmp_path / "out", f"http://someone:geheim@127.0.0.1:{free_port()}")
    assert_goes_on(spec, tmp_path / "out", capsys, "***@127.0.0.1")


def test_a_server_that_does_not_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    monkeypatch.setattr(mlflow_tracking, "OPEN_SECONDS", 1.0)
    with silent_server() as port:
        start = time.monotonic()
        assert_goes_on(
            spec_for(tmp_path / "out", f"http://127.0.0.1:{port}"), tmp_path / "out", capsys, "no answer within 1 s"
        )
        assert time.monotonic() - start < 60  # one wait, not one a call; far from MLflow's own minutes


def test_a_server_that_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []
    with refusing_server(seen) as port:
        assert_goes_on(spec_for(tmp_path / "out", f"http://someone:geheim@127.0.0.1:{port}"), tmp_path / "out", capsys)
    assert len(seen) <= 3 and seen  # it was asked, and then left alone


def test_an_address_of_no_known_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_goes_on(spec_for(tmp_path / "out", "gopher://someone:geheim@nowhere/x"), tmp_path / "out", capsys)


def test_a_missing_package_is_named_with_its_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert_goes_on(spec_for(tmp_path / "out", "sqlite:///x.db"), tmp_path / "out", capsys, install_command("mlflow"))


def test_parameters_hold_no_password(uri: str, tmp_path: Path) -> None:
    spec = spec_for(tmp_path / "out", uri)
    spec.set_value("dataset.train_dataset", "s3://name:geheim@store/images")
    train(spec)
    run = only_run(uri)
    assert run.data.params["dataset.train_dataset"] == "s3://***@store/images"
    assert "geheim" not in str(run.data)
