"""Automatic training from the command line: what it delivers and repeats, and that the query set has no effect."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest
import torch

from tests.flow.conftest import draw_class
from tests.support.program import unalike
from tests.support.shared_folder import make_once
from unalike.model.checkpoint import load_embedder, read_checkpoint
from unalike.runs.filenames import FINE_TUNING_FOLDER
from unalike.spec import load_spec
from unalike.training.automatic import final_choice, pipeline
from unalike.training.heads import head_search
from unalike.training.heads.config import HeadConfig, head_training

SMALL = ["model.input_height=64", "model.input_width=64", "dataset.workers=1", "train.seed=3", "automl.goal=both",
         "train.batch_size=16", "model.backbone=tf_efficientnet_lite0"]  # fmt: skip


def make_photos(root: Path) -> None:
    for part, count, seed in (("train", 6, 0), ("query a", 2, 1), ("query b", 3, 2)):
        for number in range(10):
            draw_class(root / part / f"class {number}", number, count, seed)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_once(tmp_path_factory, "automatic-photos", make_photos)


@pytest.fixture(scope="module")
def two_runs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same training with two different query sets."""

    def train(out: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("UNALIKE_CACHE", str(out / "cache"))
            for name in ("a", "b"):
                process = unalike("train", photos / "train", "-r", out / name, "--minutes", "5", *SMALL, "train.num_epochs=2",
                               "wandb.project=https://user:geheim@nowhere/base",
                               f"dataset.val_dataset.query={photos / f'query {name}'}", "--json")  # fmt: skip
                assert process.returncode == 0, process.stderr[-3000:]
                figures = json.loads(process.stdout)["figures"]
                assert {"known classes R@1", "known classes, same series R@1", "val Precision at Rank 1"} <= set(
                    figures
                )

    out = make_once(tmp_path_factory, "automatic-runs", train)
    return [out / name / "train" for name in ("a", "b")]


def weights(file: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(file)["model"]


@pytest.fixture
def own_run(two_runs: list[Path], tmp_path: Path) -> Path:
    """A copy of the second run, which a test may change."""
    return shutil.copytree(two_runs[1].parent, tmp_path / "run") / "train"


def test_the_query_set_has_no_effect_on_selection(two_runs: list[Path]) -> None:
    first, second = (weights(folder / "ml_model_best.pth") for folder in two_runs)
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    records = [json.loads((folder / "automatic.json").read_text()) for folder in two_runs]
    assert records[0]["candidates"] == records[1]["candidates"]


def test_another_candidate_is_delivered_on_request(own_run: Path) -> None:
    folder = own_run
    before = json.loads((folder / "automatic.json").read_text())
    for request, number in (("0", 0), ("discriminant", 1), (final_choice.INTERPOLATED, 3)):
        process = unalike("train", "--take", request, "-r", folder.parent, "--json")
        assert process.returncode == 0, process.stderr[-3000:]
        record = json.loads((folder / "automatic.json").read_text())
        taken = record["candidates"][number]
        assert record["chosen"] == taken["name"] and record["chosen_by"] == "user"
        assert record["candidates"] == before["candidates"]
        assert (folder / "ml_model_best.pth").read_bytes() == (
            folder / f"candidate_{number}/ml_model_best.pth"
        ).read_bytes()
        assert json.loads(process.stdout)["figures"]["known classes R@1"] == taken["figures"]["known"]["R@1"]["value"]
        card = json.loads((folder / "model_card.json").read_text())
        assert card["automatic"]["chosen"] == taken["name"] and card["automatic"]["chosen_by"] == "user"
        model = load_spec("train", str(folder / "experiment.yaml")).model
        embedder, meta = load_embedder(folder / "ml_model_best.pth")
        assert embedder.dim == model.feat_dim == meta["spec"]["model"]["feat_dim"]
        assert taken["name"] in (folder / "report.html").read_text(encoding="utf-8")
        assert (folder / "best_spec.yaml").exists() == (number > 0)
    for request, expected in (("perceptron", "no candidate"), ("fine", "several candidates")):
        process = unalike("train", "--take", request, "-r", folder.parent)
        assert process.returncode != 0 and expected in process.stderr and "0: frozen trunk" in process.stderr


def test_passwords_are_redacted(two_runs: list[Path]) -> None:
    folder = two_runs[0]
    assert "geheim" not in repr(read_checkpoint(folder / "ml_model_best.pth")["spec"])
    for file in (f for f in folder.rglob("*") if f.suffix in (".yaml", ".json", ".html", ".md")):
        assert "geheim" not in file.read_text(encoding="utf-8"), file


def test_one_of_the_candidates_is_delivered_and_reasons_are_given(two_runs: list[Path]) -> None:
    folder = two_runs[0]
    record = json.loads((folder / "automatic.json").read_text())
    names = [c["name"] for c in record["candidates"]]
    assert names[0] == "frozen trunk" and names[2:] == [final_choice.FINE_TUNED, final_choice.INTERPOLATED]
    assert all(c["reason"] and c["statement"] for c in record["candidates"]) and record["chosen_by"] == "rule"
    assert record["evaluation"]["method"] == "hold-out" and "10 classes" in record["not_tested"]
    counts = record["evaluation"]["counts"]
    assert counts.keys() == {"known", "same"} and counts["known"] == counts["same"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"known classes, {counts['known']['queries']} queries, 10 classes" in page
    embedder, meta = load_embedder(folder / "ml_model_best.pth")
    assert embedder(torch.zeros(1, 3, 64, 64)).shape == (1, meta["spec"]["model"]["feat_dim"])
    card = json.loads((folder / "model_card.json").read_text())
    assert card["automatic"]["chosen"] == record["chosen"]
    assert card["validation"]["metrics"]["micro"]


def test_fine_tuning_follows_its_plan(two_runs: list[Path]) -> None:
    """Training settles open fields again; fields of the plan must not be open."""
    spec = load_spec("train", str(two_runs[0] / FINE_TUNING_FOLDER / "experiment.yaml"))
    assert spec.train.head_epochs == 0 and spec.model.head in ("rooted", "linear")
    checkpoint = read_checkpoint(two_runs[0] / FINE_TUNING_FOLDER / "ml_model_latest.pth")
    assert checkpoint["spec"]["train"]["head_epochs"] == 0
    assert checkpoint["spec"]["model"]["backbone"] == "tf_efficientnet_lite0"


def test_the_frozen_trunk_is_delivered_where_nothing_beats_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "search_heads", lambda *arguments, **_: baseline_only(*arguments))
    process = unalike("train", photos / "train", "-r", tmp_path, "--minutes", "0.001", *SMALL)
    assert process.returncode == 0, process.stderr[-3000:]
    assert (
        "no candidate is better than the frozen trunk" in process.stderr and "too short to fine-tune" in process.stderr
    )
    embedder, _ = load_embedder(tmp_path / "train/ml_model_best.pth")
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(embedder(images), embedder.trunk(images))
    card = json.loads((tmp_path / "train/model_card.json").read_text())
    assert card["training"]["head"] == "frozen trunk" and "epochs" not in card["training"]
    assert not (tmp_path / "train/best_spec.yaml").exists()  # no training repeats the frozen trunk


@pytest.mark.slow
@pytest.mark.parametrize("head", ["", "model.head=linear"])
def test_the_best_spec_of_a_head_repeats_its_network(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pipeline, "can_fine_tune", lambda *_: False)
    monkeypatch.setattr(head_search.HeadSearchSpace, "trainings", (head_training("CosFaceLoss", mlp=not head),))
    monkeypatch.setattr(pipeline.HeadTrial, "beats", lambda *_: True)
    monkeypatch.setattr(pipeline, "select_best", lambda candidates, goal: candidates[-1])
    overrides = [override for override in (*SMALL, head) if override]
    process = unalike("train", photos / "train", "-r", tmp_path / "first", "--minutes", "2", *overrides)
    assert process.returncode == 0, process.stderr[-3000:]
    folder = tmp_path / "first/train"
    chosen = json.loads((folder / "automatic.json").read_text())["chosen"]
    assert ("a perceptron" in chosen, "square root" in chosen) == ((False, False) if head else (True, True))
    again = unalike("train", "-e", folder / "best_spec.yaml", "-r", tmp_path / "again", "train.results_dir=null")
    assert again.returncode == 0, again.stderr[-3000:]
    first, second = (tmp_path / name / "train/ml_model_best.pth" for name in ("first", "again"))
    assert weights(first).keys() == weights(second).keys()
    for name, tensor in weights(first).items():
        assert torch.equal(tensor, weights(second)[name]), name
    spec = read_checkpoint(second)["spec"]
    assert spec["model"]["head"] == ("linear" if head else "mlp")
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(load_embedder(first)[0](images), load_embedder(second)[0](images))


def test_the_best_spec_of_a_fine_tuned_network_repeats_its_training(own_run: Path, tmp_path: Path) -> None:
    first = own_run
    taken = unalike("train", "--take", final_choice.INTERPOLATED, "-r", first.parent)
    assert taken.returncode == 0, taken.stderr[-3000:]
    assert json.loads((first / "automatic.json").read_text())["chosen"] == final_choice.INTERPOLATED
    again = unalike("train", "-e", first / "best_spec.yaml", "-r", tmp_path / "again", "train.results_dir=null")
    assert again.returncode == 0, again.stderr[-3000:]
    first_spec, repeated_spec = (
        load_spec("train", str(f / "experiment.yaml")) for f in (first / FINE_TUNING_FOLDER, tmp_path / "again/train")
    )
    assert first_spec.train.warm_start and first_spec.train.head_epochs == 0
    for part in ("model", "train.optim", "train.loss", "train.num_epochs", "train.frozen_stages", "train.head_epochs",
                 "train.warm_start", "train.finish.residual", "train.finish.shrinkage", "train.finish.mirrored", "dataset.train_height"):  # fmt: skip
        values = [reduce(getattr, part.split("."), spec) for spec in (first_spec, repeated_spec)]
        assert values[0] == values[1], part
    file = "ml_model_best.pth" if repeated_spec.train.finish.enabled else "ml_model_latest.pth"
    files = first / "ml_model_best.pth", tmp_path / "again/train" / file
    shapes = [{name: tensor.shape for name, tensor in weights(f).items()} for f in files]
    assert shapes[0] == shapes[1]


@pytest.mark.slow
def test_a_fine_tuned_network_is_a_candidate_on_larger_images_too(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pipeline, "select_best", lambda candidates, goal: candidates[-1])
    own = [override for override in SMALL if "input" not in override]
    process = unalike("train", photos / "train", "-r", tmp_path / "first", "--minutes", "10", *own, "train.num_epochs=1",
                      f"dataset.val_dataset.query={photos / 'query a'}")  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    folder = tmp_path / "first/train"
    record = json.loads((folder / "automatic.json").read_text())
    names = [c["name"] for c in record["candidates"]]
    assert len(names) == 6 and "256x256 px at 1.3 times" in names[4] and record["chosen"] == names[5]
    assert "288x288 px at 1.7 times the cost of an image" in names[5]
    _, meta = load_embedder(folder / "ml_model_best.pth")
    assert (meta["facts"]["view"]["height"], meta["facts"]["view"]["width"]) == (288, 288)
    taken = unalike("train", "--take", "256x256", "-r", folder.parent)
    assert taken.returncode == 0, taken.stderr[-3000:]
    _, meta = load_embedder(folder / "ml_model_best.pth")
    assert meta["facts"]["view"]["height"] == 256
    again = unalike("train", "-e", folder / "best_spec.yaml", "-r", tmp_path / "again", "train.results_dir=null")
    assert again.returncode == 0, again.stderr[-3000:]
    first, repeated = (
        load_spec("train", str(tmp_path / name / "train/experiment.yaml")) for name in ("first", "again")
    )
    assert repeated.model.input_height == first.model.input_height == 256
    assert repeated.dataset.train_height == first.dataset.train_height < 224


@pytest.mark.slow
def test_the_user_s_head_settings_apply_to_the_interpolated_network(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pipeline, "select_best", lambda candidates, goal: candidates[-1])
    calls = []
    refit_head = final_choice.refit_head
    monkeypatch.setattr(
        final_choice, "refit_head", lambda *arguments: calls.append(arguments) or refit_head(*arguments)
    )
    own = ["train.finish.loss=MultiSimilarityLoss", "train.finish.residual=0.37", "train.finish.shrinkage=1.5",
           "train.finish.mirrored=true"]  # fmt: skip
    process = unalike("train", photos / "train", "-r", tmp_path, "--minutes", "5", *SMALL, "train.num_epochs=1", *own)
    assert process.returncode == 0, process.stderr[-3000:]
    record = json.loads((tmp_path / "train/automatic.json").read_text())
    assert record["chosen"] == final_choice.INTERPOLATED
    config = HeadConfig(True, 0.37, 1.5, head_training("MultiSimilarityLoss"))
    assert {t["name"] for t in record["heads"][1:]} == {
        replace(config, sqrt=sqrt, training=None).name for sqrt in (True, False)
    }
    assert config.name in {c["name"] for c in record["candidates"]} or replace(config, sqrt=False).name in {
        c["name"] for c in record["candidates"]
    }
    for _, embeddings, labels, used, _ in calls:
        assert replace(used, sqrt=True) == config
        assert len(embeddings.kept_N) == 2 * len(set(embeddings.kept_N.tolist())) and len(labels) == 60
    finish = load_spec("train", str(tmp_path / "train/best_spec.yaml")).train.finish
    assert (finish.loss, finish.residual, finish.shrinkage, finish.mirrored) == ("MultiSimilarityLoss", 0.37, 1.5, True)


def test_a_head_without_closed_form_is_searched_by_trials(photos: Path, tmp_path: Path) -> None:
    process = unalike("train", photos / "train", "-r", tmp_path, *SMALL, "model.head=residual", "train.num_epochs=1",
                      "--trials", "1")  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    assert (tmp_path / "train/search.json").is_file()


def baseline_only(features, labels, splits, goal):
    """The trial of the frozen trunk alone."""
    return head_search.search_heads(features, labels, splits, goal, seconds=-1)


@pytest.mark.slow
def test_without_pretrained_weights_trials_are_searched(photos: Path, tmp_path: Path) -> None:
    process = unalike("train", photos / "train", "-r", tmp_path, "model.backbone=test_efficientnet", "model.pretrained=false",
                   "model.input_height=64", "model.input_width=64", "train.num_epochs=1", "dataset.workers=1", "--minutes", "0.2")  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    assert "model.pretrained is false, so hyperparameters are searched by complete trainings" in process.stderr
    assert not (tmp_path / "train/automatic.json").exists() and (tmp_path / "train/search.json").is_file()
    assert (tmp_path / "train/ml_model_best.pth").is_file()
