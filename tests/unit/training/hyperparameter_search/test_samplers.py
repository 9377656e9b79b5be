"""Every algorithm draws different trials, and the same ones for the same seed.

The pruners are tested in test_scheduler.py.
"""

from __future__ import annotations

import pytest

from tests.support.searching import TRUNK_LR, journal_url, peak_curve, play_search, spec


@pytest.mark.parametrize(
    "name",
    [
        "bayesian",
        "asha",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("bfbo", "bohb", "dehb", "hyperband_es", "qmc")),
    ],
)
def test_every_algorithm_draws_and_is_seeded(tmp_path, name):
    def draw(folder, seed):
        (tmp_path / folder).mkdir()
        experiment = spec(
            trials=6,
            algorithm=name,
            seed=seed,
            storage=journal_url(tmp_path / folder),
            parameters=[TRUNK_LR, "train.optim.name"],
        )
        _, jobs, _ = play_search(experiment, tmp_path / folder / "run", peak_curve)
        return [tuple(job.values.values()) for job in jobs]

    first = draw("a", 5)
    assert first == draw("b", 5) and len(set(first)) > 3
