import jinja2
import pytest

from unalike.report.templating import environment, render


def test_every_template_escapes_and_refuses_a_missing_value():
    environment_ = environment()
    assert environment_.autoescape is True, "by default only files that end in .html would be escaped"
    names = environment_.list_templates()
    assert "style.css" in names and all(environment_.get_template(name) for name in names)
    with pytest.raises(jinja2.UndefinedError):
        render("report.html.j2", title="t", sections=[])


def test_a_page_holds_the_stylesheet_as_it_is():
    text = render("report.html.j2", title="<t>", subtitle="", sentences=[], sections=[])
    assert text.startswith("<!doctype html>") and "&lt;t&gt;" in text
    assert '"Segoe UI"' in text, "the stylesheet is included, not escaped"


def test_names_turn_no_line_around_and_hide_nothing():
    text = environment().from_string("<p>{{ name }}</p>").render(name="a\u202egnp.\x1b[31mexe\n<b>\tü \u200d")
    assert text == "<p>a\\u202egnp.\\x1b[31mexe\n&lt;b&gt;\tü \u200d</p>"
