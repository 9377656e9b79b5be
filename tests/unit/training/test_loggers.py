"""Weights & Biases never ends a training: without package, login or network there is one warning."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unalike import progress
from unalike.installation import install_command
from unalike.spec import load_spec
from unalike.training.loggers import Loggers


def start(patch: pytest.MonkeyPatch, folder: Path, wandb: object) -> Any:
    patch.setitem(sys.modules, "wandb", wandb)
    patch.delenv("WANDB_MODE", raising=False)
    progress._said.clear()
    loggers = Loggers(load_spec("train", {"wandb": {"enable": True}}), SimpleNamespace(dir=folder), True)
    loggers.close()
    return loggers.wandb


def no_network(**settings: object) -> None:
    raise RuntimeError("Error communicating with wandb process\nat https://user:secret@host/x")


@pytest.mark.parametrize(
    ("wandb", "reason"),
    [
        (None, install_command("wandb")),
        (SimpleNamespace(init=no_network, api=SimpleNamespace(api_key=None)), "nobody is logged in"),
        (SimpleNamespace(init=no_network, api=SimpleNamespace(api_key="k")), "Error communicating"),
    ],
    ids=["package", "login", "network"],
)
def test_training_goes_on_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], wandb: object, reason: str
) -> None:
    assert start(monkeypatch, tmp_path, wandb) is None
    said = capsys.readouterr().err
    assert reason in said and said.count("warning:") == 1 and "secret" not in said


def test_a_login_starts_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    board = SimpleNamespace(finish=lambda: None)
    for api in (SimpleNamespace(api_key="k"), SimpleNamespace()):
        assert start(monkeypatch, tmp_path, SimpleNamespace(init=lambda **_: board, api=api)) is board
