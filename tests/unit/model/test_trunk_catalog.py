"""The catalog of trunks: facts of timm and of weight packages, counted costs, and what is on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hub import COMMIT
from unalike.errors import ModelError
from unalike.model import trunk_catalog
from unalike.model.hub_files import place_file, repository_folder
from unalike.model.trunk_catalog import NOT_STATED, UNKNOWN, count_cost, describe_trunk, trunk_names

LITE = "tf_efficientnet_lite0"


@pytest.fixture(autouse=True)
def _empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))


# Published: He et al. 2016 state 3.8 G for ResNet-50 (v1; timm's v1.5 has 4.1), Liu et al. 2022 4.5 G for ConvNeXt-T.
@pytest.mark.parametrize(
    ("name", "millions", "giga"), [("resnet_50", 23.5, 4.1), (LITE, 3.4, 0.4), ("convnext_tiny", 27.8, 4.5)]
)
def test_costs_are_those_that_the_papers_state(name, millions, giga):
    cost = count_cost(describe_trunk(name))
    assert cost.parameters / 1e6 == pytest.approx(millions, abs=0.1)
    assert cost.multiply_adds / 1e9 == pytest.approx(giga, abs=0.06)


def test_attention_is_counted():
    """A block of ViT: 4 D^2 and 8 D^2 for the projections a token, and 2 N^2 D for scores and values."""
    tokens, width, depth, patch = 197, 192, 12, 16
    expected = depth * (12 * tokens * width**2 + 2 * tokens**2 * width) + (tokens - 1) * 3 * patch**2 * width
    assert count_cost(describe_trunk("vit_tiny_patch16_224")).multiply_adds == expected


def test_a_package_is_here_and_a_hub_is_not():
    entry = describe_trunk(LITE)
    assert (entry.origin, entry.license, entry.download) == ("package", "apache-2.0", 0)
    assert entry.path is not None and entry.size == entry.path.stat().st_size
    entry = describe_trunk("resnet_50")
    assert (entry.name, entry.weights, entry.origin) == ("resnet_50", "resnet50.a1_in1k", "hub")
    assert (entry.source, entry.license, entry.input_size) == ("timm/resnet50.a1_in1k", "apache-2.0", (224, 224))
    assert (entry.path, entry.size, entry.download) == (None, None, UNKNOWN)


def test_a_file_in_the_cache_is_here():
    repo = "timm/resnet50.a1_in1k"
    blob = repository_folder(repo) / "blobs" / "x"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"12345")
    path = place_file(blob, repo, COMMIT, "model.safetensors")
    entry = describe_trunk("resnet50")
    assert (entry.path, entry.size, entry.download) == (path, 5, 0)
    assert "resnet50.a1_in1k" in trunk_names()
    other = repository_folder("timm/of_a_later_timm.x") / "snapshots" / COMMIT / "model.safetensors"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"x")
    assert "of_a_later_timm.x" not in trunk_names()


def test_trunks_without_published_weights_say_so():
    entry = describe_trunk("fan_tiny")
    assert (entry.origin, entry.weights, entry.license, entry.download) == ("own file", "", "", 0)


def test_a_license_that_timm_lacks_is_not_invented(monkeypatch):
    config = {"architecture": "x", "hf_hub_id": "timm/x", "license": "unknown", "input_size": (3, 32, 32)}
    monkeypatch.setattr(trunk_catalog, "weights_config", lambda name: ("x", config))
    assert describe_trunk("x").license == NOT_STATED


def test_names_are_found_by_a_part_and_weights_by_one_with_a_dot():
    assert {"resnet_50", "resnet_101"} < set(trunk_names("resnet_"))
    assert {"resnet50.a1_in1k", "resnet50.a1h_in1k"} <= set(trunk_names("resnet50.a1"))
    assert "vit_small_patch14_dinov2.lvd142m" in trunk_names("lvd142m"), "a tag, which no network's name holds"
    with pytest.raises(ModelError, match="no trunk is named like 'resnet_5000'.*did you mean 'resnet_50'"):
        trunk_names("resnet_5000")
    assert trunk_names()[0].startswith("tf_efficientnet_lite")
