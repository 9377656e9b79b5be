"""Preparation of explainers: once, in a child process, shared by all who wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.serving import files, picture, run, running, until
from unalike.errors import RunError
from unalike.serve import explainers as module
from unalike.serve.explainers import Explainers, needs_export


class Child:
    """Stands in for the export: copies a network that can be cut; waits for ``gate``, counts its calls."""

    def __init__(self, content: bytes, *, is_open: bool = True) -> None:
        self.content, self.calls, self.gate = content, [], asyncio.Event()  # type: ignore[var-annotated]
        self.error: Exception | None = None
        self.was_cancelled = False
        if is_open:
            self.gate.set()

    async def __call__(self, name: str, arguments: list[str]) -> None:
        self.calls.append(arguments)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if self.error is not None:
            raise self.error
        Path(arguments[-1]).write_bytes(self.content)


@pytest.fixture(autouse=True)
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[Path | None]:
    """The files of the explainers that were made; nothing is cut."""
    files: list[Path | None] = []

    def from_model(_: Any, *, method: str, exported: Path | None, threads: int | None) -> Any:
        files.append(exported)
        is_exact = exported is not None and exported.read_bytes() == b"exported" and method == "auto"
        return SimpleNamespace(method="exact" if is_exact else "covers")

    monkeypatch.setattr(module.Explainer, "from_model", from_model)
    return files


def make_checkpoint(service: Any) -> Any:
    """Let the network of the service come from a checkpoint; the gallery."""
    resource = service.resources.gallery()
    resource.network.model = replace(resource.network.model, source=Path("model.pth"))
    return resource


def test_all_wait_for_one_export_which_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        child = Child(b"exported", is_open=False)
        monkeypatch.setattr(module, "run_child", child)
        async with running(tmp_path) as it:
            resource = make_checkpoint(it.service)
            explainers = Explainers(tmp_path)
            first, second = (asyncio.create_task(explainers.get(resource)) for _ in range(2))
            await until(lambda: len(child.calls) == 1)
            first.cancel()  # its client hung up: the other still waits
            child.gate.set()
            assert (await second).method == "exact" and child.calls[0][0] == "model.pth"
            assert (await explainers.get(resource)) is await second
            assert (await Explainers(tmp_path).get(resource)).method == "exact"  # the next start
            assert len(child.calls) == 1

    run(scenario())


def test_without_an_export_it_explains_by_occlusion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        child = Child(b"")
        child.error = RunError("no memory")
        monkeypatch.setattr(module, "run_child", child)
        async with running(tmp_path) as it:
            resource = it.service.resources.gallery()
            assert not needs_export(resource.network.model)  # an exported file
            assert (await Explainers(tmp_path).get(resource)).method == "covers" and not child.calls
            assert (await Explainers(tmp_path).get(make_checkpoint(it.service))).method == "covers" and child.calls

    run(scenario())


def test_the_service_prepares_after_its_start_and_its_stop_ends_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        child = Child(b"", is_open=False)
        monkeypatch.setattr(module, "run_child", child)
        monkeypatch.setattr(module, "START_S", 0.05)
        async with running(tmp_path, deadline=0.3) as it:
            make_checkpoint(it.service)
            await until(lambda: len(child.calls) == 1)
            body = [*files(picture("red")), *files(picture("red"), field="reference")]
            response = await it.client.post("/v1/explain", files=body)
            assert response.status_code == 503 and "Retry-After" in response.headers
            assert response.json()["type"].endswith("being-prepared") and it.service.work.occupied == 0
            assert len(child.calls) == 1  # the request waited for the same one
        assert child.was_cancelled

    run(scenario())


def test_a_folder_that_may_only_be_read_is_replaced_by_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        child = Child(b"exported")
        monkeypatch.setattr(module, "run_child", child)
        (tmp_path / "file").write_bytes(b"")
        async with running(tmp_path) as it:
            explainers = Explainers(tmp_path / "file")
            assert (await explainers.get(make_checkpoint(it.service))).method == "exact"
            path = Path(child.calls[0][-1])
            assert path.exists() and tmp_path not in path.parents
            await explainers.close()
            assert not path.exists()

    run(scenario())
