"""Who may import whom: a module imports from rooms to its left, never to its right.

errors, progress -> spec -> data (stem) -> measure -> gallery -> engines -> tasks         loads no torch
                 engines -> model, data (training) -> deploy -> learn -> jobs              torch
the front (api, cli, run, demo, ...) imports anything; nobody else imports the front.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unalike

SOURCE = Path(unalike.__file__).parent
TRAINING_DATA = {"augment", "draws", "loader", "sampler", "store"}
STEM = ("errors", "progress", "spec", "data", "measure", "gallery", "engines")
# Every room and the rooms that it may import besides itself.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "errors": (),
    "progress": ("errors",),
    "spec": STEM[:2],
    "data": STEM[:3],
    "measure": STEM[:4],
    "gallery": STEM[:5],
    "engines": STEM[:6],
    "changes": STEM[:4],
    "verify": (*STEM, "changes"),
    "tasks": (*STEM, "changes", "verify"),
    "model": STEM,
    "training data": STEM,
    "deploy": (*STEM, "model", "training data"),
    "learn": (*STEM, "model", "training data", "deploy"),
    "jobs": (*STEM, "model", "training data", "deploy", "learn"),
}
FRONT = {
    "__init__",
    "__main__",
    "actions",
    "api",
    "bench",
    "brands",
    "card",
    "cli",
    "commands",
    "comparing",
    "demo",
    "discovery",
    "enrolment",
    "failures",
    "handbook",
    "inspection",
    "explanations",
    "job",
    "lock",
    "mirror",
    "readiness",
    "run",
    "shipping",
    "trial",
    "verification",
}
TORCH_FREE = {*STEM, "changes", "verify", "tasks", "jobs", "front"}
# The one way back: a checkpoint, or a trunk as it came, is opened too where the training branch is installed. Inside functions.
ALLOWED = {("tasks.opening", "deploy.choose"), ("tasks.opening", "model.checkpoint")} | {
    ("tasks.dense", name)
    for name in ("deploy.ahead", "deploy.map_export", "model.checkpoint", "model.frozen", "model.maps", "model.sources")
}
# Fronts of the training branch alone.
TORCH_FRONT = {"card", "shipping"}
# What a deployed recogniser does without: an import of any of these at the top of a torch-free module is a fault.
HEAVY = (
    "torch", "torchvision", "timm", "lightning_fabric", "pytorch_metric_learning", "sklearn", "scipy", "optuna",
    "onnx", "onnxscript", "onnxruntime", "openvino", "safetensors", "tensorboard", "faiss", "cv2", "pyarrow",
    "simpleicons", "resvg_py", "wandb", "nncf", "ray", "submitit", "tensorrt", "fsspec", "aiohttp", "s3fs", "botocore",
)  # fmt: skip


def module_names() -> list[str]:
    """Dotted names below ``unalike``, the package's own ``__init__`` included."""
    names = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts))
    return names


def room(name: str) -> str:
    """The room of a module; KeyError text names a module that has none."""
    first, _, rest = name.partition(".")
    if first == "data" and rest.split(".")[0] in TRAINING_DATA:
        return "training data"
    if first in MAY_IMPORT:
        return first
    assert first in FRONT, f"unalike.{name} stands in no room of the design"
    return "front"


def imported(name: str) -> set[str]:
    """Modules of ours that a module imports anywhere, inside functions too."""
    known = set(module_names())
    path = SOURCE.joinpath(*name.split("."))
    is_package = path.is_dir()
    source = path / "__init__.py" if is_package else path.with_suffix(".py")
    package = ["unalike", *name.split(".")] if is_package else ["unalike", *name.split(".")[:-1]]
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            stem = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*stem, *([node.module] if node.module else [])])
            targets = [f"{base}.{alias.name}" for alias in node.names] if base else []
        else:
            continue
        for target in targets:
            parts = target.split(".")
            if parts[0] != "unalike":
                continue
            # The longest prefix that is a module: what follows is a name in it.
            for end in range(len(parts), 0, -1):
                short = ".".join(parts[1:end])
                if short in known or not short:
                    found.add(short or "__init__")
                    break
    return found - {name}


@pytest.mark.parametrize("name", module_names())
def test_imports_go_left_only(name: str) -> None:
    here = room(name)
    if here == "front":
        return
    allowed = {*MAY_IMPORT[here], here}
    wrong = {
        other for other in imported(name) - {"__init__"} if room(other) not in allowed and (name, other) not in ALLOWED
    }
    assert not wrong, f"unalike.{name} ({here}) imports {', '.join(sorted(wrong))}"


def test_the_parser_sees_relative_and_inner_imports() -> None:
    assert {"errors", "progress", "lock"} <= imported("run")
    assert "api" in imported("commands.actions")


def test_no_module_bears_an_empty_name() -> None:
    """No drawer for everything: a function lives with its first user."""
    banned = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core"}
    assert not [name for name in module_names() if banned & set(name.split("."))]


def test_torch_free_modules_import_without_the_extras() -> None:
    skipped = {"__init__", "__main__", *TORCH_FRONT}
    names = [name for name in module_names() if room(name) in TORCH_FREE and name not in skipped]
    program = f"""
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError(f"{{name}} is blocked by this test")

sys.meta_path.insert(0, Blocker())
for name in {names!r}:
    try:
        importlib.import_module("unalike." + name)
    except ImportError as error:
        print("unalike." + name, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == ""


def test_importing_the_package_is_light() -> None:
    program = "import sys, unalike; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {*HEAVY, "numpy", "pydantic", "PIL"} & set(loaded)
