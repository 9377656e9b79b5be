"""Where a resumed training starts: at its newest checkpoint, or anew where the former run had written none."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning_fabric import Fabric

from unalike.errors import WeightsError
from unalike.model.checkpoint import write_checkpoint
from unalike.runs.filenames import LATEST_CHECKPOINT
from unalike.spec import load_spec
from unalike.training.resume import check_identity, choose_seed, find_resume_checkpoint

FABRIC = Fabric(accelerator="cpu", devices=1)


def test_a_run_that_ended_before_its_first_checkpoint_starts_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = load_spec("train")
    checkpoint = find_resume_checkpoint(spec, tmp_path, True, FABRIC)
    assert not checkpoint and choose_seed(spec, checkpoint, FABRIC) == spec.train.seed
    assert "before its first checkpoint, starting from the beginning" in capsys.readouterr().err
    assert not find_resume_checkpoint(spec, tmp_path, False, FABRIC)
    assert not capsys.readouterr().err


def test_the_newest_checkpoint_and_its_seed_are_taken(tmp_path: Path) -> None:
    payload = {"model": {}, "spec": {}, "training": {"identity": {"seed": 77}}}
    write_checkpoint(tmp_path / LATEST_CHECKPOINT, payload)
    spec = load_spec("train")
    checkpoint = find_resume_checkpoint(spec, tmp_path, True, FABRIC)
    assert checkpoint and choose_seed(spec, checkpoint, FABRIC) == 77


def test_a_checkpoint_that_is_damaged_or_missing_by_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / LATEST_CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError):
        find_resume_checkpoint(load_spec("train"), tmp_path, True, FABRIC)
    named = load_spec("train", overrides=["train.resume_training_checkpoint_path=missing.pth"])
    with pytest.raises(WeightsError):
        find_resume_checkpoint(named, tmp_path, False, FABRIC)


def test_a_checkpoint_of_another_run_is_told_by_what_differs() -> None:
    own = {"data": "ab", "classes": ["a", "b", "c", "d"], "steps": 3}
    check_identity(own, dict(own))
    check_identity(own, {"data": "ab", "old": 1})
    with pytest.raises(
        WeightsError, match=r"classes 1 \(x\), steps 4; expected classes 4 \(a, b, c, \.\.\.\), steps 3"
    ):
        check_identity(own, {"data": "ab", "classes": ["x"], "steps": 4})
