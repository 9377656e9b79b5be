"""Weights are taken from this machine first; from the hub as far as downloads are allowed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub import Hub, hub_of_this_process, write_weights
from unalike.errors import WeightsError
from unalike.model import pretrained
from unalike.model.backbones import build_trunk, weights_config
from unalike.model.pretrained import find_local_weights, find_weights
from unalike.storage import downloads
from unalike.storage.downloads import ALWAYS, NEVER, DownloadRefused, policy_of_action, set_policy

NAME, REPO = "test_efficientnet", "timm/test_efficientnet.r160_in1k"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_weights(NAME, tmp_path_factory.mktemp("weights") / "model.safetensors")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: bytes) -> Iterator[Hub]:
    monkeypatch.setattr(downloads.sys, "stdin", io.StringIO(""))
    pretrained._from_hub.cache_clear()
    with hub_of_this_process(monkeypatch, tmp_path, {f"{REPO}/model.safetensors": weights}) as running:
        yield running
    pretrained._from_hub.cache_clear()


def test_small_weights_are_downloaded_once_and_then_are_on_disk(hub):
    trunk = build_trunk(NAME, pretrained="true", input_size=(64, 64))
    assert trunk.facts.source == f"hub {REPO}" and len(hub.downloads()) == 1
    config = weights_config(NAME)
    local = find_local_weights(*config)
    assert local is not None and local.kind == "disk" and local.described == f"cached {REPO}"
    hub.asked.clear()
    assert find_weights(*config) == (local, "") and hub.asked == []


def test_large_weights_are_refused_without_a_terminal_even_where_random_ones_would_do(hub, monkeypatch):
    monkeypatch.setattr(downloads, "LIMIT_BYTES", 1000)
    for option in ("auto", "true"):
        with pytest.raises(DownloadRefused, match=f"the weights of {NAME} .*trunks fetch {NAME}"):
            build_trunk(NAME, pretrained=option, input_size=(64, 64))
    assert hub.downloads() == []
    with policy_of_action(ALWAYS):
        assert build_trunk(NAME, pretrained="auto", input_size=(64, 64)).facts.pretrained


@pytest.mark.parametrize("by_spec", [True, False])
def test_offline_asks_nothing(hub, by_spec):
    if not by_spec:
        set_policy(NEVER)
    with policy_of_action(NEVER if by_spec else "ask"):
        assert not build_trunk(NAME, pretrained="auto", input_size=(64, 64)).facts.pretrained
        with pytest.raises(WeightsError, match="is not in the cache and downloads are switched off"):
            build_trunk(NAME, pretrained="true", input_size=(64, 64))
    assert hub.asked == []


def test_a_damaged_download_is_an_error_and_no_start_from_random_weights(hub):
    hub.stated_sha256 = "1" * 64
    with pytest.raises(WeightsError, match="arrived damaged"):
        build_trunk(NAME, pretrained="auto", input_size=(64, 64))


def test_a_file_that_timm_names_otherwise_is_found_again(hub, weights):
    config = {"hf_hub_id": REPO, "hf_hub_filename": "open_clip_model.safetensors"}
    hub.files = {f"{REPO}/open_clip_model.safetensors": weights}
    source, _ = find_weights("x", config)
    assert source is not None and source.path.name == "open_clip_model.safetensors"
    hub.asked.clear()
    assert find_weights("x", config)[0] is not None and hub.asked == []


def test_repositories_that_are_named_otherwise_than_networks_are_not_offered(hub, tmp_path):
    for name in ("ViT-B-16-SigLIP2", "resnet18.a1_in1k"):
        path = tmp_path / "hub" / f"models--timm--{name}" / "snapshots" / "0" / "model.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    names = pretrained.available_trunks()
    assert "resnet18.a1_in1k" in names and "ViT-B-16-SigLIP2" not in names
