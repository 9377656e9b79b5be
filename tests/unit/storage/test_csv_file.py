"""Tables that a spreadsheet may open."""

from __future__ import annotations

import csv
from pathlib import Path

from unalike.sanitize import from_csv_cell
from unalike.storage.csv_file import write_csv


def test_no_cell_is_a_formula_and_what_was_written_is_read_back(tmp_path: Path) -> None:
    rows = [["=cmd|'/C calc'!A0", "-1.5", -2, None], ["@x", "caf\udce9.png", "a\nb", "'=y"]]
    path = write_csv(tmp_path / "t.csv", rows, ("a", "b", "c", "d"))
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *cells = csv.reader(file)
    assert header == ["a", "b", "c", "d"]
    assert not any(cell.startswith(("=", "@")) for row in cells for cell in row)
    assert [[from_csv_cell(cell) for cell in row] for row in cells] == [
        ["=cmd|'/C calc'!A0", "-1.5", "-2", ""], ["@x", "caf\udce9.png", "a\nb", "'=y"],
    ]  # fmt: skip
