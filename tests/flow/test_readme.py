"""README: its path from the demo to a recognized picture runs as it stands, at a reduced size; its size and pictures are bounded."""

import re
import shutil

import pytest

from tests.flow.conftest import draw_class
from tests.support.doc_pages import blocks, words_of
from tests.support.paths import ROOT
from tests.support.program import unalike

README = ROOT / "README.md"
pytestmark = pytest.mark.skipif(not README.exists(), reason="only in the repository")
REFERENCE = "runs/demo/images/unseen/reference"


def path_lines():
    """The lines of the path: those of the block that begins by activating the environment."""
    texts = [block.text for block in blocks(README.read_text(encoding="utf-8")) if block.text.startswith(". .venv/")]
    assert len(texts) == 1
    return texts[0].splitlines()[1:]


def test_the_path_runs_line_by_line(trained, tmp_path, monkeypatch):
    pytest.importorskip("cv2")
    lines = path_lines()
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "runs/demo/train")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    named = sorted(set(re.findall(r"runs/demo/images/(\S+)/(\d+)\.jpg", "\n".join(lines))))
    folders = dict.fromkeys(folder for folder, _ in named)
    for number, folder in enumerate(folders):
        draw_class(tmp_path / "runs/demo/images" / folder, number, 4, seed=1)
        if folder.startswith("unseen/query/"):
            draw_class(tmp_path / REFERENCE / folder.rpartition("/")[2], number, 4, seed=2)
    for number in range(4, 10):
        draw_class(tmp_path / REFERENCE / f"brand {number}", number, 4, seed=2)
    for path in (tmp_path / "runs/demo/images").rglob("*.png"):
        path.rename(path.with_suffix(".jpg"))
    for line in lines:
        for words in words_of(line):
            done = unalike(*words)
            assert done.returncode == 0, f"{line}: {done.stderr[-2000:]}"
    listed = unalike("gallery", "list", "runs/brands.gallery")
    assert "28 images of 7 classes" in listed.stdout
    for name in re.findall(r"`(\S+report\.html)`", README.read_text(encoding="utf-8")):
        assert (tmp_path / name).is_file() or name == "runs/demo/report.html", name


def test_it_is_short_and_its_picture_is_small():
    text = README.read_text(encoding="utf-8")
    assert 8_000 <= len(text.encode()) <= 10_240
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures and all((ROOT / name).stat().st_size <= 150_000 for name in pictures)


def test_a_table_says_what_never_ran():
    _, _, section = README.read_text(encoding="utf-8").partition("## Where it ran, and where not")
    rows = [line.split("|") for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    never = " ".join(row[3] for row in rows)
    for name in (
        "NVIDIA GPU",
        "TensorRT",
        "cluster of several machines",
        "SLURM",
        "Kubernetes",
        "Milvus cluster",
        "Windows",
    ):
        assert name in never
