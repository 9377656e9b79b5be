"""The Jinja2 environment of all HTML pages: templates in ``report/templates``, everything escaped."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from unalike.sanitize import one_line

if TYPE_CHECKING:
    from jinja2 import Environment

# Control characters but tabulators and ends of lines, marks and overrides of direction, separators of lines.
_HIDDEN = re.compile(
    "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff]"
)


def render(template: str, **values: Any) -> str:
    """Render a template of ``report/templates``.

    Args:
        template: Its file name, such as ``report.html.j2``.
        values: Values of the template's variables. Every text is escaped, whatever the name of the template.
    """
    return environment().get_template(template).render(**values)


@cache
def environment() -> Environment:
    """The environment of the package's templates."""
    return make_environment("unalike.report")


def make_environment(package: str) -> Environment:
    """An environment of the templates of a package; Jinja2 is imported when the first page is rendered.

    Args:
        package: Its dotted name; the templates are in its folder ``templates``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_visible,
    )


def _visible(value: Any) -> Any:
    """A text in which characters that would turn the direction of writing, or hide, are shown by their codes.

    Names of files and classes come from anywhere: an override of the direction makes ``gnp.exe`` of ``exe.png``, for the
    rest of the line.
    """
    if type(value) is not str:  # Markup, a subclass, is the page's own
        return value
    return _HIDDEN.sub(lambda match: one_line(match[0]), value)
