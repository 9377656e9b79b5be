"""Preprocessing of a network's images: the evaluation view, then normalization by mean and std."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unalike.data.view import View

if TYPE_CHECKING:
    from unalike.spec import Experiment


@dataclass(frozen=True)
class Preprocessing:
    """The steps between an image file and a network's input.

    Args:
        view: gives the uint8 pixels of the network's size.
        mean: one value a channel, on the scale 0..1, subtracted from ``pixels / 255``.
        std: one positive value a channel, on the scale 0..1, by which the difference is divided.
    """

    view: View
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the network's input, in pixels."""
        return self.view.height, self.view.width

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Preprocessing:
        """From the plain facts of a checkpoint: ``view`` (``View.to_dict()``), ``mean`` and ``std``."""
        return cls(View.from_dict(facts["view"]), facts["mean"], facts["std"])

    @classmethod
    def from_spec(cls, experiment: Experiment) -> Preprocessing:
        """From a spec: the evaluation view, ``dataset.pixel_mean`` and ``dataset.pixel_std``."""
        dataset = experiment.dataset
        return cls(View.from_spec(experiment), tuple(dataset.pixel_mean), tuple(dataset.pixel_std))
