"""Rank layers by quantization sensitivity and select those to keep in higher precision.

Each layer is quantized alone and the worst cosine noted; then the fewest of the most harmful are restored with which the
goal is met (doubling, then halving: the loss falls as more are restored, near enough).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from unalike import progress
from unalike.errors import ExportError


@dataclass(frozen=True)
class CandidateAccuracy:
    """``loss`` orders candidates (less is better); ``met``: the goal is reached; ``text`` says how near."""

    loss: float
    met: bool
    text: str


@dataclass(frozen=True)
class LayerSelection:
    """``kept``: layers in higher precision, the most harmful first; ``layer_loss``: every layer's own loss, where measured."""

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
    """The fewest layers to keep in higher precision.

    ``evaluate(kept)`` says what the network gives with these restored; ``layer_loss(layer)`` the loss with only this one
    quantized. ``always`` are kept whatever comes; at most the share ``most`` of the layers besides them. Raises
    ExportError, with the best that was found, when that is not enough.
    """
    fixed = [name for name in layers if name in set(always)]
    accuracy = evaluate(fixed)
    if accuracy.met:
        return LayerSelection(tuple(fixed), accuracy, {})
    free = [name for name in layers if name not in set(fixed)]
    limit = int(most * len(free))
    progress.say(f"all {len(free)} layers quantized: {accuracy.text}; looking for those that lose most")
    losses: dict[str, float] = {}
    with progress.progress("layers alone", len(free), "layers") as advance:
        for name in free:
            losses[name] = layer_loss(name)
            advance(1)
    ranked = sorted(free, key=lambda name: -losses[name])
    found = _fewest(ranked, limit, lambda kept: evaluate([*fixed, *kept]))
    if found is None:
        accuracy = evaluate([*fixed, *ranked[:limit]])
        raise ExportError(
            f"with {limit} of {len(free)} layers in higher precision the quantized network still gives {accuracy.text}",
            expected="the goal to be met",
            remedy="lower goal.worst_cosine, raise goal.most_layers, give more calibration images, or take FP16",
        )
    count, accuracy = found
    return LayerSelection((*fixed, *ranked[:count]), accuracy, losses)


def _fewest(
    ranked: list[str], limit: int, evaluate: Callable[[list[str]], CandidateAccuracy]
) -> tuple[int, CandidateAccuracy] | None:  # fmt: skip
    """(how many of the first must be restored, what that gives); None when ``limit`` of them do not suffice."""
    low, high = 0, 1  # low fails
    best: CandidateAccuracy | None = None
    while limit:
        high = min(high, limit)
        best = evaluate(ranked[:high])
        if best.met:
            break
        if high == limit:
            return None
        low, high = high, 2 * high
    if best is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        accuracy = evaluate(ranked[:middle])
        if accuracy.met:
            high, best = middle, accuracy
        else:
            low = middle
    return high, best
