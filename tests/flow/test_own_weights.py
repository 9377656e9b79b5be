"""Training from weights of the user's own, from the command line: automatic, without labels, and as the child of a job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.flow.conftest import draw_class
from tests.support.program import unalike
from tests.unit.training.automatic.test_starting_weights import MEAN, STD, make_weights
from unalike.model.checkpoint import load_embedder, read_checkpoint
from unalike.runs.filenames import FINE_TUNING_FOLDER
from unalike.spec import load_spec
from unalike.training.automatic import final_choice, pipeline
from unalike.training.automatic.starting_weights import AS_GIVEN

QUICK = ["--minutes", "5", "train.num_epochs=1", "train.batch_size=16", "train.seed=3", "automl.goal=both"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for number in range(8):
        draw_class(root / f"class {number}", number, 5, 0)
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["rooted", "tao", "safetensors"])
def test_heads_and_fine_tuning_start_from_the_weights(
    kind: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = make_weights(kind, tmp_path)
    starts = []
    interpolate = final_choice.interpolate_weights
    monkeypatch.setattr(
        final_choice, "interpolate_weights", lambda trunk, initial, share: starts.append(initial) or interpolate(trunk, initial, share)
    )  # fmt: skip
    process = unalike("train", photos, "-r", tmp_path / "out", *weights.overrides, *QUICK, "automl_policy=auto")
    assert process.returncode == 0, process.stderr[-3000:]
    folder = tmp_path / "out/train"
    record = json.loads((folder / "automatic.json").read_text())
    names = [c["name"] for c in record["candidates"]]
    assert names[0] == "frozen trunk" and (AS_GIVEN in names) == weights.head
    assert names[-2:] == [final_choice.FINE_TUNED, final_choice.INTERPOLATED]
    assert record["weights"]["trunk"].startswith(str(tmp_path))
    trunk = weights.network.trunk.state_dict()
    assert starts and all(torch.equal(starts[0][name], tensor) for name, tensor in trunk.items())
    tuned = load_spec("train", str(folder / FINE_TUNING_FOLDER / "experiment.yaml"))
    assert tuned.train.warm_start and tuned.model.pretrained_trunk_path and not tuned.model.pretrained_model_path
    facts = read_checkpoint(folder / "ml_model_best.pth")["facts"]
    if weights.stored:
        assert (facts["mean"], facts["std"]) == (MEAN, STD)
        assert (facts["view"]["height"], facts["view"]["width"]) == (64, 32)
    card = json.loads((folder / "model_card.json").read_text())
    assert "trained on images of this set" in card["validation"]["note"]


def test_the_network_as_given_is_delivered_unchanged(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = make_weights("residual", tmp_path)
    monkeypatch.setattr(pipeline, "can_fine_tune", lambda *_: False)
    monkeypatch.setattr(pipeline, "select_best", lambda candidates, _: candidates[-1])
    process = unalike("train", photos, "-r", tmp_path / "out", *weights.overrides, *QUICK)
    assert process.returncode == 0, process.stderr[-3000:]
    folder = tmp_path / "out/train"
    assert json.loads((folder / "automatic.json").read_text())["chosen"] == AS_GIVEN
    network, _ = load_embedder(folder / "ml_model_best.pth")
    assert all(torch.equal(network.state_dict()[k], v) for k, v in weights.network.state_dict().items())
    again = unalike("check", folder / "experiment.yaml")
    assert again.returncode == 0, again.stderr[-2000:]


def test_without_labels_and_with_single_images(photos: Path, tmp_path: Path) -> None:
    weights = make_weights("rooted", tmp_path)
    process = unalike("train", photos, "-r", tmp_path / "out", *weights.overrides, "--no-labels", "--minutes", "0.01")
    assert process.returncode == 0, process.stderr[-3000:]
    record = json.loads((tmp_path / "out/train/unlabelled.json").read_text())
    assert AS_GIVEN in [c["name"] for c in record["candidates"]] and record["weights"]["shared_classes"] == 0
    single = tmp_path / "single"
    for number in range(6):
        draw_class(single / f"class {number}", number, 1, 0)
    process = unalike("train", single, "-r", tmp_path / "single out", *weights.overrides, "--minutes", "1")
    assert process.returncode == 0, process.stderr[-3000:]
    record = json.loads((tmp_path / "single out/train/automatic.json").read_text())
    assert AS_GIVEN in [c["name"] for c in record["candidates"]]
