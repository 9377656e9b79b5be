"""The examples run as they stand."""

from pathlib import Path

from program import TINY, process

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_recognise(images, tmp_path):
    done = process(images / "train", images / "query", *TINY, "train.num_epochs=1", "train.batch_size=8",
                   "dataset.validation.fraction=0.4", program=(str(EXAMPLES / "recognise.py"),), cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "checkpoint" in done.stdout and "cosine" in done.stdout
