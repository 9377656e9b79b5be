"""Who may import whom: one table of packages. Imports inside functions and under TYPE_CHECKING count too."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import unalike

SOURCE = Path(unalike.__file__).parent
BASE = ("sanitize", "source_names", "errors", "progress", "telemetry", "installation")
SHARED = (*BASE, "storage", "spec", "runs", "data", "numerics", "metrics", "engines")
FEATURES = ("recognition", "comparison", "inspection", "discovery", "explanation", "verification")
# Every package (or module at the root) and what it may import besides itself.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "sanitize": (),
    "source_names": (),
    "installation": (),
    "errors": ("sanitize", "source_names", "installation"),
    "telemetry": (),
    "progress": ("sanitize", "source_names", "errors"),
    "storage": BASE,
    "spec": (*BASE, "storage"),
    "runs": (*BASE, "storage", "spec"),
    "data": (*BASE, "storage", "spec"),
    "numerics": ("sanitize", "source_names", "errors"),
    "metrics": (*BASE, "storage", "spec", "runs", "data", "numerics"),
    "engines": (*BASE, "storage", "spec", "runs", "data", "metrics"),
    "inference": SHARED,
    "report": (*BASE, "storage", "spec", "runs", "data", "numerics", "metrics"),
    **dict.fromkeys(FEATURES[:5], (*SHARED, "inference", "report")),
    "verification": (*SHARED, "inference", "report", "recognition", "comparison"),
    "learning": (*SHARED, "recognition"),
    "jobs": SHARED,
    "model": SHARED,
    "data.batches": SHARED,
    "deploy": (*SHARED, "inference", "model", "data.batches"),
    "training": (*SHARED, "inference", "report", "discovery", "model", "data.batches", "deploy"),
    "actions": (*SHARED, "inference", "report", *FEATURES, "jobs", "model", "data.batches", "deploy", "training"),
    "client": ("sanitize", "source_names", "errors", "installation", "recognition"),
    "serve": (*SHARED, "inference", "report", *FEATURES, "learning", "jobs", "actions"),
    "cli": ("sanitize", "errors", "progress", "storage", "spec", "runs", "jobs", "actions", "__init__"),
    "api": (),
    "__init__": ("api", "client", "actions", *FEATURES, "errors"),
    "__main__": ("cli",),
}
# Inside functions alone: a checkpoint, or a pretrained trunk, is opened where the training extra is installed.
INSIDE_FUNCTIONS: dict[str, tuple[str, ...]] = {"inference": ("model", "deploy"), "cli": (*FEATURES, "serve")}
TORCH_FREE = {*MAY_IMPORT} - {"model", "data.batches", "deploy", "training", "serve", "__main__"}
# What a deployed recognizer does without: an import of any of these at the top of a torch-free module is a fault.
HEAVY = (
    "torch", "torchvision", "timm", "lightning_fabric", "pytorch_metric_learning", "sklearn", "scipy", "optuna",
    "onnx", "onnxscript", "onnxruntime", "openvino", "safetensors", "tensorboard", "faiss", "cv2", "pyarrow",
    "simpleicons", "resvg_py", "wandb", "mlflow", "ray", "submitit", "tensorrt", "fsspec", "aiohttp", "s3fs", "botocore",
    "fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "prometheus_client", "httpx", "psycopg", "pgvector", "pymilvus",
    "milvus_lite", "grpc",
)  # fmt: skip


@cache
def module_names() -> list[str]:
    """Dotted names below ``unalike``, the package's own ``__init__`` included."""
    names = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts))
    return names


def room(name: str) -> str:
    """The package of a module; an assertion names a module that the table lacks."""
    if name.startswith("data.batches"):
        return "data.batches"
    first = name.partition(".")[0]
    assert first in MAY_IMPORT, f"unalike.{name} stands in no package of the table"
    return first


@cache
def imported(name: str) -> dict[str, bool]:
    """Modules of ours that a module imports anywhere -> whether none of those imports runs while the module loads."""
    known = set(module_names())
    path = SOURCE.joinpath(*name.split("."))
    is_package = path.is_dir()
    source = path / "__init__.py" if is_package else path.with_suffix(".py")
    package = ["unalike", *name.split(".")] if is_package else ["unalike", *name.split(".")[:-1]]
    found: dict[str, bool] = {}
    tree = ast.parse(source.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    later = [
        node for node in ast.walk(tree)
        if isinstance(node, functions) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]  # fmt: skip
    inner = {id(node) for outer in later for node in ast.walk(outer)}
    for node in ast.walk(tree):
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
                    short = short or "__init__"
                    found[short] = found.get(short, True) and id(node) in inner
                    break
    found.pop(name, None)
    return found


def test_imports_follow_the_table() -> None:
    wrong = []
    for name in module_names():
        here = room(name)
        for other, inside in imported(name).items():
            allowed = {here, *MAY_IMPORT[here], *(INSIDE_FUNCTIONS.get(here, ()) if inside else ())}
            if other != "__init__" and room(other) not in allowed:
                wrong.append(f"unalike.{name} ({here}) imports {other}")
    assert not wrong, "\n".join(wrong)


def test_no_two_modules_import_each_other_while_they_load() -> None:
    """No circle among imports at the top of modules."""
    edges = {name: [other for other, inside in imported(name).items() if not inside] for name in module_names()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for other in edges[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_the_parser_sees_inner_imports() -> None:
    seen = imported("inference.engine_selection")
    assert seen["deploy.onnx_export"] is True and seen["engines.protocol"] is False


def test_no_module_bears_an_empty_name() -> None:
    """No drawer for everything: a function lives with its first user."""
    banned = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core"}
    assert not [name for name in module_names() if banned & set(name.split("."))]


def test_torch_free_modules_import_without_the_extras() -> None:
    skipped = {"__init__", "__main__"}
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
