"""Counter-based random numbers: each is a pure function of seed, epoch, image and purpose.

A stateful generator ties a draw to everything drawn before it, so that the number of workers, the ranks and a resume
would all change it. Here a draw is the SplitMix64 finalizer (Steele, Lea, Flood: "Fast splittable pseudorandom number
generators", OOPSLA 2014) of (seed, epoch, image, occurrence, purpose): equal in every process and in every order.
"""

from __future__ import annotations

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_M1, _M2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _mix(z: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer on a uint64 array (arithmetic modulo 2**64)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_M1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_M2)
    bits: np.ndarray = z ^ (z >> np.uint64(31))
    return bits


def _mix_number(z: int) -> int:
    z = ((z ^ (z >> 30)) * _M1) & _MASK
    z = ((z ^ (z >> 27)) * _M2) & _MASK
    return z ^ (z >> 31)


def keys(numbers: tuple[int, ...], *arrays_N: np.ndarray) -> np.ndarray:
    """One uint64 key per row from numbers that all rows share (seed, purpose, epoch) and integer arrays of shape (N,)."""
    start = 0
    for number in numbers:
        start = _mix_number((start + _GOLDEN + (int(number) & _MASK)) & _MASK)
    key_N = np.full(len(arrays_N[0]), start, dtype=np.uint64)
    for array_N in arrays_N:
        key_N = _mix(key_N + np.uint64(_GOLDEN) + np.asarray(array_N).astype(np.uint64))
    return key_N


def uniforms(key_N: np.ndarray, count: int) -> np.ndarray:
    """``count`` numbers in [0, 1) for every key: float64 of shape (N, count)."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return (_mix(key_N[:, None] + steps[None, :]) >> np.uint64(11)) * 2.0**-53
