"""A training, an evaluation and an export by the real actions, filed in a real tracking store."""

from __future__ import annotations

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


def test_the_way_of_a_model(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in mlflow_tracking.CLIENT_SETTINGS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = mlflow_tracking._make_client(uri)
    number = client.create_experiment("marks", artifact_location=(tmp_path / "artifacts").as_uri())
    data = [f"dataset.val_dataset.reference={photos / 'train'}", f"dataset.val_dataset.query={photos / 'query'}"]
    out, named = tmp_path / "out", "mlflow.experiment=marks"
    done = unalike("train", photos / "train", "-r", out, PLAINLY, *TINY, "train.num_epochs=2", *data, named)
    assert done.returncode == 0 and "MLflow" not in done.stderr, done.stderr
    model = out / "train" / "ml_model_best.pth"
    for words in (("evaluate", model, *data), ("export", model)):
        done = unalike(*words, "-r", out, named)
        assert done.returncode == 0 and "MLflow" not in done.stderr, done.stderr
    runs = {run.data.tags["unalike.action"]: run for run in client.search_runs([number])}
    assert runs.keys() == {"train", "evaluate", "export"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    check_training(client, runs["train"])
    metrics = runs["evaluate"].data.metrics
    low, value, high = (metrics[f"final/test Precision at Rank 1{end}"] for end in (" low", "", " high"))
    assert low <= value <= high and low < high
    assert {"metrics.json", "report.html"} <= {
        item.path for item in client.list_artifacts(runs["evaluate"].info.run_id)
    }
    (onnx,) = client.list_artifacts(runs["export"].info.run_id, "model")
    assert onnx.path.endswith(".onnx")


def check_training(client: Any, run: Any) -> None:
    """Two epochs of losses and of the validation, the settled spec, report and checkpoint."""
    assert run.data.params["train.num_epochs"] == "2" and run.data.params["model.backbone"] == "test_efficientnet"
    for name in ("val Precision at Rank 1", "train_loss"):
        history = client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in history] == [0, 1], name
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"report.html", "experiment.yaml", "run.json", "model_card.json", "model"} <= files
    (checkpoint,) = client.list_artifacts(run.info.run_id, "model")
    assert checkpoint.path == "model/ml_model_best.pth" and checkpoint.file_size > 1000
