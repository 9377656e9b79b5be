"""Splits of the benchmarks' data sets, on small folders in the layout of the real ones."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="only in the repository")
KNOWN = {"grocery-by-scene", "coins", "tile-defects", "board-defects"}
RECOGNITION = [
    "grocery-by-scene",
    "grocery-by-class",
    "grocery-by-picture",
    "coins",
    "tile-patches",
    "tile-defects",
    "board-defects",
]
NAMES = [*RECOGNITION, "cookies", "screws", "tiles", "boards", "screens"]


@pytest.fixture(scope="module")
def suite() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("suite")
    sys.path.remove(str(BENCHMARKS))


def save(path: Path, color: tuple[int, int, int], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), color).save(path, **options)


def write_grocery(root: Path) -> None:
    (root / "iconic").mkdir(parents=True)
    for label in range(8):
        save(root / f"iconic/class{label}_Iconic.jpg", (255, 255, 30 * label))
    (root / "classes.csv").write_text("name,id\n" + "".join(f"class{n},{n}\n" for n in range(8)))
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for label in range(8):
        for number in range(12):  # three scenes, five, four and three photographs, in no order
            scene = (number * 7 % 12 > 4) + (number * 7 % 12 > 8)
            path = f"train/Fruit/class{label}/{number:03d}.png"
            save(root / path, (60 + 60 * scene, 30 * label, 200 - 90 * scene + number % 3))
            lines["train"].append(f"{path}, {label}, 0")
        path = f"val/Fruit/class{label}/000.png"
        save(root / path, (255, 30 * label, 255))
        lines["val"].append(f"{path}, {label}, 0")
    for split, rows in lines.items():
        (root / f"{split}.txt").write_text("\n".join(rows) + "\n")


def write_coins(root: Path) -> None:
    counts = {
        1: (4, 1, 2),
        2: (4, 1, 2),
        3: (1, 5, 3),
        4: (1, 5, 3),
        5: (2, 2, 6),
        6: (3, 2, 6),
        7: (7, 1, 1),
        8: (7, 1, 1),
    }
    for photograph, of_class in counts.items():
        for name, count in zip(("1c", "1e", "2c"), of_class, strict=True):
            for coin in range(count):
                save(root / f"train/{name}/train_{photograph}_{coin}.jpg", (10 * photograph, 20 * coin, 0))


def write_tiles(root: Path) -> None:
    for number in range(24):
        for condition in (1, 2, 3):
            save(root / f"MT_Free/exp{condition}_num_{3000 * number + 1500 + 20 * condition}.jpg", (128, 128, 128))
            for label in ("Free", "Crack", "Fray"):
                stem = f"MT_{label}/exp{condition}_num_{3000 * number + 20 * condition}"
                save(root / f"{stem}.jpg", (128, 128, 128))
                mask = np.zeros((40, 40), np.uint8)
                if label != "Free" and number != 5:  # one empty mask was published
                    mask[10:14, 30:38] = 255
                Image.fromarray(mask).save(root / f"{stem}.png")


def write_boards(root: Path) -> None:
    for group in ("12100", "12300", "44000", "77000"):
        for number in range(3):
            folder = root / f"group{group}"
            save(folder / group / f"{number}_temp.jpg", (0, 0, 0))
            if number < 2:  # one template without a board was published
                save(folder / group / f"{number}_test.jpg", (0, 0, 0))
                (folder / f"{group}_not").mkdir(exist_ok=True)
                (folder / f"{group}_not" / f"{number}.txt").write_text("3 3 9 9 1\n90 80 100 90 4\n")


def write_cookies(root: Path) -> None:
    for folder, label, count in (("fit", "normal", 5), ("test/good", "test-normal", 8), ("test/broken", "anomaly", 8)):
        for number in range(count):
            exif = Image.Exif()
            exif.get_ifd(0x8769)[0x9003] = f"2022:08:11 17:{10 + number // 2:02d}:{2 * (number % 2):02d}"
            save(root / folder / f"{label}-{number}.jpg", (90, 60, 30), exif=exif)
    (root / "masks/broken").mkdir(parents=True)
    save(root / "masks/broken/anomaly-0.png", (255, 255, 255))


def write_screws(root: Path) -> None:
    for folder, first in (("fit", 1), ("test/good", 9), ("test/hole", 9), ("spare/hole", 1)):
        for photograph in range(first, first + 8):
            for crop in range(2):
                save(root / folder / f"{photograph}_{crop + 2 * folder.endswith('hole')}.jpg", (1, 2, 3))


def write_screens(root: Path) -> None:
    for number in range(1, 8):
        for kind in ("a", "b", "diff"):
            save(root / f"{number}{kind}.png", (number, 0, 0))
    save(root / "8a.png", (8, 0, 0))
    save(root / "8diff.png", (8, 0, 0))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("suite")
    write_grocery(root / "grocery")
    write_coins(root / "coins")
    write_tiles(root / "magnetic-tile")
    write_boards(root / "deeppcb")
    write_cookies(root / "cookies")
    write_screws(root / "screws")
    write_screens(root / "screens")
    return root


@pytest.fixture(scope="module")
def sets(suite: ModuleType, data: Path) -> dict[str, Any]:
    loaded, missing = suite.load_suite(data, data / "cache", NAMES)
    assert not missing
    return dict(loaded)


@pytest.mark.parametrize("name", NAMES)
def test_parts_share_no_image_and_no_series(sets: dict[str, Any], name: str) -> None:
    parts = {key: part for key, part in sets[name].parts().items() if len(part)}
    if name in KNOWN:  # one reference for all
        parts = {key: part for key, part in parts.items() if not key.endswith("reference")}
    assert all(len(set(part.paths)) == len(part) for part in parts.values())
    for (first, part), (second, other) in combinations(parts.items(), 2):
        assert not set(part.paths) & set(other.paths), (first, second)
        if name == "tile-patches" and first.split()[0] == second.split()[0]:
            continue  # the same place on the same tile is what is asked for
        # Good and defective images of one series may both be learnt from.
        assert not set(part.groups) & set(other.groups) or (first, second) == ("fit", "defects"), (first, second)


@pytest.mark.parametrize("name", RECOGNITION)
def test_queries_are_of_referenced_classes_and_new_ones_are_not_trained_on(sets: dict[str, Any], name: str) -> None:
    data_set = sets[name]
    for lookup in (data_set.development, data_set.report):
        assert len(lookup.query)
        assert set(lookup.query.label_names()) <= set(lookup.reference.classes)
    if name not in KNOWN:
        new = set(data_set.development.query.classes) | set(data_set.report.query.classes)
        assert not new & set(data_set.fit.classes)
        assert not set(data_set.development.reference.classes) & set(data_set.report.reference.classes)


def test_scenes_that_are_reported_on_are_in_no_other_part(sets: dict[str, Any]) -> None:
    reported = set(sets["grocery-by-scene"].report.query.paths)
    for key, part in sets["grocery-by-class"].parts().items():
        assert not reported & set(part.paths) or key == "report query"


def test_one_picture_is_the_reference_of_all_photographs(sets: dict[str, Any]) -> None:
    by_picture, by_class = sets["grocery-by-picture"], sets["grocery-by-class"]
    for lookup, other in ((by_picture.development, by_class.development), (by_picture.report, by_class.report)):
        assert {path.parent.name for path in lookup.reference.paths} == {"iconic"}
        assert len(lookup.reference) == len(lookup.reference.classes)
        assert set(lookup.query.paths) == set(other.reference.paths) | set(other.query.paths)


def test_patches_are_asked_under_another_light(sets: dict[str, Any]) -> None:
    patches = sets["tile-patches"]
    for lookup in (patches.development, patches.report):
        assert {path.name[:4] for path in lookup.query.paths} == {"exp3"}
        assert {path.name[:4] for path in lookup.reference.paths} == {"exp1", "exp2"}
        assert len(lookup.reference) == 2 * len(lookup.query)
    boxes = {path.name.partition("#")[2] for path in patches.fit.paths}
    assert boxes == {"0,0,20,20", "20,0,20,20", "0,20,20,20", "20,20,20,20"}


def test_scenes_are_found_by_color(sets: dict[str, Any]) -> None:
    query = sets["grocery-by-scene"].report.query
    assert len(query) and len(query.classes) == 8
    for group in set(query.groups):
        paths = [path for path, own in zip(query.paths, query.groups, strict=True) if own == group]
        assert len({Image.open(path).getpixel((0, 0))[0] for path in paths}) == 1


def test_the_third_condition_and_the_other_boards_are_reported_on_alone(sets: dict[str, Any]) -> None:
    tiles, boards = sets["tiles"], sets["boards"]
    assert {part: any("exp3" in path.name for path in images.paths) for part, images in tiles.parts().items()} == {
        "fit": False, "defects": False, "development": False, "report": True,
    }  # fmt: skip
    assert set(tiles.fit.classes) == {"good"} and set(tiles.development.classes) == {"good", "Crack", "Fray"}
    assert {pair.group for pair in boards.report} == {"12100"} and len(boards.report) == 2
    assert all(mask.exists() for mask in tiles.masks.values()) and not any("num_15" in p.name for p in tiles.masks)


def test_crops_are_regions_of_images(sets: dict[str, Any]) -> None:
    crops = sets["tile-defects"].fit.paths
    assert {path.name.partition("#")[2] for path in crops} == {"10,0,30,36"}
    assert {path.name.partition("#")[2] for path in sets["board-defects"].fit.paths} == {"0,0,64,64", "63,53,64,64"}


def test_screens_that_share_a_picture_stay_together(sets: dict[str, Any]) -> None:
    screens = sets["screens"]
    pairs = [*screens.development, *screens.report]
    assert len(pairs) == 8 and all(pair.image.exists() for pair in pairs)
    group = next(pair.group for pair in pairs if pair.reference.name == "8a.png")
    part = screens.development if any(pair.group == group for pair in screens.development) else screens.report
    assert [pair.reference.name for pair in part if pair.group == group] == ["5a.png", "8a.png"]


def test_missing_sources_are_named_and_left_out(suite: ModuleType, tmp_path: Path) -> None:
    write_screens(tmp_path / "screens")
    loaded, missing = suite.load_suite(tmp_path, tmp_path, NAMES)
    assert list(loaded) == ["screens"] and set(missing) == set(NAMES) - {"screens"}
    assert str(tmp_path / "coins") in missing["coins"]
    with pytest.raises(suite.DataError, match="no set 'coin'"):
        suite.load_suite(tmp_path, tmp_path, ["coin"])


def test_groups_are_distributed_by_seed_and_share(suite: ModuleType) -> None:
    split_groups = importlib.import_module("data_sets").split_groups
    rows = [(Path(f"{group}-{n}"), "ab"[n % 2], f"{group}") for group in range(40) for n in range(4)]
    shares = {"fit": 0.5, "development": 0.25, "report": 0.25}
    parts = split_groups(rows, shares)
    assert {name: len(part) for name, part in parts.items()} == {"fit": 80, "development": 40, "report": 40}
    assert split_groups(rows[::-1], shares).keys() == parts.keys()
    assert all(set(split_groups(rows[::-1], shares)[name]) == set(part) for name, part in parts.items())
    assert set(split_groups(rows, shares, seed=1)["fit"]) != set(parts["fit"])


def test_splits_are_checked_by_digest(
    suite: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "DIGESTS", tmp_path / "suite.json")
    line = ["suite.py", "--data", str(data), "--only", "coins,screws"]
    monkeypatch.setattr(sys, "argv", [*line, "--pin"])
    suite.main()
    monkeypatch.setattr(sys, "argv", [*line, "--check"])
    with pytest.raises(SystemExit) as outcome:
        suite.main()
    assert outcome.value.code == 0 and "2 sets as in suite.json" in capsys.readouterr().out
    pinned = json.loads((tmp_path / "suite.json").read_text())
    pinned["coins"]["fit"][1] = "0" * 64
    (tmp_path / "suite.json").write_text(json.dumps(pinned))
    with pytest.raises(SystemExit) as outcome:
        suite.main()
    assert outcome.value.code == 1 and "differ from suite.json: coins" in capsys.readouterr().out


def test_the_pinned_splits_are_complete(suite: ModuleType) -> None:
    pinned = json.loads(suite.DIGESTS.read_text(encoding="utf-8"))
    assert set(pinned) == set(suite.NAMES)
    assert all(count and len(digest) == 64 for name, parts in pinned.items() for part, (count, digest) in parts.items()
               if (name, part) != ("cookies", "defects"))  # fmt: skip
