"""unalike inspect in processes of its own: fit on good parts, look at others, the pages and figures, mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.support.program import process, status_lines, unalike
from unalike.inspection.inspector import Inspector
from unalike.inspection.synthetic_defects import DEFECT_TYPES

pytest.importorskip("openvino")


def part(seed, defect=None):
    """A brushed plate with a hole, and a spot or a line on it; the mask."""
    draws = np.random.default_rng(seed)
    image = 120 + draws.normal(0, 8, (1, 96)).repeat(96, axis=0) + draws.normal(0, 3, (96, 96))
    image[12:24, 12:24] = 30
    image = np.repeat(image[..., None], 3, axis=2).astype(np.float32).clip(0, 255)
    mask = np.zeros((96, 96), np.float32)
    while defect is not None and not 60 < mask.sum() < 1200:
        drawn, mask = DEFECT_TYPES[defect][0](image, image, draws)
    return (image if defect is None else drawn).clip(0, 255).astype(np.uint8), ((mask > 0.3) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``good``, ``test`` with ``good``, ``spot`` and ``line``, ``masks``, ``maps.onnx``, ``plate.inspector``; names have blanks."""
    from tests.support.inspected_parts import map_network

    root = tmp_path_factory.mktemp("Werk für Platten")
    for name in ("good", "test/good", "test/spot", "test/line", "masks/spot", "masks/line"):
        (root / name).mkdir(parents=True)
    (root / "maps.onnx").write_bytes(map_network()[0])
    for number in range(24):
        Image.fromarray(part(number)[0]).save(root / "good" / f"plate {number}.png")
    for number in range(4):
        Image.fromarray(part(100 + number)[0]).save(root / "test" / "good" / f"{number}.png")
        for kind in ("spot", "line"):
            image, mask = part(200 + number, kind)
            Image.fromarray(image).save(root / "test" / kind / f"{number}.png")
            Image.fromarray(mask).save(root / "masks" / kind / f"{number}.png")
    done = process("inspect", "fit", root / "good", "-o", root / "plate.inspector", "-m", root / "maps.onnx", "--rate", "0.05",
                   "--memory", "300", "--flaws", "80", "--threads", "1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "false alarms expected" in done.stderr
    assert Inspector.load(root / "plate.inspector").model.classifier is not None
    return root


def test_fit_then_run_finds_them_and_says_how_well(folder, tmp_path):
    out = tmp_path / "out"
    done = process("inspect", "run", folder / "plate.inspector", folder / "test", "-o", out, "--good", "good", "--truth",
                   folder / "masks", "--overlays", "all", "--json", "--threads", "1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    kept = json.loads((out / "result.json").read_text())
    assert told["images"] == kept["images"] == 12 and kept["measured"] == told["measured"]
    measured = told["measured"]
    assert measured["image_auroc"] > 0.8 and measured["pixel_auroc"] > 0.8 and 0 < measured["pro"] <= 1
    assert measured["masks"] == 8 and set(measured["by_kind"]) == {"spot", "line"}
    for answer in kept["answers"]:
        assert (answer["decision"] == "defective") == (answer["score"] > answer["threshold"]) == bool(answer["spots"])
        assert Image.open(out / answer["overlay"]).size == (96, 96)
    page = (out / "report.html").read_text()
    assert "image AUROC" in page and "<script src" not in page and 'src="http' not in page
    lines = unalike("inspect", "run", folder / "plate.inspector", folder / "test" / "spot" / "0.png")
    assert lines.returncode == 0 and lines.stdout.startswith(str(folder / "test" / "spot" / "0.png") + ": ")


def test_fit_and_run_as_jobs(folder, tmp_path):
    """Two jobs, the second completed from the first; each leaves the record of a run."""
    workspace = ("-w", tmp_path / "jobs 🧀")
    fit = unalike("job", "create", "inspect_fit", folder / "good", f"inspect_fit.model={folder / 'maps.onnx'}", "-q", *workspace,
                  "inspect_fit.rate=0.05", "inspect_fit.memory=200", "inspect_fit.threads=1")  # fmt: skip
    assert fit.returncode == 0, fit.stderr
    run = unalike("job", "create", "inspect_run", folder / "test" / "spot", "--parent", fit.stdout.strip(), "--wait-for-parent",
                  "-q", *workspace)  # fmt: skip
    done = unalike("job", "wait", run.stdout.strip(), *workspace)
    assert done.returncode == 0, done.stdout + done.stderr
    results = tmp_path / "jobs 🧀" / run.stdout.strip() / "inspect_run"
    assert json.loads((results / "result.json").read_text())["images"] == 4
    assert (
        status_lines(results)[-1]["status"] == "SUCCESS" and json.loads((results / "run.json").read_text())["exit"] == 0
    )
    fitted = tmp_path / "jobs 🧀" / fit.stdout.strip() / "inspect_fit"
    resolved = yaml.safe_load((fitted / "experiment.yaml").read_text())["inspect_fit"]
    assert (fitted / "part.inspector").is_file() and resolved["memory"] == 200 and resolved["patches"] == 20_000


@pytest.mark.parametrize("words,told", [
    (["inspect", "fit", "{root}/nowhere", "-o", "{out}/a.inspector"], "nowhere"),
    (["inspect", "fit", "{root}/good", "-o", "{root}/plate.inspector"], "add --overwrite"),
    (["inspect", "fit", "{root}/good", "-o", "{out}/a.inspector", "-m", "{root}/maps.onnx", "--rate", "0.001"],
     "24 good images cannot support 0.1 %"),
    (["inspect", "fit", "{root}/good", "-o", "{out}/a.inspector", "-m", "{root}/maps.onnx", "--rate", "0.05", "--size", "32x32"], "for images of"),
    (["inspect", "run", "{root}/good/plate 1.png", "{root}/test"], "is no inspector"),
    (["inspect", "run", "{root}/plate.inspector", "{root}/masks/spot", "--good", "good"], "some of both"),
    (["inspect", "run", "{root}/plate.inspector", "{root}/test", "--overlays", "some"], "overlays: found 'some'"),
])  # fmt: skip
def test_mistakes_are_one_line(folder, tmp_path, words, told):
    done = unalike(*(word.format(root=folder, out=tmp_path) for word in words))
    assert done.returncode != 0 and told in done.stderr and "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error")]) <= 1
    assert not (tmp_path / "a.inspector").exists()


