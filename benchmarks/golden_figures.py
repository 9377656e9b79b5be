"""Figures of training, evaluation, gallery, export, inspection and comparison on drawn images, to compare two commits.

    python benchmarks/golden_figures.py SRC [OTHER_SRC]

``SRC`` is a source folder (``src`` of any commit). All commands run in their own processes with one thread and fixed runtimes.
With one folder, the figures are computed twice and compared with themselves; with two, those of the first with those of the
second. Values are compared bit for bit: floats by their shortest representation, arrays by SHA-256. Printed are a row for each
part (number of values, of equal ones) and the names of those that differ or stand on one side alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES, IMAGES, SIDE = 5, 8, 72
TINY = ["model.backbone=test_efficientnet", "model.pretrained=false", "model.input_height=64", "model.input_width=64",
        "model.feat_dim=16", "dataset.workers=1", "train.batch_size=10", "train.precision=fp32"]  # fmt: skip
# Values that tell of the machine, the time or the place of a run.
VARIABLE = {"seconds", "file", "path", "engine", "source", "reference", "query", "image", "name", "format_version", "view",
            "fingerprint", "report", "folder", "decoding"}  # fmt: skip


def draw(root: Path) -> None:
    """Draw classes of similar images, good and defective parts, and a changed copy."""
    rng = np.random.default_rng(0)
    for number in range(CLASSES):
        folder = root / "train" / f"class{number}"
        folder.mkdir(parents=True)
        pattern = rng.integers(0, 255, (6, 6, 3)).repeat(12, 0).repeat(12, 1)
        for count in range(IMAGES):
            pixels = (pattern + rng.normal(0, 40, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{count}.png")
    board = rng.integers(0, 2, (20, 20)).repeat(16, 0).repeat(16, 1)[..., None] * np.array([150, 160, 170]) + 40
    for name, count in (("good", 6), ("defect", 2)):
        (root / name).mkdir()
        for number in range(count):
            pixels = (board + rng.normal(0, 3, board.shape)).clip(0, 255).astype(np.uint8)
            if name == "defect":
                pixels[100 + 30 * number : 140, 200:240] = 0
            Image.fromarray(pixels).save(root / name / f"{number}.png")


def leaves(value: Any, prefix: str) -> dict[str, str]:
    """Return the leaves of plain data by their dotted paths."""
    if isinstance(value, dict):
        return {
            k: v
            for key, part in value.items()
            if key not in VARIABLE
            for k, v in leaves(part, f"{prefix}.{key}").items()
        }
    if isinstance(value, list):
        return {k: v for n, part in enumerate(value) for k, v in leaves(part, f"{prefix}.{n}").items()}
    return {prefix: repr(value)}


def digest(*arrays: np.ndarray) -> str:
    """Return the SHA-256 of the bytes of arrays."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def compute(source: Path) -> dict[str, str]:
    """Run the commands of a source folder and return their figures by name."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime
    import torch

    figures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        draw(root)

        def run(*argv: str) -> str:
            environment = {"PYTHONPATH": str(source), "PATH": os.environ["PATH"], "HOME": name, "OMP_NUM_THREADS": "1"}
            process = subprocess.run([sys.executable, "-m", "unalike", *argv], cwd=root, capture_output=True, text=True,
                                     env=environment, check=False)  # fmt: skip
            if process.returncode not in (0, 3):
                raise SystemExit(f"{source}: {' '.join(argv)}: {process.stderr[-500:]}")
            return process.stdout

        # At least 20 steps: 3 or 4 an epoch.
        run("train", "train", "-r", "runs", "--automl-policy", "off", "train.num_epochs=7", "train.seed=7", *TINY)
        checkpoint = "runs/train/ml_model_best.pth"
        for line in (root / "runs/train/status.json").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "kpi" in row and "epoch" in row:
                loss = {key: value for key, value in row["kpi"].items() if "loss" in key or "Precision" in key}
                figures |= leaves(loss, f"train.epoch {row['epoch']}")
        content = torch.load(root / checkpoint, weights_only=True)
        figures["train.weights"] = digest(*(tensor.numpy() for tensor in content["model"].values()))

        run("evaluate", "-r", "runs", f"evaluate.checkpoint={checkpoint}", "evaluate.runtime=torch",
            "dataset.val_dataset.reference=train", "dataset.val_dataset.query=train")  # fmt: skip
        metrics = json.loads((root / "runs/evaluate/metrics.json").read_text(encoding="utf-8"))
        figures |= leaves(
            {key: metrics[key] for key in ("micro", "macro", "clusters", "per_class", "confused")}, "evaluate"
        )

        run("export", "-r", "runs", f"export.checkpoint={checkpoint}", "export.onnx_file=model.onnx")
        session = onnxruntime.InferenceSession(root / "model.onnx", providers=["CPUExecutionProvider"])
        batch = np.random.default_rng(1).random((4, 3, 64, 64), np.float32)
        figures["export.vectors"] = digest(*session.run(None, {session.get_inputs()[0].name: batch}))

        run("embed", "train", "-o", "vectors.npz", "-m", "model.onnx", "--runtime", "onnxruntime")
        with np.load(root / "vectors.npz") as arrays:
            figures["embed.vectors"] = digest(arrays["vectors"])

        run("gallery", "build", "g.gallery", "train", "-m", "model.onnx", "--runtime", "onnxruntime")
        images = [f"train/class{number}/0.png" for number in range(CLASSES)]
        answers = json.loads(run("identify", "g.gallery", *images, "--runtime", "onnxruntime", "--json"))["answers"]
        for number, answer in enumerate(answers):
            decision = {
                key: answer[key] for key in ("nearest", "score", "distance", "second", "neighbours") if key in answer
            }
            figures |= leaves(decision, f"identify.{number}")

        run("inspect", "fit", "good", "-o", "p.inspector", "-m", checkpoint, "--no-threshold")
        result = json.loads(run("inspect", "run", "p.inspector", "good", "defect", "--json"))
        for n, answer in enumerate(result["answers"]):
            figures |= leaves({key: answer[key] for key in ("score", "regions") if key in answer}, f"inspect.{n}")
        result = json.loads(run("compare", "good/0.png", "defect/0.png", "--json"))
        figures |= leaves(result, "compare")
    return figures


def main() -> None:
    """Print a row a part and the values that differ."""
    sources = [Path(argument).resolve() for argument in sys.argv[1:3]]
    first, second = compute(sources[0]), compute(sources[-1])
    names = sorted({*first, *second})
    total, equal = (
        Counter(name.split(".")[0] for name in names),
        Counter(name.split(".")[0] for name in names if first.get(name) == second.get(name)),
    )
    for part in total:
        print(f"{part:<10} {total[part]:>5} values, {equal[part]:>5} equal")
    for name in names:
        if first.get(name) != second.get(name):
            print(f"  {name}: {first.get(name, 'absent')} -> {second.get(name, 'absent')}")


if __name__ == "__main__":
    main()
