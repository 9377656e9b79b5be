import dataclasses

import pytest

from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.spec import load_spec


def test_facts_of_a_checkpoint_give_the_same_preprocessing_back():
    view = View(48, 32, 1.0, "fit", "bicubic")
    preprocessing = Preprocessing(view, [0, 0.5, 1], [1, 0.25, 0.5])
    facts = {"view": view.to_dict(), "mean": [0.0, 0.5, 1.0], "std": [1.0, 0.25, 0.5], "trunk": "any"}
    assert Preprocessing.from_facts(facts) == preprocessing
    assert preprocessing.mean == (0.0, 0.5, 1.0) and all(type(value) is float for value in preprocessing.mean)
    assert preprocessing.input_size == (48, 32)
    with pytest.raises(dataclasses.FrozenInstanceError):
        preprocessing.mean = ()


def test_a_spec_gives_its_view_mean_and_std():
    spec = load_spec("evaluate", overrides=["model.input_height=64", "dataset.pixel_mean=[0.1, 0.2, 0.3]"])
    preprocessing = Preprocessing.from_spec(spec)
    assert preprocessing.input_size == (64, spec.model.input_width) and preprocessing.mean == (0.1, 0.2, 0.3)
    assert preprocessing.std == tuple(spec.dataset.pixel_std)
