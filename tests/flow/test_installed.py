"""What a line PC installs: one extra, no torch; an exported network and a gallery are identified with."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unalike
from tests.support.paths import ROOT

COLD = """
import json, sys, time
t0 = time.process_time()
import numpy, PIL.Image, {module}
t1 = time.process_time()
from unalike import Recogniser
answer = Recogniser.load(sys.argv[1], sys.argv[2]).identify(sys.argv[3], k=2)[0]
print(json.dumps({{"import": t1 - t0, "beyond": time.process_time() - t1, "answer": answer.to_dict()}}))
"""


def interpreter(version: str) -> str:
    """The interpreter of a Python version; the test is skipped where it is not installed."""
    name = f"python{version}"
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        return sys.executable
    found = shutil.which(name)
    if found is None or subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The sdist, and the wheel that is built from it, as a release has them."""
    folder = tmp_path_factory.mktemp("dist")
    tree = tmp_path_factory.mktemp("tree") / "unalike"  # setuptools writes into the tree; two workers may build at once
    ignored = shutil.ignore_patterns(".*", "build", "dist", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=ignored)
    subprocess.run([sys.executable, "-m", "build", "-o", folder, tree], check=True, capture_output=True, timeout=900)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


# What this checkout puts on the path must not stand in for what is installed.
CLEAN = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def environment(folder: Path, python: str, *requirements: str) -> Path:
    """A new virtual environment with the pinned requirements; its interpreter."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    inner = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run(
        [inner, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", *requirements],
        check=True,
        timeout=1800,
        env=CLEAN,
    )
    return inner


@pytest.mark.slow  # asks the package index
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_the_base_installs_and_runs(tmp_path, distributions, kind, version):
    python = environment(tmp_path / "venv", interpreter(version), str(distributions[kind]))
    done = subprocess.run(
        [python, "-m", "unalike", "--version"], capture_output=True, text=True, cwd=tmp_path, check=True, env=CLEAN
    )
    assert done.stdout.strip() == f"unalike {unalike.__version__}"
    program = python.with_name("unalike")
    listed = subprocess.run(
        [program, "schema", "train"], capture_output=True, text=True, cwd=tmp_path, check=True, env=CLEAN
    )
    assert json.loads(listed.stdout)["properties"]
    skill = subprocess.run(
        [program, "skill", "install", "skill"], capture_output=True, text=True, cwd=tmp_path, check=True, env=CLEAN
    )
    assert skill.returncode == 0 and list((tmp_path / "skill").rglob("SKILL.md"))
    missing = subprocess.run(
        [program, "train", "photos"], capture_output=True, text=True, cwd=tmp_path, check=False, env=CLEAN
    )
    assert missing.returncode != 0 and missing.stderr.count("\n") == 1
    assert (
        f"pip install '{distributions[kind]}[train]'" in missing.stderr
    )  # the line that works here: from this very file


@pytest.mark.slow  # asks the package index
def test_everything_installs_together(tmp_path, distributions):
    python = environment(tmp_path / "venv", sys.executable, f"unalike[all] @ {distributions['wheel'].as_uri()}")
    subprocess.run([python, "-m", "pip", "check"], check=True, env=CLEAN)
    program = python.with_name("unalike")
    out = tmp_path / "demo"
    subprocess.run(
        [program, "demo", "-o", out, "--brands", "8", "--unseen", "4", "--epochs", "1"],
        check=True,
        cwd=tmp_path,
        timeout=900,
    )
    assert (out / "report.html").is_file()


@pytest.mark.slow  # asks the package index
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize(("extra", "module"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_one_extra_in_an_empty_environment_identifies(tmp_path, distributions, extra, module, version):
    from tests.support.pooled import write_pooled
    from unalike.recognition.recognizer import Recogniser

    model = write_pooled(tmp_path)
    recognizer = Recogniser.load(model)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    recognizer.enrol([pixels, 255 - pixels], ["a", "b"])
    gallery = recognizer.gallery.save(tmp_path / "g.gallery")
    Image.fromarray(pixels).save(tmp_path / "photo.png")

    requirement = f"unalike[{extra}] @ {distributions['wheel'].as_uri()}"
    python = environment(tmp_path / "venv", interpreter(version), requirement)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True, env=CLEAN
    )
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert module in names and not names & {"torch", "torchvision", "timm", "onnx", "scikit-learn", "faiss-cpu"}

    def run(*words):
        done = subprocess.run(
            [python, *map(str, words)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
            check=False,
            env=CLEAN,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    (answer,) = run("-m", "unalike", "identify", gallery, tmp_path / "photo.png", "--json")["answers"]
    assert (answer["label"], answer["decision"]) == ("a", "label") and answer["score"] > 0.99
    cold = run("-c", COLD.format(module=module), model, gallery, tmp_path / "photo.png")
    print(extra, {name: round(cold[name], 3) for name in ("import", "beyond")})
    assert cold["answer"]["label"] == "a"
    assert cold["beyond"] < 1  # of the processor: what else the machine does has no part in it
