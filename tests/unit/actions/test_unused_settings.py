"""Settings that a way of training does not use are named, where the user changed them."""

from __future__ import annotations

import pytest

from unalike.actions.unused_settings import AUTOMATIC, PLAIN, SEARCH, UNLABELED, UNUSED, say_unused
from unalike.spec import load_spec
from unalike.spec.fields import declared_fields


def test_the_fields_exist() -> None:
    leaves = {path for path, node in declared_fields().items() if node.section is None}
    for unused in UNUSED.values():
        assert set(unused.fields) <= leaves


def test_settings_that_are_not_used_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    spec = load_spec(
        "train",
        overrides=[
            "dataset.validation.fraction=0.4", "train.validation_interval=1", "train.val_batch_size=9",
            "automl.goal=known-classes", "automl.seed=3", "automl.study=mine",
        ],
    )  # fmt: skip
    validation = {"dataset.validation.fraction", "train.val_batch_size"}
    for mode, names in (
        (PLAIN, {"automl.goal", "automl.seed", "automl.study"}),
        (AUTOMATIC, validation | {"automl.study"}),
        (UNLABELED, validation | {"automl.goal", "automl.seed", "automl.study"}),
        (SEARCH, {"automl.goal"}),
    ):
        say_unused(spec, mode)
        text = capsys.readouterr().err
        assert mode in text and set(text.partition(": ")[2].partition(" (")[0].split(", ")) == names
    # What is set to its default is no loss.
    say_unused(load_spec("train", overrides=["dataset.validation.fraction=0.2"]), AUTOMATIC)
    assert not capsys.readouterr().err
