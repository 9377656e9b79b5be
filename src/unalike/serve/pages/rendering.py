"""Rendering of pages: the templates of ``serve/templates``, what every page needs to know, and the headers of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse

from unalike.report.templating import make_environment
from unalike.serve.request_context import RequestContext, context_of
from unalike.serve.security import ADMIN, ROLES
from unalike.serve.service import Service

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "media-src 'self' blob:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
# Address and name of each page, in the order of the navigation.
NAVIGATION = (
    ("/recognize", "Recognize"),
    ("/classes", "Classes"),
    ("/review", "Review"),
    ("/inspect", "Inspect"),
    ("/compare", "Compare"),
    ("/verify", "Verify"),
    ("/train", "Train"),
    ("/monitor", "Monitor"),
    ("/settings", "Settings"),
)
# Those of one gallery: their address names it, and a key for one gallery may see them.
GALLERY_PAGES = frozenset(("/recognize", "/classes", "/review", "/train", "/monitor"))
# Pages of the whole service, for administrators.
ADMIN_PAGES = frozenset(("/settings",))


@dataclass(frozen=True)
class Viewer:
    """Who looks at a page.

    Attributes:
        actor: name of the key.
        role: its role.
        is_signed_in: whether there is a session to end.
    """

    actor: str
    role: str
    is_signed_in: bool

    def may(self, role: str) -> bool:
        """Whether what needs this role is shown; the API refuses it anyway."""
        return ROLES.index(self.role) >= ROLES.index(role)


@cache
def environment() -> Environment:
    """The environment of the pages' templates."""
    pages = make_environment("unalike.serve")
    pages.filters["query"] = urlencode
    pages.filters["details"] = _details
    return pages


def _details(values: Mapping[str, Any]) -> str:
    """Details of an entry of the audit log in one line."""
    return "; ".join(f"{name}: {_plain(value)}" for name, value in values.items() if value not in (None, [], ""))


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{name} {_plain(item)}" for name, item in value.items())
    return str(value)


def render_page(
    request: Request, template: str, *, service: Service | None = None, gallery: str | None = None, status: int = 200,
    headers: dict[str, str] | None = None, **values: Any,
) -> HTMLResponse:  # fmt: skip
    """Render a page or a fragment.

    Args:
        request: who asks.
        template: file name in ``serve/templates``.
        service: its galleries are offered in the header; None: none.
        gallery: the one that the page shows.
        status, headers: of the answer.
        values: variables of the template; every text is escaped.
    """
    context = context_of(request)
    viewer = Viewer(context.actor, context.role, bool(context.csrf))
    is_chief = viewer.may(ADMIN) and context.gallery is None
    values |= {
        "viewer": viewer, "csrf": context.csrf, "gallery": gallery,
        "galleries": gallery_names(service, context) if service is not None else [], "path": request.url.path,
        "gallery_pages": GALLERY_PAGES,
        "navigation": [
            page for page in NAVIGATION
            if (context.gallery is None or page[0] in GALLERY_PAGES) and (is_chief or page[0] not in ADMIN_PAGES)
        ],
    }  # fmt: skip
    html = environment().get_template(template).render(**values)
    return HTMLResponse(html, status, headers={**(headers or {}), "Content-Security-Policy": PAGE_POLICY})


def gallery_names(service: Service, context: RequestContext) -> list[str]:
    """The galleries that a key may use."""
    return [name for name in service.resources.galleries if context.gallery in (None, name)]
