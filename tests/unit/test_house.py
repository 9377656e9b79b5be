"""README's tree is the tree: a line a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import unalike

ROOT = Path(unalike.__file__).parents[2]


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="only in the repository")
def test_readme_names_every_module() -> None:
    listed, room = set(), ""
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("    src/unalike/\n")[1].split("    tests/ ")[0]
    for line in tree.splitlines():
        match = re.match(r"( +)(\S+)", line)
        assert match is not None
        depth, name = len(match[1]), match[2]
        if name.endswith("/"):
            room = name
        elif name.endswith(".py"):
            listed.add(room + name if depth == 8 else name)
    source = ROOT / "src" / "unalike"
    files = {str(path.relative_to(source)) for path in source.rglob("*.py")}
    assert listed == {name for name in files if not name.endswith("/__init__.py")}


@pytest.mark.skipif(not (ROOT / "constraints.txt").exists(), reason="only in the repository")
def test_every_pin_is_exact() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins and all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s+]+", pin) for pin in pins)
