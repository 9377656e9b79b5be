"""A small network that tells flawed patches from whole ones, in numpy: a line PC has no more, and it learns in seconds.

Two hidden layers with ReLU; cross-entropy, AdamW (Loshchilov and Hutter, 2019), a one-cycle rate, dropout on the first.

Shape letters: N patches, F their width, K and L the widths of the hidden layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

HIDDEN = (128, 64)
EYE_BLOCKS = "eye_"  # how the names of its arrays begin in a file
EPOCHS, BATCH, RATE, DECAY, DROPOUT = 15, 1024, 2e-3, 1e-3, 0.2


class Perceptron:
    """``layers``: (weights, bias) three times, float32; the input is expected standardised by ``mean_F`` and ``scale_F``."""

    def __init__(
        self, mean_F: np.ndarray, scale_F: np.ndarray, layers: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> None:
        self.mean_F, self.scale_F = mean_F.astype(np.float32), scale_F.astype(np.float32)
        self.layers = [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in layers]

    @classmethod
    def learn(cls, vectors_NF: np.ndarray, flawed_N: np.ndarray, seed: int = 0, epochs: int = EPOCHS) -> Perceptron:
        """From patches and whether each is flawed; the same seed gives the same network on the same machine."""
        draws = np.random.default_rng(seed)
        mean_F, deviation_F = vectors_NF.mean(axis=0, dtype=np.float64), vectors_NF.std(axis=0, dtype=np.float64)
        scale_F = 1 / (deviation_F + 1e-6 + 1e-3 * deviation_F.mean())
        widths = (vectors_NF.shape[1], *HIDDEN, 1)
        layers = [
            (draws.normal(0, np.sqrt(2 / have), (have, given)), np.zeros(given)) for have, given in pairwise(widths)
        ]
        made = cls(mean_F, scale_F, layers)
        seen_NF = made._standard(vectors_NF)
        wanted_N = flawed_N.astype(np.float32)
        steps = epochs * max(1, -(-len(seen_NF) // BATCH))
        optimiser = _AdamW([part for layer in made.layers for part in layer], steps)
        while optimiser.step < steps:
            order_N = draws.permutation(len(seen_NF))
            for start in range(0, len(order_N), BATCH):
                some = order_N[start : start + BATCH]
                kept_K = (draws.random((len(some), HIDDEN[0])) >= DROPOUT).astype(np.float32) / (1 - DROPOUT)
                optimiser.move(made.slopes(seen_NF[some], wanted_N[some], kept_K))
                if optimiser.step >= steps:
                    break
        return made

    def _standard(self, vectors_NF: np.ndarray) -> np.ndarray:
        standard_NF: np.ndarray = (np.asarray(vectors_NF, np.float32) - self.mean_F) * self.scale_F
        return standard_NF

    def __call__(self, vectors_NF: np.ndarray) -> np.ndarray:
        """float32 (N,): the log odds that a patch is flawed, as made-up flaws are."""
        seen = self._standard(vectors_NF)
        for weight, bias in self.layers[:-1]:
            seen = np.maximum(seen @ weight + bias, 0)
        weight, bias = self.layers[-1]
        odds_N: np.ndarray = (seen @ weight + bias)[:, 0]
        return odds_N

    def blocks(self) -> dict[str, list[np.ndarray]]:
        """Its arrays under names, as ``gallery.storage.write_blocks`` takes them."""
        parts = [self.mean_F, self.scale_F, *(part for layer in self.layers for part in layer)]
        return {f"{EYE_BLOCKS}{number}": [part] for number, part in enumerate(parts)}

    @classmethod
    def of_blocks(cls, arrays: Mapping[str, np.ndarray]) -> Perceptron | None:
        """What ``blocks`` gave; None where there is nothing."""
        if not arrays:
            return None
        mean_F, scale_F, *parts = (arrays[f"{EYE_BLOCKS}{number}"] for number in range(len(arrays)))
        return cls(mean_F, scale_F, list(zip(parts[0::2], parts[1::2], strict=True)))

    def slopes(self, seen_NF: np.ndarray, wanted_N: np.ndarray, kept_K: np.ndarray | float = 1.0) -> list[np.ndarray]:
        """Gradients of the mean cross-entropy by each weight and bias, for standardised patches; ``kept_K`` is the dropout."""
        (first, shift_K), (second, shift_L), (last, shift) = self.layers
        low_NK = np.maximum(seen_NF @ first + shift_K, 0) * kept_K
        high_NL = np.maximum(low_NK @ second + shift_L, 0)
        odds_N1 = high_NL @ last + shift
        error_N1 = ((0.5 * (1 + np.tanh(0.5 * odds_N1))) - wanted_N[:, None]) / len(wanted_N)
        back_NL = (error_N1 @ last.T) * (high_NL > 0)
        back_NK = (back_NL @ second.T) * (low_NK > 0) * kept_K
        return [
            seen_NF.T @ back_NK, back_NK.sum(axis=0), low_NK.T @ back_NL, back_NL.sum(axis=0),
            high_NL.T @ error_N1, error_N1.sum(axis=0),
        ]  # fmt: skip


class _AdamW:
    """Moves arrays in place; the rate rises over the first 30 % of the steps and falls to nothing, by half a cosine each."""

    def __init__(self, parts: list[np.ndarray], steps: int) -> None:
        self.parts, self.steps, self.step = parts, steps, 0
        self.means = [np.zeros_like(part) for part in parts]
        self.squares = [np.zeros_like(part) for part in parts]

    def rate(self) -> float:
        """Of this step."""
        share = self.step / self.steps
        rising = share / 0.3 if share < 0.3 else 1 - (share - 0.3) / 0.7
        return float(RATE * (0.04 + 0.96 * 0.5 * (1 - np.cos(np.pi * rising))))

    def move(self, slopes: list[np.ndarray]) -> None:
        """One step down."""
        rate = self.rate()
        self.step += 1
        for part, slope, mean, square in zip(self.parts, slopes, self.means, self.squares, strict=True):
            mean += 0.1 * (slope - mean)
            square += 0.001 * (slope**2 - square)
            ahead = mean / (1 - 0.9**self.step)
            spread = np.sqrt(square / (1 - 0.999**self.step)) + 1e-8
            part -= np.float32(rate) * (ahead / spread + DECAY * part)
