"""Write docs/commands.md: every command with its arguments and options, from the commands themselves.

Run ``python docs/generate_commands.py``; a test compares the page with what this script gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unalike.cli.commands import ALIASES, COMMANDS, load_command
from unalike.spec.actions import JOB_ACTIONS, MODEL_ACTIONS, STANDALONE_ACTIONS, command_of
from unalike.spec.fields import fields_of

PAGE = Path(__file__).parent / "commands.md"
INTRODUCTION = """# Commands

`unalike COMMAND --help` shows the same. `-v` prints more, `-q` errors alone, `--json` the result as one JSON object; they are
left out here. A command of an action takes a spec file (`-e FILE`) and overrides (`key=value`): the command line rules over
the overrides, and these over the file. Options that are fields of a spec are named with their field; every field of every
action stands in the templates below `src/unalike/skill/references/` and is written out by `unalike default-specs ACTION`.

This page is generated from the commands by `python docs/generate_commands.py`.
"""
COMMON = {"verbose", "quiet", "as_json", "spec", "help"}


def commands() -> Iterator[tuple[str, Any]]:
    """(words, click command) of every command; the commands of a group after one another."""
    for name in COMMANDS:
        command = load_command(name)
        if hasattr(command, "commands"):
            for inner, part in command.commands.items():
                yield f"{name} {inner}", part
        else:
            yield name, command


def cell(text: object) -> str:
    """Text as a cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def row(parameter: Any, fields: dict[str, str]) -> str:
    """One argument or option as a row of the table."""
    if parameter.param_type_name == "argument":
        name = f"`{parameter.metavar or parameter.name}`"
    else:
        metavar = "" if parameter.is_flag else f" {parameter.metavar or 'N'}"
        name = f"`{', '.join(parameter.opts)}{metavar}`"
    value = ",".join(parameter.default) if isinstance(parameter.default, list) else parameter.default
    default = "" if value in (None, False, "") or callable(value) else f"`{value}`"
    return f"| {cell(name)} | {fields.get(parameter.name, '')} | {cell(default)} | {cell(parameter.help or '')} |"


def section(words: str, command: Any) -> str:
    """The part of the page on one command."""
    action = next(
        (
            name
            for name in (*STANDALONE_ACTIONS, *MODEL_ACTIONS)
            if ALIASES.get(command_of(name), command_of(name)) == words
        ),
        None,
    )
    fields = {}
    if action in STANDALONE_ACTIONS:
        fields = {path.partition(".")[2]: f"`{path}`" for path in fields_of(action) if path.startswith(f"{action}.")}
    first = (command.help or "").split("\n\n")[0]
    lines = [f"## {words}", "", cell(first), ""]
    if action is not None:
        job = f" As a job: `unalike job create {action}`." if action in JOB_ACTIONS else ""
        lines += [f"Spec: `unalike default-specs {action}`.{job}", ""]
    rows = [row(parameter, fields) for parameter in command.params if parameter.name not in COMMON]
    if rows:
        lines += ["| argument or option | field | default | meaning |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


def page() -> str:
    """The page's text."""
    return INTRODUCTION + "\n" + "\n".join(section(words, command) for words, command in commands())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
