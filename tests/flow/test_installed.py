"""What a line PC installs: one extra, no torch; an exported network and a gallery are identified with."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

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


@pytest.mark.slow  # asks the package index
@pytest.mark.parametrize(("extra", "module"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_one_extra_in_an_empty_environment_identifies(tmp_path, extra, module):
    from tests.support.pooled import write_pooled
    from unalike.recognition.recogniser import Recogniser

    model = write_pooled(tmp_path)
    recogniser = Recogniser.load(model)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    recogniser.enrol([pixels, 255 - pixels], ["a", "b"])
    gallery = recogniser.gallery.save(tmp_path / "g.gallery")
    Image.fromarray(pixels).save(tmp_path / "photo.png")

    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{ROOT}[{extra}]"],
        check=True,
        timeout=900,
    )
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True)
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert module in names and not names & {"torch", "torchvision", "timm", "onnx", "scikit-learn", "faiss-cpu"}

    def run(*words):
        done = subprocess.run(
            [python, *map(str, words)], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    (answer,) = run("-m", "unalike", "identify", gallery, tmp_path / "photo.png", "--json")["answers"]
    assert (answer["label"], answer["decision"]) == ("a", "label") and answer["score"] > 0.99
    cold = run("-c", COLD.format(module=module), model, gallery, tmp_path / "photo.png")
    print(extra, {name: round(cold[name], 3) for name in ("import", "beyond")})
    assert cold["answer"]["label"] == "a"
    assert cold["beyond"] < 1  # of the processor: what else the machine does has no part in it
