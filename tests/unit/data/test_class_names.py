"""Names of classes: what is one, what a person may type, and which look alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unalike.data.class_names import (
    check_class_name,
    check_new_class_name,
    find_similar_names,
    hidden_sign,
    normalize_class_name,
)
from unalike.data.folders import ClassMap
from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.errors import DataError

NO_TEXTS = [
    None,
    float("nan"),
    1.5,
    3.0,
    True,
    b"a",
    ["a"],
    ("a",),
    {},
    1j,
    Path("a"),
    np.float64("nan"),
    np.bool_(True),
]
NOTHING_SEEN = [" ", "\t", "\n", "\u00a0", "\u200b", "\ufeff", "\u200b \u200d", "\u2028", "\u3164", "\u2800", "\ufe0f"]


@pytest.mark.parametrize("value", NO_TEXTS, ids=repr)
def test_what_is_no_text_is_no_name(value: object) -> None:
    for check in (normalize_class_name, check_class_name, check_new_class_name):
        with pytest.raises(DataError, match="a class name that is .*; expected a text"):
            check(value)


@pytest.mark.parametrize("value", NOTHING_SEEN, ids=ascii)
def test_a_name_shows_something(value: str) -> None:
    for check in (check_class_name, check_new_class_name):
        with pytest.raises(DataError, match="without a visible character"):
            check(value)
    with pytest.raises(DataError, match="an empty label"):
        check_class_name("")


@pytest.mark.parametrize("value", ["a b", "007", "👩\u200d🍳", "a\u200db", "\udcff", "名前", "-", "."], ids=ascii)
def test_what_people_call_their_classes_stays(value: str) -> None:
    assert check_new_class_name(value) == value


def test_numbers_of_numpy_and_python_are_texts() -> None:
    assert [check_class_name(value) for value in (7, np.int64(7), np.str_("7"))] == ["7"] * 3
    assert check_class_name("Mo\u0308hre") == "M\u00f6hre"


@pytest.mark.parametrize("value", ["a\x1b[2J", "a\nb", "a\tb", "a\u202eb", "a\u2028b", "\x00a"], ids=ascii)
def test_control_characters_are_for_names_that_exist(value: str) -> None:
    assert check_class_name(value) == value
    assert hidden_sign(value) in value
    with pytest.raises(DataError, match=r"with the character U\+"):
        check_new_class_name(value)


def test_names_that_look_alike() -> None:
    names = ["Cat", "cat", "CAT ", "c\u200bat", "dog", "ｄｏｇ", "Stra\u00dfe", "strasse", "bird", "a b", "a  b"]
    assert find_similar_names(names) == [
        ("Cat", "cat", "CAT ", "c\u200bat"), ("dog", "ｄｏｇ"), ("Stra\u00dfe", "strasse"), ("a b", "a  b"),
    ]  # fmt: skip
    assert find_similar_names(["cat"], ["Cat", "Dog", "dog"]) == [("cat", "Cat")]  # groups of others alone are theirs
    assert find_similar_names(["cat", "cat"]) == []


# ---- folders, tables and class maps ----


def write(folder: Path, *labels: str) -> Path:
    for number in range(len(labels)):
        (folder / f"{number}.png").touch()
    rows = [f'{number}.png,"{label}"' for number, label in enumerate(labels)]
    (folder / "t.csv").write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    return folder / "t.csv"


def test_classes_that_look_alike_are_said_and_stay(tmp_path: Path) -> None:
    notices = Notices()
    images = load_images(write(tmp_path, "Cat", "cat", "\u200bcat", "dog"), notices=notices)
    assert len(images.classes) == 4 and notices.counts["similar-classes"] == 1
    assert notices.names("similar-classes") == ("'Cat' and 'cat' and '\\u200bcat'",)
    for name in ("Cat", "cat"):
        (tmp_path / "folders" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "folders" / name / "0.png").touch()
    notices = Notices()
    if len(load_images(tmp_path / "folders", notices=notices).classes) == 2:
        assert notices.names("similar-classes") == ("'Cat' and 'cat'",)


@pytest.mark.parametrize("label", ["\u200b", "\x1b", "\u00a0\u200b"], ids=ascii)
def test_labels_of_tables_are_checked(tmp_path: Path, label: str) -> None:
    with pytest.raises(DataError, match="column 'label', row 2: a class name") as caught:
        load_images(write(tmp_path, "k", label), notices=Notices())
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)
    assert len(load_images(tmp_path / "t.csv", labeled=False, notices=Notices())) == 2  # where labels are not read


def test_a_table_may_name_the_classes_of_folders_and_galleries(tmp_path: Path) -> None:
    """The service writes tables of what its gallery holds, to train on."""
    images = load_images(write(tmp_path, "k", "photo\u202egnp.exe"), notices=Notices())
    assert set(images.classes) == {"k", "photo\u202egnp.exe"}


def test_a_class_map_gives_names_that_are_seen(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text('a: "\\u200b"\n', encoding="utf-8")
    with pytest.raises(DataError, match="class map .*: a: a class name without a visible character"):
        ClassMap.read(tmp_path / "map.yaml")
    (tmp_path / "map.yaml").write_text('a: "  "\nb: c\n', encoding="utf-8")
    assert ClassMap.read(tmp_path / "map.yaml").class_names(["a", "b"], Notices()) == {"a": "a", "b": "c"}
