"""Finished stages: taken up by a run that resumes and only by it, only where they were made of the same; never half read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from unalike.discovery import clustering as grouping
from unalike.runs.stage import load_or_compute
from unalike.training.automatic.groups import find_groups

GOES_ON, NEW = SimpleNamespace(resuming=True), SimpleNamespace(resuming=False)


def made(calls: list[int]) -> dict[str, np.ndarray]:
    calls.append(1)
    return {"a": np.arange(3) + 10 * len(calls)}


def test_only_a_run_that_resumes_takes_a_stage_and_only_of_the_same(tmp_path: Path) -> None:
    calls: list[int] = []
    path = tmp_path / "stage.npz"

    def take(run: object, of: bytes) -> list[int]:
        return load_or_compute(run, path, "it", of, lambda: made(calls))["a"].tolist()

    assert take(GOES_ON, b"x") == [10, 11, 12]  # there is none yet
    assert take(GOES_ON, b"x") == [10, 11, 12] and len(calls) == 1
    assert take(NEW, b"x") == [20, 21, 22]
    assert take(GOES_ON, b"x") == [20, 21, 22]
    assert take(GOES_ON, b"y") == [30, 31, 32]
    for broken in (b"", b"PK\x03\x04 cut off", path.read_bytes()[:100]):
        path.write_bytes(broken)
        assert take(GOES_ON, b"y")[0] == 10 * len(calls)
    assert [p.name for p in tmp_path.iterdir()] == ["stage.npz"]


def test_groups_come_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    vectors = (np.repeat(draws.normal(0, 1, (12, 8)), 6, axis=0) + draws.normal(0, 0.2, (72, 8))).astype(np.float32)
    found = find_groups(NEW, tmp_path / "g.npz", "groups", vectors, 0)
    monkeypatch.setattr("unalike.training.automatic.groups.group_images", None)
    again = find_groups(GOES_ON, tmp_path / "g.npz", "groups", vectors, 0)
    assert found.count > 2 and again.agreement_curve == found.agreement_curve and again.cut_cosine == found.cut_cosine
    for name, value in vars(grouping.group_images(vectors)).items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(vars(again)[name]), err_msg=name)
