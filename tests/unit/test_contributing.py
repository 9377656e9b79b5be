"""The recipes of CONTRIBUTING name files that exist, and names that stand in these files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGE = ROOT / "src" / "unalike"
SECTIONS = {
    part.partition("\n")[0]: part
    for part in re.split(r"^## ", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    if part.startswith("Add ")
}


def find(name: str) -> Path | None:
    return next((base / name for base in (PACKAGE, ROOT) if (base / name).exists()), None)


def test_there_is_a_recipe_for_each_kind_of_part() -> None:
    assert set(SECTIONS) == {"Add a loss", "Add a backbone", "Add an engine", "Add a command", "Add a metric"}


@pytest.mark.parametrize("section", SECTIONS)
def test_files_and_names_of_a_recipe_exist(section: str) -> None:
    quoted = re.findall(r"`([^`]+)`", SECTIONS[section])
    paths = [text for text in quoted if ("/" in text or text.endswith((".py", ".toml"))) and not set(" <") & set(text)]
    assert paths and [path for path in paths if find(path) is None] == []
    content = (PACKAGE / "errors.py").read_text(encoding="utf-8")  # every recipe may name its exceptions
    for path in map(find, paths):
        if path is not None and path.is_file():
            content += path.read_text(encoding="utf-8")
    names = [text.split(".")[-1] for text in quoted if re.fullmatch(r"[A-Za-z_.]+", text) and text not in paths]
    assert [name for name in names if not re.search(rf"\b{name}\b", content)] == []
