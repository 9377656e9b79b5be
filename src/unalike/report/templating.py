"""The Jinja2 environment of all HTML pages: templates in ``report/templates``, everything escaped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Render a template of ``report/templates``.

    Args:
        template: Its file name, such as ``report.html.j2``.
        values: Values of the template's variables. Every text is escaped, whatever the name of the template.
    """
    return environment().get_template(template).render(**values)


@cache
def environment() -> Environment:
    """The environment of the package's templates; Jinja2 is imported when the first page is rendered."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("unalike.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
