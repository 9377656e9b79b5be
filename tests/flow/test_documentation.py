"""The tutorials and the notebook run from their first line to their last, as a reader pastes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.doc_pages import DOCS, SHELL, blocks
from tests.support.paths import ROOT

TUTORIALS = (("recognize", "ship"), ("inspect",), ("compare",), ("verify",), ("discover",))
ANSWER_NO = 3


def write_program(folder: Path, name: str, arguments: str) -> None:
    """Write a program that runs this Python with arguments."""
    path = folder / name
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n', encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds what a tutorial reads of the repository, with ``unalike`` and ``python`` on the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    write_program(programs, "unalike", "-m unalike")
    write_program(programs, "python", "")
    for name in ("docs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(path for path in (str(ROOT / "src"), os.environ.get("PYTHONPATH")) if path)
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(text: str) -> list[str]:
    """The command lines of a block of the shell."""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "pip install", "echo"))]


def run_page(page: Path) -> int:
    """Run every shell line and every Python block of a tutorial in their order; returns how many."""
    count = 0
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language in SHELL:
            for line in commands(block.text):
                done = subprocess.run(["bash", "-c", line], check=False, capture_output=True, text=True)
                may_be_no = "--exit-code" in line or "--strict" in line
                assert done.returncode == (ANSWER_NO if may_be_no else 0), (
                    f"{line}\n{done.stdout}\n{done.stderr[-3000:]}"
                )
                count += 1
        elif block.language == "python":
            done = subprocess.run([sys.executable, "-c", block.text], check=False, capture_output=True, text=True)
            assert done.returncode == 0 and done.stdout.strip(), f"{block.text}\n{done.stderr[-3000:]}"
            count += 1
    return count


@pytest.mark.slow
@pytest.mark.parametrize("names", TUTORIALS, ids=" ".join)
def test_tutorials_run(names: tuple[str, ...], checkout: Path) -> None:
    pytest.importorskip("simpleicons")
    for name in names:
        assert run_page(DOCS / "tutorials" / f"{name}.md") >= 3


def test_every_tutorial_is_run() -> None:
    written = {path.stem for path in (DOCS / "tutorials").glob("*.md")} - {"index"}
    assert {name for names in TUTORIALS for name in names} == written


def test_lines_of_a_block() -> None:
    assert commands("pip install x\nunalike a \\\n    b\n\necho $?\n# c\n") == ["unalike a      b"]


def test_a_failed_line_is_an_error(checkout: Path) -> None:
    page = checkout / "page.md"
    page.write_text("```sh\nexit 3\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="exit 3"):
        run_page(page)
    page.write_text("```sh\nexit 3 # --exit-code\n```\n\n```python\nprint(1)\n```\n", encoding="utf-8")
    assert run_page(page) == 2


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run(path: Path, checkout: Path) -> None:
    pytest.importorskip("simpleicons")
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    program = "\n".join("".join(cell["source"]) for cell in cells)
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    named = [line.split(" (")[0].split(": ") for line in done.stdout.splitlines() if " (0." in line]
    assert len(named) == 8 and sum(brand == label for brand, label in named) >= 4
