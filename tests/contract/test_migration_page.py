"""The migration page speaks of every key of TAO's table and of every key that cannot be carried over, and names no other."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

import unalike
from unalike.spec.fields import declared_fields
from unalike.spec.tao import RENAMED_KEYS, UNUSED_KEYS

PAGE = Path(unalike.__file__).parents[2] / "docs" / "migration.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="only in the repository")


def named() -> set[str]:
    return set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)*)`", PAGE.read_text(encoding="utf-8")))


def test_every_key_of_the_table_is_there() -> None:
    with (Path(__file__).parent / "tao_spec.tsv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))
    leaves = {row["path"] for row in rows if row["type"] != "collection"}
    assert leaves | {"dataset.val_dataset"} <= named()


def test_what_is_left_out_or_respelt_is_there() -> None:
    below_gen = {key for key in UNUSED_KEYS if key.startswith("gen_trt_engine.input_")}  # "the same below"
    assert {*UNUSED_KEYS, *RENAMED_KEYS} - below_gen <= named()


def test_every_dotted_name_is_a_field_or_one_that_is_left() -> None:
    known = {*declared_fields(), *UNUSED_KEYS, *RENAMED_KEYS}
    sections = {path.split(".")[0] for path in declared_fields()}
    assert not {name for name in named() if "." in name and name.split(".")[0] in sections} - known


def test_every_field_of_ours_in_training_is_named() -> None:
    ours = [path for path, d in declared_fields().items() if d.facts.get("ours") and path.count(".") == 1]
    wanted = {path for path in ours if path.split(".")[0] in ("train", "model", "dataset", "export")}
    assert wanted <= named()
