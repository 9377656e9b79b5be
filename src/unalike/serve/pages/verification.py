"""The page Verify: whether pictures show an approved asset unaltered, with the asset beside each, and where they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.serve.pages.answer_list import AnswerList
from unalike.serve.pages.batch import new_batch
from unalike.serve.pages.rendering import render_page
from unalike.serve.request_context import context_of
from unalike.serve.resources import AssetsResource
from unalike.serve.security import require_gallery
from unalike.serve.service import Service
from unalike.serve.store import DecisionRecord, Feedback
from unalike.serve.store.records import WITHDRAWN
from unalike.serve.uploads import Parameters
from unalike.verification.result import ABSENT, ALTERED, DIFFERENT, REASONS, SAME

HEADLINES = {SAME: "Same", ALTERED: "Altered", DIFFERENT: "Different", ABSENT: "Not in the set"}


@dataclass(frozen=True)
class VerificationView:
    """One answer.

    Attributes:
        record: the decision.
        headline: what was decided, in words.
        asset: name of the nearest asset.
        has_picture: whether the set still has that asset.
        reasons: in words, the largest first.
        boxes: where it differs, in pixels of the picture.
        outline: corners of the asset in the picture, as points of a polygon; empty where it was not located.
        size: (H, W) of the picture.
        feedback: what counts of what was said about it; None where nothing does.
    """

    record: DecisionRecord
    headline: str
    asset: str
    has_picture: bool
    reasons: tuple[str, ...]
    boxes: tuple[list[int], ...]
    outline: str
    size: tuple[int, int]
    feedback: Feedback | None

    @classmethod
    def of(cls, record: DecisionRecord, resource: AssetsResource) -> VerificationView:
        """The view of a decision."""
        result = record.result
        remark = record.feedback[-1] if record.feedback else None
        height, width = result.get("size", (0, 0))
        return cls(
            record, HEADLINES.get(record.decision, record.decision), result.get("asset", ""),
            result.get("asset", "") in resource.verifier.approved.names,
            tuple(REASONS.get(name, name) for name in result.get("reasons", {})),
            tuple(region["box"] for region in result.get("spots", ())),
            " ".join(f"{x},{y}" for x, y in result.get("outline", ())), (height, width),
            None if remark is None or remark.verdict == WITHDRAWN else remark,
        )  # fmt: skip


def verification_pages(service: Service) -> APIRouter:
    """The page and its parts."""
    router = APIRouter(include_in_schema=False)

    @router.get("/verify")
    async def verify(request: Request) -> Response:
        if not service.resources.assets:
            require_gallery(context_of(request), "page", "Verify")
            return render_page(request, "verify_empty.html.j2")
        values = await _answers(service, request)
        resource = service.resources.asset_set(values["assets"])
        return render_page(
            request, "verify.html.j2", sets=list(service.resources.assets), names=list(resource.verifier.approved.names),
            keeps_images=service.settings.keep_images, new_batch=values["batch"] or new_batch(), **values,
        )  # fmt: skip

    @router.get("/verify/answer")
    async def answer(request: Request) -> Response:
        resource, parameters = _read_set(service, request)
        decision_id = parameters.text("id", "", most=64) or ""
        parameters.finish()
        view = await _answers_of(resource).one(service, request, decision_id)
        return render_page(request, "fragments/verification.html.j2", assets=resource.name, answer=view)

    return router


def _read_set(service: Service, request: Request) -> tuple[AssetsResource, Parameters]:
    """The set of assets that an address names, and its other parameters. Raises Problem (403, 404)."""
    parameters = Parameters.of_query(request)
    return service.asset_set(request, parameters.text("assets", most=64)), parameters


def _answers_of(resource: AssetsResource) -> AnswerList:
    return AnswerList(
        "verify", resource.name, "set", lambda records: [VerificationView.of(record, resource) for record in records]
    )


async def _answers(service: Service, request: Request) -> dict[str, Any]:
    resource, parameters = _read_set(service, request)
    return {"assets": resource.name, **await _answers_of(resource).page(service, request, parameters)}
