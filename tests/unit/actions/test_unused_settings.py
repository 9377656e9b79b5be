"""Settings that a way of training does not use are named, where the user changed them."""

from __future__ import annotations

import pytest

from unalike.actions.unused_settings import (
    AUTOMATIC,
    PLAIN,
    SEARCH,
    UNLABELED,
    UNUSED,
    UNUSED_BY_ACTION,
    say_unused,
    say_unused_overrides,
)
from unalike.spec import load_spec
from unalike.spec.fields import declared_fields


def test_the_fields_exist() -> None:
    leaves = {path for path, node in declared_fields().items() if node.section is None}
    for unused in UNUSED.values():
        assert set(unused.fields) <= leaves
    assert {field for fields in UNUSED_BY_ACTION.values() for field in fields} <= set(declared_fields())


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


def test_overrides_of_another_action_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    used = ["inference.topk=3", "dataset.max_pixels=1000", "model.input_width=32", "results_dir=out"]
    unused = ["train.num_epochs=3", "evaluate.topk=2", "dataset.val_dataset.query=x", "model.pretrained=true", "wandb.enable=true",
              "dataset.crop.scale=[0.5, 1.0]", "train.loss.parameters.margin=0.1", "automl_policy=auto", "mlflow.run_name=a"]  # fmt: skip
    say_unused_overrides(load_spec("inference", None, [*used, *unused]), "inference")
    text = capsys.readouterr().err
    assert text.startswith("settings that are not used by inference: ")
    assert sorted(text.partition(": ")[2].strip().split(", ")) == sorted(line.partition("=")[0] for line in unused)
    # One spec file may serve several actions; short names and mappings are overrides too; of values only those that differ.
    say_unused_overrides(load_spec("inference", {"train": {"num_epochs": 3}}, used), "inference")
    say_unused_overrides(load_spec("inference", None, ["dataset.prob=0.5"]), "inference")
    say_unused_overrides(load_spec("evaluate", None, ["mlflow.run_name=a"]), "evaluate")
    assert not capsys.readouterr().err
    say_unused_overrides(load_spec("gen_engine", None, {"num_epochs": 3, "train": {"seed": 2}}), "gen_engine")
    assert "not used by gen_engine: train.num_epochs, train.seed\n" in capsys.readouterr().err
