"""``unalike discover``, in process, on an exported network and heaps of noisy colours: what is written, and the hard cases."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.heaps import COLORS, contents, paint, table
from tests.support.pooled import write_pooled
from unalike import progress
from unalike.actions.discover import _bounded, _unique_names, training_source
from unalike.cli import run_command
from unalike.data.imageset import load_images
from unalike.runs.filenames import RUN_MARKS


@pytest.fixture(autouse=True)
def voice(monkeypatch, tmp_path):
    monkeypatch.setattr(progress, "_said", set())
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_pooled(tmp_path_factory.mktemp("model"))


@pytest.fixture
def heap(tmp_path):
    """Eight images of each of four colours in one folder, a copy of one in a folder below it, a corrupt file, a stray."""
    folder = tmp_path / "my heap"
    for number, (name, color) in enumerate(COLORS.items()):
        for i in range(8):
            paint(folder / f"{i}-{name}.png", color, 100 * number + i)
    (folder / "sub").mkdir()
    (folder / "sub" / "3-red.png").write_bytes((folder / "3-red.png").read_bytes())
    (folder / "broken.png").write_bytes(b"\x89PNG nothing")
    (folder / "notes.txt").write_text("no image")
    return folder


def run_json(capsys, *words):
    """Run a command line; (exit code, JSON object or None, standard error)."""
    code = run_command([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.startswith("{") else None, err


def test_a_heap_becomes_folders_and_stays_as_it_was(heap, model, tmp_path, capsys):
    before = contents(heap)
    out = tmp_path / "sorted"
    code, result, err = run_json(capsys, "discover", heap, "-o", out, "-m", model, "--groups", "4", "--json")
    assert code == 0, err
    assert contents(heap) == before
    figures = result["figures"]
    assert figures["images"] == 33 and figures["groups"] == 4 and figures["unreadable"] == 1
    assert figures["near_duplicates"] >= 1 and "1 image unreadable" in err
    colours = [{p.stem.split("-")[1].split("_")[0] for p in d.iterdir()} for d in sorted(out.glob("group-*"))]
    assert sorted(map(sorted, colours)) == [["blue"], ["green"], ["red"], ["sand"]]
    copied = [p for p in out.glob("group-*/*") if p.is_file() and not p.is_symlink()]
    assert len(copied) == 33 and {hashlib.sha256(p.read_bytes()).hexdigest() for p in copied} <= set(before.values())
    rows = table(out / "groups.csv")
    assert len(rows) == 33 and all((out / row["path"]).is_file() and Path(row["source"]).is_file() for row in rows)
    assert all(0 <= float(row["confidence"]) <= 1 for row in rows)
    twin = [row for row in rows if row["near_duplicate_of"]]
    assert any("3-red" in row["path"] and "3-red" in row["near_duplicate_of"] for row in twin)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "group-001" in page and page.count("data:image/jpeg;base64,") > 30 and "://" not in page
    assert "broken.png" in page and "33 images fall into 4 groups" in page
    assert not list(tmp_path.glob(".*partial*"))
    # what comes out is what training takes: a folder is a class
    images = load_images(out)
    assert len(images) == 33 and images.classes == ("group-001", "group-002", "group-003", "group-004")
    assert len(load_images(out / "groups.csv")) == 33


def test_links_and_tables_copy_nothing(heap, model, tmp_path, capsys):
    code, _, err = run_json(
        capsys, "discover", heap, "-o", tmp_path / "links", "-m", model, "--link", "--groups", "4", "--json"
    )
    assert code == 0, err
    links = list((tmp_path / "links").glob("group-*/*"))
    assert len(links) == 33 and all(p.is_symlink() and p.resolve().parent in (heap, heap / "sub") for p in links)
    code, result, err = run_json(capsys, "discover", heap, "-o", tmp_path / "tables", "-m", model, "--table", "--json")
    assert code == 0, err
    assert {p.name for p in (tmp_path / "tables").iterdir()} == {
        "groups.csv", "unsorted.csv", "report.html", "discovery.json", "notices.csv", "vectors.npz", *RUN_MARKS}  # fmt: skip
    rows = table(tmp_path / "tables" / "groups.csv") + table(tmp_path / "tables" / "unsorted.csv")
    assert len(rows) == result["figures"]["images"] and all(Path(row["path"]).is_absolute() for row in rows)


def test_an_archive_is_a_heap_too(heap, model, tmp_path, capsys):
    archive = tmp_path / "heap.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(heap.glob("*.png")):
            packed.write(path, path.name)
    code, result, err = run_json(capsys, "discover", archive, "-o", tmp_path / "out", "-m", model, "--json")
    assert code == 0 and result["figures"]["images"] == 32, err
    assert json.loads((tmp_path / "out/discovery.json").read_text())["source"] == str(archive)
    code, _, err = run_json(capsys, "discover", archive, "-o", tmp_path / "out2", "-m", model, "--link")
    assert code == 2 and "links into an archive" in err


def test_few_and_odd_images(model, tmp_path, capsys):
    for i, color in enumerate(COLORS.values()):
        paint(tmp_path / "three" / f"{i}.png", color, i)
    (tmp_path / "three" / "3.png").unlink()
    paint(tmp_path / "one" / "only.png", (9, 9, 9), 0)
    for i in range(5):
        paint(tmp_path / "same" / f"{i}.png", (50, 90, 160), 7)
    expected = {"three": (3, 0, 3), "one": (1, 0, 1), "same": (5, 1, 0)}
    for name, (images, groups, alone) in expected.items():
        code, result, err = run_json(
            capsys, "discover", tmp_path / name, "-o", tmp_path / f"{name}-out", "-m", model, "--json"
        )
        assert code == 0, err
        figures = result["figures"]
        assert (figures["images"], figures["groups"], figures["in_no_group"]) == (images, groups, alone), name
        assert len([p for p in (tmp_path / f"{name}-out").iterdir() if p.suffix == ".png"]) == alone
    assert "form a group" in run_json(capsys, "discover", tmp_path / "three", "-o", tmp_path / "again", "-m", model)[2]
    # a single file
    code, result, err = run_json(
        capsys, "discover", tmp_path / "one" / "only.png", "-o", tmp_path / "file", "-m", model, "--json"
    )
    assert code == 0 and result["figures"]["images"] == 1, err


def test_mistakes_are_one_line(heap, model, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no")
    for words, said in (
        ((heap, "-o", tmp_path / "full", "-m", model), "is not empty; expected a new or an empty folder"),
        ((heap, "-o", heap / "inside", "-m", model), "lies within"),
        ((tmp_path / "empty", "-o", tmp_path / "x", "-m", model), "no image"),
        ((tmp_path / "bad", "-o", tmp_path / "x", "-m", model), "cannot be read"),
        ((tmp_path / "my hep", "-o", tmp_path / "x", "-m", model), "did you mean 'my heap'"),
        ((heap, "-o", tmp_path / "x", "-m", tmp_path / "none.onnx"), "there is no model file"),
        ((heap, "-o", tmp_path / "x", "-m", model, "--groups", "0"), "found 0, expected a whole number >= 1"),
        ((heap, "-o", tmp_path / "x", "-m", model, "--link", "--table"), "choose one"),
    ):
        code, _, err = run_json(capsys, "discover", *words)
        last = err.strip().splitlines()[-1]
        assert code != 0 and said in last and "Traceback" not in err, (words, err)
    assert {path.name for path in (tmp_path / "x").iterdir()} == {*RUN_MARKS}  # a failed run says so, and nothing else
    assert contents(tmp_path / "full").keys() == {"mine.txt"}


def test_names_that_meet_stay_apart(model, tmp_path, capsys):
    for i, folder in enumerate(("a", "b", "a/b")):
        paint(tmp_path / "heap" / folder / "IMG.png", (40 * i, 90, 160), i)
    out = tmp_path / "out"
    code, _, err = run_json(capsys, "discover", tmp_path / "heap", "-o", out, "-m", model, "--groups", "1")
    assert code == 0, err
    assert {p.name for p in out.rglob("*.png")} == {"a_IMG.png", "heap_b_IMG.png", "a_b_IMG.png"}
    listed = tmp_path / "twice.csv"
    shutil.copytree(tmp_path / "heap" / "a", tmp_path / "other" / "a")
    listed.write_text("path\nheap/a/IMG.png\nother/a/IMG.png\n")
    code, _, err = run_json(capsys, "discover", listed, "-o", tmp_path / "out2", "-m", model)
    assert code == 0 and len(list((tmp_path / "out2" / "group-001").iterdir())) == 2, err


def test_an_exported_model_needs_no_torch(heap, model, tmp_path):
    program = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "timm", "sklearn", "scipy"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
from unalike.cli import run_command
from unalike.runs.filenames import RUN_MARKS
sys.exit(run_command(["discover", {str(heap)!r}, "-o", {str(tmp_path / "out")!r}, "-m", {str(model)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_name_that_is_too_long_with_its_folders_is_cut(tmp_path):
    """Files of one name get their folders' names before it: 2 x 200 letters are more than a file system takes."""
    folders = [tmp_path / f"{'ü' * 100}{end}" for end in "ab"]
    paths = [folder / f"{'x' * 200}.png" for folder in folders]
    names = [_bounded(name) for name in _unique_names(paths)]
    assert len(set(names)) == 2
    for name in names:
        (tmp_path / name).touch()
        assert name.endswith(".png")


def test_a_call_that_fails_at_once_leaves_no_folder_that_nobody_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for source in ("empty", "none"):
        assert run_command(["discover", source]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_what_is_trained_on_of_a_folder(tmp_path):
    assert training_source(tmp_path, "table") == tmp_path / "groups.csv"
    assert training_source(tmp_path, "copy") == tmp_path
