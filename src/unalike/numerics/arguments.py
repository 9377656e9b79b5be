"""Checks of arguments that callers of the package give: counts, shares, lists. Each fails with what was given and what is expected."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from numbers import Integral, Real
from typing import Any, TypeVar, cast

from unalike.errors import DataError, SpecError, UnalikeError

Item = TypeVar("Item")
_MOST_SHOWN = 60


def describe(value: Any) -> str:
    """A value as a message quotes it: short, or its type alone."""
    text = repr(value) if isinstance(value, str | bytes | Real | None) else f"of type {type(value).__name__}"
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def check_count(name: str, value: Any, least: int = 1, *, error: type[UnalikeError] = DataError) -> int:
    """Return a whole number of at least ``least``, of any integer type.

    Raises:
        UnalikeError: Of class ``error``: a truth value, a fraction, a text, nothing, or a smaller number.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise error(f"{name} is {describe(value)}", expected=f"a whole number, {least} or more")
    return int(value)


def check_number(name: str, value: Any, *, error: type[UnalikeError] = SpecError) -> float:
    """Return a number, which may be NaN or infinite. Raises an error of class ``error`` for a truth value, a text or nothing."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise error(f"{name} is {describe(value)}", expected="a number")
    return float(value)


def check_share(name: str, value: Any, *, error: type[UnalikeError] = SpecError) -> float:
    """Return a number above 0 and below 1. Raises an error of class ``error`` for anything else."""
    number = check_number(name, value, error=error)
    if not 0 < number < 1:
        raise error(f"{name} is {describe(value)}", expected="a number above 0, below 1")
    return number


def check_list(name: str, values: Iterable[Item], item: str, *, ordered: bool = True) -> list[Item]:
    """Return the items of an iterable.

    Args:
        name: What it is called in messages.
        values: What the caller gave.
        item: What an item is, such as ``a class name``.
        ordered: Whether the order counts, which a set has not.

    Raises:
        DataError: One text in place of a list, a mapping, a set where the order counts, or no iterable.
    """
    items = cast(Any, values)
    if isinstance(items, str | bytes | bytearray | memoryview | os.PathLike | Mapping) or (
        ordered and isinstance(items, AbstractSet)
    ):
        raise DataError(f"{name}: {describe(items)}", expected=f"a list, {item} each", remedy="put it in a list: [...]")
    try:
        return list(items)
    except TypeError as error:
        raise DataError(f"{name}: {describe(items)}", expected=f"a list, {item} each") from error


def check_pair(pair: Any) -> tuple[Any, Any]:
    """Return the two images of a pair. Raises DataError for anything else, such as images one by one."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(f"a pair of images: {describe(pair)}", expected="(reference, image)")
    return pair[0], pair[1]
