"""The decoding rule: its values, its plain data, and which rules can be mixed."""

from __future__ import annotations

import json

import pytest

from unalike.data.decoding import Decoding, format_ground, parse_ground, parse_range
from unalike.errors import SpecError
from unalike.spec import load_spec


def test_goes_through_metadata_unchanged() -> None:
    for rule in (Decoding(), Decoding(2, (0, 0, 0)), Decoding(2, None, (0, 4095)), Decoding(1)):
        assert Decoding.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    assert Decoding.from_dict(None) == Decoding(1)


@pytest.mark.parametrize(
    "values", [{}, {"version": 3}, {"version": 2, "depth": 1}, {"version": "2"}, {"version": 1, "ground": [0, 0, 0]}]
)
def test_data_of_something_else_are_refused(values: dict) -> None:
    with pytest.raises(SpecError):
        Decoding.from_dict(values)


def test_colors_and_ranges() -> None:
    assert parse_ground("white") == (255, 255, 255) and parse_ground("#0a0B0c") == (10, 11, 12)
    assert [format_ground(parse_ground(name)) for name in ("gray", "#808080", "#010203")] == ["gray", "gray", "#010203"]
    assert parse_range("0,4095") == (0, 4095) and parse_range([-5, 5.5]) == (-5, 5.5)
    for wrong in ("whit", "#12345", [1, 2], (300, 0, 0)):
        with pytest.raises(SpecError, match="ground"):
            parse_ground(wrong)
    for wrong in ("4095", "5,5", "a,b", [3, 1], [0, float("inf")], 7):
        with pytest.raises(SpecError, match="range"):
            parse_range(wrong)  # type: ignore[arg-type]


def test_which_rules_can_be_mixed() -> None:
    white, black, narrow = Decoding(ground=(255, 255, 255)), Decoding(ground=(0, 0, 0)), Decoding(range=(0, 1023))
    assert not white.conflict(narrow) and white.completed(narrow) == Decoding(2, (255, 255, 255), (0, 1023))
    assert white.conflict(black) == "decoding ground white, not black"
    assert narrow.conflict(Decoding(range=(0, 4095))) == "decoding range 0 to 1023, not 0 to 4095"
    assert Decoding(1).conflict(white) == "decoding version 1, not 2"
    assert Decoding(1).completed(white) == Decoding(1) and Decoding(1).is_complete and not white.is_complete


def test_a_spec_says_them() -> None:
    overrides = ["dataset.decoding.ground=black", "dataset.decoding.range=[0,1023]"]
    section = load_spec("train", {}, overrides).dataset.decoding
    assert Decoding.from_section(section) == Decoding(2, (0, 0, 0), (0, 1023))
    assert Decoding.from_section(load_spec("train", {}, ["dataset.decoding.version=1"]).dataset.decoding) == Decoding(1)
    with pytest.raises(SpecError, match="white, black, gray or #rrggbb"):
        load_spec("train", {}, ["dataset.decoding.ground=wite"])
