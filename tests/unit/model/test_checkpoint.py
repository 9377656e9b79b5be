"""Checkpoints: written whole or not at all, read without running code, rebuilt without fetching anything."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from unalike.errors import RunError, WeightsError
from unalike.model import checkpoint, hub_files
from unalike.model.checkpoint import load_embedder, network_key, read_checkpoint, write_checkpoint
from unalike.model.embedder import Embedder, EmbedderConfig, create_embedder

SPEC = {"model": {"backbone": "resnet18", "feat_dim": 8, "input_channels": 3, "input_height": 32, "input_width": 64}}


@pytest.fixture(scope="module")
def trained() -> Embedder:
    torch.manual_seed(5)
    return create_embedder(EmbedderConfig.from_spec(SPEC["model"]))


def payload_of(embedder: Embedder) -> dict:
    return {
        "model": embedder.state_dict(),
        "spec": SPEC,
        "classes": ["äpfel", "pears"],
        "facts": {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0], "licence": "apache-2.0", "weights": "hub x"},
        "epoch": 3,
        "step": 40,
        "metrics": {"val Precision at Rank 1": 0.5},
        "training": {"rng": torch.get_rng_state()},
    }


def test_round_trip(tmp_path: Path, trained: Embedder) -> None:
    file = write_checkpoint(tmp_path / "deep" / "model.pth", payload_of(trained))
    assert [p.name for p in file.parent.iterdir()] == ["model.pth"]
    rebuilt, meta = load_embedder(file)
    assert not rebuilt.training and rebuilt.dim == 8 and rebuilt.trunk.input_size == (32, 64)
    assert meta["classes"] == ["äpfel", "pears"] and meta["epoch"] == 3 and meta["format_version"] == 1
    assert "model" not in meta and "training" not in meta
    facts = rebuilt.trunk.facts
    assert facts.mean == (0.1, 0.2, 0.3) and facts.license == "apache-2.0" and facts.pretrained
    images = torch.randn(2, 3, 32, 64)
    torch.testing.assert_close(rebuilt(images), trained.eval()(images))


def test_a_networks_key_is_of_its_tensors_and_its_normalisation(tmp_path: Path, trained: Embedder) -> None:
    key = network_key(trained, (0.1, 0.2, 0.3), (1, 1, 1))
    rebuilt, _ = load_embedder(write_checkpoint(tmp_path / "model.pth", payload_of(trained)))
    assert network_key(rebuilt, [0.1, 0.2, 0.3], [1.0, 1.0, 1.0]) == key and key.startswith("weights ")
    assert network_key(rebuilt, (0.1, 0.2, 0.4), (1, 1, 1)) != key
    with torch.no_grad():
        next(rebuilt.parameters()).view(-1)[0].add_(1e-6)
    assert network_key(rebuilt, (0.1, 0.2, 0.3), (1, 1, 1)) != key


def test_loading_looks_for_no_pretrained_weights(
    tmp_path: Path, trained: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_checkpoint(tmp_path / "model.pth", payload_of(trained))

    def refuse(*args: object) -> None:
        raise AssertionError("weights were looked for")

    monkeypatch.setattr("unalike.model.backbones.find_weights", refuse)
    monkeypatch.setattr(hub_files, "ask_hub", refuse)
    load_embedder(file)


def test_d35_a_checkpoint_that_does_not_fill_the_network_is_refused(tmp_path: Path, trained: Embedder) -> None:
    """No tensor of a network that is read back may be left at random."""
    payload = payload_of(trained)
    del payload["model"]["head.linear.bias"]
    with pytest.raises(WeightsError, match="head.linear.bias"):
        load_embedder(write_checkpoint(tmp_path / "model.pth", payload))
    foreign = tmp_path / "foreign.pth"
    torch.save(trained.trunk.net.state_dict(), foreign)
    with pytest.raises(WeightsError, match="not a checkpoint of unalike.*pretrained_model_path"):
        load_embedder(foreign)


def test_newer_format_and_strange_content(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    torch.save({"format_version": 99, "spec": {}}, file)
    with pytest.raises(WeightsError, match="newer unalike"):
        read_checkpoint(file)
    torch.save({"format_version": 1, "spec": {}}, file)
    with pytest.raises(WeightsError, match="does not describe a network"):
        load_embedder(file)
    with pytest.raises(WeightsError, match="does not exist"):
        load_embedder(tmp_path / "none.pth")


@pytest.mark.parametrize("value", [np.float64(1.5), np.ones(2), Path("x"), {1, 2}, object()])
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match=r"payload\['metrics'\]"):
        write_checkpoint(tmp_path / "model.pth", {"spec": {}, "metrics": {"deep": [value]}})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_checkpoint(tmp_path / "model.pth", {"spec": {}, "epoch": 1})

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(RunError, match="disk is full"):
        write_checkpoint(file, {"spec": {}, "epoch": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["model.pth"]
    assert read_checkpoint(file)["epoch"] == 1


WRITER = """
import sys, torch
from unalike.model.checkpoint import write_checkpoint
tensors = {str(i): torch.full((1000, 1000), 1.0) for i in range(4)}
number = 0
while True:
    write_checkpoint(sys.argv[1], {"spec": {}, "model": tensors, "epoch": number})
    if number == 0:
        print("first", flush=True)
    number += 1
"""


def half_written_sizes(folder: Path) -> list[int]:
    sizes = []
    for temporary in folder.glob(".model.partial-*.pth"):
        with contextlib.suppress(FileNotFoundError):  # renamed between the listing and the look
            sizes.append(temporary.stat().st_size)
    return sizes


def test_kill_in_mid_save_leaves_a_readable_file(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    seen_half_written = 0
    for attempt in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, env=env)
        assert process.stdout is not None and process.stdout.readline().strip() == b"first"
        time.sleep(0.05 * attempt)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:  # kill while a temporary file stands there, that is in mid-save
            if any(0 < size < 16_000_000 for size in half_written_sizes(tmp_path)):
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        seen_half_written += any(True for _ in tmp_path.glob(".model.partial-*.pth"))
        content = read_checkpoint(file)
        assert content["epoch"] >= 0 and all(bool((t == 1).all()) for t in content["model"].values())
    assert seen_half_written > 0
    write_checkpoint(file, {"spec": {}})
    assert [p.name for p in tmp_path.iterdir()] == ["model.pth"]  # what the kills left is gone
