"""Settings of an inspector: what counts of them for the inspector that is served."""

from __future__ import annotations

from dataclasses import replace

from tests.support.inspected_parts import fitted_inspector
from unalike.serve.inspector_settings import NO_SETTINGS, InspectorSettings, fitted_threshold


def test_settings_are_plain_data_and_back() -> None:
    settings = InspectorSettings(0.5, 0.4, ((1, 2, 30, 40), (0, 0, 5, 5)))
    assert InspectorSettings.from_dict(settings.to_dict()) == settings
    assert InspectorSettings.from_dict(None) is InspectorSettings.from_dict({}) is NO_SETTINGS


def test_a_threshold_counts_for_the_fit_that_it_was_chosen_for() -> None:
    inspector = fitted_inspector()
    fitted = fitted_threshold(inspector)
    settings = InspectorSettings(99.0, fitted)
    assert not settings.is_stale(inspector) and settings.applied_to(inspector).threshold.threshold == 99.0
    stale = replace(settings, fitted=1.0)
    assert stale.is_stale(inspector) and stale.applied_to(inspector).threshold.threshold == fitted
    assert NO_SETTINGS.applied_to(inspector) is inspector and not NO_SETTINGS.is_stale(inspector)


def test_boxes_count_where_they_lie_in_the_frame() -> None:
    inspector = fitted_inspector()
    ignored_HW = (
        InspectorSettings(ignore_boxes=((0, 0, 32, 64), (0, 0, 65, 64))).applied_to(inspector).extractor.ignored_HW
    )
    assert ignored_HW is not None and ignored_HW.sum() == 32 * 64
    assert inspector.extractor.ignored_HW is None
