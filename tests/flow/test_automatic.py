"""Automatic training from the command line: what it delivers, that it never looks at the query, that it goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest
import torch

from tests.flow.conftest import draw_class
from tests.support.program import unalike
from unalike.model.checkpoint import load_embedder, read_checkpoint
from unalike.runs.filenames import FINE_TUNING_FOLDER
from unalike.spec import load_spec
from unalike.training.automatic import candidates
from unalike.training.automatic import pipeline as automatic
from unalike.training.heads import search as frozen_heads
from unalike.training.heads.config import HeadConfig, head_training

SMALL = ["model.input_height=64", "model.input_width=64", "dataset.workers=1", "train.seed=3", "automl.goal=both",
         "train.batch_size=16", "model.backbone=tf_efficientnet_lite0"]  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for part, count, seed in (("train", 6, 0), ("query a", 2, 1), ("query b", 3, 2)):
        for number in range(10):
            draw_class(root / part / f"class {number}", number, count, seed)
    return root


def weights(file: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(file)["model"]


@pytest.fixture(scope="module")
def two_runs(
    pictures: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch_module: pytest.MonkeyPatch
) -> list[Path]:
    """The same training with two different query sets."""
    out = tmp_path_factory.mktemp("out")
    monkeypatch_module.setenv("UNALIKE_CACHE", str(out / "cache"))
    folders = []
    for name in ("a", "b"):
        done = unalike("train", pictures / "train", "-r", out / name, "--minutes", "5", *SMALL, "train.num_epochs=2",
                       "wandb.project=https://user:geheim@nowhere/base",
                       f"dataset.val_dataset.query={pictures / f'query {name}'}", "--json")  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        figures = json.loads(done.stdout)["figures"]
        assert "new classes R@1" in figures and "test Precision at Rank 1" in figures
        folders.append(out / name / "train")
    return folders


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_selection_never_looks_at_the_query(two_runs: list[Path]) -> None:
    first, second = (weights(folder / "ml_model_best.pth") for folder in two_runs)
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    records = [json.loads((folder / "automatic.json").read_text()) for folder in two_runs]
    assert records[0]["candidates"] == records[1]["candidates"]


def test_no_password_is_left_behind(two_runs: list[Path]) -> None:
    folder = two_runs[0]
    assert "geheim" not in repr(read_checkpoint(folder / "ml_model_best.pth")["spec"])
    for file in (f for f in folder.rglob("*") if f.suffix in (".yaml", ".json", ".html", ".md")):
        assert "geheim" not in file.read_text(encoding="utf-8"), file


def test_what_is_delivered_is_the_best_judged(two_runs: list[Path]) -> None:
    folder = two_runs[0]
    record = json.loads((folder / "automatic.json").read_text())
    names = [c["name"] for c in record["candidates"]]
    assert names[0] == "frozen trunk" and names[2:] == [candidates.FINE_TUNED, candidates.INTERPOLATED]
    ranked = [
        c for c in record["candidates"] if c["name"] in (record["chosen"], names[0], names[1], candidates.INTERPOLATED)
    ]
    assert max(ranked, key=lambda c: c["score"])["name"] == record["chosen"]
    embedder, meta = load_embedder(folder / "ml_model_best.pth")
    assert embedder(torch.zeros(1, 3, 64, 64)).shape == (1, meta["spec"]["model"]["feat_dim"])
    card = json.loads((folder / "model_card.json").read_text())
    assert card["automatic"]["chosen"] == record["chosen"]
    assert card["validation"]["metrics"]["micro"]


def test_fine_tuning_trains_as_it_was_planned(two_runs: list[Path]) -> None:
    """Training settles once more what is open; what the plan decided must be closed."""
    spec = load_spec("train", str(two_runs[0] / FINE_TUNING_FOLDER / "experiment.yaml"))
    assert spec.train.head_epochs == 0 and spec.model.head in ("rooted", "linear")
    first = read_checkpoint(two_runs[0] / FINE_TUNING_FOLDER / "ml_model_latest.pth")
    assert first["spec"]["train"]["head_epochs"] == 0
    assert first["spec"]["model"]["backbone"] == "tf_efficientnet_lite0"


def test_where_nothing_beats_the_frozen_trunk_it_is_delivered(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "search_heads", lambda f, y, r, g, **_: first_trial(f, y, r, g))
    done = unalike("train", pictures / "train", "-r", tmp_path, "--minutes", "0.001", *SMALL)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "nothing that was tried beats the frozen trunk" in done.stderr and "too short to fine-tune" in done.stderr
    embedder, _ = load_embedder(tmp_path / "train/ml_model_best.pth")
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(embedder(images), embedder.trunk(images))
    card = json.loads((tmp_path / "train/model_card.json").read_text())
    assert card["training"]["head"] == "frozen trunk" and "epochs" not in card["training"]
    assert not (tmp_path / "train/best_spec.yaml").exists()  # no training makes the trunk as it came


@pytest.mark.parametrize("head", ["", "model.head=linear"])
def test_the_best_spec_of_a_head_makes_the_same_network(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(automatic, "can_fine_tune", lambda *_: False)
    monkeypatch.setattr(frozen_heads.HeadSearchSpace, "trainings", (head_training("CosFaceLoss", mlp=not head),))
    monkeypatch.setattr(automatic.HeadTrial, "beats", lambda *_: True)
    monkeypatch.setattr(automatic, "evaluate_heads", only_last(automatic.evaluate_heads))
    words = [word for word in (*SMALL, head) if word]
    done = unalike("train", pictures / "train", "-r", tmp_path / "first", "--minutes", "2", *words)
    assert done.returncode == 0, done.stderr[-3000:]
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


def test_the_best_spec_of_a_fine_tuned_network_trains_as_that_was(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    judged = automatic.evaluate_heads
    monkeypatch.setattr(automatic, "evaluate_heads", lambda *given: [replace(c, score=-1.0) for c in judged(*given)])
    done = unalike(
        "train", pictures / "train", "-r", tmp_path / "first", "--minutes", "5", *SMALL, "train.num_epochs=2"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first = tmp_path / "first/train"
    assert json.loads((first / "automatic.json").read_text())["chosen"] in (
        candidates.FINE_TUNED,
        candidates.INTERPOLATED,
    )
    again = unalike("train", "-e", first / "best_spec.yaml", "-r", tmp_path / "again", "train.results_dir=null")
    assert again.returncode == 0, again.stderr[-3000:]
    then, now = (
        load_spec("train", str(f / "experiment.yaml")) for f in (first / FINE_TUNING_FOLDER, tmp_path / "again/train")
    )
    assert then.train.warm_start and then.train.head_epochs == 0
    for part in ("model", "train.optim", "train.loss", "train.num_epochs", "train.frozen_stages", "train.head_epochs",
                 "train.warm_start", "train.finish.residual", "train.finish.shrinkage", "train.finish.mirrored", "dataset.train_height"):  # fmt: skip
        values = [reduce(getattr, part.split("."), spec) for spec in (then, now)]
        assert values[0] == values[1], part
    file = "ml_model_best.pth" if now.train.finish.enabled else "ml_model_latest.pth"
    files = first / "ml_model_best.pth", tmp_path / "again/train" / file
    shapes = [{name: tensor.shape for name, tensor in weights(f).items()} for f in files]
    assert shapes[0] == shapes[1]


def test_what_the_user_says_of_the_head_holds_for_the_blended_one(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(automatic, "evaluate_networks", only_last(automatic.evaluate_networks))
    heads = []
    fitted = candidates.refit_head
    monkeypatch.setattr(candidates, "refit_head", lambda *given: heads.append(given) or fitted(*given))
    own = ["train.finish.loss=MultiSimilarityLoss", "train.finish.residual=0.37", "train.finish.shrinkage=1.5",
           "train.finish.mirrored=true"]  # fmt: skip
    done = unalike("train", pictures / "train", "-r", tmp_path, "--minutes", "5", *SMALL, "train.num_epochs=1", *own)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "train/automatic.json").read_text())
    assert record["chosen"] == candidates.INTERPOLATED
    form = HeadConfig(True, 0.37, 1.5, head_training("MultiSimilarityLoss"))
    assert {t["name"] for t in record["heads"][1:]} == {
        replace(form, sqrt=root, training=None).name for root in (True, False)
    }
    assert form.name in {c["name"] for c in record["candidates"]} or replace(form, sqrt=False).name in {
        c["name"] for c in record["candidates"]
    }
    for _, embedded, labels, taken, _ in heads:
        assert replace(taken, sqrt=True) == form
        assert len(embedded.kept_N) == 2 * len(set(embedded.kept_N.tolist())) and len(labels) == 60
    finish = load_spec("train", str(tmp_path / "train/best_spec.yaml")).train.finish
    assert (finish.loss, finish.residual, finish.shrinkage, finish.mirrored) == ("MultiSimilarityLoss", 0.37, 1.5, True)


def test_a_head_that_no_form_fits_is_trained_plainly(pictures: Path, tmp_path: Path) -> None:
    done = unalike("train", pictures / "train", "-r", tmp_path, *SMALL, "model.head=residual", "train.num_epochs=1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "model.head is residual, which no closed form fits: training plainly" in done.stderr


def only_last(judged):
    """The candidates as they are judged, the last one worth most."""

    def best_last(*given):
        return [replace(c, score=float(n)) for n, c in enumerate(judged(*given))]

    return best_last


def first_trial(features, labels, rounds, goal):
    from unalike.training.heads.search import search_heads

    return search_heads(features, labels, rounds, goal, seconds=-1)


def test_without_pretrained_weights_it_trains_plainly(pictures: Path, tmp_path: Path) -> None:
    done = unalike("train", pictures / "train", "-r", tmp_path, "model.backbone=test_efficientnet", "model.pretrained=false",
                   "model.input_height=64", "model.input_width=64", "train.num_epochs=1", "dataset.workers=1")  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "model.pretrained is false: training plainly" in done.stderr
    assert not (tmp_path / "train/automatic.json").exists()
