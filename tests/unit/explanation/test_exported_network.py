"""What is exported for explanations, and the file that holds it."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unalike.errors import ModelError
from unalike.explanation import exported_network as module
from unalike.explanation.exported_network import export_source, write_export


def model(source: str, trunk: str = "") -> Any:
    return SimpleNamespace(source=Path(source), trunk=trunk)


def test_checkpoints_and_pretrained_trunks_are_exported() -> None:
    assert export_source(model("a.onnx")) is None and export_source(model("a.xml")) is None
    assert export_source(model("runs/a.pth")) == "runs/a.pth"
    assert export_source(model("pretrained:lite0", "lite0")) == "pretrained:lite0"
    assert export_source(model("pretrained")) == "pretrained"
    with pytest.raises(ModelError, match="cannot be cut"):
        export_source(model("a.engine"))


def test_of_several_that_need_one_export_one_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def export(source: str, size: tuple[int, int]) -> bytes:
        calls.append((source, size))
        time.sleep(0.2)
        return b"network"

    monkeypatch.setattr(module, "export", export)
    path = tmp_path / "new" / "a.onnx"
    threads = [threading.Thread(target=write_export, args=("a.pth", (8, 6), path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [("a.pth", (8, 6))] and path.read_bytes() == b"network"


def test_the_process_says_an_error_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: str, size: tuple[int, int]) -> bytes:
        raise ModelError("no such checkpoint")

    monkeypatch.setattr(module, "export", fail)
    monkeypatch.setattr(sys, "argv", ["-c", "a.pth", "8", "6", str(tmp_path / "a.onnx")])
    with pytest.raises(SystemExit, match="^error: no such checkpoint$"):
        module.main()
