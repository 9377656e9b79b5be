"""What a browser finds on a page: overflow, messages, requests, and violations of WCAG by axe-core."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from tests.browser.actions import PATIENCE_MS
from tests.support.workbench import Workbench

SHAPES = [(390, "dark"), (1440, "light")]  # each width and each scheme once
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
# Of pages that are served; the reports' tables may have small targets.
PAGE_RULES = [*RULES, "wcag22a", "wcag22aa", "best-practice"]
# Elements that reach beyond the right edge of the window, and that no container of their own scrolls.
FIND_OVERFLOW = """() => [...document.querySelectorAll('body *')].filter(element => {
  const box = element.getBoundingClientRect();
  if (!box.width || box.right <= document.documentElement.clientWidth + 1) return false;
  for (let parent = element.parentElement; parent && parent !== document.body; parent = parent.parentElement)
    if (['auto', 'scroll'].includes(getComputedStyle(parent).overflowX)) return false;
  return true;
}).map(element => element.outerHTML.slice(0, 120))"""
FIRST_SENTENCE = "() => document.querySelector('h1').nextElementSibling.innerText"
BEFORE_PICTURES = """() => { const picture = document.querySelector('img, svg'); if (!picture) return 1;
  return [...document.querySelectorAll('p.lead')].filter(
    text => text.getBoundingClientRect().bottom <= picture.getBoundingClientRect().top).length }"""
# The browser's own lines about requests that meet a service while it is stopped, or not ready yet.
OUTAGE = re.compile(
    r"Failed to load resource: (net::ERR_(CONNECTION|EMPTY)_|the server responded with a status of 503)"
)
OPEN_ALL = "() => document.querySelectorAll('details').forEach(details => { details.open = true })"


@dataclass
class PageView:
    """A page as a browser shows it: how it begins, and what is wrong with it.

    Attributes:
        first_sentence: The first paragraph below the title.
        before_pictures: Number of paragraphs above the first image or plot; 1 where there is none.
    """

    first_sentence: str = ""
    before_pictures: int = 0
    overflow: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """All that is wrong."""
        return [*self.overflow, *self.messages, *self.requests, *self.violations]


@cache
def axe_source() -> str:
    """The script of axe-core, from the package axe-playwright-python."""
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def view_page(browser: Any, path: Path, width: int, scheme: str, *, rules: bool = True) -> PageView:
    """Open a file in a window of ``width`` pixels, with everything unfolded.

    Args:
        browser: The fixture ``browser``.
        path: The page.
        width: Width of the window in CSS pixels.
        scheme: light or dark.
        rules: Whether axe-core looks for violations of RULES.
    """
    view = PageView()
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.on("console", lambda message: view.messages.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: view.messages.append(f"error: {error}"))
    address = path.resolve().as_uri()
    page.on(
        "request",
        lambda request: None if request.url == address or request.url.startswith("data:") else view.requests.append(request.url),
    )  # fmt: skip
    page.goto(address)
    view.first_sentence, view.before_pictures = page.evaluate(FIRST_SENTENCE), page.evaluate(BEFORE_PICTURES)
    page.evaluate(OPEN_ALL)
    view.overflow = find_overflow(page)
    if rules:
        view.violations = find_violations(page, RULES)
    context.close()
    return view


def find_overflow(page: Any) -> list[str]:
    """What reaches beyond the right edge of the window."""
    is_wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return [*(["the page scrolls sideways"] if is_wide else []), *page.evaluate(FIND_OVERFLOW)]


def find_violations(page: Any, rules: list[str]) -> list[str]:
    """What axe-core finds on the page as it is now."""
    page.evaluate(axe_source())
    result = page.evaluate("rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", rules)
    return [
        f"{found['id']}: {node['html'][:160]} {node.get('failureSummary', '')}"
        for found in result["violations"]
        for node in found["nodes"]
    ]


class Visit:
    """A page of a service in a window of its own; what the console says is collected.

    Args:
        browser: The fixture ``browser``.
        width, scheme: As of ``view_page``.
        options: Further options of the browser's context.
    """

    def __init__(self, browser: Any, width: int = 1440, scheme: str = "light", **options: Any) -> None:
        height = 844 if width < 600 else 900
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.messages: list[str] = []
        self._has_outage = False
        self.page.on("console", self._collect)
        self.page.on("pageerror", lambda error: self.messages.append(f"error: {error}"))
        self.page.on("dialog", self._refuse)

    def _collect(self, message: Any) -> None:
        if not (self._has_outage and OUTAGE.search(message.text)):
            self.messages.append(f"console: {message.text}")

    def _refuse(self, dialog: Any) -> None:
        self.messages.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def restart(self, service: Workbench) -> None:
        """Restart the service below the open page, whose requests may fail meanwhile: pages ask again by themselves."""
        self._has_outage = True
        service.restart()

    def faults(self) -> list[str]:
        """What is wrong with the page as it is now."""
        return [*find_overflow(self.page), *find_violations(self.page, PAGE_RULES), *self.messages]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()
