"""Files touched and functions entered by a command, from argv to its end, or to the first training step.

    python benchmarks/call_paths.py SRC

``SRC`` is a source folder (``src`` of any commit), so that two commits can be compared. Small images are drawn and a tiny
network is trained, exported and used. A function counts once, however often it is called; functions of imported modules'
top level count as files alone. Training stops at the first backward pass; embedding before it is left out by training
plainly.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

PROGRAM = """
import contextlib, io, json, sys, threading
source, argv = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, source)
package = source.rstrip("/") + "/unalike/"
functions, files = set(), set()

class Stop(BaseException):
    pass

def profile(frame, event, argument):
    if event == "call":
        code = frame.f_code
        if code.co_filename.startswith(package):
            files.add(code.co_filename)
            if code.co_name not in ("<module>", "<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>", "<lambda>"):
                if not code.co_qualname.split(".")[-1][:1].isupper() or "<locals>" in code.co_qualname:
                    functions.add((code.co_filename, code.co_qualname))

if argv[0] == "train":
    import torch

    def stop(*_, **__):
        raise Stop
    torch.Tensor.backward = stop
threading.setprofile(profile)
sys.setprofile(profile)
from unalike.cli import run_command
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as output:
    try:
        code = run_command(argv)
    except Stop:
        code = 0
sys.setprofile(None)
called = {name for name, _ in functions}
print(json.dumps({"code": code, "files": len(called), "functions": len(functions), "imported": len(files),
                  "error": output.getvalue()[-300:] if code else ""}))
"""
TINY = ["model.backbone=test_efficientnet", "model.pretrained=false", "model.input_height=64", "model.input_width=64",
        "model.feat_dim=16", "dataset.workers=1", "train.batch_size=8"]  # fmt: skip


def draw(root: Path) -> None:
    """Four classes of four images, a pair to compare, and good parts to inspect."""
    rng = np.random.default_rng(0)
    for number in range(4):
        folder = root / "train" / f"class{number}"
        folder.mkdir(parents=True)
        color = rng.integers(60, 220, 3)
        for count in range(4):
            pixels = (color + rng.normal(0, 20, (72, 72, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{count}.png")
    (root / "good").mkdir()
    board = rng.integers(0, 2, (20, 20)).repeat(16, 0).repeat(16, 1)[..., None] * np.array([150, 160, 170]) + 40
    for count in range(6):
        pixels = (board + rng.normal(0, 3, board.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "good" / f"{count}.png")
    pixels[100:140, 200:240] = 0
    Image.fromarray(pixels).save(root / "changed.png")


def main() -> None:
    """Print a row a command."""
    source = str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        draw(root)

        def run(*argv: str) -> None:
            subprocess.run([sys.executable, "-m", "unalike", *argv], cwd=root, check=True, capture_output=True,
                           env={"PYTHONPATH": source, "PATH": "/usr/bin:/bin", "HOME": name})  # fmt: skip

        run("train", "train", "-r", "first", "--automl-policy", "off", "train.num_epochs=1", *TINY)
        checkpoint = "first/train/ml_model_best.pth"
        run("export", "-r", "first", f"export.checkpoint={checkpoint}", "export.onnx_file=model.onnx")
        run("gallery", "build", "g.gallery", "train", "-m", "model.onnx")
        run("inspect", "fit", "good", "-o", "p.inspector", "-m", checkpoint, "--no-threshold")
        commands = {
            "train, to the first step": ["train", "train", "-r", "again", "--automl-policy", "off", *TINY],
            "identify": ["identify", "g.gallery", "train/class0/0.png"],
            "compare": ["compare", "good/0.png", "changed.png"],
            "inspect run": ["inspect", "run", "p.inspector", "good/0.png"],
        }
        for title, argv in commands.items():
            process = subprocess.run([sys.executable, "-c", PROGRAM, source, json.dumps(argv)], cwd=root, check=True,
                                  capture_output=True, text=True)  # fmt: skip
            row = json.loads(process.stdout.splitlines()[-1])
            if row["code"] not in (0, 3):
                raise SystemExit(f"{title}: exit {row['code']}: {row['error']}")
            print(
                f"{title:<26} {row['files']:>4} files {row['functions']:>5} functions, {row['imported']:>4} modules loaded"
            )


if __name__ == "__main__":
    main()
