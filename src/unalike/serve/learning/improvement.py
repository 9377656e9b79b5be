"""The whole step of ``unalike improve``: train, compare, judge, promote; or one part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unalike.errors import SpecError
from unalike.progress import say
from unalike.serve.learning.candidate import TrainingOptions, compare_candidate, train_candidate
from unalike.serve.learning.gallery_models import LearningGallery, choose_gallery
from unalike.serve.learning.promotion import PromotionRefused, promote, roll_back
from unalike.serve.model_files import task_folder
from unalike.serve.store import Store, find_store
from unalike.serve.store.records import new_id

if TYPE_CHECKING:
    from unalike.spec.improve import Improve


def improve(settings: Improve, *, actor: str) -> dict[str, Any]:
    """Train a candidate, compare it with the model in service, and promote it where the verdict allows it.

    Args:
        settings: the section ``improve`` of a spec; the service whose store it names may be running.
        actor: who asks, for the audit log.

    Returns:
        The candidate, its comparison with the verdict, and the promotion or None, as plain data.

    Raises:
        PromotionRefused: the verdict does not allow a promotion; the candidate stays in the store.
        UnalikeError: something of it fails.
    """
    _check(settings)
    with find_store(settings.folder, settings.store, settings.images) as store:
        return _improve(settings, store, actor)


def _improve(settings: Improve, store: Store, actor: str) -> dict[str, Any]:
    name, address = choose_gallery(store, settings.gallery)
    place = LearningGallery(
        store, name, address, settings.model, settings.runtime, settings.precision, settings.threads
    )
    if settings.roll_back:
        return {"promotion": roll_back(place, actor=actor, source=settings.source).to_dict()}
    model_id = settings.candidate
    if model_id is None:
        options = TrainingOptions(
            settings.data, settings.with_service, settings.minutes, settings.goal, settings.share, settings.name or "",
            spec=settings.training_spec,
        )  # fmt: skip
        model_id = train_candidate(place, options, task_folder(store.folder, new_id()))[0].id
        say(f"candidate: {model_id}")
    comparison = compare_candidate(place, model_id)
    answer: dict[str, Any] = {
        "model": place.candidate(model_id).to_dict(), "comparison": comparison.to_dict(), "promotion": None,
    }  # fmt: skip
    if settings.promote:
        try:
            promotion = promote(
                place, model_id, actor=actor, override=settings.override, reason=settings.reason or "", source=settings.source
            )  # fmt: skip
        except PromotionRefused:
            say(f"the candidate stays in the store: unalike improve --candidate {model_id} compares it again")
            raise
        answer["promotion"] = promotion.to_dict()
    return answer


def _check(settings: Improve) -> None:
    """Refuse options that contradict each other. Raises SpecError."""
    if settings.roll_back and (settings.data is not None or settings.candidate is not None):
        raise SpecError("improve.roll_back with data or a candidate", expected="one of them")
    if settings.candidate is not None and settings.data is not None:
        raise SpecError("improve.candidate with data", expected="a candidate that exists, or data for a new one")
    if settings.data is None and not settings.with_service and settings.candidate is None and not settings.roll_back:
        raise SpecError("improve: no data, and the references and corrections of the service are left out",
                        expected="improve.data or improve.with_service")  # fmt: skip
    if settings.override and not (settings.reason or "").strip():
        raise SpecError("improve.override without a reason", expected="improve.reason: it stays in the audit log")
