"""Write docs/architecture.md: the tree of the package, a line a module, from the first line of each module's docstring.

Run ``python docs/generate_architecture.py``; a test compares the page with what this script gives.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "unalike"
PAGE = ROOT / "docs" / "architecture.md"
INTRODUCTION = """# Architecture

A feature is a folder under the name that its users type: recognition, comparison, inspection, verification, discovery,
explanation, learning, training, deploy, jobs. They stand on shared packages (storage, spec, runs, data, numerics, metrics, engines,
inference, report) and under one front (cli, actions, api). A command goes from `cli/` (arguments) to one function in `actions/` (files in,
files out), which calls the feature. Everything but model, data/batches, training and deploy imports without torch.

A training batch takes five steps from file to loss: item (`data/batches/pixel_cache.py`), collate (`data/batches/loader.py`),
step (`training/loop.py`), embedder (`model/embedder.py`), loss (`training/losses.py`).

Who may import whom is one table, tested in `tests/unit/test_layers.py`.

This page is generated from the docstrings by `python docs/generate_architecture.py`.
"""


def summary(path: Path) -> str:
    """The first line of a module's docstring, without its full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].rstrip(".")


def tree(folder: Path, depth: int = 0) -> list[str]:
    """Lines of the tree: modules first, then packages."""
    indent = "  " * depth
    lines = []
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            lines.append(f"{indent}{path.name:<{30 - len(indent)}}{summary(path)}")
    for path in sorted(folder.iterdir()):
        if (path / "__init__.py").exists():
            lines += ["", f"{indent}{path.name + '/':<{30 - len(indent)}}{summary(path / '__init__.py')}"]
            lines += tree(path, depth + 1)
    return lines


def page() -> str:
    """The page's text."""
    return f"{INTRODUCTION}\n```text\nsrc/unalike/\n" + "\n".join(tree(PACKAGE, 1)) + "\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
