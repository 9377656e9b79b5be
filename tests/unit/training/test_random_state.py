"""Generators go on as they did when their state was read."""

import random

import numpy as np
import torch

from unalike.training.random_state import read_random_state, restore_random_state


def test_every_generator_goes_on():
    for _ in range(2):
        state = read_random_state()
        drawn = random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist()
        restore_random_state(state)
        assert (random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist()) == drawn
