"""Attributes of references, such as site, line or season: short texts by name; and filters by them.

Few references differ in all of them: their distinct sets are kept once, and for each reference the number of its set.

Shape letters: N references, M chosen ones, S distinct sets of attributes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from unalike.data.class_names import hidden_sign, is_visible
from unalike.errors import DataError, SpecError, closest
from unalike.numerics.arguments import check_list, describe

Attributes = Mapping[str, str]
# A filter: for each name the value, or the values, of which a reference must have one.
Where = Mapping[str, str | Collection[str]]

MAX_ATTRIBUTES, MAX_VALUE = 16, 200
# Values of a filter: it is in each answer, and kept with each decision of a service.
MAX_CHOICES = 1000
# Distinct sets of one gallery: attributes tell groups of references apart; what tells single ones apart is their name.
MAX_SETS = 65_536
NO_ATTRIBUTES: Attributes = {}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_NAME_FORM = "a letter, then letters, digits and _, in lower case, at most 64 characters, such as site"
# Invisible characters that belong to words: between letters of Persian and of Indian scripts, and within emoji.
_JOINERS = "\u200c\u200d"
_MOST_VALUES = 10  # that a message lists


def check_attributes(attributes: Any) -> dict[str, str]:
    """Return attributes in the order of their names, with values in one form.

    That is Unicode's composed form (NFC), without blanks around it; every kind of blank is that of the space bar: a value
    that was copied from a spreadsheet (U+00A0) or typed in Japanese (U+3000) is the one that a filter names.

    Raises:
        DataError: no mapping, more than ``MAX_ATTRIBUTES`` names, a name of another form, or a value that is no text, is empty,
            is longer than ``MAX_VALUE`` characters, or has control characters or invisible ones.
    """
    if not isinstance(attributes, Mapping):
        raise DataError(f"attributes: {describe(attributes)}", expected='names and values, such as {"site": "berlin"}')
    if len(attributes) > MAX_ATTRIBUTES:
        raise DataError(f"{len(attributes)} attributes of one reference", expected=f"at most {MAX_ATTRIBUTES}")
    return {name: _check_value(name, attributes[name]) for name in sorted(map(check_attribute_name, attributes))}


def check_attribute_name(name: Any) -> str:
    """Return the name of an attribute. Raises DataError for one of another form."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        plain = re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_") if isinstance(name, str) else ""
        remedy = f"name it {plain}" if _NAME.fullmatch(plain) else ""
        raise DataError(f"an attribute with the name {describe(name)}", expected=_NAME_FORM, remedy=remedy)
    return name


