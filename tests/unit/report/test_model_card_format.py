import json
import re
import threading

import pytest

from unalike.report.model_card_format import add_section, card_markdown


def test_a_section_extends_the_card_in_the_folder_else_a_copy_of_the_source(tmp_path):
    source = tmp_path / "source.json"
    source.write_text(json.dumps({"format_version": 1, "name": "parts"}))
    add_section(tmp_path, "test", {"precision": {"value": 0.5, "low": 0.4, "high": 0.6}}, source=source, stem="card")
    add_section(tmp_path, "export", {"file_name": "a.onnx", "absent": None}, source=source, stem="card")
    card = json.loads((tmp_path / "card.json").read_text())
    assert list(card) == ["format_version", "name", "test", "export"]
    assert json.loads(source.read_text()) == {"format_version": 1, "name": "parts"}
    text = (tmp_path / "card.md").read_text()
    assert "parts" in text and "- precision: 0.5000 [0.4000, 0.6000]" in text
    assert "- file name: a.onnx" in text and "absent" not in text


@pytest.mark.parametrize("content", ["no json", "[]", '{"other": 1}'])
def test_a_file_that_is_no_card_is_not_taken_over(tmp_path, content):
    source = tmp_path / "source.json"
    source.write_text(content)
    assert list(add_section(tmp_path, "test", {}, source=source, stem="card")) == ["format_version", "test"]


def test_nested_entries_are_named_by_both_names():
    text = card_markdown(
        {"format_version": 1, "test": {"speed": {"one_image": 0.25}, "rates": [{"fmr": 0.01, "fnmr": 0.5}]}}
    )
    assert "- speed, one image: 0.2500" in text and "- rates fmr 0.01: fnmr: 0.5000" in text


def test_sections_that_are_added_at_one_moment_are_all_there(tmp_path):
    threads = [
        threading.Thread(
            target=add_section, args=(tmp_path, f"part {number}", {}), kwargs={"source": None, "stem": "card"}
        )
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    card = json.loads((tmp_path / "card.json").read_text())
    assert set(card) == {"format_version", *(f"part {number}" for number in range(12))}


@pytest.mark.parametrize(("about", "words"), [({}, "95 %"), ({"intervals": {"confidence": 0.9}}, "90 %")])
def test_what_stands_in_brackets_is_said(about, words):
    figure = {"value": 0.7, "low": 0.6, "high": 0.8}
    card = {"validation": {"made_of": "a", "note": "b", "metrics": {"micro": {"R@1": figure}, **about}}}
    assert (
        f"In brackets: the {words} interval of the mean over all such images.\n\n- R@1: 0.7000 [0.6"
        in card_markdown(card)
    )
    figure.update(low=None, high=None)
    assert "In brackets" not in card_markdown(card)


def test_names_are_no_markup_and_no_further_lines():
    name = "<img src=x onerror=alert(1)>\n# Title\x1b[2J `code` *bold* [text](http://x)"
    text = card_markdown({"format_version": 1, "name": name, "made": "now", "checkpoint": name, "data": {"source": name},
                          "training": {"best_epoch": 4}, "test": {"file": name, name: 0.5},
                          "validation": {"made_of": name, "note": name, "metrics": {"micro": {"precision_at_1": 0.5}}}})  # fmt: skip
    assert "\x1b" not in text and len(text.splitlines()) == 22 and "\n# Title" not in text
    assert re.search(r"(?<!\\)[<>`*]|\]\(", text) is None
    assert "- best epoch: 5\n" in text and "- R@1: 0.5000\n" in text  # files count epochs from 0
