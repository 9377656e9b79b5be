"""Checkpoints of TAO's ml_recog in the actions, and ``unalike convert``.

The files are written here by the documented layout (``tests.support.tao_files``); real ones cannot be had.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unalike
from tests.support.tao_files import tao_state, write_tao_checkpoint
from unalike.errors import WeightsError
from unalike.inference.loaded_model import load_model
from unalike.model.checkpoint import load_embedder, read_checkpoint
from unalike.model.embedder import Embedder, EmbedderConfig, create_embedder
from unalike.model.tao_checkpoint import find_embedded_spec
from unalike.spec import load_spec

MODEL = {"backbone": "resnet18", "feat_dim": 8, "input_width": 64, "input_height": 32, "input_channels": 3}
SPEC = {"model": MODEL, "dataset": {"pixel_mean": [0.4, 0.5, 0.6], "pixel_std": [0.2, 0.3, 0.4]}}


@pytest.fixture(scope="module")
def small() -> Embedder:
    torch.manual_seed(3)
    return create_embedder(EmbedderConfig.from_spec(MODEL)).eval()


def is_same(one: Embedder, other: Embedder) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("omegaconf", [True, False], ids=["omegaconf", "plain"])
def test_the_spec_in_the_file_describes_the_network(tmp_path: Path, small: Embedder, omegaconf: bool) -> None:
    file = write_tao_checkpoint(tmp_path / "tao.pth", small, {"experiment_spec": SPEC}, omegaconf=omegaconf)
    embedder, meta = load_embedder(file)
    assert is_same(embedder, small) and not embedder.training
    facts = meta["facts"]
    assert (facts["mean"], facts["std"]) == (SPEC["dataset"]["pixel_mean"], SPEC["dataset"]["pixel_std"])
    assert (facts["view"]["height"], facts["view"]["width"]) == (32, 64)
    assert (meta["epoch"], meta["step"]) == (3, 40)


def test_the_spec_of_the_action_describes_the_network(tmp_path: Path, small: Embedder) -> None:
    file = write_tao_checkpoint(tmp_path / "tao.ckpt", small)
    experiment = load_spec("evaluate", {"model": MODEL, "evaluate": {"checkpoint": str(file)}})
    embedder, meta = load_embedder(file, experiment)
    assert is_same(embedder, small)
    assert meta["facts"]["mean"] == [0.485, 0.456, 0.406] and meta["facts"]["std"] == [0.226, 0.226, 0.226]


def test_fields_of_the_user_replace_those_in_the_file(tmp_path: Path, small: Embedder) -> None:
    file = write_tao_checkpoint(tmp_path / "tao.pth", small, SPEC, omegaconf=True)
    view = load_embedder(file, load_spec("evaluate", {"model": {"input_height": 96}}))[1]["facts"]["view"]
    assert (view["height"], view["width"]) == (96, 64)


@pytest.mark.parametrize(("section", "field", "value"), [
    ("dataset", "pixel_mean", [103.5, 116.3, 123.7]), ("dataset", "pixel_mean", [0.5, 0.5]), ("dataset", "pixel_mean", "[0.4]"),
    ("dataset", "pixel_std", [0, 0, 0]), ("model", "input_width", 64.5),
])  # fmt: skip
def test_fields_in_the_file_are_checked_as_those_of_a_spec(tmp_path, small, section, field, value) -> None:
    spec = {**SPEC, section: {**SPEC[section], field: value}}
    file = write_tao_checkpoint(tmp_path / "tao.pth", small, spec)
    with pytest.raises(WeightsError, match=f"the spec in it .*{section}.{field}"):
        load_embedder(file)
    assert is_same(load_embedder(file, load_spec("evaluate", {section: {field: SPEC[section][field]}}))[0], small)


def test_a_field_that_is_not_set_in_the_file_is_known_by_the_tensors(tmp_path: Path, small: Embedder) -> None:
    file = write_tao_checkpoint(tmp_path / "tao.pth", small, {**SPEC, "model": {**MODEL, "feat_dim": "???"}})
    assert is_same(load_embedder(file)[0], small)


def test_a_network_of_tao_is_known_by_its_tensors(tmp_path: Path) -> None:
    torch.manual_seed(1)
    fan = create_embedder(EmbedderConfig("fan_tiny", 192, 3, (64, 64)))
    embedder, meta = load_embedder(write_tao_checkpoint(tmp_path / "fan.pth", fan))
    assert meta["facts"]["trunk"] == "fan_tiny" and embedder.dim == 192 and is_same(embedder, fan)


def test_the_width_of_a_fan_is_that_of_its_tensors_whatever_feat_dim_says(tmp_path: Path, capsys) -> None:
    """TAO ignores ``feat_dim`` there (D36), and its default of 256 stands in the spec of each of its files."""
    torch.manual_seed(1)
    fan = create_embedder(EmbedderConfig("fan_tiny", 192, 3, (64, 64)))
    model = {**MODEL, "backbone": "fan_tiny", "feat_dim": 256, "input_height": 64}
    file = write_tao_checkpoint(tmp_path / "fan.pth", fan, {"model": model}, omegaconf=True)
    embedder, meta = load_embedder(file)
    assert is_same(embedder, fan) and meta["spec"]["model"]["feat_dim"] == 192
    experiment = load_spec("evaluate", {"model": model})
    assert is_same(load_embedder(file, experiment)[0], fan) and experiment.model.feat_dim == 192
    assert "model.feat_dim: 256 is not used: TAO ignores it for fan_tiny" in capsys.readouterr().err


def test_another_network_than_the_specs_is_one_line(tmp_path: Path, small: Embedder) -> None:
    file = write_tao_checkpoint(tmp_path / "tao.pth", small)
    with pytest.raises(WeightsError, match=r"not resnet_50.*section model"):
        load_embedder(file, load_spec("evaluate", {"model": {"backbone": "resnet_50", "feat_dim": 8}}))
    with pytest.raises(WeightsError, match="cannot be known from its tensors"):
        load_embedder(file)


def test_an_encrypted_file_is_named_as_such(tmp_path: Path, small: Embedder) -> None:
    torch.save({"state_dict": b"xx", "state_dict_encrypted": True}, tmp_path / "tao.pth")
    with pytest.raises(WeightsError, match="encryption_key"):
        load_embedder(tmp_path / "tao.pth")


def test_weights_alone_of_another_program_are_no_checkpoint(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.ones(2)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="not a checkpoint of unalike"):
        read_checkpoint(tmp_path / "x.pth")


def test_plain_state_dicts_work_too(tmp_path: Path, small: Embedder) -> None:
    torch.save({"state_dict": tao_state(small)}, tmp_path / "x.pth")
    experiment = load_spec("export", {"model": MODEL})
    assert is_same(load_embedder(tmp_path / "x.pth", experiment)[0], small)


def test_convert_writes_a_checkpoint_of_ours(tmp_path: Path, small: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_tao_checkpoint(tmp_path / "tao.pth", small, SPEC, omegaconf=True)
    result = unalike.convert(file)
    assert result.path == Path("tao_unalike.pth")
    embedder, meta = load_embedder(result.path)
    assert is_same(embedder, small) and meta["format_version"] == 1 and "origin" not in meta
    images = np.random.default_rng(0).integers(0, 255, (2, 32, 64, 3), dtype=np.uint8)
    ours, theirs = (load_model(path, runtime="torch").engine(images) for path in (result.path, file))
    np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(unalike.UnalikeError, match="exists"):
        unalike.convert(file)
    with pytest.raises(WeightsError, match="already"):
        unalike.convert(result.path, "again.pth")
    Path("v1.pth").write_bytes(b"old")
    Path("current.pth").symlink_to("v1.pth")
    unalike.convert(file, "current.pth", overwrite=True)  # writes the file that the link leads to
    assert Path("current.pth").is_symlink() and is_same(load_embedder("v1.pth")[0], small)


def test_a_configuration_of_any_depth_is_searched() -> None:
    assert find_embedded_spec({"hyper_parameters": {"a": {"experiment_spec": SPEC}}})["model"] == MODEL
    assert find_embedded_spec({"hyper_parameters": {"model": "resnet"}}) == {}
    assert find_embedded_spec([1]) == {}


def test_training_that_is_resumed_without_a_spec_has_the_network_of_the_file(tmp_path: Path, small: Embedder) -> None:
    file = write_tao_checkpoint(tmp_path / "tao.ckpt", small, SPEC, omegaconf=True, epoch=0)
    draws = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "photos" / f"class {number % 4}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    overrides = {"train.resume_training_checkpoint_path": str(file), "train.num_epochs": 2, "dataset.workers": 1,
                 "results_dir": str(tmp_path / "out"), "automl_policy": "off"}  # fmt: skip
    result = unalike.train(None, overrides, data=tmp_path / "photos")
    embedder, meta = load_embedder(result.path)
    assert (meta["facts"]["trunk"], embedder.dim, meta["epoch"]) == ("resnet18", 8, 1)
    assert (meta["facts"]["mean"], meta["facts"]["std"]) == (
        SPEC["dataset"]["pixel_mean"],
        SPEC["dataset"]["pixel_std"],
    )
    assert (meta["facts"]["view"]["height"], meta["facts"]["view"]["width"]) == (32, 64)
    with pytest.raises(WeightsError, match=r"resnet34|network of this run"):
        unalike.train(
            None,
            {**overrides, "model.backbone": "resnet34", "results_dir": str(tmp_path / "other")},
            data=tmp_path / "photos",
        )
