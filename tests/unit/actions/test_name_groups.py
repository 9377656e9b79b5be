"""``unalike discover --name``: questions, answers of a table, what is written, what is refused, and what a stop leaves."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.heaps import COLORS, contents, paint, table
from tests.support.pooled import write_pooled
from unalike import progress
from unalike.actions.name_groups import name_groups
from unalike.cli import run_command
from unalike.data.imageset import load_images
from unalike.errors import DataError

HOSTILE = "7-red \x1b[31m\u202egnp.\n.png"


@pytest.fixture(autouse=True)
def voice(monkeypatch, tmp_path):
    monkeypatch.setattr(progress, "_said", set())
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def sorted_folder(tmp_path_factory):
    """Four colors, six images each, grouped; one image with a hostile name, and two that are like no other."""
    root = tmp_path_factory.mktemp("named")
    for number, (name, color) in enumerate(COLORS.items()):
        for i in range(6):
            paint(root / "heap" / f"{i}-{name}.png", color, 100 * number + i)
    (root / "heap" / "5-red.png").rename(root / "heap" / HOSTILE)
    out = root / "sorted"
    model = write_pooled(root)
    assert run_command(["discover", str(root / "heap"), "-o", str(out), "-m", str(model), "--groups", "4", "-q"]) == 0
    return out


def typed(monkeypatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def run(capsys, *words):
    code = run_command([str(word) for word in words])
    return code, *capsys.readouterr()


def test_names_typed_on_the_terminal(sorted_folder, tmp_path, monkeypatch, capsys):
    before, out = contents(sorted_folder), tmp_path / "named"
    typed(monkeypatch, "?", "Rot", "a/b", "=group-001", "/undo", "grün", "", "sand")
    code, printed, err = run(capsys, "discover", sorted_folder, "--name", "-o", out, "--json")
    assert code == 0, err
    assert contents(sorted_folder) == before
    figures = json.loads(printed)["figures"]
    assert (figures["images"], figures["labeled"], figures["left"], figures["classes"]) == (24, 18, 6, 3)
    assert "a part of a path" in err and "taken back: group-002" in err and "(1 of 4): 6 images" in err
    assert "\x1b" not in err and "\u202e" not in err  # names of files are escaped
    rows = table(out / "labels.csv")
    assert {row["label"] for row in rows} == {"Rot", "grün", "sand"} and {row["basis"] for row in rows} == {"group"}
    for row in rows:
        assert Path(row["path"]).is_file()
    assert {row["reason"] for row in table(out / "left.csv")} == {"skipped"}
    # the result is what training takes
    images = load_images(out / "labels.csv")
    assert images.classes == ("Rot", "grün", "sand") and len(images) == 18
    page = (out / "groups-1.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 24 and "group-004" in page and "://" not in page
    assert "next: unalike train" not in err


def test_the_end_of_the_input_stops_and_resume_goes_on(sorted_folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "named"
    typed(monkeypatch, "one", "")
    assert run(capsys, "discover", sorted_folder, "--name", "-o", out)[0] == 0
    assert {row["subject"]: row["answer"] for row in table(out / "answers.csv")} == {
        "group-001": "one",
        "group-002": "/skip",
    }
    typed(monkeypatch, "/quit")
    code, _, err = run(capsys, "discover", sorted_folder, "--name", "-o", out)
    assert code == 1 and "is not empty" in err and "--resume" in err
    typed(monkeypatch, "two", "/quit")  # what was skipped comes first
    code, _, err = run(capsys, "discover", sorted_folder, "--name", "-o", out, "--resume")
    assert code == 0 and "group-002 (2 of 4)" in err and "group-001 (1 of 4)" not in err, err
    assert {row["label"] for row in table(out / "labels.csv")} == {"one", "two"}
    assert "next: unalike train" in err and "labels.csv" in err


def test_a_table_answers_and_the_answers_are_such_a_table(sorted_folder, tmp_path, capsys):
    wrote = tmp_path / "answers.csv"
    mixed = [row for row in table(sorted_folder / "groups.csv") if row["label"] == "group-004"]
    wrote.write_text(
        "subject,answer\ngroup-001,one\ngroup-002,=group-001\ngroup-003,/skip\ngroup-004,/mixed\n"
        f"\"{mixed[0]['path']}\",four\n", encoding="utf-8",
    )  # fmt: skip
    code, _, err = run(capsys, "discover", sorted_folder, "--name", "-o", tmp_path / "a", "--answers", wrote)
    assert code == 0, err
    rows = table(tmp_path / "a" / "labels.csv")
    assert {row["label"] for row in rows if row["from_group"] in ("group-001", "group-002")} == {"one"}
    bases = {row["basis"] for row in rows if row["from_group"] == "group-004"}
    assert "image" in bases and bases <= {"image", "predicted"}
    code, _, _ = run(
        capsys, "discover", sorted_folder, "--name", "-o", tmp_path / "b", "--answers", tmp_path / "a" / "answers.csv"
    )
    assert code == 0
    for name in ("labels.csv", "left.csv", "answers.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_mixed_group_and_single_images(sorted_folder, tmp_path, monkeypatch, capsys):
    """All four colors in one group: the images that are asked for tell the rest."""
    folder = tmp_path / "one-group"
    folder.mkdir()
    for name in ("vectors.npz", "unsorted.csv"):
        (folder / name).write_bytes((sorted_folder / name).read_bytes())
    rows = table(sorted_folder / "groups.csv")
    with (folder / "groups.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows({**row, "label": "group-001"} for row in rows)
    asked = []

    def ask(prompt: str) -> str:
        subject = prompt.removesuffix("> ").removesuffix(">")
        if subject == "group-001":
            return "/mixed"
        asked.append(subject)
        return Path(subject).stem.split("-")[1].split(" ")[0]

    result = name_groups(folder, tmp_path / "named", ask=ask)
    assert 4 <= len(asked) <= 12 and result.figures["labeled"] == 24
    for row in table(tmp_path / "named" / "labels.csv"):
        assert row["label"] == Path(row["path"]).stem.split("-")[1].split(" ")[0]
    assert (tmp_path / "named" / "mixed-001.html").is_file()


def test_single_images_are_asked_for_after_the_groups(sorted_folder, tmp_path, monkeypatch, capsys):
    typed(monkeypatch, "one", "two", "", "", "odd", "", "odd", "never reached")
    code, _, err = run(capsys, "discover", sorted_folder, "--name", "-o", tmp_path / "named", "--images", "3")
    assert code == 0, err
    rows = table(tmp_path / "named" / "labels.csv")
    assert [row["basis"] for row in rows].count("image") == 2 and "never reached" not in {row["label"] for row in rows}
    assert {row["from_group"] for row in rows if row["label"] == "odd"} <= {
        "group-003",
        "group-004",
    }  # those without a label
    typed(monkeypatch, "", "", "/done", "never reached")
    code, _, err = run(
        capsys, "discover", sorted_folder, "--name", "-o", tmp_path / "named", "--images", "3", "--resume"
    )
    assert code == 0 and table(tmp_path / "named" / "labels.csv") == rows


def test_ctrl_c_loses_no_answer(sorted_folder, tmp_path):
    """A real process on a pipe, stopped while it waits for the third answer."""
    out = tmp_path / "named"
    process = subprocess.Popen(
        [sys.executable, "-m", "unalike", "discover", str(sorted_folder), "--name", "-o", str(out)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(b"one\ntwo\n")
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not ((out / "answers.csv").exists() and len(table(out / "answers.csv")) == 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"--resume goes on" in err and b"Traceback" not in err
    assert [row["answer"] for row in table(out / "answers.csv")] == ["one", "two"]
    assert len(table(out / "labels.csv")) == 12 and len(table(out / "left.csv")) == 12
    assert not list(out.glob(".*partial*"))


def test_mistakes_are_one_line(sorted_folder, tmp_path, monkeypatch, capsys):
    typed(monkeypatch)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    bad = tmp_path / "bad.csv"
    bad.write_text("subject,answer\ngroup-001,one\ngroup-1,two\n")
    other = tmp_path / "other.csv"
    other.write_text("group,name\ngroup-001,one\n")
    named = ("--name", "-o", tmp_path / "x")
    for code, words, said in (
        (1, (tmp_path, *named), "no groups.csv; expected the folder that unalike discover wrote"),
        (1, (sorted_folder, "--name", "-o", tmp_path / "full"), "is not empty"),
        (1, (sorted_folder, "--name", "-o", tmp_path / "full", "--resume"), "is not empty"),
        (1, (sorted_folder, "--name", "-o", sorted_folder / "named"), "lies within"),
        (1, (sorted_folder, *named, "--answers", bad), "row 2: 'group-1' is neither"),
        (1, (sorted_folder, *named, "--answers", other), "no column subject"),
        (1, (sorted_folder, *named, "--answers", tmp_path / "none.csv"), "none.csv"),
        (2, (sorted_folder, *named, "--groups", "3"), "--name together with groups"),
        (2, (sorted_folder, *named, "--overwrite"), "--name together with --overwrite"),
        (2, (sorted_folder, "--answers", bad), "without --name"),
        (2, ("--name",), "discover.source is not set"),
        (2, (sorted_folder, *named, "--images", "-1"), "--images"),
    ):
        got, _, err = run(capsys, "discover", *words)
        assert (got, said in err) == (code, True) and "Traceback" not in err, (words, got, err)
    assert not (tmp_path / "x").exists() and {p.name for p in (tmp_path / "full").iterdir()} == {"mine.txt"}


def test_another_folder_is_not_continued(sorted_folder, tmp_path, monkeypatch, capsys):
    typed(monkeypatch, "one")
    run(capsys, "discover", sorted_folder, "--name", "-o", tmp_path / "named")
    changed = tmp_path / "changed"
    changed.mkdir()
    for name in ("vectors.npz", "unsorted.csv"):
        (changed / name).write_bytes((sorted_folder / name).read_bytes())
    text = (sorted_folder / "groups.csv").read_text(encoding="utf-8")
    (changed / "groups.csv").write_text(text.replace("group-004,", "group-003,"), encoding="utf-8")
    code, _, err = run(capsys, "discover", changed, "--name", "-o", tmp_path / "named", "--resume")
    assert code == 1 and "names of other groups" in err
    with pytest.raises(DataError, match=r"vectors\.npz"):
        (changed / "vectors.npz").write_bytes(b"PK damaged")
        name_groups(changed, tmp_path / "x")
