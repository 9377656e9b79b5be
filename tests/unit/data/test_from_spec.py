"""Which images an action works on: what is kept for measuring is never learnt."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unalike.data.from_spec import load_evaluation_sets, load_training_sets
from unalike.data.notices import Notices
from unalike.errors import DataError, SpecError
from unalike.spec import load_spec


@pytest.fixture
def table(tmp_path):
    """A function that writes a manifest of (class, split) rows over freshly made images."""

    def write(rows, name="table.csv"):
        (tmp_path / "images").mkdir(exist_ok=True)
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "split", "group"])
            for number, (label, split, *group) in enumerate(rows):
                path = tmp_path / "images" / f"{name}-{number}.png"
                Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)
                writer.writerow([str(path), label, split, *(group or [""])])
        return tmp_path / name

    return write


def sets_of(data, **dataset):
    return load_training_sets(load_spec("train", {"dataset": {"train_dataset": str(data), **dataset}}), Notices())


def rows(classes, split, count=3):
    return [(c, split) for c in classes for _ in range(count)]


def test_test_rows_of_a_manifest_are_never_trained_on(table):
    data = table([*rows("abcdef", "train"), *rows("abcdef", "test")])
    sets = sets_of(data)
    held = set(sets.train.paths) | set(sets.reference.paths) | set(sets.query.paths)
    assert len(held) == 18 and all(int(p.stem.rsplit("-", 1)[1]) < 18 for p in held)


@pytest.mark.parametrize("query_name", ["val", "query", "valid", "validation"])
def test_a_split_column_gives_train_reference_and_query(table, query_name):
    data = table([*rows("ab", "train"), *rows("cd", "reference"), *rows("cd", query_name)])
    sets = sets_of(data)
    assert (len(sets.train), len(sets.reference), len(sets.query)) == (6, 6, 6)
    assert sets.unseen and sets.train.classes == ("a", "b")


def test_without_reference_rows_the_training_rows_serve(table):
    sets = sets_of(table([*rows("ab", "train"), *rows("ab", "val")]))
    assert len(sets.reference) == 6 and set(sets.reference.paths) == set(sets.train.paths) and not sets.unseen


def test_a_split_column_without_training_rows_is_an_error(table):
    with pytest.raises(DataError, match="no row has the split 'train'"):
        sets_of(table(rows("ab", "val")))


def test_one_manifest_for_both_sides_is_taken_apart_by_its_splits(table):
    data = str(table([*rows("ab", "train"), *rows("cd", "reference", 2), *rows("cd", "val")]))
    spec = load_spec("evaluate", {"dataset": {"val_dataset": {"reference": data, "query": data}}})
    reference, query = load_evaluation_sets(spec, Notices())
    assert (len(reference), len(query)) == (4, 6) and not set(reference.paths) & set(query.paths)


def test_d18_sides_without_a_common_class_are_refused_before_training(table):
    reference, query = str(table(rows("ab", ""), "r.csv")), str(table(rows("cd", ""), "q.csv"))
    with pytest.raises(DataError, match=r"r\.csv.*q\.csv.*no class in common"):
        sets_of(reference, val_dataset={"reference": reference, "query": query})


def test_an_only_set_of_single_images_cannot_be_its_own_reference(table):
    data = str(table([(c, "") for c in "abc"]))
    with pytest.raises(DataError, match="one image a class"):
        sets_of(data, val_dataset={"reference": data})


def test_nothing_named_is_a_spec_error():
    with pytest.raises(SpecError, match="train_dataset"):
        load_training_sets(load_spec("train", {"model": {"feat_dim": 8}}), Notices())


def test_without_a_second_image_training_goes_on_without_validation(table, capsys):
    sets = sets_of(table([(c, "") for c in "abcdef"]))
    assert len(sets.train) == 6 and sets.query is None and "nothing could be measured" in capsys.readouterr().err


def test_few_classes_that_can_teach_are_validated_by_image(table):
    sets = sets_of(table([*rows("ab", ""), *[(c, "") for c in "cdefgh"]]))
    assert sets.query is not None and len(sets.train) + len(sets.query) == 12 and not sets.unseen


def test_groups_are_kept_whole_where_validation_is_not_by_group(table, capsys):
    series = [(c, "", f"{c}{number}") for c in "abcdefgh" for number in (0, 1) for _ in range(3)]
    sets = sets_of(table(series))
    assert sets.unseen and not set(sets.reference.groups) & set(sets.query.groups)
    few = sets_of(table(series[:12], "few.csv"))
    assert few.query is not None and not set(few.train.groups) & set(few.query.groups)
    assert "groups have images" not in capsys.readouterr().err
    sets_of(table(series, "by image.csv"), validation={"by": "image"})
    assert "groups have images among the queries and among what is trained on" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["class", "image", "none"])
def test_one_class_is_refused_before_anything_is_computed(table, by):
    with pytest.raises(DataError, match="all images are of one class, 'a'; expected two classes or more.*inspect fit"):
        sets_of(table([("a", "")] * 9), validation={"by": by})


def test_classes_of_query_and_reference_that_look_alike_are_said(tmp_path: Path) -> None:
    for side, name in (("reference", "Cat"), ("query", "cat"), ("reference", "dog"), ("query", "dog")):
        for number in range(2):
            (tmp_path / side / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / side / name / f"{number}.png").touch()
    spec = load_spec("evaluate", {"dataset": {"val_dataset": {s: str(tmp_path / s) for s in ("reference", "query")}}})
    notices = Notices()
    load_evaluation_sets(spec, notices)
    assert notices.names("similar-classes") == ("'Cat' and 'cat'",)
    shutil.rmtree(tmp_path / "query" / "dog")
    with pytest.raises(
        DataError, match="differ in case, blanks or invisible characters: 'cat' and 'Cat'|'Cat' and 'cat'"
    ):
        load_evaluation_sets(spec, Notices())
