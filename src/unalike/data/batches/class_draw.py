"""Draws of different classes with exact probabilities: systematic sampling, stratified over the steps of a round.

Letters: C classes, G classes of a step (all different), S steps.
"""

from __future__ import annotations

import numpy as np

from unalike.data.batches import counter_rng

# Probabilities are whole multiples of 1 / UNIT: sums of floats could let a class come twice, or not at all.
UNIT = 1 << 40
_ORDER, _STEP, _PLACE, _START = 21, 22, 23, 24


def inclusion_weights(sizes_C: np.ndarray, count: int) -> np.ndarray:
    """Compute how probable each class is in a step, in proportion to sizes but at most 1.

    Args:
        sizes_C: positive sizes.
        count: G, at most C.

    Returns:
        int64 (C,), from 0 to ``UNIT``, which is a probability of 1; their sum is G x ``UNIT``.
    """
    share_C = np.asarray(sizes_C, dtype=np.float64) * (count / np.sum(sizes_C))
    while (share_C > 1).any():  # what the largest classes cannot take goes to the others
        full = share_C >= 1
        share_C = np.where(full, 1.0, share_C * (count - full.sum()) / share_C[~full].sum())
    weights_C: np.ndarray = np.minimum(np.floor(share_C * UNIT).astype(np.int64), UNIT)
    rest = count * UNIT - int(weights_C.sum())
    while rest:  # of rounding
        sign = 1 if rest > 0 else -1
        room = np.flatnonzero(weights_C < UNIT if sign > 0 else weights_C > 0)[: abs(rest)]
        weights_C[room] += sign
        rest -= sign * len(room)
    return weights_C


def draw_classes(weights_C: np.ndarray, count: int, steps: int, seed: tuple[int, ...]) -> np.ndarray:
    """Draw the classes of many steps.

    The classes lie on a line in random order, each as long as its weight. A step takes what lies at one place within the
    first unit and at every further unit from there: G different classes. The places of the steps of a round (ceil(C / G)
    steps, for which the order stays) divide the unit evenly, so that a class comes as often as expected, rounded up or down.

    Args:
        weights_C: of ``inclusion_weights``.
        count: G.
        steps: S.
        seed: of all random numbers.

    Returns:
        int64 (S, G).
    """
    classes = len(weights_C)
    length = -(-classes // count)
    parts = []
    for number in range(-(-steps // length)):
        order_C = np.argsort(counter_rng.keys((*seed, _ORDER, number), np.arange(classes)), kind="stable")
        end_C = np.cumsum(weights_C[order_C])
        step_R = np.argsort(counter_rng.keys((*seed, _STEP, number), np.arange(length)), kind="stable")
        start = int(counter_rng.keys((*seed, _START, number), np.arange(1))[0]) % UNIT
        place_R = np.array([(int(step) * UNIT + start) // length for step in step_R], dtype=np.int64)
        places_RG = place_R[:, None] + np.arange(count, dtype=np.int64) * UNIT
        group_RG = order_C[np.searchsorted(end_C, places_RG, side="right")]
        key = counter_rng.keys((*seed, _PLACE, number), np.arange(group_RG.size)).reshape(group_RG.shape)
        parts.append(np.take_along_axis(group_RG, np.argsort(key, axis=1, kind="stable"), axis=1))
    return np.concatenate(parts)[:steps]
