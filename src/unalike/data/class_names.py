"""Names of classes: one form on every platform, checks of what callers and people give, and names that look alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from numbers import Integral
from typing import Any

from unalike.errors import DataError

# Characters that turn the direction of writing, by which a name looks like another one.
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters and signs that show nothing
_UNSEEN = ("Cc", "Cf", "Zs", "Zl", "Zp")


def normalize_class_name(text: Any) -> str:
    """Normalize a class name to NFC: macOS decomposes umlauts, and one class must have one name on every platform.

    A whole number is the text of its digits.

    Raises:
        DataError: Neither a text nor a whole number: nothing, NaN, bytes, a list.
    """
    if isinstance(text, Integral) and not isinstance(text, bool):
        text = str(text)
    if not isinstance(text, str):
        kind = repr(text)[:60] if text is None or isinstance(text, float | bytes) else type(text).__name__
        raise DataError(f"a class name that is {kind}", expected="a text", remedy="name every class by a text")
    return unicodedata.normalize("NFC", text)


def check_class_name(text: Any) -> str:
    """The normalized name of a class. Raises DataError for one that is no text, is empty, or shows nothing."""
    name = normalize_class_name(text)
    if not name:
        raise DataError("an empty label", expected="a class name")
    if not is_visible(name):
        raise DataError(f"a class name without a visible character: {ascii(name)[:60]}", expected="a class name")
    return name


def check_new_class_name(text: Any) -> str:
    """The normalized name that a person types for a new class.

    Names that exist are not checked by this: those of folders, of tables (the service writes them from its gallery) and of
    classes that a gallery has. A file system allows what nobody would type.

    Raises:
        DataError: As ``check_class_name``, or a name with control characters or marks that turn the direction of writing.
    """
    name = check_class_name(text)
    sign = hidden_sign(name, halves=False)
    if sign is not None:
        raise DataError(f"a class name with the character U+{ord(sign):04X}: {ascii(name)[:60]}",
                        expected="a name without control characters")  # fmt: skip
    return name


def hidden_sign(label: str, *, halves: bool = True) -> str | None:
    """The first character of a name that would not be seen, or that makes it look like another one; None without any.

    Args:
        label: The name.
        halves: Whether halves of surrogate pairs count, which stand for bytes of a file's name that are not UTF-8.
    """
    categories = ("Cc", "Zl", "Zp", "Cs") if halves else ("Cc", "Zl", "Zp")
    return next((sign for sign in label if unicodedata.category(sign) in categories or sign in _DIRECTIONS), None)


def plain_name(name: str) -> str:
    """A name without what is not seen: in lower case, without invisible characters, blanks in a row as one."""
    visible = "".join(sign for sign in name if unicodedata.category(sign) != "Cf" and sign not in _BLANK_LETTERS)
    return " ".join(unicodedata.normalize("NFKC", visible).casefold().split())


def find_similar_names(names: Iterable[str], others: Iterable[str] = ()) -> list[tuple[str, ...]]:
    """Groups of different names that people take for one: they differ in case, blanks or invisible characters alone.

    Args:
        names: Names; a group has at least one of these.
        others: Further names.
    """
    groups: dict[str, dict[str, None]] = {}
    for name in names:
        groups.setdefault(plain_name(name), {})[name] = None
    for name in others:
        if (plain := plain_name(name)) in groups:
            groups[plain][name] = None
    return [tuple(group) for group in groups.values() if len(group) > 1]


def is_visible(name: str) -> bool:
    """Whether a name shows anything: a letter, a digit or a sign, not blanks and invisible characters alone."""
    return not all(
        unicodedata.category(sign) in _UNSEEN or sign in _BLANK_LETTERS or "\ufe00" <= sign <= "\ufe0f" for sign in name
    )
