"""Sets of assets: a folder that changed is built by a child process, and its cores are bounded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.pooled import write_pooled
from tests.support.serving import run
from unalike.errors import DataError
from unalike.serve import asset_sets as module
from unalike.serve.asset_sets import AssetOptions, load_changed_asset_set, open_asset_set
from unalike.verification import verifier as verifier_module
from unalike.verification import verifier_calibration


@pytest.fixture
def options(tmp_path: Path) -> AssetOptions:
    (tmp_path / "logos").mkdir()
    for name, color in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        image = Image.new("RGB", (64, 64), (255, 255, 255))
        image.paste(color, (8, 8, 40, 56) if name == "red" else (16, 4, 56, 30))
        image.save(tmp_path / "logos" / f"{name}.png")
    return AssetOptions(str(tmp_path / "logos"), str(write_pooled(tmp_path)), "onnxruntime", threads=1)


def test_a_folder_is_built_by_a_child_process_and_a_file_is_read(
    options: AssetOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[AssetOptions] = []

    class Verifier:
        def save(self, path: str) -> None:
            Path(path).write_bytes(b"set")

    def open_set(changed: AssetOptions) -> Any:
        if not Path(changed.reference).is_dir():
            assert Path(changed.reference).read_bytes() == b"set"
        opened.append(changed)
        return Verifier()

    async def run_child(name: str, arguments: list[str]) -> None:
        assert name == "unalike.serve.asset_sets"
        monkeypatch.setattr(sys, "argv", ["-c", *arguments])
        module.main()

    monkeypatch.setattr(module, "open_asset_set", open_set)
    monkeypatch.setattr(module, "run_child", run_child)
    run(load_changed_asset_set(options))
    assert opened[0] == options and opened[1].model == options.model and opened[1].threads == 1
    assert not Path(opened[1].reference).exists()  # the temporary file
    Path(options.reference, "set").write_bytes(b"set")
    run(load_changed_asset_set(AssetOptions(str(Path(options.reference, "set")))))
    assert len(opened) == 3


def test_an_error_of_the_child_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: AssetOptions) -> Any:
        raise DataError("no assets")

    monkeypatch.setattr(module, "open_asset_set", fail)
    monkeypatch.setattr(sys, "argv", ["-c", '{"reference": "logos"}', "out"])
    with pytest.raises(SystemExit, match="^error: no assets$"):
        module.main()


def test_network_and_calibration_use_so_many_cores(options: AssetOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    cores: list[int | None] = []

    def calibrate(matcher: Any, rate: float, *, threads: int | None, **_: Any) -> Any:
        cores.append(threads)
        return None, ()

    monkeypatch.setattr(verifier_module, "calibrate_thresholds", calibrate)
    verifier = open_asset_set(options)
    assert cores == [1] and verifier.engine.threads == 1  # type: ignore[attr-defined]
    workers: list[int] = []
    pool = verifier_calibration.ThreadPoolExecutor
    monkeypatch.setattr(
        verifier_calibration, "ThreadPoolExecutor", lambda number: workers.append(number) or pool(number)
    )
    with pytest.raises(TypeError):  # nothing was measured
        verifier_calibration.measure_trials(verifier.matcher, [], 0, threads=1)
    assert workers == [1]
