"""Every candidate is kept with the queries that it was measured by."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.support.series import images_and_features
from unalike.errors import RunError
from unalike.model.checkpoint import read_checkpoint, write_checkpoint
from unalike.runs.run import Run
from unalike.spec import load_spec
from unalike.training.automatic.candidate_files import deliver, load_result, save_candidates
from unalike.training.automatic.evaluation_data import EvaluationData, evaluate_frozen
from unalike.training.automatic.held_out_scores import scores_of
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.head_search import HeadSearchSpace


class FakeRun:
    """A run's folder."""

    action, resuming, rank = "train", False, 0

    def __init__(self, folder: Path) -> None:
        self.dir, self.written = folder, []

    def write_experiment(self, spec: Any) -> None:
        self.written.append(spec)


def test_candidates_are_kept_with_their_queries(tmp_path: Path) -> None:
    images, features = images_and_features(3)
    data = EvaluationData.create(images, features, "both", 0, tunes=False)
    candidates = evaluate_frozen([None, HeadConfig(True, 0.5)], data, "both", HeadSearchSpace(), None, 0.0)
    run, spec = cast(Run, FakeRun(tmp_path)), load_spec("train")

    def save(candidate: Any, folder: Run) -> Any:
        write_checkpoint(
            folder.dir / "ml_model_best.pth",
            {"name": candidate.name, "model": {}, "spec": {}, "classes": [], "facts": {}},
        )
        if candidate.config is not None:
            (folder.dir / "best_spec.yaml").write_text(candidate.name)
        return spec

    assert list(save_candidates(run, candidates, save)) == [c.name for c in candidates]
    for number, candidate in enumerate(candidates):
        result = load_result(tmp_path / f"candidate_{number}")
        assert result.metrics() == candidate.result.metrics() and result.counts() == candidate.result.counts()
        assert result.lookups is not None and candidate.result.lookups is not None
        assert np.array_equal(result.lookups.nearest_Q, candidate.result.lookups.nearest_Q)
    for number in (1, 0, 1):
        assert deliver(run, number, spec) == (tmp_path / "ml_model_best.pth", spec)
        payload = read_checkpoint(tmp_path / "ml_model_best.pth")
        assert payload["name"] == candidates[number].name
        assert payload["facts"]["held_out_scores"]["known"]["score"]
        assert (tmp_path / "best_spec.yaml").exists() == (number == 1)
    assert cast(Any, run).written == [spec] * 3


def test_lookups_of_earlier_releases_have_no_leads(tmp_path: Path) -> None:
    images, features = images_and_features(3)
    data = EvaluationData.create(images, features, "both", 0, tunes=False)
    candidates = evaluate_frozen([None], data, "both", HeadSearchSpace(), None, 0.0)

    def save(candidate: Any, folder: Run) -> Any:
        write_checkpoint(folder.dir / "ml_model_best.pth", {"model": {}, "spec": {}, "classes": [], "facts": {}})
        return load_spec("train")

    save_candidates(cast(Run, FakeRun(tmp_path)), candidates, save)
    path = tmp_path / "candidate_0" / "lookups.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "lead_Q"}
    np.savez(path, **arrays)
    result = load_result(path.parent)
    assert result.lookups is not None and np.isinf(result.lookups.lead_Q).all()
    assert "lead" not in scores_of(result)["known"]


def test_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "candidate_0").mkdir()
    with pytest.raises(RunError, match=r"lookups.npz cannot be read"):
        load_result(tmp_path / "candidate_0")
    with pytest.raises(RunError, match=r"ml_model_best.pth is missing"):
        deliver(cast(Run, FakeRun(tmp_path)), 0, load_spec("train"))
