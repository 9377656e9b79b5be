"""Notices: counted once, said once, named in a file."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from unalike.data.notices import MESSAGES, Notices


def test_d20_said_once_with_count_and_first_names(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    notices = Notices()
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "a.jpg"):
        notices.add("unreadable", name, "a.jpg: truncated" if name == "a.jpg" else "")
    notices.add("empty-class", "Brücke")
    notices.say()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "4 images unreadable: a.jpg (truncated), b.jpg, c.jpg, ...",
        "1 class folder without images: Brücke",
    ]
    notices.say()
    assert capsys.readouterr().err == ""
    notices.add("unreadable", "e.jpg")
    notices.say()
    assert capsys.readouterr().err.startswith("5 images unreadable")
    assert notices.counts == {"unreadable": 5, "empty-class": 1} and len(notices) == 6
    assert notices.names("unreadable")[-1] == "e.jpg"


def test_every_name_is_written(tmp_path: Path) -> None:
    notices = Notices()
    assert notices.write(tmp_path / "none.csv") is None and not (tmp_path / "none.csv").exists()
    names = [f"folder, with comma/ü {i}.jpg" for i in range(20)] + ["bad\udcffname.jpg"]
    for name in names:
        notices.add("stray", name, 'why "so"')
    path = notices.write(tmp_path / "new" / "notices.csv")
    assert path is not None
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["kind", "name", "detail"] and [row[1] for row in rows[1:]] == names


def test_names_without_an_encoding_can_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    notices = Notices()
    notices.add("stray", "bad\udcffname.jpg")
    notices.say()
    assert "name.jpg" in capsys.readouterr().err


def test_unknown_kinds_speak_for_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    notices = Notices()
    notices.add("odd {thing}", "x")
    notices.say()
    assert capsys.readouterr().err == "1 x odd thing: x\n"


def test_threads() -> None:
    notices = Notices()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: notices.add("unreadable", str(i % 500)), range(4000)))
    assert notices.counts == {"unreadable": 500}


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_messages_for_one_and_many(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    notices = Notices()
    notices.add(kind, "a")
    notices.say()
    notices.add(kind, "b")
    notices.say()
    one, two = capsys.readouterr().err.splitlines()
    assert one.startswith("1 ") and two.startswith("2 ") and "{" not in one + two
