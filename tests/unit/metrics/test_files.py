import csv
import json
import sys

import numpy as np
import pytest

from unalike.errors import RunError, UnalikeError
from unalike.metrics.files import write_metrics
from unalike.metrics.retrieval import evaluate_ranking
from unalike.metrics.summary import summarize
from unalike.numerics.nearest_neighbors import top_k

NAMES = ["a, b", "ü", "c"]


def measured():
    references, reference_labels = np.eye(3), np.array([0, 1, 2])
    queries, labels = np.eye(3)[[0, 1, 1]], np.array([0, 1, 2])
    ranking = evaluate_ranking(queries, labels, references, reference_labels)
    options = {
        "query_paths": ["q 0.jpg", "q1.jpg", "q2.jpg"],
        "reference_paths": ["r0.jpg", "r1.jpg", "r2.jpg"],
        "neighbors": top_k(queries, references, 2),
        "reference_labels": reference_labels,
    }
    return summarize(ranking, NAMES, n=10), ranking, NAMES, options


def test_d22_evaluation_leaves_metrics_tables_and_predictions(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    *arguments, options = measured()
    files = write_metrics(tmp_path / "new", *arguments, **options)
    assert json.loads(files["metrics"].read_text(encoding="utf-8"))["micro"]["precision_at_1"]["value"] == 2 / 3
    with files["per_class"].open(newline="", encoding="utf-8") as stream:
        assert [row["class"] for row in csv.DictReader(stream)] == NAMES
    with files["confusion"].open(newline="", encoding="utf-8") as stream:
        assert [(row["class"], row["taken_for"]) for row in csv.DictReader(stream)] == [("c", "ü")]
    rows = parquet.read_table(files["predictions"]).to_pylist()
    assert rows[2]["predicted"] == "ü" and rows[2]["nearest_path"] == "r1.jpg" and not rows[2]["correct"]
    assert rows[0]["path"] == "q 0.jpg" and len(rows[0]["neighbours"]) == 2
    assert not list((tmp_path / "new").glob("*.partial"))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_names_that_are_not_utf8(tmp_path, monkeypatch, suffix):
    if suffix == ".csv":
        monkeypatch.setitem(sys.modules, "pyarrow", None)
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
    _, ranking, _, options = measured()
    odd, names = "K\udce4se", ["a", "K\udce4se", "c"]
    options["query_paths"][1] = options["reference_paths"][1] = odd
    files = write_metrics(tmp_path, summarize(ranking, names, n=10), ranking, names, **options)
    per_class = json.loads(files["metrics"].read_text(encoding="utf-8"))["per_class"]
    assert [row["class"] for row in per_class] == names
    assert b"K\xe4se" in files["per_class"].read_bytes()
    if suffix == ".csv":
        with files["predictions"].open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            assert list(csv.DictReader(stream))[1]["path"] == odd
    else:
        assert parquet.read_table(files["predictions"]).to_pylist()[1]["path"] == "K\\udce4se"


def test_predictions_are_csv_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    *arguments, options = measured()
    path = write_metrics(tmp_path, *arguments, **options)["predictions"]
    assert path.name == "predictions.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[2]["predicted"] == "ü" and json.loads(rows[0]["neighbour_classes"])[0] == "a, b"


def test_empty_confusion_keeps_its_header(tmp_path):
    ranking = evaluate_ranking(np.eye(2), [0, 1], np.eye(2), [0, 1])
    files = write_metrics(tmp_path, summarize(ranking, NAMES, n=0), ranking, NAMES)
    assert files["confusion"].read_text(encoding="utf-8").strip() == "class,taken_for,count,share"


def test_a_table_of_classes_that_were_not_asked_for_keeps_its_header(tmp_path):
    summary, ranking, names, options = measured()
    header = ["class", "queries", "references", "measured", *ranking.metrics()]
    assert list(summary["per_class"][0]) == header
    summary["per_class"] = []  # evaluate.report_accuracy_per_class=false
    files = write_metrics(tmp_path, summary, ranking, names, **options)
    assert files["per_class"].read_text().splitlines() == [",".join(header)]


def test_wrong_paths_and_folders_are_named(tmp_path):
    *arguments, _ = measured()
    with pytest.raises(UnalikeError, match="1 paths for 3 queries"):
        write_metrics(tmp_path, *arguments, query_paths=["x"])
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        write_metrics(tmp_path / "file", *arguments)
