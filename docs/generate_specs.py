"""The pages on the keys of specs, from their declarations: every section and field with default, expected values and help.

``site_hooks.py`` adds the pages to the site. They are not kept in the repository; ``unalike keys`` lists the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from unalike.spec.actions import MODEL_ACTIONS, STANDALONE_ACTIONS, command_of
from unalike.spec.fields import declared_fields, expectation
from unalike.spec.nodes import SpecNode
from unalike.spec.reading import yaml_line

MODELS_PAGE, OTHERS_PAGE = "reference/spec-models.md", "reference/spec-others.md"
INTRODUCTIONS = {
    MODELS_PAGE: """# Keys of specs: train, evaluate, export and the other actions on a model

A spec is a YAML file (`-e FILE`). On the command line a key is an override: `train.num_epochs=20`. These sections may all stand
in one file; each action reads those that concern it.""",
    OTHERS_PAGE: """# Keys of specs: compare, inspect, verify, gallery and the other actions

Each of these actions has a spec of its own: one section under the action's name and, where it writes a results folder,
`results_dir`. On the command line most of these keys are options as well (see [commands](../commands.md)).""",
}
END = """
`unalike keys WORD` finds a key by a part of its name or description, `unalike default-specs ACTION` writes a commented spec
with every default. This page is generated from the declarations in `src/unalike/spec/`.
"""
TABLE = ["| key | default | expected | meaning |", "|---|---|---|---|"]


def cell(text: object) -> str:
    """Text as a cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;").replace("{", "&#123;")


def row(path: str, node: SpecNode) -> str:
    """A field as a row of the table. ``settled`` fields follow from data, model or machine where they are not set."""
    default = yaml_line(node.info.get_default(call_default_factory=True))
    if node.facts.get("settled"):
        default = f"`{default}`, settled by data, trunk or machine"
    else:
        default = f"`{default}`"
    return f"| `{path}` | {cell(default)} | {cell(expectation(node))} | {cell(node.help)} |"


def section_lines(path: str, fields: dict[str, SpecNode], depth: int) -> Iterator[str]:
    """A section: its heading, its help, the table of its fields, then the sections in it."""
    node, prefix = fields[path], f"{path}."
    inside = {key: part for key, part in fields.items() if key.startswith(prefix) and "." not in key[len(prefix) :]}
    yield from ("", f"{'#' * depth} {path}", "", cell(node.help), "")
    leaves = [row(key, part) for key, part in inside.items() if part.section is None]
    yield from ([*TABLE, *leaves, ""] if leaves else [])
    for key, part in inside.items():
        if part.section is not None:
            yield from section_lines(key, fields, min(depth + 1, 6))


def pages() -> dict[str, str]:
    """Address of each page in the site -> its text."""
    fields = declared_fields()
    tops = [path for path in fields if "." not in path]
    texts = {}
    for address, of_page in (
        (MODELS_PAGE, [top for top in tops if top not in STANDALONE_ACTIONS]),
        (OTHERS_PAGE, [top for top in tops if top in STANDALONE_ACTIONS]),
    ):
        lines = [INTRODUCTIONS[address], END]
        leaves = [row(top, fields[top]) for top in of_page if fields[top].section is None]
        lines += ["## Top of the file", "", *TABLE, *leaves, ""] if leaves else []
        for top in of_page:
            if fields[top].section is not None:
                lines += section_lines(top, fields, 2)
                if top in (*MODEL_ACTIONS, *STANDALONE_ACTIONS):
                    lines += [f"Command: `unalike {command_of(top)}`.", ""]
        texts[address] = "\n".join(lines) + "\n"
    return texts
