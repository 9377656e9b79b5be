"""Which candidate a request names; delivery is tested in tests/flow/test_automatic.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unalike.errors import RunError, SpecError
from unalike.training.automatic.other_candidate import find_candidate, read_record

NAMES = [
    "frozen trunk",
    "discriminant head, residual 0.5, square root",
    "fine-tuned",
    "fine-tuned, blended, head fitted anew",
]
RECORD = {"candidates": [{"name": name, "folder": f"candidate_{n}"} for n, name in enumerate(NAMES)]}


@pytest.mark.parametrize(("request_", "number"), [
    ("0", 0), ("3", 3), ("fine-tuned", 2), ("Fine-Tuned", 2), ("blended", 3), ("discriminant", 1), ("frozen", 0),
])  # fmt: skip
def test_a_number_a_name_or_a_part_of_it(request_: str, number: int) -> None:
    assert find_candidate(RECORD, request_) == number


@pytest.mark.parametrize(("request_", "expected"), [
    ("4", "no candidate"), ("", "no candidate"), ("tuned", "several candidates"), ("forzen trunk", "--take 'frozen trunk'"),
])  # fmt: skip
def test_other_requests_name_the_candidates(request_: str, expected: str) -> None:
    with pytest.raises(SpecError) as error:
        find_candidate(RECORD, request_)
    assert expected in str(error.value) and "0: frozen trunk" in str(error.value)


def test_a_folder_without_candidates_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"automatic.json cannot be read"):
        read_record(tmp_path)
    (tmp_path / "automatic.json").write_text(json.dumps({"candidates": [{"name": "frozen trunk"}]}))
    with pytest.raises(RunError, match="were not kept"):
        read_record(tmp_path)
    (tmp_path / "automatic.json").write_text(json.dumps(RECORD))
    assert read_record(tmp_path) == RECORD
