"""Rank layers by quantization sensitivity and select those to keep in higher precision.

The loss of each layer is measured with that layer alone quantized. Then the smallest number of the most sensitive layers is
found with which the goal is met, by doubling and bisection: the loss falls nearly monotonically with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from unalike import progress
from unalike.errors import ExportError


@dataclass(frozen=True)
class CandidateAccuracy:
    """Accuracy of a network with some layers in higher precision.

    Attributes:
        loss: 1 - worst cosine.
        met: whether the goal is met.
        text: the figures beside the goal.
    """

    loss: float
    met: bool
    text: str


@dataclass(frozen=True)
class LayerSelection:
    """The selected layers.

    Attributes:
        kept: layers in higher precision: fixed ones, then the most sensitive first.
        accuracy: of the network with these.
        layer_losses: layer -> loss with it alone quantized; empty where that was not needed.
    """

    kept: tuple[str, ...]
    accuracy: CandidateAccuracy
    layer_losses: dict[str, float]


def choose_layers(
    layers: list[str],
    evaluate: Callable[[Collection[str]], CandidateAccuracy],
    layer_loss: Callable[[str], float],
    *,
    always: Collection[str] = (),
    most: float = 0.5,
) -> LayerSelection:
    """Choose the fewest layers to keep in higher precision.

    Args:
        layers: names of the layers that can be quantized.
        evaluate: accuracy of the network with these layers in higher precision.
        layer_loss: loss of the network with this layer alone quantized.
        always: layers that stay in higher precision in any case.
        most: largest share of the other layers that may, 0..1.

    Raises:
        ExportError: the goal is not met with that many layers; the message has the accuracy with them.
    """
    fixed_layers = [name for name in layers if name in set(always)]
    accuracy = evaluate(fixed_layers)
    if accuracy.met:
        return LayerSelection(tuple(fixed_layers), accuracy, {})
    free = [name for name in layers if name not in set(fixed_layers)]
    limit = int(most * len(free))
    progress.say(f"all {len(free)} layers quantized: {accuracy.text}; measuring the loss of each layer")
    losses: dict[str, float] = {}
    with progress.progress("loss of each layer", len(free), "layers") as advance:
        for name in free:
            losses[name] = layer_loss(name)
            advance(1)
    by_loss = sorted(free, key=lambda name: -losses[name])
    smallest = _find_fewest(by_loss, limit, lambda free_layers: evaluate([*fixed_layers, *free_layers]))
    if smallest is None:
        accuracy = evaluate([*fixed_layers, *by_loss[:limit]])
        raise ExportError(
            f"with {limit} of {len(free)} layers in higher precision the quantized network still gives {accuracy.text}",
            expected="the goal to be met",
            remedy="lower goal.worst_cosine, raise goal.most_layers, give more calibration images, or use FP16",
        )
    count, accuracy = smallest
    return LayerSelection((*fixed_layers, *by_loss[:count]), accuracy, losses)


def _find_fewest(
    layers: list[str], limit: int, evaluate: Callable[[list[str]], CandidateAccuracy]
) -> tuple[int, CandidateAccuracy] | None:  # fmt: skip
    """Find how many of the first layers are needed, and the accuracy with them; None where ``limit`` are too few."""
    low, high = 0, 1  # low fails
    best: CandidateAccuracy | None = None
    while limit:
        high = min(high, limit)
        best = evaluate(layers[:high])
        if best.met:
            break
        if high == limit:
            return None
        low, high = high, 2 * high
    if best is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        accuracy = evaluate(layers[:middle])
        if accuracy.met:
            high, best = middle, accuracy
        else:
            low = middle
    return high, best