def test_confirmed_images_are_learned_into_another_file(folder, tmp_path):
    (tmp_path / "confirmed").mkdir()
    for number in range(5):
        Image.fromarray((part(300 + number)[0] * 0.9).astype(np.uint8)).save(tmp_path / "confirmed" / f"{number}.png")
    learned = tmp_path / "learned.inspector"
    command = ("inspect", "learn", folder / "plate.inspector", tmp_path / "confirmed", "-o", learned, "--threads", "1")
    done = process(*command)
    assert done.returncode == 0, done.stderr
    assert "29 good images" in done.stderr and f"next: unalike inspect run {learned}" in done.stderr
    assert (
        "defective_before: " in done.stdout
        and "defective_after: 0" in done.stdout
        and "former_threshold: " in done.stdout
    )
    done = process(
        "inspect", "run", learned, tmp_path / "confirmed", folder / "test" / "spot", "--json", "--threads", "1"
    )
    decisions = [answer["decision"] for answer in json.loads(done.stdout)["answers"]]
    assert decisions[:5] == ["good"] * 5 and decisions[5:].count("defective") >= 3
    done = process(*command)
    assert done.returncode != 0 and "exists" in done.stderr
    done = process("inspect", "learn", learned, tmp_path / "confirmed" / "3.png", "-o", tmp_path / "b.inspector")
    assert done.returncode != 0 and "3.png was learned already" in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "b.inspector").exists()
