"""The page on which a browser signs in with a key, and the first address of the service."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from unalike.serve.pages.rendering import NAVIGATION, render_page
from unalike.serve.security import SIGN_IN_PATH
from unalike.serve.service import Service

HOME = NAVIGATION[0][0]


def own_path(address: str) -> str:
    """An address where it is a path of this service, else the first page: no other site may be the next one."""
    # Browsers read a backslash as a slash, leave out line ends and tabulators, and take what follows two slashes for a host.
    is_own = address.startswith("/") and not address.startswith("//") and "\\" not in address and address.isprintable()
    return address if is_own else HOME


def sign_in_pages(service: Service) -> APIRouter:
    """The pages."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def home() -> Response:
        # The page of what is served.
        is_for_inspection = service.resources.inspectors and not service.resources.galleries
        return RedirectResponse("/inspect" if is_for_inspection else HOME, 303)

    @router.get(SIGN_IN_PATH)
    async def sign_in(request: Request) -> Response:
        target = own_path(request.query_params.get("next", HOME)[:2000])
        if not service.access.needs_key:
            return RedirectResponse(target, 303)
        return render_page(request, "sign_in.html.j2", target=target)

    return router
