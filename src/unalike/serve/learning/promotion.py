"""Promotion of a candidate, and the return to the former model: the gallery is embedded anew and replaced in one step.

The gallery says which model it is served with; services that run take both over within a second, and one that starts
takes what it finds. The store keeps who promoted what, with which verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unalike.errors import DataError
from unalike.learning.verdict import MARGIN
from unalike.progress import say
from unalike.recognition.decision import GalleryCalibration
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_conversion import convert_gallery
from unalike.recognition.recognizer import Recogniser
from unalike.serve.learning.candidate import compare_candidate
from unalike.serve.learning.collection import Originals
from unalike.serve.learning.gallery_models import LearningGallery, entries_of
from unalike.serve.model_files import keep_vectors, vectors_file
from unalike.serve.store.learning import PROMOTE, ROLL_BACK, ComparisonRecord, PromotionRecord


class PromotionRefused(DataError):
    """A candidate that is not known to be at least as good as the model in service."""


def current_comparison(place: LearningGallery, model_id: str) -> ComparisonRecord | None:
    """The latest comparison of a candidate with the network that is in service now; None where there is none."""
    with place.opened() as gallery:
        return place.store.learning.comparison(model_id, gallery.model_identity.network)


def require_verdict(comparison: ComparisonRecord, *, override: bool, reason: str) -> None:
    """Refuse a candidate by its verdict, unless an admin overrides that.

    Raises:
        PromotionRefused: the verdict does not allow it.
        DataError: an override without a reason.
    """
    verdict = comparison.result["verdict"]
    if override and not reason.strip():
        raise DataError(
            "an override without a reason",
            expected="why the candidate is promoted all the same: it stays in the audit log",
        )
    if verdict["decision"] == PROMOTE or override:
        return
    raise PromotionRefused(
        f"not promoted: {verdict['reason']}",
        expected=f"a paired difference of R@1 of at least 0, whose 95 % interval begins at {-100 * MARGIN:g} point or above",
        remedy="correct more decisions, or train again; an admin may override it with a reason",
    )  # fmt: skip


def promote(
    place: LearningGallery, model_id: str, *, actor: str, request_id: str = "", override: bool = False, reason: str = "",
    source: str | None = None,
) -> PromotionRecord:  # fmt: skip
    """Put a candidate into service, where its comparison with the model in service allows it.

    Args:
        place: the gallery.
        model_id: the candidate.
        actor, request_id: who asks, for the audit log.
        override: promote it whatever the comparison says.
        reason: why, with an override.
        source: a folder with pictures of references that have none at their path.

    Returns:
        The promotion.

    Raises:
        PromotionRefused: the verdict does not allow it.
        MissingOriginals: references have no picture; nothing was changed.
        DataError: there is no such candidate, or it is in service already.
    """
    record = place.candidate(model_id)
    with place.opened() as gallery:
        network, former = gallery.model_identity.network, place.stored_file(place.model_in_service(gallery))
    if network == record.network:
        raise DataError(f"the model {record.name!r} is in service already", expected="another candidate")
    comparison = current_comparison(place, model_id) or compare_candidate(place, model_id)
    verdict = comparison.result["verdict"]
    details = {"model": record.id, "name": record.name, "verdict": verdict, "override": override, "reason": reason}
    with _audited(place, actor, "model.promote", details, request_id) as outcome:
        require_verdict(comparison, override=override, reason=reason)
        promotion = PromotionRecord(PROMOTE, place.name, record.id, record.file, former, actor, details)
        outcome |= _switch(place, place.file_of(record.file), promotion, source)
    return promotion


def roll_back(
    place: LearningGallery, *, actor: str, request_id: str = "", source: str | None = None
) -> PromotionRecord:
    """Return to the model that was in service before the latest promotion.

    References that were enrolled, moved or removed since stay so: those of before get the vectors that they had, the others
    are embedded by the former model.

    Raises:
        DataError: nothing was promoted.
        MissingOriginals: as of ``promote``.
    """
    standing = place.store.learning.standing_promotion(place.name)
    if standing is None:
        raise DataError(
            f"no model of the gallery {place.name} was promoted", expected="a promotion that can be taken back"
        )
    with place.opened() as gallery:
        former = place.stored_file(place.model_in_service(gallery))
    parts = Path(standing.former).parts
    is_own = not Path(standing.former).is_absolute() and len(parts) == 3
    details = {"taken back": standing.id, "model": standing.model}
    with _audited(place, actor, "model.rollback", details, request_id) as outcome:
        promotion = PromotionRecord(
            ROLL_BACK, place.name, parts[1] if is_own else None, standing.former, former, actor, details
        )
        outcome |= _switch(place, place.file_of(standing.former), promotion, source)
    return promotion


def missing_originals(place: LearningGallery, source: str | None = None) -> list[str]:
    """Names of the references of a gallery that no other model could embed, since they have no picture."""
    originals = Originals(place.store, None if source is None else Path(source))
    with place.opened() as gallery:
        entries = entries_of(gallery)
    return [entry.name for entry in entries if not originals.exists(entry)]


def _switch(place: LearningGallery, file: str, promotion: PromotionRecord, source: str | None) -> dict[str, Any]:
    """Embed the gallery by another model and replace it; what is worth a line in the audit log."""
    if source is not None and not Path(source).is_dir():
        raise DataError(f"there is no folder {source}", expected="a folder with pictures of references")
    originals = Originals(place.store, None if source is None else Path(source))
    recognizer = place.open(file)
    notes: dict[str, Any] = {}
    with place.opened() as gallery:
        calibration = gallery.calibration

    def calibrate(converted: Recogniser) -> GalleryCalibration | None:
        return calibrate_alike(converted, calibration, notes)

    def before_replacing(former: Gallery) -> None:
        keep_vectors(former, vectors_file(place.folder, place.name, former.model_identity))
        place.store.learning.add_promotion(promotion)

    try:
        convert_gallery(
            place.address, recognizer, originals.read, calibrate, place.kept_vectors(recognizer.model_identity),
            max_pixels=place.max_pixels, on_replace=before_replacing,
        )  # fmt: skip
    except BaseException:
        place.store.learning.remove_promotion(promotion.id)
        raise
    say(f"the gallery {place.name} is served with {file}")
    return notes


def calibrate_alike(
    recognizer: Recogniser, before: GalleryCalibration | None, notes: dict[str, Any]
) -> GalleryCalibration | None:
    """The calibration of a converted gallery, as its former one was asked for; None where there was none or none is possible."""
    if before is None:
        return None
    try:
        return recognizer.set_threshold(None if before.provisional else before.false_match.target, rule=before.rule)[0]
    except DataError as error:
        notes["not calibrated"] = str(error)
        say(f"not calibrated: {error}")
        return None


@contextmanager
def _audited(
    place: LearningGallery, actor: str, action: str, details: Mapping[str, Any], request_id: str
) -> Iterator[dict[str, Any]]:
    """An entry of the audit log around a change of the model; what the caller puts into the dictionary becomes part of it."""
    audit = place.store.audit
    entry = audit.begin(actor, action, place.name, details, request_id=request_id)
    outcome: dict[str, Any] = {}
    try:
        yield outcome
    except BaseException as error:
        audit.finish(entry, "failed", str(error))
        raise
    audit.finish(entry, "done", details=outcome)
