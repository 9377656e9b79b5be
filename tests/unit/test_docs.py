"""The documentation: every command line parses, every link leads somewhere, generated pages are complete, nothing is fetched."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.support.doc_pages import DOCS, FENCE, PAGES, Block, blocks, command_lines, parse_command
from tests.support.paths import ROOT
from unalike.api import PUBLIC_NAMES
from unalike.cli import UsageError
from unalike.errors import SpecError
from unalike.spec.fields import declared_fields

LINK = re.compile(r"(?<!\\)\[[^\]\n]*\]\(([^)\s]+)\)")
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def name_of(path: Path) -> str:
    """A page's path below the repository."""
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def generate_specs() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        return importlib.import_module("generate_specs")


@pytest.fixture(scope="module")
def site_hooks(generate_specs: ModuleType) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        return importlib.import_module("site_hooks")


# ---- commands ----


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_line_parses(page: Path) -> None:
    for line, words, inline in command_lines(page.read_text(encoding="utf-8")):
        try:
            parse_command(words)
        except (SpecError, UsageError) as error:
            names_a_command = inline and type(error).__name__ == "MissingParameter"
            assert names_a_command, f"{name_of(page)}:{line}: unalike {' '.join(words)}: {error}"


def test_command_lines_are_found() -> None:
    page = (
        "Text with `unalike keys margin` and `unalike COMMAND`.\n\n    $ unalike embed a/ -o b.npz | tail -2\n    unalike: no\n"
        "\n```sh\nX=1 .venv/bin/unalike list; python -m unalike train \\\n    photographs/\n```\n\n```text\nunalike no\n```\n"
    )
    found = [(line, words) for line, words, _ in command_lines(page)]
    assert found == [
        (7, ["list"]),
        (7, ["train", "photographs/"]),
        (3, ["embed", "a/", "-o", "b.npz"]),
        (1, ["keys", "margin"]),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "recognize a.jpg",
        "gallery paint",
        "identify shop.gallery a.jpg --k 3",
        "identify shop.gallery -k many",
        "train photographs/ train.epochs_number=3",
        "train photographs/ train.num_epochs=many",
        "job create export export.opset=14",
        "gallery build a.gallery b/ gallery_build.rate=2",
    ],
)
def test_wrong_command_lines_are_refused(line: str) -> None:
    with pytest.raises((SpecError, UsageError)):
        parse_command(line.split())


# ---- Python ----


