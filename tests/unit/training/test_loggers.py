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


class BrokenNetrc:
    @property
    def api_key(self) -> str:
        raise ValueError("bad netrc")


@pytest.mark.parametrize(
    ("wandb", "reason"),
    [
        (None, install_command("wandb")),
        (SimpleNamespace(init=no_network, api=SimpleNamespace(api_key=None)), "nobody is logged in"),
        (SimpleNamespace(init=no_network, api=SimpleNamespace(api_key="k")), "Error communicating"),
        (SimpleNamespace(init=no_network, api=BrokenNetrc()), "bad netrc"),
        (
            SimpleNamespace(init=lambda **_: SimpleNamespace(finish=no_network), api=SimpleNamespace()),
            "Error communicating",
        ),
    ],
    ids=["package", "login", "network", "netrc", "end"],
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


def test_a_service_that_fails_in_the_middle_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(
        init=lambda **_: SimpleNamespace(log=no_network, finish=no_network), api=SimpleNamespace()))  # fmt: skip
    progress._said.clear()
    run = SimpleNamespace(dir=tmp_path, status=lambda *_, **__: None)
    loggers = Loggers(load_spec("train", {"wandb": {"enable": True}}), run, True)
    for step in (1, 2):
        loggers("epochs", {"kpi": {"loss": 0.5}, "step": step})
    loggers.close()
    said = capsys.readouterr().err
    assert loggers.wandb is None and said.count("warning:") == 1 and "secret" not in said
