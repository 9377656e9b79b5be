"""Images of a hundred megapixels through compare, verify, inspect and inference --explain: an answer, in bounded memory.

Each runs in a process of its own, whose peak is looked at. A colour picture of 100 megapixels is 300 MB as an array, and up to
400 MB more while Pillow decodes it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

cv2 = pytest.importorskip("cv2")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")]

SIDE = 10_000
# Not getrusage: what the process that started this one held counts in it.
PROGRAM = """
import sys
from pathlib import Path
from unalike.cli import run_command
code = run_command(sys.argv[1:])
held = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print("peak", int(held) // 1024, file=sys.stderr)
sys.exit(code)
"""


def measured(*words: object) -> tuple[str, int]:
    """(standard output, peak in MB) of a command."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)], check=False, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    peak = int(done.stderr.rsplit("peak ", 1)[1])
    print(f"{words[0]}: {peak} MB")  # pytest -s shows it
    return done.stdout, peak


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a.jpg``, and ``b.jpg`` with one change; a mark's asset, seen in ``mark.jpg``; networks; good parts."""
    from tests.support.drawings import shapes
    from tests.support.inspected_parts import draw_part, map_network
    from tests.support.marks import mark
    from tests.support.networks import write_model
    from unalike.verification.benign import render_benign

    root = tmp_path_factory.mktemp("large")
    large = cv2.resize(shapes(11, 1000, 1000), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(large).save(root / "a.jpg", quality=90)
    large[7000:7040, 3000:3060] = (255, 0, 255)
    Image.fromarray(large).save(root / "b.jpg", quality=90)
    del large
    (root / "assets").mkdir()
    for number in range(3):
        Image.fromarray(mark(number).layer_HW4).save(root / "assets" / f"mark {number}.png")
    shown = Image.fromarray(render_benign(mark(1), np.random.default_rng([1, 3])).image_HW3)
    shown.resize((SIDE, SIDE * shown.height // shown.width), Image.Resampling.BICUBIC).save(
        root / "mark.jpg", quality=90
    )
    (root / "maps.onnx").write_bytes(map_network()[0])
    write_model(root)
    (root / "good").mkdir()
    for seed in range(24):
        Image.fromarray(draw_part(seed)).save(root / "good" / f"{seed}.png")
    return root


def test_compare_by_pixels(place: Path) -> None:
    out, peak = measured("compare", place / "a.jpg", place / "b.jpg", "--json", "-o", place / "found")
    (region,) = json.loads(out)["pairs"][0]["regions"]
    assert np.abs(np.subtract(region["extent"], (3000, 7000, 3060, 7040))).max() < 15
    assert peak < 1750


def test_compare_by_features(place: Path) -> None:
    """43,000 windows of the test's own small network, more than a real one would take."""
    words = ("--level", "features", "-m", place / "maps.onnx", "--json")
    out, peak = measured("compare", place / "a.jpg", place / "b.jpg", *words)
    entry = json.loads(out)["pairs"][0]
    left, top, right, bottom = entry["regions"][0]["extent"]
    assert left < 3060 and right > 3000 and top < 7040 and bottom > 7000
    assert peak < 1750


def test_verify(place: Path) -> None:
    words = ("--rate", "0.25", "--trials", "6", "-m", place / "model.onnx", "--json", "-o", place / "verified")
    out, peak = measured("verify", "--reference", place / "assets", place / "mark.jpg", *words)
    (verdict,) = json.loads(out)["verdicts"]
    assert (verdict["answer"], verdict["asset"]) == ("same", "mark 1")
    assert peak < 1500


def test_inspect(place: Path) -> None:
    measured("inspect", "fit", place / "good", "-m", place / "maps.onnx", "-o", place / "part.inspector", "--no-threshold",
             "--fit", "scale", "--scale", "1.0", "--memory", "200")  # fmt: skip
    (place / "new").mkdir()
    (place / "new" / "b.jpg").hardlink_to(place / "b.jpg")
    out, peak = measured("inspect", "run", place / "part.inspector", place / "new", "--json", "-o", place / "inspected")
    assert str(place / "inspected") in out
    assert peak < 1750


def test_inference_explains(place: Path) -> None:
    (place / "query").mkdir()
    (place / "query" / "b.jpg").hardlink_to(place / "b.jpg")
    for name in ("one", "other"):
        (place / "reference" / name).mkdir(parents=True)
    (place / "reference" / "one" / "a.jpg").hardlink_to(place / "a.jpg")
    Image.new("RGB", (300, 300), (20, 200, 40)).save(place / "reference" / "other" / "plain.png")
    _, peak = measured("inference", place / "query", "-r", place, f"inference.checkpoint={place / 'model.onnx'}",
                       f"dataset.val_dataset.reference={place / 'reference'}", "--explain")  # fmt: skip
    (line,) = (json.loads(row) for row in (place / "inference" / "result.jsonl").read_text().splitlines())
    assert line["label"] == "one"
    assert (place / "inference" / "explain" / "explain.html").is_file()
    assert peak < 1500
