"""Every row of TAO's field table against the declarations and the packaged schemas.

``tao_spec.tsv`` holds facts about TAO 7.3's ``ml_recog``: ``<none>`` is null, ``???`` mandatory, ``collection`` a section.
"""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from unalike.spec import Experiment, load_spec, schema_for
from unalike.spec.actions import TAO_ACTIONS as ACTIONS
from unalike.spec.automl import SPELLINGS
from unalike.spec.fields import declared_fields

ROWS = list(csv.DictReader((Path(__file__).parent / "tao_spec.tsv").open(), delimiter="\t", quoting=csv.QUOTE_NONE))
LEAVES = [row for row in ROWS if row["type"] != "collection"]
KINDS = {"int": int, "float": float, "bool": bool, "string": str}
FIFTEEN = {f"train.optim.{n}" for n in ("gamma", "warmup_factor", "warmup_iters", "triplet_loss_margin",
                                        "miner_function_margin")} | {
    f"train.optim.{part}.{n}" for part in ("trunk", "embedder")
    for n in ("base_lr", "bias_lr_factor", "momentum", "weight_decay", "weight_decay_bias")
}  # fmt: skip

schema = cache(schema_for)


def at(tree: Any, path: str) -> Any:
    for part in path.split("."):
        tree = tree[part]
    return tree


def test_table_is_whole() -> None:
    assert len(ROWS) == 145
    assert len(LEAVES) == 127


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["path"])
def test_row_is_declared(row: dict[str, str]) -> None:
    declared = declared_fields()[row["path"]]
    assert declared.info.description
    assert not declared.facts.get("ours")
    if row["type"] == "collection":
        assert declared.section
        return
    if row["type"] in KINDS:
        assert declared.kind is KINDS[row["type"]]
    elif row["type"].startswith("list"):
        assert get_origin(declared.kind) is list
        assert declared.facts["automl_enabled"] is False
    if row["enum"]:
        words = get_args(declared.kind) if get_origin(declared.kind) is Literal else declared.facts["anyOf"][0]["enum"]
        assert set(json.loads(row["enum"])) <= set(words)
    if row["automl_enabled"]:
        assert declared.facts["automl_enabled"] is (row["automl_enabled"] == "True")
    else:
        assert "automl_enabled" not in declared.facts
    assert declared.facts.get("math_cond", "") == row["math_cond"]
    assert declared.facts.get("depends_on", "") == row["depends_on"]
    assert bool(declared.facts.get("parent_param")) == (row["parent_param"].lower() == "true")
    assert bool(declared.facts.get("popular")) == bool(row["popular"])


@pytest.mark.parametrize("row", LEAVES, ids=lambda row: row["path"])
def test_default_is_taos(row: dict[str, str]) -> None:
    if row["default"] in ("", "<none>", "???"):
        expected = None
    elif row["type"] in ("string", "categorical"):
        expected = row["default"]
    else:
        expected = json.loads(row["default"])
    assert at(Experiment().to_dict(), row["path"]) == expected


@pytest.mark.parametrize("row", LEAVES, ids=lambda row: row["path"])
def test_default_may_be_written_by_the_user(row: dict[str, str]) -> None:
    """A spec that TAO wrote, with every field in it, loads."""
    value: Any = row["default"]
    if value == "<none>":
        value = None
    elif row["type"] not in ("string", "categorical") and value not in ("", "???"):
        value = json.loads(value)
    tree: Any = value
    for part in reversed(row["path"].split(".")):
        tree = {part: tree}
    assert load_spec("train", tree).is_set(row["path"]) == (value != "???")


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_hold_their_sections(action: str) -> None:
    wanted = {row["path"].split(".")[0] for row in ROWS if action in row["actions"].split(",")}
    properties = {name for name, field in schema(action)["properties"].items() if not field.get("deprecated")}
    assert wanted | {"automl_policy", "automl", "mlflow", *SPELLINGS} == properties


@pytest.mark.parametrize("action", ACTIONS)
def test_search_lists(action: str) -> None:
    assert set(schema(action)["automl_default_parameters"]) == FIFTEEN
    disabled = {row["path"] for row in ROWS
                if action in row["actions"].split(",") and (row["type"] == "collection" or "list" in row["type"])}  # fmt: skip
    assert disabled <= set(schema(action)["automl_disabled_parameters"])
    popular = {row["path"] for row in LEAVES if action in row["actions"].split(",") and row["popular"] == "True"}
    assert popular == set(schema(action)["popular"])


@pytest.mark.parametrize(
    "override",
    ["dataset.prob=0", "dataset.re_prob=0", "train.optim.trunk.weight_decay=0", "train.optim.embedder.momentum=0",
     "train.optim.name=AdamW", "train.optim.trunk.weight_decay_bias=0", "train.clip_grad_norm=0", "dataset.prob=1",
     "train.optim.warmup_iters=0", "model.backbone=tf_efficientnet_lite0", "gen_trt_engine.tensorrt.data_type=BF16"],
)  # fmt: skip
def test_validity_is_wider_than_the_search(override: str) -> None:
    path, text = override.split("=")
    value: object = load_spec("train", None, [override])
    for part in path.split("."):
        value = getattr(value, part)
    assert str(value).removesuffix(".0") == text
