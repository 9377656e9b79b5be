"""The repository's own files: generated pages, docstrings, pins."""

from __future__ import annotations

import ast
import importlib.util
import re

import pytest

from tests.support.paths import ROOT


@pytest.mark.parametrize("name", ["architecture", "commands"])
def test_pages_are_generated(name: str) -> None:
    path = ROOT / "docs" / f"generate_{name}.py"
    spec = importlib.util.spec_from_file_location(f"generate_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), f"run python docs/generate_{name}.py"


def test_every_module_says_what_it_is() -> None:
    for path in sorted((ROOT / "src").rglob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert len(docstring.split()) >= 3, f"{path.relative_to(ROOT)} has no docstring"


@pytest.mark.skipif(not (ROOT / "constraints.txt").exists(), reason="only in the repository")
def test_every_pin_is_exact() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins and all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s+]+", pin) for pin in pins)
