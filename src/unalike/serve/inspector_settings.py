"""Settings of an inspector that the service keeps beside its file: the threshold that a person chose, and ignored regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unalike.inspection.inspector import Inspector

KIND = "inspector"
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class InspectorSettings:
    """What is set for an inspector; nothing by default.

    Attributes:
        threshold: an image is defective when its score is above it; None: the threshold of the fit.
        fitted: the threshold of the fit when that was set: for the scores of another fit it means nothing.
        ignore_boxes: (left, top, right, bottom) in pixels of the inspector's frame, in which anomalies are ignored.
    """

    threshold: float | None = None
    fitted: float | None = None
    ignore_boxes: tuple[Box, ...] = ()

    @classmethod
    def from_dict(cls, content: Mapping[str, Any] | None) -> InspectorSettings:
        """From plain data, as ``to_dict`` gives it."""
        if not content:
            return NO_SETTINGS
        boxes = tuple((left, top, right, bottom) for left, top, right, bottom in content.get("ignore_boxes", ()))
        return cls(content.get("threshold"), content.get("fitted"), boxes)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "threshold": self.threshold,
            "fitted": self.fitted,
            "ignore_boxes": [list(box) for box in self.ignore_boxes],
        }

    def is_stale(self, inspector: Inspector) -> bool:
        """Whether the threshold was set for another fit, so that it does not count."""
        return self.threshold is not None and self.fitted != fitted_threshold(inspector)

    def applied_to(self, inspector: Inspector) -> Inspector:
        """The inspector with these settings; boxes beyond the frame of a later fit do not count."""
        if self == NO_SETTINGS:
            return inspector
        height, width = inspector.frame or (0, 0)
        boxes = [box for box in self.ignore_boxes if box[2] <= width and box[3] <= height]
        return inspector.with_settings(None if self.is_stale(inspector) else self.threshold, boxes)


NO_SETTINGS = InspectorSettings()


def fitted_threshold(inspector: Inspector) -> float | None:
    """The threshold that an inspector has by its fit; None where it has none."""
    return None if inspector.threshold is None else inspector.threshold.threshold
