"""The lists of answers on the pages Recognize, Inspect and Verify: those of a visit, one decision, or the latest ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from unalike.serve.pages.batch import start_of_batch
from unalike.serve.problems import Problem
from unalike.serve.request_context import context_of
from unalike.serve.routes.decisions import find_decision
from unalike.serve.service import Service
from unalike.serve.store import DecisionFilter, DecisionRecord
from unalike.serve.store.records import check_page
from unalike.serve.uploads import Parameters

PAGE_SIZE = 12


@dataclass(frozen=True)
class AnswerList:
    """The answers of one gallery, inspector or set of assets.

    Attributes:
        kind: of the decisions, such as ``identify``.
        resource: the name of what answered.
        noun: what that is, for messages.
        show: makes what a template shows of decisions; called in a thread.
    """

    kind: str
    resource: str
    noun: str
    show: Callable[[Sequence[DecisionRecord]], Sequence[Any]]

    async def one(self, service: Service, request: Request, decision_id: str) -> Any:
        """One answer. Raises Problem (404)."""
        record = await find_decision(service.store, context_of(request), decision_id)
        if (record.kind, record.resource) != (self.kind, self.resource):
            raise Problem(404, "no-decision", f"no decision of the {self.noun} {self.resource} has this id")
        return (await asyncio.to_thread(self.show, [record]))[0]

    async def page(self, service: Service, request: Request, parameters: Parameters) -> dict[str, Any]:
        """The answers of the batch or the decision in the address, else the latest; as variables of a template.

        Raises:
            Problem: 404 for a decision of something else, 422 for what the parameters may not be.
            DataError: ``after`` is no place in the list.
        """
        batch, decision = parameters.text("batch", most=128), parameters.text("decision", most=64)
        after = parameters.text("after", most=64)
        parameters.finish()
        check_page(after, PAGE_SIZE)
        selection = DecisionFilter(
            kind=self.kind, resource=self.resource, request_id=batch, since=start_of_batch(batch) if batch else None
        )

        def find() -> tuple[Sequence[Any], str | None]:
            page = service.store.decisions.find(selection, after, PAGE_SIZE)
            return self.show(page.items), page.next

        if decision is not None:
            answers: Sequence[Any] = [await self.one(service, request, decision)]
            following = None
        else:
            answers, following = await asyncio.to_thread(find)
        return {
            "answers": answers,
            "following": following,
            "batch": batch,
            "decision": decision,
            "is_first": after is None,
        }
