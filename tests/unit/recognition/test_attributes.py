"""Attributes of references: checks, distinct sets, selection, joining, and filters against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.errors import DataError, SpecError
from unalike.recognition import attributes as module
from unalike.recognition.attributes import (
    Attributes,
    AttributeSets,
    ReferenceAttributes,
    check_attributes,
    check_columns,
    check_where,
    describe_where,
    join_attributes,
    missing_values,
    parse_attributes,
    parse_where,
    read_reference_attributes,
)
from unalike.recognition.gallery import Gallery


def draw(count: int, seed: int) -> list[Attributes]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        values = {name: str(rng.integers(3)) for name in ("line", "site") if rng.random() < 0.6}
        rows.append(check_attributes(values))
    return rows


def listed(attributes: ReferenceAttributes | None, count: int) -> list[Attributes]:
    return [{}] * count if attributes is None else [attributes[row] for row in range(count)]


def test_attributes_are_put_into_one_form() -> None:
    assert list(check_attributes({"site": " Ko\u0308ln ", "line": "7"}).items()) == [("line", "7"), ("site", "Köln")]
    assert check_where({"site": "a", "line": {"2", "1", "1 "}}) == {"site": ("a",), "line": ("1", "2")}
    assert check_where(None) is None and check_where({}) is None
    assert describe_where({"site": ("a", "b"), "line": ("1",)}) == "site=a or b, line=1"
    many = tuple(str(number) for number in range(1000))
    assert check_where({"site": many}) == {"site": tuple(sorted(many, key=repr))}
    assert describe_where({"site": many}) == "site=0 or 1 or 2 or 3 or 4 or 5 or 6 or 7 or 8 or 9 or 990 others"
    for where, text in (({"site": [*many, "1000"]}, "1001 values"), ({f"n{n}": "a" for n in range(17)}, "17 names")):
        with pytest.raises(DataError, match=text):
            check_where(where)


def test_distinct_sets_are_kept_once_and_select_and_join_as_lists_do() -> None:
    first, second, rng = draw(40, 0), draw(30, 1), np.random.default_rng(2)
    one, two = ReferenceAttributes.of(first), ReferenceAttributes.of(second)
    assert one is not None and len(one.sets) == len({tuple(each.items()) for each in first if each}) <= 15
    joined = join_attributes([(one, 40), (None, 5), (two, 30)])
    assert listed(joined, 75) == [*first, *[{}] * 5, *second]
    assert joined is not None and len(joined.sets) == len({tuple(each.items()) for each in first + second if each})
    kept = np.sort(rng.choice(75, 6, replace=False))
    part = joined.select(kept)
    assert listed(part, 6) == [listed(joined, 75)[row] for row in kept]
    assert part is not None and all((part.codes_N == code).any() for code in range(len(part.sets)))
    assert joined.select(np.arange(40, 45)) is None and join_attributes([(None, 3), (None, 2)]) is None
    assert ReferenceAttributes.of([{}, {}]) is None


def test_filters_and_counts_equal_a_plain_loop() -> None:
    rows = draw(60, 3)
    attributes = ReferenceAttributes.of(rows)
    assert attributes is not None
    for where in ({"site": ("0",)}, {"site": ("0", "2"), "line": ("1",)}, {"line": ("9",)}, {"line": ("0", "9")}):
        passing = [n for n, own in enumerate(rows) if all(own.get(name) in values for name, values in where.items())]
        assert attributes.matching_rows(where).tolist() == passing
    assert attributes.counts() == {
        name: {value: sum(row.get(name) == value for row in rows) for value in "012"} for name in ("line", "site")
    }


def test_an_enrollment_without_new_sets_shares_the_old_ones() -> None:
    sets = AttributeSets([{"site": "a"}])
    assert sets.extended([{"site": "a"}]) is sets and len(sets.extended([{"site": "b"}])) == 2


def test_too_many_different_sets_are_refused_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SETS", 3)
    gallery, vectors = Gallery(4), np.eye(4)
    gallery.enrol(vectors[:2], ["a", "b"], None, [{"number": "0"}, {"number": "1"}])
    for attributes in ([{"number": "2"}, {"number": "3"}], [{"number": f"{number}"} for number in range(5, 9)]):
        with pytest.raises(DataError, match="at most 3 in one gallery"):
            gallery.enrol(np.ones((len(attributes), 4)), ["c"] * len(attributes), None, attributes)
    assert (len(gallery), gallery.classes, gallery.attributes()) == (2, ["a", "b"], {"number": {"0": 1, "1": 1}})
    gallery.remove(["a"])
    assert gallery.enrol(vectors[:2], ["c", "c"], None, [{"number": "2"}, {"number": "3"}]) == [2, 3]


def test_what_a_file_may_not_hold() -> None:
    codes_N = np.array([0, -1], np.int32)
    read = read_reference_attributes([{"site": "a"}], codes_N, 2)
    assert listed(read, 2) == [{"site": "a"}, {}]
    for sets, codes in (
        ([{"site": "a"}, {"site": "a"}], codes_N),
        ([{}], codes_N),
        ([{"Site": "a"}], codes_N),
        ([], codes_N),
        ([{"site": "a"}], codes_N[:1]),
        ([{"site": "a"}], codes_N.astype(np.int64)),
        ([{"site": "a"}], codes_N - 1),
    ):
        with pytest.raises((ValueError, DataError)):
            read_reference_attributes(sets, codes, 2)


def test_texts_of_a_command_line_are_read() -> None:
    assert parse_where(["site=a", "line=1", "site=b=c"]) == {"site": ("a", "b=c"), "line": ("1",)}
    assert parse_where([]) is None and parse_where(None) is None
    assert parse_attributes(["site=x", "line= 2 "]) == {"line": "2", "site": "x"} and parse_attributes(None) == {}
    for texts in (["site"], ["site=x", "site=y"], ["=x"], ["site="]):
        with pytest.raises(SpecError):  # a mistake in the call: exit code 2
            parse_attributes(texts)
    with pytest.raises(SpecError, match="the attribute site is empty"):
        parse_where(["site="])
    assert check_columns(["site", "line", "site"]) == ("site", "line") and check_columns(None) == ()
    with pytest.raises(SpecError, match="name it shelf_no"):
        check_columns(["Shelf No"])
    with pytest.raises(SpecError, match="--attribute site=berlin is for all images"):
        check_columns(["site=berlin"])


def test_blanks_and_letters_of_all_scripts_are_taken_and_what_is_not_seen_is_refused() -> None:
    """Japanese is typed with U+3000, spreadsheets hold U+00A0, Persian and emoji are joined by invisible characters."""
    values = {
        "東京\u3000支店": "東京 支店", "Halle\u00a07": "Halle 7", "\u2003a\u2009b ": "a b", "می\u200cخواهم": "می\u200cخواهم",
        "\U0001f468\u200d\U0001f33e": "\U0001f468\u200d\U0001f33e", "\U0001fae9": "\U0001fae9", "\ue000 logo": "\ue000 logo",
    }  # fmt: skip
    for written, kept in values.items():
        assert check_attributes({"site": written}) == {"site": kept}
        assert check_where({"site": written}) == {"site": (kept,)} and check_attributes({"site": kept}) == {
            "site": kept
        }
    for hidden in (
        "a\u200b",
        "\ufeffa",
        "a\u00adb",
        "a\u202eb",
        "a\nb",
        "a\x00",
        "a\u2028b",
        "a\ud800",
        "\u200d",
        "\u3164",
    ):
        with pytest.raises(DataError, match="without control or invisible characters"):
            check_attributes({"site": hidden})


def test_values_that_no_reference_has_are_named_with_those_there_are() -> None:
    counts = {"line": {str(n): 1 for n in range(12)}, "site": {"Zürich": 2, "berlin": 1}}
    assert missing_values({"site": ("berlin",), "line": ("3",)}, counts) == []
    assert missing_values({"site": ("Berlin", "berlin"), "line": ("x",)}, counts) == [
        "no reference has site=Berlin; there are Zürich, berlin; did you mean 'berlin'?",
        "no reference has line=x; there are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more",
    ]
