"""Names of classes and files with escape sequences, newlines, formulas, HTML and Markdown: what commands print and write."""

from __future__ import annotations

import csv
import io
import json
import os
import re

import pytest

from tests.flow.conftest import draw_class
from tests.support.pooled import write_pooled
from tests.support.program import unalike
from unalike.sanitize import from_csv_cell

pytestmark = pytest.mark.skipif(os.name != "posix", reason="names that other file systems refuse")

CLASSES = ("=cmd|' calc'!A1", "<script>alert(1)<", "a\x1b[2Jb\nerror: fake", "|`x`[l](http:x)\u202egnp", "\uff1d1+1")
FILES = ("=1+1.png", "<b>x.png", "e\x1b[31m\nok: fake.png")
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e]")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and references and queries of five classes."""
    root = tmp_path_factory.mktemp("names")
    write_pooled(root)
    for part, seed in (("reference", 1), ("query", 2)):
        for number, name in enumerate(CLASSES):
            folder = root / part / name
            draw_class(folder, number, len(FILES), seed)
            for image, file in enumerate(FILES):
                (folder / f"{image:02d}.png").rename(folder / file)
    return root


def check_file(path):
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    match path.suffix:
        case ".csv":
            for row in csv.reader(io.StringIO(text)):
                assert not any(re.match(r"[=+@\t\r\n\uff1d]", cell) for cell in row), row
        case ".html":
            assert CONTROL.search(text) is None and "<script>alert" not in text and "<b>x" not in text
        case ".md":
            assert CONTROL.search(text) is None and re.search(r"(?<!\\)<|\]\(", text) is None
        case ".json" | ".jsonl":
            for line in [text] if path.name not in ("status.json", "result.jsonl") else text.splitlines():
                json.loads(line)
        case ".yaml":
            assert CONTROL.search(text) is None


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "model.onnx", "--reference", "reference", "--query", "query", "-r", "e"],
        ["inference", "model.onnx", "--reference", "reference", "query", "-r", "i"],
        ["discover", "query", "-m", "model.onnx", "-o", "d", "--groups", "3"],
        ["gallery", "build", "g.gallery", "reference", "-m", "model.onnx"],
        ["gallery", "list", "g.gallery"],
        ["identify", "g.gallery", "query"],
        ["compare", f"query/{CLASSES[2]}", f"query/{CLASSES[2]}", "-o", "c"],
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_nothing_of_a_name_acts(place, monkeypatch, words):
    monkeypatch.chdir(place)
    done = unalike(*words)
    assert done.returncode == 0, done.stderr[-3000:]
    for line in (done.stdout + done.stderr).splitlines():
        assert CONTROL.search(line) is None and not line.startswith(("error: fake", "ok: fake")), ascii(line)
    images = [place / "query", place / "reference"]
    for path in place.rglob("*"):
        is_ours = path.is_file() and not any(folder in path.parents for folder in images)
        if is_ours and path.suffix not in (".png", ".jpg", ".onnx", ".gallery", ".parquet"):
            check_file(path)


def test_names_come_back_from_tables(place, monkeypatch):
    monkeypatch.chdir(place)
    assert (
        unalike("evaluate", "model.onnx", "--reference", "reference", "--query", "query", "-r", "back").returncode == 0
    )
    with (place / "back" / "evaluate" / "per_class.csv").open(newline="", encoding="utf-8") as file:
        assert {from_csv_cell(row["class"]) for row in csv.DictReader(file)} == set(CLASSES)
