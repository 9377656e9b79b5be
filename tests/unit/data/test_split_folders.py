"""Folders that are parts of a data set are named with the call that was meant; class folders are left alone."""

import pytest

from unalike.data.notices import Notices
from unalike.data.split_folders import notice_split_folders


def noticed(*names, for_training=True, root="my data/"):
    notices = Notices()
    notice_split_folders(root, [tuple(name.split("/")) for name in names], notices, for_training=for_training)
    return [(name, detail) for kind, name, detail in notices if kind == "split-folder"]


NESTED = ("train/mug/1.jpg", "train/cup/2.jpg", "Val/mug/3.jpg")


def test_parts_with_class_folders_name_the_training_that_was_meant():
    ((names, remedy),) = noticed(*NESTED)
    assert names == "train, Val in my data/"
    assert remedy.endswith(": unalike train 'my data/train' dataset.val_dataset.query='my data/Val'")
    ((_, remedy),) = noticed(*NESTED[:2], "test/bowl/4.jpg", root="d")
    assert remedy.endswith(": unalike train d/train dataset.val_dataset.reference=d/test")
    ((_, remedy),) = noticed("images/mug/1.jpg", "masks/mug/1.jpg", root="d")
    assert remedy.endswith(": unalike train d/images")


def test_elsewhere_the_folder_to_give_instead_is_named():
    ((_, remedy),) = noticed(*NESTED, for_training=False)
    assert remedy.endswith("give 'my data/train' in place of 'my data/'")
    ((_, remedy),) = noticed("images/1.jpg", for_training=False)
    assert remedy == "expected one folder a class"


def test_parts_without_class_folders_are_trained_on_without_labels():
    ((names, remedy),) = noticed("train/1.jpg", "val/2.jpg", root="d")
    assert (names, remedy) == ("train, val in d", "without class folders: unalike train d/train --no-labels")


@pytest.mark.parametrize(
    "names", [("mug/1.jpg", "cup/a/2.jpg"), ("test/1.jpg", "mug/2.jpg"), ("trainers/1.jpg",), ("train.jpg",)]
)
def test_class_folders_are_left_alone(names):
    assert noticed(*names) == []


GROUPS = ("Fruit/Apple/1.jpg", "Fruit/Pear/2.jpg", "Packages/Milk/3.jpg", "Packages/Oat/Bio/4.jpg")


def test_folders_of_class_folders_are_named_with_the_key_that_takes_the_inner_ones():
    for for_training, remedy in (
        (True, "unalike train 'my data/' dataset.class_from=leaf"),
        (False, "give one of them"),
    ):
        notices = Notices()
        notice_split_folders(
            "my data/", [tuple(name.split("/")) for name in GROUPS], notices, for_training=for_training
        )
        ((kind, name, detail),) = notices
        assert (kind, name) == ("folders-of-classes", "Fruit, Packages in my data/")
        assert detail.startswith(f"if the innermost folders are the classes: {remedy}")


@pytest.mark.parametrize("names", [
    ("mug/day 1/1.jpg", "mug/day 2/2.jpg", "cup/day 1/3.jpg", "cup/day 2/4.jpg"),  # the inner folders are series
    ("mug/a/1.jpg", "cup/b/2.jpg"),  # one folder in each
    (*GROUPS, "Fruit/5.jpg"),  # a class with images of its own
])  # fmt: skip
def test_classes_with_folders_in_them_are_left_alone(names):
    notices = Notices()
    notice_split_folders("d", [tuple(name.split("/")) for name in names], notices, for_training=True)
    assert not len(notices)
