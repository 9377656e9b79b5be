"""A small neural network in numpy that separates defective from normal patches.

Two hidden layers with ReLU; cross-entropy loss, AdamW (Loshchilov and Hutter, 2019), a one-cycle learning rate, dropout on
the first hidden layer.

Written in numpy because an inspector is fitted to an exported network where neither torch nor scikit-learn is installed;
it takes seconds. The gradients are tested against finite differences.

Shape letters: N patches, F their width, K and L the widths of the hidden layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

HIDDEN_WIDTHS = (128, 64)
BLOCK_PREFIX = "eye_"  # of the names of its arrays in an inspector file
EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 15, 1024, 2e-3, 1e-3, 0.2
# AdamW: one minus the decay rates of the moving averages, and the constant in the denominator.
MEAN_STEP, SQUARE_STEP, EPSILON = 0.1, 0.001, 1e-8


class PatchClassifier:
    """Gives the log odds that a patch is defective.

    Args:
        mean_F, scale_F: The input is standardized as ``(x - mean) * scale``.
        layers: (weights, bias) of the three layers; kept as float32.
    """

    def __init__(
        self, mean_F: np.ndarray, scale_F: np.ndarray, layers: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> None:
        self.mean_F, self.scale_F = mean_F.astype(np.float32), scale_F.astype(np.float32)
        self.layers = [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in layers]

    @classmethod
    def fit(
        cls, vectors_NF: np.ndarray, defective_N: np.ndarray, seed: int = 0, epochs: int = EPOCHS
    ) -> PatchClassifier:
        """Train a classifier; the same seed gives the same network on the same machine.

        Args:
            vectors_NF: Patch vectors.
            defective_N: bool, whether each patch is defective.
            seed: Seed of the weights, the order of the patches and dropout.
            epochs: Passes over the patches.
        """
        rng = np.random.default_rng(seed)
        mean_F, deviation_F = vectors_NF.mean(axis=0, dtype=np.float64), vectors_NF.std(axis=0, dtype=np.float64)
        scale_F = 1 / (deviation_F + 1e-6 + 1e-3 * deviation_F.mean())
        widths = (vectors_NF.shape[1], *HIDDEN_WIDTHS, 1)
        layers = [
            (rng.normal(0, np.sqrt(2 / fan_in), (fan_in, fan_out)), np.zeros(fan_out))
            for fan_in, fan_out in pairwise(widths)
        ]
        classifier = cls(mean_F, scale_F, layers)
        inputs_NF = classifier._standardize(vectors_NF)
        targets_N = defective_N.astype(np.float32)
        steps = epochs * max(1, -(-len(inputs_NF) // BATCH_SIZE))
        optimizer = _AdamW([array for layer in classifier.layers for array in layer], steps)
        while optimizer.step_count < steps:
            order_N = rng.permutation(len(inputs_NF))
            for start in range(0, len(order_N), BATCH_SIZE):
                batch = order_N[start : start + BATCH_SIZE]
                dropout_mask = rng.random((len(batch), HIDDEN_WIDTHS[0])) >= DROPOUT
                dropout_NK = dropout_mask.astype(np.float32) / (1 - DROPOUT)
                optimizer.step(classifier.gradients(inputs_NF[batch], targets_N[batch], dropout_NK))
                if optimizer.step_count >= steps:
                    break
        return classifier

    def _standardize(self, vectors_NF: np.ndarray) -> np.ndarray:
        standard_NF: np.ndarray = (np.asarray(vectors_NF, np.float32) - self.mean_F) * self.scale_F
        return standard_NF

    def __call__(self, vectors_NF: np.ndarray) -> np.ndarray:
        """Log odds that each patch is defective, float32 (N,)."""
        hidden = self._standardize(vectors_NF)
        for weight, bias in self.layers[:-1]:
            hidden = np.maximum(hidden @ weight + bias, 0)
        weight, bias = self.layers[-1]
        log_odds_N: np.ndarray = (hidden @ weight + bias)[:, 0]
        return log_odds_N

    def to_blocks(self) -> dict[str, list[np.ndarray]]:
        """Its arrays by name, as ``storage.blockfile.write_blocks`` takes them."""
        arrays = [self.mean_F, self.scale_F, *(array for layer in self.layers for array in layer)]
        return {f"{BLOCK_PREFIX}{number}": [array] for number, array in enumerate(arrays)}

    @classmethod
    def from_blocks(cls, arrays: Mapping[str, np.ndarray]) -> PatchClassifier | None:
        """The inverse of ``to_blocks``; None for no arrays."""
        if not arrays:
            return None
        mean_F, scale_F, *rest = (arrays[f"{BLOCK_PREFIX}{number}"] for number in range(len(arrays)))
        return cls(mean_F, scale_F, list(zip(rest[0::2], rest[1::2], strict=True)))

    def gradients(
        self, inputs_NF: np.ndarray, targets_N: np.ndarray, dropout_NK: np.ndarray | float = 1.0
    ) -> list[np.ndarray]:
        """Gradients of the mean cross-entropy with respect to each weight and bias, in the order of ``layers``.

        Args:
            inputs_NF: Standardized patches.
            targets_N: 1 for a defective patch, 0 for a normal one.
            dropout_NK: Factors of the first hidden layer.
        """
        (weight_FK, bias_K), (weight_KL, bias_L), (weight_L1, bias_1) = self.layers
        hidden_NK = np.maximum(inputs_NF @ weight_FK + bias_K, 0) * dropout_NK
        hidden_NL = np.maximum(hidden_NK @ weight_KL + bias_L, 0)
        log_odds_N1 = hidden_NL @ weight_L1 + bias_1
        error_N1 = ((0.5 * (1 + np.tanh(0.5 * log_odds_N1))) - targets_N[:, None]) / len(targets_N)
        error_NL = (error_N1 @ weight_L1.T) * (hidden_NL > 0)
        error_NK = (error_NL @ weight_KL.T) * (hidden_NK > 0) * dropout_NK
        return [
            inputs_NF.T @ error_NK, error_NK.sum(axis=0), hidden_NK.T @ error_NL, error_NL.sum(axis=0),
            hidden_NL.T @ error_N1, error_N1.sum(axis=0),
        ]  # fmt: skip


class _AdamW:
    """Updates arrays in place; the learning rate rises over the first 30 % of the steps and falls to zero, along cosines."""

    def __init__(self, parameters: list[np.ndarray], steps: int) -> None:
        self.parameters, self.steps, self.step_count = parameters, steps, 0
        self.means = [np.zeros_like(parameter) for parameter in parameters]
        self.squares = [np.zeros_like(parameter) for parameter in parameters]

    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        share = self.step_count / self.steps
        rising = share / 0.3 if share < 0.3 else 1 - (share - 0.3) / 0.7
        return float(LEARNING_RATE * (0.04 + 0.96 * 0.5 * (1 - np.cos(np.pi * rising))))

    def step(self, gradients: list[np.ndarray]) -> None:
        """Update all parameters."""
        rate = self.learning_rate()
        self.step_count += 1
        for parameter, gradient, mean, square in zip(self.parameters, gradients, self.means, self.squares, strict=True):
            mean += MEAN_STEP * (gradient - mean)
            square += SQUARE_STEP * (gradient**2 - square)
            mean_estimate = mean / (1 - (1 - MEAN_STEP) ** self.step_count)
            deviation = np.sqrt(square / (1 - (1 - SQUARE_STEP) ** self.step_count)) + EPSILON
            parameter -= np.float32(rate) * (mean_estimate / deviation + WEIGHT_DECAY * parameter)
