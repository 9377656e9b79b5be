"""Our calls of TensorRT 10 against the type stubs of its own bindings, which are to be had where it is not."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import tensorrt_signatures as tables
from tests.support.paths import ROOT

PARTS = ("unalike/deploy/tensorrt_build.py", "unalike/engines/tensorrt_engine.py")
STUBS = f"tensorrt-stubs=={tables.STUBS_10}"

pytestmark = pytest.mark.slow  # asks the package index


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    """The stubs in a folder of their own, with the few declarations that are not Python made vague."""
    folder = tmp_path_factory.mktemp("stubs")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), STUBS]
    subprocess.run(command, check=True, timeout=300)
    path = folder / "tensorrt_bindings" / "tensorrt.pyi"
    lines = path.read_text(encoding="utf-8").split("\n")
    repaired = 0
    while True:
        try:
            ast.parse("\n".join(lines))
            break
        except SyntaxError as fault:
            assert fault.lineno is not None
            line = lines[fault.lineno - 1]
            lines[fault.lineno - 1] = re.sub(r"\(.*\)", "(self, *values: object)", line)
            repaired += 1
            assert repaired <= 10 and line != lines[fault.lineno - 1], line
    path.write_text("\n".join(lines), encoding="utf-8")
    return folder


def declared(stubs: Path) -> dict[str, list[tuple[str, ...] | None]]:
    """Every method and attribute of the stubs: parameters after self (in brackets with a default) of each overload."""
    held: dict[str, list[tuple[str, ...] | None]] = {}
    tree = ast.parse((stubs / "tensorrt_bindings" / "tensorrt.pyi").read_text(encoding="utf-8"))
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for node in cls.body:
            if isinstance(node, ast.FunctionDef):
                plain = node.args.posonlyargs + node.args.args
                optional = len(plain) - len(node.args.defaults)
                names = tuple(f"[{a.arg}]" if i >= optional else a.arg for i, a in enumerate(plain))[1:]
                is_property = any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list)
                held.setdefault(f"{cls.name}.{node.name}", []).append(None if is_property else names)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                held.setdefault(f"{cls.name}.{node.target.id}", []).append(None)
    return held


def test_the_table_of_10_is_the_stubs_word_for_word(stubs):
    held = declared(stubs)
    wrong = {name: held.get(name) for name, row in tables.USED_10.items() if row not in held.get(name, ())}
    assert not wrong
    for name, members in tables.MEMBERS_10.items():
        missing = [member for member in members if f"{name}.{member}" not in held]
        assert not missing, (name, missing)
    # Of what 11 removed, 10 has all: a misspelt name would forbid nothing.
    free = {name for name in tables.REMOVED_11 if not name.startswith("tensorrt.")}
    assert not {name for name in free if name not in held}


def faults(folder: Path, stubs: Path) -> list[str]:
    """What mypy says of our two files; faults of the stubs (a name ``bool`` that hides the type, functions without types) do not count."""
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports=silent", "--allow-untyped-calls", f"--cache-dir={folder / 'cache'}",
         "--config-file", str(ROOT / "pyproject.toml"), *(str(folder / part) for part in PARTS)],
        env={"PATH": "/usr/bin:/bin", "MYPYPATH": f"{stubs}:{folder}"}, cwd=folder,
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert "checked 2 source files" in run.stdout, run.stdout + run.stderr
    return [line for line in run.stdout.splitlines() if ": error:" in line and "tensorrt_bindings" not in line]


def test_d37_mypy_finds_no_fault_with_our_calls_and_finds_those_put_in(stubs, tmp_path):
    shutil.copytree(ROOT / "src" / "unalike", tmp_path / "unalike", ignore=shutil.ignore_patterns("__pycache__"))
    assert faults(tmp_path, stubs) == []
    build = tmp_path / PARTS[0]
    source = build.read_text(encoding="utf-8")
    for right, wrong in {
        "config.set_timing_cache(cache, False)": "config.set_timing_cache(cache)",
        "builder.create_optimization_profile()": "builder.create_profile()",
        "config.add_optimization_profile(profile)": "config.add_optimization_profile(builder)",
    }.items():
        assert right in source
        source = source.replace(right, wrong)
    build.write_text(source, encoding="utf-8")
    found = faults(tmp_path, stubs)
    assert len(found) >= 3 and all("tensorrt_build.py" in line for line in found), found
