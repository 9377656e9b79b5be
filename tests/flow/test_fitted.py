"""Heads in closed form by plain training: fitted alone, or as what fine-tuning begins with."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.support.program import TINY, data_of, unalike
from unalike.data.preprocessing import Preprocessing
from unalike.inference.embedding import embed_files
from unalike.inference.engine_selection import create_engine
from unalike.model.checkpoint import load_embedder, read_checkpoint
from unalike.model.frozen_trunk import FrozenTrunk
from unalike.numerics.normalization import l2_normalize
from unalike.training.heads.config import HeadConfig, head_training
from unalike.training.heads.trained import fit_head

WIDE = [word for word in TINY if not word.startswith("model.feat_dim")]
ALONE = ["train.train_trunk=false", "train.train_embedder=false", "train.finish.enabled=true"]


def train(images, out, *words):
    return unalike("train", images / "train", "-r", out, "--automl-policy", "off", "train.seed=3", *WIDE, *words)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))


def features_of(embedder, meta, images):
    """The trunk's features of the training images, and their labels."""
    paths = sorted((images / "train").rglob("*.png"))
    preprocessing = Preprocessing.from_facts(meta["facts"])
    engine = create_engine(FrozenTrunk(embedder.trunk), preprocessing, runtime="torch")
    return embed_files(engine, paths, preprocessing.view).vectors_ND, np.array(
        [int(path.parent.name.split()[1]) for path in paths]
    )


@pytest.mark.parametrize("words, kind, loss", [
    ([], "rooted", None),
    (["model.head=linear", "train.finish.residual=0", "train.finish.shrinkage=3"], "linear", None),
    (["model.head=mlp", "train.finish.loss=CosFaceLoss", "model.feat_dim=9"], "mlp", "CosFaceLoss"),
])  # fmt: skip
def test_the_head_alone_is_the_closed_form_of_the_trunk(images, tmp_path, words, kind, loss):
    done = train(images, tmp_path, *data_of(images), *ALONE, *words, "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "a fitted head alone" in done.stderr and "epoch" not in done.stderr.replace("best_epoch", "")
    figures = json.loads(done.stdout)["figures"]
    assert 0 <= figures["val Precision at Rank 1"] <= 1
    best = tmp_path / "train/ml_model_best.pth"
    embedder, meta = load_embedder(best)
    spec = meta["spec"]
    assert spec["model"]["head"] == kind == embedder.head_kind
    x, labels = features_of(embedder, meta, images)
    residual, shrinkage = (spec["train"]["finish"][name] for name in ("residual", "shrinkage"))
    dim = 9 if kind == "mlp" else None
    family = head_training(loss, mlp=kind == "mlp")
    head = fit_head(x, labels, HeadConfig(kind != "linear", residual, shrinkage, family), dim)
    assert spec["model"]["feat_dim"] == head.matrix_FD.shape[1] == (5 if kind == "linear" else dim or x.shape[1])
    with torch.inference_mode():
        found = embedder.head(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, head(x), atol=2e-3 * np.abs(found).max())
    page = (tmp_path / "train/report.html").read_text(encoding="utf-8")
    assert "the trunk as it is, with a fitted head" in page and "Curves" not in page
    card = json.loads((tmp_path / "train/model_card.json").read_text())
    assert card["training"]["head"].startswith("fitted in closed form") and "epochs" not in card["training"]
    measured = unalike("evaluate", "-r", tmp_path, *data_of(images), f"evaluate.checkpoint={best}", "--json")
    assert measured.returncode == 0, measured.stderr[-3000:]


def test_without_finish_nothing_would_learn(images, tmp_path):
    done = train(images, tmp_path, *ALONE[:2])
    assert done.returncode != 0 and "nothing would be trained" in done.stderr and "finish.enabled" in done.stderr
    assert not (tmp_path / "train/ml_model_best.pth").exists()


@pytest.mark.parametrize("words, told", [
    (["model.feat_dim=500"], "model.feat_dim is 500"),
    (["model.head=residual"], "no closed form fits"),
])  # fmt: skip
@pytest.mark.parametrize("way", [ALONE, ["train.warm_start=true"]])
def test_a_head_that_cannot_be_fitted_is_one_line(images, tmp_path, words, told, way):
    done = train(images, tmp_path, *way, *words)
    assert done.returncode != 0 and told in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "train/ml_model_best.pth").exists()


def test_training_begins_with_the_fitted_head(images, tmp_path):
    """A training whose rates are next to nothing ends where it began."""
    still = [f"train.optim.{part}={{base_lr: 1.0e-12, weight_decay: 0.0}}" for part in ("trunk", "embedder")]
    done = train(images, tmp_path, "train.warm_start=true", "train.num_epochs=1", "train.batch_size=12", "train.precision=fp32",
                 "dataset.validation.by=none", "train.finish.enabled=false", *still)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    latest = tmp_path / "train/ml_model_latest.pth"
    embedder, meta = load_embedder(latest)
    assert meta["spec"]["train"]["head_epochs"] == 0 and meta["spec"]["model"]["head"] == "rooted"
    # BatchNorm statistics may have moved with the batches: the head is compared, on features of any trunk
    with torch.inference_mode():
        weight = embedder.head.linear.weight.numpy()
    fresh = train(images, tmp_path / "alone", *ALONE, "dataset.validation.by=none")
    assert fresh.returncode == 0, fresh.stderr[-3000:]
    fitted = read_checkpoint(tmp_path / "alone/train/ml_model_best.pth")["model"]["head.linear.weight"].numpy()
    np.testing.assert_allclose(l2_normalize(weight.ravel()[None]), l2_normalize(fitted.ravel()[None]), atol=1e-5)


def test_mirror_images_change_what_is_fitted(images, tmp_path):
    found = []
    for name, words in (("straight", []), ("both", ["train.finish.mirrored=true"])):
        done = train(images, tmp_path / name, *ALONE, "dataset.validation.by=none", *words)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(read_checkpoint(tmp_path / name / "train/ml_model_best.pth")["model"]["head.linear.weight"])
    assert found[0].shape == found[1].shape and not torch.equal(*found)
