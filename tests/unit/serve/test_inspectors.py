"""The service's own inspectors: found in its folder, also by other processes; removed and restored; settings follow the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.inspected_parts import fitted_inspector
from tests.support.serving import run, running, store_in
from unalike.errors import DataError
from unalike.serve.inspector_settings import KIND, NO_SETTINGS, InspectorSettings
from unalike.serve.inspectors import Inspectors
from unalike.serve.problems import Problem
from unalike.serve.resources import InspectorResource, Resources


def make(folder: Path, resources: Resources) -> tuple[Inspectors, list[str]]:
    """Inspectors over a store, whose loader takes any file but one that says damaged."""
    paths: list[str] = []

    def load(name: str, path: str) -> InspectorResource:
        paths.append(path)
        if Path(path).read_text() == "damaged":
            raise DataError("damaged")
        return InspectorResource(name, path, fitted_inspector())

    return Inspectors(resources, store_in(folder), load), paths


def test_files_of_the_folder_are_served_and_what_is_set_for_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        other = InspectorResource("given", "given.inspector", fitted_inspector())
        resources = Resources(inspectors={"given": other})
        inspectors, paths = make(tmp_path, resources)
        await inspectors.refresh()
        assert list(resources.inspectors) == ["given"] and not inspectors.is_own("given")
        inspectors.folder.mkdir()
        for name in ("part", "given", "bad"):
            inspectors.path(name).write_text("damaged" if name == "bad" else name)
        (inspectors.folder / "not a name!.inspector").write_text("x")
        for _ in range(3):
            await inspectors.refresh()
        assert list(resources.inspectors) == ["given", "part"] and resources.inspectors["given"] is other
        assert paths == [str(inspectors.path("bad")), str(inspectors.path("part"))], "each once, a damaged one too"
        assert inspectors.is_own("part")
        settings = InspectorSettings(2.0, inspectors.resources.inspectors["part"].loaded.threshold.threshold)  # type: ignore[union-attr]
        inspectors.store.settings.set(KIND, "part", settings.to_dict(), "ann")
        before = resources.inspectors["part"]
        await inspectors.refresh()
        after = resources.inspectors["part"]
        assert before.settings == NO_SETTINGS and before.inspector.threshold.threshold != 2.0  # type: ignore[union-attr]
        assert after.settings == settings and after.inspector.threshold.threshold == 2.0  # type: ignore[union-attr]
        inspectors.store.settings.set(KIND, "part", None, "ann")
        await inspectors.refresh()
        assert resources.inspectors["part"].settings == NO_SETTINGS

    run(scenario())


def test_one_is_removed_and_restored(tmp_path: Path) -> None:
    async def scenario() -> None:
        resources = Resources()
        inspectors, _ = make(tmp_path, resources)
        inspectors.folder.mkdir()
        inspectors.path("part").write_text("x")
        await inspectors.refresh()
        inspectors.remove("part")
        inspectors.remove("part")  # as a repeated request does
        await inspectors.refresh()
        assert not resources.inspectors and not inspectors.is_own("part")
        inspectors.restore("part")
        await inspectors.refresh()
        assert list(resources.inspectors) == ["part"]
        for name in ("part", "other"):
            with pytest.raises(Problem, match="no inspector"):
                inspectors.restore(name)
        with pytest.raises(DataError, match="no inspector 'other' was fitted here"):
            inspectors.remove("other")

    run(scenario())


def test_a_name_is_free_or_refused(tmp_path: Path) -> None:
    inspectors, _ = make(tmp_path, Resources(inspectors={"part": InspectorResource("part", "x", fitted_inspector())}))
    inspectors.require_free("part-2")
    for name, status in (
        ("part", 409),
        ("", 422),
        ("../part", 422),
        ("a b", 422),
        ("<b>", 422),
        ("x" * 65, 422),
        (".x", 422),
    ):
        with pytest.raises(Problem) as problem:
            inspectors.require_free(name)
        assert problem.value.status == status


def test_a_start_serves_what_was_fitted_before(tmp_path: Path) -> None:
    async def scenario() -> list[Any]:
        store_in(tmp_path).close()
        folder = tmp_path / "serve" / "inspectors"
        folder.mkdir()
        fitted_inspector().save(folder / "part.inspector")
        async with running(tmp_path) as it:
            answer = await it.client.get("/v1/inspectors/part")
            return [answer.status_code, answer.json()["is_own"]]

    assert run(scenario()) == [200, True]
