"""Arguments of callers are checked in one place, and what is wrong with them is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unalike.errors import DataError, SpecError
from unalike.numerics.arguments import check_count, check_list, check_number, check_pair, check_share, describe

NO_COUNTS: list[Any] = [1.5, 1.0, "3", None, True, np.bool_(True), float("nan"), [1], 0, -1, b"1", 1j]


@pytest.mark.parametrize("value", NO_COUNTS, ids=repr)
def test_what_is_no_count(value: object) -> None:
    with pytest.raises(DataError, match=r"^k is .*; expected a whole number, 1 or more$"):
        check_count("k", value)


def test_counts() -> None:
    assert [check_count("k", value) for value in (1, np.int64(2), np.uint8(3), 10**30)] == [1, 2, 3, 10**30]
    assert type(check_count("k", np.int64(2))) is int and check_count("seed", 0, 0) == 0
    with pytest.raises(SpecError):
        check_count("k", 0, error=SpecError)


@pytest.mark.parametrize("value", ["0.1", None, True, [0.1], 1j])
def test_what_is_no_number(value: object) -> None:
    for check in (check_number, check_share):
        with pytest.raises(SpecError, match="rate is .*; expected a number"):
            check("rate", value)


def test_shares() -> None:
    assert check_share("rate", np.float32(0.5)) == 0.5 and check_number("rate", 2) == 2.0
    for value in (0, 1, -1, 2, float("nan"), float("inf")):
        with pytest.raises(SpecError, match="above 0, below 1"):
            check_share("rate", value)


@pytest.mark.parametrize(
    "value",
    ["abc", b"abc", bytearray(b"a"), Path("a"), {"a": 1}, None, 5, 1.5, object()],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_list(value: Any) -> None:
    with pytest.raises(DataError, match="labels: .*; expected a list, a class name each"):
        check_list("labels", value, "a class name")


def test_lists() -> None:
    assert check_list("labels", (letter for letter in "ab"), "a class name") == ["a", "b"]
    assert check_list("labels", np.array(["a"]), "a class name") == ["a"]
    assert check_list("labels", {"a"}, "a class name", ordered=False) == ["a"]
    with pytest.raises(DataError):
        check_list("labels", {"a"}, "a class name")  # a set has no order


def test_pairs() -> None:
    assert check_pair(["a", "b"]) == ("a", "b")
    for value in ("ab", ("a",), ("a", "b", "c"), None, np.zeros((2, 2)), {"a": 1, "b": 2}):
        with pytest.raises(DataError, match="a pair of images"):
            check_pair(value)


def test_messages_are_short() -> None:
    assert len(describe("x" * 1000)) <= 60 and describe(None) == "None" and describe(np.zeros(9)) == "of type ndarray"