def names_of_imports(tree: ast.Module) -> list[tuple[str, str]]:
    """(module, name) of everything that a program imports from unalike, and of ``unalike.NAME`` in it."""
    found = [
        (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "unalike"
        for alias in node.names
    ]
    return found + [
        ("unalike", node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "unalike"
    ]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_blocks_compile_and_import(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "python":
            for module, name in names_of_imports(ast.parse(block.text, f"{name_of(page)}:{block.line}")):
                found = importlib.import_module(module)
                assert hasattr(found, name) or importlib.import_module(f"{module}.{name}"), f"{module} has no {name}"


def test_reference_names_every_public_name() -> None:
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^::: (\S+)", page, re.MULTILINE))
    for name, module in PUBLIC_NAMES.items():
        assert f"{module}.{name}" in documented or module in documented, name
    for path in documented:
        module, _, name = path.rpartition(".")
        assert path == "unalike.errors" or hasattr(importlib.import_module(module), name), path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebooks_are_valid(path: Path, site_hooks: ModuleType) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and {"metadata", "nbformat_minor", "cells"} <= notebook.keys()
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and all({"execution_count", "outputs", "metadata", "source", "id"} <= cell.keys() for cell in code)
    for module, name in names_of_imports(ast.parse("\n".join("".join(cell["source"]) for cell in code))):
        assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"
    page = site_hooks.notebook_page(path)
    assert "".join(code[0]["source"]) in page and page.startswith("# ")


# ---- links and the list of pages ----


def targets(page: Path) -> list[str]:
    """The relative links of a page, without what stands in blocks of code."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [link for link in LINK.findall(text) if not link.startswith(("http:", "https:", "#", "mailto:"))]


@pytest.mark.parametrize("page", [*PAGES, *sorted((DOCS / "experiments").glob("*.md"))], ids=name_of)
def test_links_lead_somewhere(page: Path, generate_specs: ModuleType) -> None:
    generated = {DOCS / address for address in generate_specs.pages()}
    generated |= {path.with_suffix(".md") for path in NOTEBOOKS}
    for link in targets(page):
        target = (page.parent / link.partition("#")[0]).resolve()
        assert target.exists() or target in generated, f"{name_of(page)}: {link}"


def pages_of(nav: Any) -> list[str]:
    """The addresses in a navigation of mkdocs.yml."""
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages_of(part)]


def test_navigation_lists_every_page_once(generate_specs: ModuleType) -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = pages_of(config["nav"])
    written = {path.relative_to(DOCS).as_posix() for path in PAGES if path.is_relative_to(DOCS)}
    generated = {*generate_specs.pages(), *(f"notebooks/{path.stem}.md" for path in NOTEBOOKS)}
    in_experiments = {page for page in listed if page.startswith("experiments/")}
    assert len(listed) == len(set(listed))
    assert set(listed) - in_experiments == written | generated
    assert all((DOCS / page).exists() for page in in_experiments)


# ---- what the site is built with ----


def test_pages_of_keys_hold_every_field(generate_specs: ModuleType) -> None:
    text = "\n".join(generate_specs.pages().values())
    for path, node in declared_fields().items():
        if node.section is None:
            assert text.count(f"| `{path}` |") == 1, path
        else:
            assert re.search(rf"^#+ {re.escape(path)}$", text, re.MULTILINE), path
    row = next(line for line in text.splitlines() if line.startswith("| `train.num_epochs` |"))
    assert len(re.split(r"(?<!\\)\|", row)) == 6 and "a whole number" in row


def test_resources_of_the_network_are_found(site_hooks: ModuleType) -> None:
    page = (
        '<script src="https://cdn/x.js"></script><img src="a.png"><link rel="stylesheet" href="//cdn/y.css">'
        '<a href="https://example.org">x</a><link rel="canonical" href="https://example.org">'
    )
    assert site_hooks.external_resources(page, ".html") == ["<script> https://cdn/x.js", "<link> //cdn/y.css"]
    style = 'a{background:url("https://cdn/a.png")}b{background:url(data:image/svg+xml;x)} @import "//cdn/f.css";'
    assert site_hooks.external_resources(style, ".css") == ["https://cdn/a.png", "//cdn/f.css"]


def test_links_to_other_folders_become_text(site_hooks: ModuleType) -> None:
    class Page:
        class file:
            src_uri = "how-to/deploy.md"

    class Config:
        docs_dir = str(DOCS)

    text = "[a](../../CONTRIBUTING.md), [b](../data.md), [c](../../nothing.md)"
    left = site_hooks.on_page_markdown(text, Page, Config, None)
    assert left == "a, [b](../data.md), [c](../../nothing.md)"


def test_blocks_are_found() -> None:
    page = "a\n\n    x\n\n    y\n\nb\n\n```sh\nz\n```\n"
    assert list(blocks(page)) == [Block("sh", 10, "z"), Block("", 3, "x\n\ny\n\n")]


# ---- messages ----


def literal_parts(message: str) -> list[str]:
    """The parts of a quoted message that the program writes as they are; ``...`` stands for values."""
    parts = [part.strip().removeprefix("expected ") for part in re.split(r"\.\.\.|;", message)]
    return [part for part in parts if len(part) > 5]


def test_messages_of_troubleshooting_are_the_programs_own() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src" / "unalike").rglob("*.py")))
    source = re.sub(r"\s+", " ", re.sub(r'"\s*\n\s*f?"', "", source))
    source = re.sub(r"\{[^{}]*\}", "...", source)
    tables = (DOCS / "troubleshooting.md", DOCS / "how-to" / "remote-data.md")
    rows = [
        line.split(" | ")[0] for page in tables for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and " `" in line.split(" | ")[0]
    ]  # fmt: skip
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row) if " " in message]
    assert len(messages) > 40
    for message in messages:
        for part in literal_parts(message):
            assert part in source, f"no message of the program holds {part!r}"