def _check_value(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(f"the attribute {name} is {describe(value)}", expected="a text")
    text = "".join(" " if unicodedata.category(sign) == "Zs" else sign for sign in unicodedata.normalize("NFC", value))
    text = text.strip()
    if not text:
        raise DataError(f"the attribute {name} is empty", expected="a value", remedy="leave the attribute out")
    if len(text) > MAX_VALUE:
        raise DataError(f"the attribute {name} has {len(text)} characters", expected=f"at most {MAX_VALUE}")
    # Letters and signs that this version of Python does not know yet are taken: another one may have written them.
    if (
        hidden_sign(text)
        or not is_visible(text)
        or any(unicodedata.category(sign) == "Cf" and sign not in _JOINERS for sign in text)
    ):
        raise DataError(
            f"the attribute {name} is {ascii(text)[:60]}", expected="a text without control or invisible characters"
        )
    return text


def check_where(where: Any) -> dict[str, tuple[str, ...]] | None:
    """Return a filter as names with their allowed values; None for no filter.

    Raises:
        DataError: no mapping, for a name neither a text nor a list of at least one text, more than ``MAX_ATTRIBUTES`` names (which no
            reference has), or more than ``MAX_CHOICES`` values.
    """
    if where is None:
        return None
    if not isinstance(where, Mapping):
        raise DataError(f"where: {describe(where)}", expected='names and values, such as {"site": "berlin"}')
    if len(where) > MAX_ATTRIBUTES:
        raise DataError(
            f"where: {len(where)} names", expected=f"at most {MAX_ATTRIBUTES}, as many as a reference has attributes"
        )
    choices: dict[str, tuple[str, ...]] = {}
    for name, values in where.items():
        if not isinstance(name, str):
            raise DataError(f"where: an attribute with the name {describe(name)}", expected=_NAME_FORM)
        if not isinstance(values, str | list | tuple | AbstractSet) or not values:
            raise DataError(f"where: {name} is {describe(values)}", expected="a text, or a list of texts")
        if not isinstance(values, str) and len(values) > MAX_CHOICES:
            raise DataError(f"where: {name} has {len(values)} values", expected=f"at most {MAX_CHOICES}",
                            remedy="give references an attribute for the group that is meant")  # fmt: skip
        each = [values] if isinstance(values, str) else sorted(values, key=repr)
        choices[name] = tuple(dict.fromkeys(_check_value(name, value) for value in each))
    return choices or None


def parse_where(texts: Sequence[str] | None) -> dict[str, tuple[str, ...]] | None:
    """Read a filter from ``name=value`` texts, of which several of one name are alternatives. Raises SpecError."""
    where: dict[str, list[str]] = {}
    for text in texts or ():
        name, value = _parse_pair(text)
        where.setdefault(name, []).append(value)
    with _call_errors():
        return check_where(where)


def parse_attributes(texts: Sequence[str] | None) -> dict[str, str]:
    """Read attributes from ``name=value`` texts. Raises SpecError for another form, or a name that comes twice."""
    pairs = [_parse_pair(text) for text in texts or ()]
    attributes = dict(pairs)
    if len(attributes) < len(pairs):
        raise SpecError(f"an attribute twice: {', '.join(texts or ())}", expected="one value of each")
    with _call_errors():
        return check_attributes(attributes)


def check_columns(names: Sequence[str] | None) -> tuple[str, ...]:
    """The columns of a table that hold attributes, whose names are theirs. Raises SpecError for a name of another form."""
    for name in names or ():
        if "=" in name:
            raise SpecError(
                f"a column {describe(name)}",
                expected="names of columns",
                remedy=f"--attribute {name} is for all images",
            )
        with _call_errors():
            check_attribute_name(name)
    return tuple(dict.fromkeys(names or ()))


def _parse_pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise SpecError(f"an attribute {describe(text)}", expected="NAME=VALUE, such as site=berlin")
    return name.strip(), value


@contextmanager
def _call_errors() -> Iterator[None]:
    """Attributes that a call gives are a mistake in the call, not in data."""
    try:
        yield
    except DataError as error:
        raise SpecError(error.found, expected=error.expected, remedy=error.remedy) from None


def describe_where(where: Mapping[str, Sequence[str]]) -> str:
    """A filter that was checked, for messages: ``site=berlin, season=fw26 or ss26``; of many values the first ones."""

    def describe_values(values: Sequence[str]) -> str:
        rest = len(values) - _MOST_VALUES
        return " or ".join([*values[:_MOST_VALUES], *([f"{rest} others"] if rest > 0 else [])])

    return ", ".join(f"{name}={describe_values(values)}" for name, values in where.items())


class AttributeSets(Sequence[Attributes]):
    """Distinct sets of attributes. An object never changes.

    Args:
        sets: each checked, none of them empty, each once.
    """

    def __init__(self, sets: Sequence[Attributes] = ()) -> None:
        self._sets = tuple(sets)

    def __len__(self) -> int:
        return len(self._sets)

    def __getitem__(self, index: Any) -> Any:
        return self._sets[index]

    @cached_property
    def code_of(self) -> dict[tuple[tuple[str, str], ...], int]:
        """The index of each set, by its sorted items."""
        return {tuple(attributes.items()): code for code, attributes in enumerate(self._sets)}

    @cached_property
    def codes_by_value(self) -> dict[str, dict[str, set[int]]]:
        """For each name and value the sets that have it."""
        codes: dict[str, dict[str, set[int]]] = {}
        for code, attributes in enumerate(self._sets):
            for name, value in attributes.items():
                codes.setdefault(name, {}).setdefault(value, set()).add(code)
        return codes

    def matching(self, where: Mapping[str, Sequence[str]]) -> list[int]:
        """Ascending indices of the sets that a filter lets pass: for every name they have one of its values.

        Raises:
            DataError: no set has an attribute of one of the names.
        """
        check_names(where, self.codes_by_value)
        parts = [
            set().union(*(self.codes_by_value[name].get(value, set()) for value in values))
            for name, values in where.items()
        ]
        return sorted(set.intersection(*parts))

    def extended(self, sets: Iterable[Attributes]) -> AttributeSets:
        """These sets and others behind them; the same object where there are no new ones.

        Raises:
            DataError: there would be more than ``MAX_SETS``.
        """
        new = {key: values for values in sets if (key := tuple(values.items())) not in self.code_of}
        check_set_count(len(self) + len(new))
        return AttributeSets((*self._sets, *new.values())) if new else self


def check_set_count(count: int) -> None:
    """Raise DataError for more distinct sets of attributes than a gallery may have."""
    if count > MAX_SETS:
        raise DataError(
            f"references with {count} different sets of attributes", expected=f"at most {MAX_SETS} in one gallery",
            remedy="give references attributes that groups of them share; what tells single ones apart is their name",
        )  # fmt: skip


def missing_values(where: Mapping[str, Sequence[str]], counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A sentence for each value of a filter that no reference has, with those that are there.

    Args:
        where: a filter that was checked, names included.
        counts: number of references by name and value.
    """
    sentences = []
    for name, values in where.items():
        there = list(counts[name])
        for value in values:
            if value not in counts[name]:
                more = f" and {len(there) - _MOST_VALUES} more" if len(there) > _MOST_VALUES else ""
                remedy = closest(value, there)
                sentences.append(
                    f"no reference has {name}={value}; there are {', '.join(there[:_MOST_VALUES])}{more}"
                    + (f"; {remedy}" if remedy else "")
                )
    return sentences


def check_names(where: Mapping[str, Any], names: Collection[str]) -> None:
    """Raise DataError for a filter with a name that is none of ``names``, those that references have."""
    for name in where:
        if name not in names:
            raise DataError(
                f"no reference has an attribute {describe(name)}",
                expected=", ".join(sorted(names)) or "references that were enrolled with attributes",
                remedy=closest(name, names),
            )


@dataclass(frozen=True, eq=False)
class ReferenceAttributes:
    """The attributes of each reference.

    Attributes:
        sets: distinct sets, each of some reference.
        codes_N: int32, index of each reference's set; -1 for a reference without attributes.
    """

    sets: AttributeSets
    codes_N: np.ndarray

    @classmethod
    def of(cls, attributes: Sequence[Attributes]) -> ReferenceAttributes | None:
        """Of checked attributes, one mapping a reference; None where none of them has any."""
        sets = AttributeSets().extended(each for each in attributes if each)
        if not len(sets):
            return None
        codes = [sets.code_of.get(tuple(each.items()), -1) for each in attributes]
        return cls(sets, np.array(codes, np.int32))

    def __getitem__(self, row: int) -> Attributes:
        code = int(self.codes_N[row])
        return NO_ATTRIBUTES if code < 0 else self.sets[code]

    def matching_rows(self, where: Mapping[str, Sequence[str]]) -> np.ndarray:
        """Ascending indices of the references that a filter lets pass. Raises DataError as of ``AttributeSets.matching``."""
        passes_S = np.zeros(len(self.sets) + 1, np.bool_)  # the last one is that of code -1
        passes_S[self.sets.matching(where)] = True
        return np.flatnonzero(passes_S[self.codes_N])

    def select(self, kept_M: np.ndarray) -> ReferenceAttributes | None:
        """Those of some references; None where none of them has any."""
        codes_M = self.codes_N[kept_M]
        set_codes = np.unique(codes_M[codes_M >= 0])
        if not len(set_codes):
            return None
        if len(set_codes) == len(self.sets):
            return ReferenceAttributes(self.sets, codes_M)
        new_code_S = np.full(len(self.sets) + 1, -1, np.int32)
        new_code_S[set_codes] = np.arange(len(set_codes))
        return ReferenceAttributes(AttributeSets([self.sets[code] for code in set_codes.tolist()]), new_code_S[codes_M])

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of references by name and value."""
        counts_S = np.bincount(self.codes_N[self.codes_N >= 0], minlength=len(self.sets)).tolist()
        return count_values(zip(self.sets, counts_S, strict=True))


def count_values(sets: Iterable[tuple[Attributes, int]]) -> dict[str, dict[str, int]]:
    """Number of references by name and value, both in order, from distinct sets with their numbers of references."""
    counts: dict[str, dict[str, int]] = {}
    for attributes, count in sets:
        for name, value in attributes.items():
            values = counts.setdefault(name, {})
            values[value] = values.get(value, 0) + count
    return {name: dict(sorted(counts[name].items())) for name in sorted(counts)}


def join_attributes(
    parts: Sequence[tuple[ReferenceAttributes | None, int]],
) -> ReferenceAttributes | None:
    """The attributes of references that follow one another: of each part, and its number of references.

    Raises:
        DataError: there are more than ``MAX_SETS`` different ones.
    """
    if all(attributes is None for attributes, _ in parts):
        return None
    sets, codes = AttributeSets(), []
    for attributes, count in parts:
        if attributes is None:
            codes.append(np.full(count, -1, np.int32))
            continue
        sets = attributes.sets if not len(sets) else sets.extended(attributes.sets)
        own_codes = (
            [sets.code_of[tuple(each.items())] for each in attributes.sets] if sets is not attributes.sets else []
        )
        new_code_S = np.array([*(own_codes or range(len(attributes.sets))), -1], np.int32)
        codes.append(new_code_S[attributes.codes_N])
    return ReferenceAttributes(sets, np.concatenate(codes))


def checked_attributes(attributes: Any, count: int) -> ReferenceAttributes | None:
    """The attributes of references that a caller gave: one mapping for all, or a list with one each.

    Raises:
        DataError: as of ``check_attributes``, or a list of another length.
    """
    if attributes is None:
        return None
    if isinstance(attributes, Mapping):
        return ReferenceAttributes.of([check_attributes(attributes)] * count)
    each = check_list("attributes", attributes, "a mapping of names to values")
    if len(each) != count:
        raise DataError(f"attributes of {len(each)} references for {count}", expected="as many, or one mapping for all")
    return ReferenceAttributes.of([check_attributes(NO_ATTRIBUTES if one is None else one) for one in each])


def read_attribute_sets(values: Any) -> AttributeSets:
    """Make sets of plain data. Raises what does not fit, to be named by ``blockfile.content_errors``."""
    sets = [check_attributes(each) for each in values]
    attribute_sets = AttributeSets(sets)
    if not all(sets) or len(attribute_sets.code_of) != len(sets):
        raise ValueError("the sets of attributes do not fit")
    return attribute_sets


def read_reference_attributes(values: Any, codes_N: np.ndarray, count: int) -> ReferenceAttributes | None:
    """Make the attributes of ``count`` references of plain data. Raises what does not fit, as ``read_attribute_sets``."""
    sets = read_attribute_sets(values)
    if codes_N.shape != (count,) or codes_N.dtype != np.int32:
        raise ValueError("the list of attributes does not fit")
    if count and not -1 <= codes_N.min() <= codes_N.max() < len(sets):
        raise ValueError("a set of attributes that is missing")
    return ReferenceAttributes(sets, codes_N).select(np.arange(count))
