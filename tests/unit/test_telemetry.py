"""No library that we use contacts its maker or writes an identity: all its importers go through one module."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import unalike
from tests.support import networks
from tests.support.paths import ROOT, SOURCE
from unalike.telemetry import VARIABLES, disable_telemetry

PACKAGE = Path(unalike.__file__).parent
# Library with telemetry -> modules of ours that import it, each after disable_telemetry().
IMPORTERS = {
    "onnxruntime": {
        "engines/onnx_engine.py",
        "deploy/quantization/activation_ranges.py",
        "deploy/quantization/int8.py",
    },
    "openvino": {"engines/openvino_engine.py", "engines/openvino_precision.py", "explanation/class_activation.py"},
    "ray": {"runs/ray_cluster.py", "jobs/schedulers.py", "training/ray_training.py"},
    "huggingface_hub": {"model/hub_files.py"},
    "mlflow": {"runs/mlflow_tracking.py"},
    "pymilvus": {"recognition/backends/milvus_connection.py"},
}
# These import a part of a library whose front another module of the list has imported; in a
# worker of Ray that is Ray itself.
AFTERWARDS = {
    "training/ray_training.py",
    "engines/openvino_precision.py", "explanation/class_activation.py",
    "deploy/quantization/activation_ranges.py", "deploy/quantization/int8.py",
}  # fmt: skip
# Standard library's socket functions end the process, as does anything that resolves a name through libc.
REFUSE = """
import os, socket, sys
def refuse(*a, **k):
    print("SOCKET", a); os._exit(7)
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import numpy as np
"""
USES = {
    "onnxruntime": "from unalike.engines.onnx_engine import OnnxEngine\n"
    "assert OnnxEngine(sys.argv[1])(np.zeros((3, 48, 32, 3), np.uint8)).shape == (3, 16)",
    "openvino": "from unalike.engines.openvino_engine import OpenVinoEngine\n"
    "assert OpenVinoEngine(sys.argv[1])(np.zeros((3, 48, 32, 3), np.uint8)).shape == (3, 16)",
    "timm and torch": "from unalike.model.timm_import import import_timm\n"
    "import_timm().create_model('tf_efficientnet_lite0', pretrained=False)",
    "pymilvus": "from unalike.recognition.backends.milvus_connection import import_pymilvus\nimport_pymilvus().MilvusClient",
    "optuna": "import optuna\noptuna.create_study().ask()",
    "mlflow": "import pathlib\nfrom unalike.runs.mlflow_tracking import _make_client\n"
    "folder = pathlib.Path(sys.argv[1]).parent\nclient = _make_client(f'sqlite:///{folder}/mlflow.db')\n"
    "number = client.create_experiment('x', artifact_location=(folder / 'artifacts').as_uri())\n"
    "run = client.create_run(number).info.run_id\nclient.log_artifact(run, sys.argv[1])\nclient.set_terminated(run)",
}


def run(tmp_path: Path, use: str, *before: str) -> subprocess.CompletedProcess[str]:
    if use == "pymilvus":
        pytest.importorskip("pymilvus")
    home = tmp_path / "home"
    home.mkdir()
    script = REFUSE + USES[use] + "\nimport time; time.sleep(float(sys.argv[2]))\nprint('used')"
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    arguments = [*before, sys.executable, "-c", script, str(networks.write_model(tmp_path)), "3" if before else "0"]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.parametrize("use", USES)
def test_no_socket_is_opened_and_nothing_is_written_to_the_home_folder(tmp_path, use):
    done = run(tmp_path, use)
    assert "used" in done.stdout, done.stdout + done.stderr
    assert not list((tmp_path / "home").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
@pytest.mark.parametrize("use", USES)
def test_no_system_call_opens_a_connection(tmp_path, use):
    trace = tmp_path / "trace"
    done = run(
        tmp_path, use, "strace", "-f", "-qq", "-s", "200", "-e", "trace=connect,sendto,sendmmsg", "-o", str(trace)
    )
    if "used" not in done.stdout and "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert "used" in done.stdout, done.stdout + done.stderr
    assert not [line for line in trace.read_text(errors="replace").splitlines() if "AF_INET" in line]


def imported_libraries(path: Path) -> set[str]:
    """Libraries that a module imports at run time, also within functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = []
    for node in ast.walk(tree):  # a node before its children
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body.clear()
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.append(str(node.module))
        elif isinstance(node, ast.Call) and "import_module" in (
            getattr(node.func, "attr", ""),
            getattr(node.func, "id", ""),
        ):
            names += [str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant)]
    return {name.partition(".")[0] for name in names}


def test_one_place_imports_a_library_with_telemetry():
    importers: dict[str, set[str]] = {library: set() for library in IMPORTERS}
    for path in PACKAGE.rglob("*.py"):
        for library in imported_libraries(path) & set(IMPORTERS):
            importers[library].add(path.relative_to(PACKAGE).as_posix())
    assert importers == IMPORTERS
    for name in set().union(*IMPORTERS.values()) - AFTERWARDS:
        assert "disable_telemetry()" in (PACKAGE / name).read_text(encoding="utf-8"), name


def test_tests_benchmarks_and_examples_import_nothing_with_telemetry():
    """They run on machines of developers: they call what imports the library here, or switch its telemetry off before."""
    for folder in ("tests", "benchmarks", "examples", "docs"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            libraries = imported_libraries(path) & {"onnxruntime", "openvino", "ray", "mlflow", "pymilvus"}
            if libraries and path.name not in ("service_ray.py",):  # which a worker imports, started with the variable
                words = (
                    "disable_telemetry()",
                    "import_openvino()",
                    *(name for name in VARIABLES if name != "HF_HUB_DISABLE_TELEMETRY"),
                )
                assert any(word in text for word in words), path


def test_what_the_user_set_stays(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "as the user set it")
    disable_telemetry()
    assert {os.environ[name] for name in VARIABLES} == {"as the user set it"}
