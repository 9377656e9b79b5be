"""Splits of the benchmarks' sets of drawings, on small packages in the layout of the real ones."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from tests.support.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="only in the repository")
NAMES = ["emoji-by-maker", "emoji-by-class", "icons", "flags"]
SQUARE = '<path fill="currentColor" d="M2 2h12v12H2z"/>'


@pytest.fixture(scope="module")
def suite() -> Iterator[ModuleType]:
    pytest.importorskip("resvg_py")
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("suite")
    sys.path.remove(str(BENCHMARKS))


def write_package(folder: Path, names: list[str], **content: Any) -> None:
    folder.mkdir(parents=True)
    icons = {name: {"body": SQUARE} for name in names}
    (folder / "icons.json").write_text(json.dumps({"icons": icons, "width": 16, "height": 16, **content}))
    (folder / "package.json").write_text(json.dumps({"version": "1.2.3"}))


@pytest.fixture(scope="module")
def sets(suite: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    drawn = importlib.import_module("drawn_sets")
    root = tmp_path_factory.mktemp("drawings")
    for prefix in drawn.EMOJI:
        names = [f"thing{n}" for n in range(20)] + ["flag-norway", "hand-light-skin-tone", f"of-{prefix}"]
        write_package(root / "icons" / prefix, names)
    for prefix, pattern in drawn.ICON_NAMES.items():
        names = [pattern.replace("(.+)", f"icon{n}") for n in range(8)] + ([] if prefix in "mdi ph bi" else ["rare-x"])
        write_package(root / "icons" / prefix, names)
    for prefix, pattern in drawn.FLAG_NAMES.items():
        codes = ["ad", "be", "cy", "de", "ee", "fi", "gr", "hu", *(["xx"] if prefix == "cif" else [])]
        write_package(root / "icons" / prefix, [pattern.replace("([a-z]{2})", code) for code in codes])
    shares = {"by maker": 8, "fit": 6, "development": 3, "report": 3}
    patch = pytest.MonkeyPatch()
    patch.setattr(drawn, "EMOJI_SHARES", shares)
    loaded, missing = suite.load_suite(root, root / "cache", NAMES)
    patch.undo()
    assert not missing
    return dict(loaded)


@pytest.mark.parametrize("name", ["emoji-by-class", "icons", "flags"])
def test_new_classes_are_in_one_part(sets: dict[str, Any], name: str) -> None:
    data_set = sets[name]
    classes = [set(part.classes) for part in (data_set.fit, data_set.development.reference, data_set.report.reference)]
    assert all(classes) and sum(map(len, classes)) == len(set.union(*classes))
    for lookup in (data_set.development, data_set.report):
        assert set(lookup.query.classes) == set(lookup.reference.classes)
        makers = [{path.parent.name for path in part.paths} for part in (lookup.reference, lookup.query)]
        assert makers[0] and makers[1] and not makers[0] & makers[1]


def test_known_emoji_are_asked_in_the_drawings_of_another_maker(sets: dict[str, Any]) -> None:
    data_set = sets["emoji-by-maker"]
    makers = [{path.parent.name.removesuffix("-1.2.3") for path in part.paths}
              for part in (data_set.fit, data_set.development.query, data_set.report.query)]  # fmt: skip
    assert makers[1:] == [{"openmoji"}, {"fluent-emoji-flat"}] and not makers[0] & {
        *makers[1],
        *makers[2],
        "fluent-emoji",
    }
    assert len(data_set.fit) == 8 * 5 and len(data_set.development.query) == len(data_set.report.query) == 8


def test_the_two_sets_of_emoji_share_none(sets: dict[str, Any]) -> None:
    by_maker = set(sets["emoji-by-maker"].fit.classes)
    by_class = set().union(*(part.classes for part in sets["emoji-by-class"].parts().values()))
    assert not by_maker & by_class and len(by_maker | by_class) == 20
    assert all(label.startswith("thing") for label in by_maker | by_class)


def test_icons_and_flags_are_those_of_enough_makers(sets: dict[str, Any]) -> None:
    icons = set().union(*(part.classes for part in sets["icons"].parts().values()))
    assert {label for label in icons if label.startswith("icon")} == {f"icon{n}" for n in range(8)}
    assert "xx" not in set().union(*(part.classes for part in sets["flags"].parts().values()))
    assert {path.stem for path in sets["flags"].fit.paths if path.parent.name == "flag-1.2.3"} <= {
        f"{code}-4x3" for code in ("ad", "be", "cy", "de", "ee", "fi", "gr", "hu")
    }


def test_drawings_are_dark_on_white_and_named_for_their_version(sets: dict[str, Any]) -> None:
    path = sets["icons"].fit.paths[0]
    assert path.parent.name.endswith("-1.2.3")
    with Image.open(path) as image:
        assert image.size == (160, 160) and image.mode == "RGB"
        assert image.getpixel((2, 2)) == (255, 255, 255) and image.getpixel((80, 80)) == (32, 32, 32)


def test_aliases_are_followed_where_they_change_nothing(suite: ModuleType, tmp_path: Path) -> None:
    drawn = importlib.import_module("drawn_sets")
    aliases = {"same": {"parent": "one"}, "mirrored": {"parent": "one", "hFlip": True}, "lost": {"parent": "none"}}
    write_package(tmp_path / "noto", ["one"], aliases=aliases)
    family = drawn.read_family(tmp_path / "noto")
    assert set(family.drawings) == {"one", "same"} and family.drawings["same"] == family.drawings["one"]
    with pytest.raises(suite.DataError, match="npm pack @iconify-json/twemoji"):
        drawn.read_family(tmp_path / "twemoji")
