"""The search space: TAO's settings are accepted, and what cannot be searched is refused by name.

Bounds, scales and fields without effect are tested in tests/contract/test_automl_faults.py.
"""

from __future__ import annotations

import pytest

from unalike.errors import SpecError
from unalike.spec import load_spec
from unalike.training.hyperparameter_search.space import build_space

TRUNK_LR = "train.optim.trunk.base_lr"


def test_what_may_not_be_searched_is_refused_by_name():
    for override, message in [
        ("automl.parameters=[dataset.validation.seed]", "how a trial is measured"),
        ("automl.parameters=[train.optim.trunk.base_rl]", "did you mean 'train.optim.trunk.base_lr'"),
        ("automl.parameters=[train.optim]", "a section"),
        ("automl.ranges.train.optim.trunk.base_lr=[1, 0.1]", "the smaller number first"),
        ("automl.ranges.train.optim.trunk.base_lr=[-1, 0.1]", "not a valid value of this field"),
        ("automl.ranges={train.optim.name: [Adam, Adamx]}", "not a valid value of this field"),
        ("automl.ranges={train.optim.trunk.base_lr: {lowest: 1}}", "lowest"),
        ("automl.algorithm=llm", "language model"),
        ("automl.algorithm=hyperbnad", "did you mean 'hyperband'"),
        ("automl.address=here", "ray"),
    ]:
        with pytest.raises(SpecError) as caught:
            load_spec("train", None, [override])
        assert message in str(caught.value), (override, str(caught.value))
    experiment = load_spec("train", {}, ["automl.parameters=[dataset.crop.scale]"])
    with pytest.raises(SpecError, match="give it values"):
        build_space(experiment.automl, experiment)


def test_taos_settings_are_accepted():
    tree = {"automl_algorithm": "asha", "automl_max_recommendations": 7, "automl_max_epochs": 9, "direction": "maximize",
            "automl_reduction_factor": 4, "automl_max_concurrent": 2, "automl_hyperparameters": f'["{TRUNK_LR}"]',
            "custom_param_ranges": {TRUNK_LR: {"valid_min": 1e-5, "valid_max": 1e-3}}}  # fmt: skip
    automl = load_spec("train", tree).automl
    assert (automl.algorithm, automl.trials, automl.max_epochs, automl.direction) == ("asha", 7, 9, "maximize")
    assert (automl.reduction_factor, automl.concurrent, automl.parameters) == (4, 2, [TRUNK_LR])
    axis = build_space(automl, load_spec("train", {})).axes[0]
    assert (axis.distribution.low, axis.distribution.high, axis.distribution.log) == (1e-5, 1e-3, True)
    assert load_spec("train", None, ["automl_max_recommendations=3"]).automl.trials == 3
    with pytest.raises(SpecError, match="given twice"):
        load_spec("train", {"automl_max_recommendations": 3, "automl": {"trials": 3}})
    assert load_spec("train", {"automl": {"seed": 3}}).automl.requests_search() is False
