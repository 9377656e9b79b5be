"""Every page that a command writes, in a browser: whole at both widths, WCAG in light and dark, and true to its JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.browser.view import SHAPES, view_page
from tests.support.report_pages import PAGES, ExamplePage


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Callable[[str], ExamplePage]:
    """Each page by its name, written once."""
    written: dict[str, ExamplePage] = {}

    def page(name: str) -> ExamplePage:
        if name not in written:
            written[name] = PAGES[name](tmp_path_factory.mktemp(name))
        return written[name]

    return page


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_shown_whole_follows_wcag_and_loads_nothing(browser, pages, name, width, scheme):
    view = view_page(browser, pages(name).path, width, scheme)
    assert not view.faults(), "\n".join(view.faults())
    assert view.before_pictures >= 1, "a sentence comes first, before every picture"
    assert view.first_sentence.endswith("."), "the result in plain words is the first text below the title"


def of_a_hundred(share: Mapping[str, Any]) -> list[float]:
    """A share as a number of a hundred, and the range of so many new images: never narrower than it is."""
    value, ends = share["value"], []
    for bound, side in ((share["low"], -1), (share["high"], 1)):
        # A hundred images scatter around the mean as a share at the bound does, with Wilson's error.
        chance = 1.96 * math.sqrt(bound * (1 - bound) / 100 + (1.96 / 200) ** 2)
        ends.append(min(1, max(0, value + side * math.sqrt((bound - value) ** 2 + chance**2))))
    return [100, round(100 * value), math.floor(100 * ends[0] + 1e-9), math.ceil(100 * ends[1] - 1e-9)]


def counted(figures: Mapping[str, Any]) -> list[float]:
    """Images, those with the right name, and classes: where no interval can be stated."""
    images = figures["measured"]
    return [images, round(images * figures["micro"]["precision_at_1"]["value"]), figures["classes"]]


def of_candidate(figures: Mapping[str, Any]) -> list[float]:
    """The delivered candidate's R@1 of known classes, the first of its figures."""
    chosen = next(c for c in figures["candidates"] if c["name"] == figures["chosen"])
    return of_a_hundred(chosen["figures"]["known"]["R@1"])


def of_trials(figures: Mapping[str, Any]) -> list[float]:
    """Trials, the best one, and its metric; the 1 is that of the metric's name."""
    return [sum(figures["counts"].values()), figures["best"]["trial"], 1, round(figures["best"]["value"], 3)]


def of_pairs(figures: Mapping[str, Any]) -> list[float]:
    """Pairs; those that differ, that do not, and that could not be compared."""
    answers = [entry.get("answer") for entry in figures["pairs"]]
    return [len(answers), answers.count("different"), answers.count("same"), answers.count(None)]


def of_answers(figures: Mapping[str, Any]) -> list[float]:
    """Images, then the numbers of each answer."""
    answers = figures["answers"]
    return [sum(answers.values()), *(answers[name] for name in ("same", "altered", "different", "not in the set"))]


# Page -> the numbers of its first sentence, from its JSON.
NUMBERS: dict[str, Callable[[Mapping[str, Any]], list[float]]] = {
    "evaluate": lambda figures: of_a_hundred(figures["micro"]["precision_at_1"]),
    "evaluate-few-classes": counted,
    "train": lambda figures: of_a_hundred(figures["micro"]["precision_at_1"]),
    "train-automatic": of_candidate,
    "automl": of_trials,
    "gallery": lambda figures: of_a_hundred(figures["false_match"] | {"value": figures["false_match"]["rate"]}),
    "compare": of_pairs,
    "inspect": lambda figures: of_a_hundred(figures["measured"]["found"]),
    "verify": of_answers,
    "discover": lambda figures: [figures["images"], figures["groups"], figures["in_no_group"]],
    "explain": lambda figures: [figures["pairs"], figures["same"]],
    "demo": lambda figures: of_a_hundred(figures["R@1"][1]),
}


def first_sentence(page: ExamplePage) -> str:
    """The first sentence below the title."""
    found = re.search(r'<p class="lead">([^<]+)</p>', page.path.read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


@pytest.mark.parametrize("name", PAGES)
def test_the_numbers_of_the_first_sentence_are_those_of_the_json(pages, name):
    page = pages(name)
    numbers = [float(text.replace(",", "")) for text in re.findall(r"\d[\d,]*(?:\.\d+)?", first_sentence(page))]
    assert numbers == NUMBERS[name](page.figures)


def test_too_few_classes_are_named_in_words(pages):
    assert "2 classes are too few to say" in first_sentence(pages("evaluate-few-classes"))


def test_defective_is_red_and_good_green_with_a_mark_and_a_word(browser, pages):
    tab = browser.new_page(color_scheme="light")
    tab.goto(pages("inspect").path.as_uri())
    for word, mark, color, border in (
        ("defective", "✗", (185, 28, 28), "dashed"),
        ("good", "✓", (21, 128, 61), "solid"),
    ):
        caption = tab.locator("figcaption b", has_text=f"{mark} {word}").first
        figure = tab.locator("figure", has=tab.locator("b", has_text=f"{mark} {word}")).first
        style = "element => [getComputedStyle(element).color, getComputedStyle(element).borderTopStyle, getComputedStyle(element).borderTopColor]"
        frame = figure.locator("img").first.evaluate(style)
        assert caption.evaluate(style)[0] == f"rgb{color}" == frame[2] and frame[1] == border
    tab.close()


def test_the_interval_of_a_gain_is_in_view_on_a_telephone(browser, pages):
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.goto(pages("train-automatic").path.as_uri())
    gains = tab.locator("td[data-name=gain] .bounds")
    assert gains.count() == 4
    for number in range(4):
        box = gains.nth(number).bounding_box()
        assert re.fullmatch(r"[+-]0\.\d{3} to [+-]0\.\d{3}", gains.nth(number).inner_text())
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    tab.close()


def test_heads_and_hyperparameters_are_folded_under_their_names(pages):
    folded = {
        name: re.findall(r"<summary><h2>([^<]+)", pages(name).path.read_text(encoding="utf-8"))
        for name in ("train-automatic", "automl")
    }
    assert (
        "Heads on frozen features" in folded["train-automatic"] and "Search space: hyperparameters" in folded["automl"]
    )
