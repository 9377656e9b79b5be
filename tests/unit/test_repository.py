"""The repository's own files: generated pages, docstrings, pins."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib

import pytest
import yaml

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


@pytest.mark.skipif(not (ROOT / ".github").exists(), reason="only in the repository")
def test_only_publishing_may_ask_for_a_token_and_no_secret_is_used() -> None:
    text = (ROOT / ".github" / "workflows" / "publish.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    build, publish = workflow["jobs"]["build"], workflow["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"} and publish["needs"] == "build"
    assert any(step["uses"].startswith("pypa/gh-action-pypi-publish@") for step in publish["steps"])
    assert workflow["permissions"] == {"contents": "read"} and "permissions" not in build
    assert "secrets." not in text and "password" not in text.partition("jobs:")[2]


@pytest.mark.skipif(not (ROOT / "CITATION.cff").exists(), reason="only in the repository")
def test_metadata_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys(), "mandatory in CFF 1.2.0"
    assert citation["license"] == project["license"] and "version" not in citation, "the version stands in one place"
    assert (ROOT / project["readme"]).is_file() and not any("License ::" in line for line in project["classifiers"])
