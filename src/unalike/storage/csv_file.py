"""Write CSV files atomically, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unalike.sanitize import csv_cell
from unalike.storage.atomic import atomic_write


def write_csv(path: Path, rows: Iterable[Iterable[Any]], header: Iterable[str]) -> Path:
    """Write a header and rows in UTF-8; None becomes an empty cell, and no cell is a formula (see ``csv_cell``).

    The name of a file need not be valid UTF-8: its bytes are written as they are, so that it is found again from the table.
    """
    with (
        atomic_write(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(list(header))
        writer.writerows(map(csv_cell, row) for row in rows)
    return path
