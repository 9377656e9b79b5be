"""The pages of the documentation: their blocks of code, and the command lines of unalike in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.paths import ROOT

DOCS = ROOT / "docs"
# Measurements are not changed later, so their commands are those of their day.
PAGES = sorted([ROOT / "README.md", *(path for path in DOCS.rglob("*.md") if "experiments" not in path.parts)])
SHELL = ("sh", "console")
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL
)
PROGRAM = re.compile(r"(?:\$ )?(?:\w+=\S+ )*(?:\S*/)?(?:unalike|ml_recog|python -m unalike) ")
OPERATORS = (";", "|", "&", "&&", "||", ">", ">>", "<")


class Block(NamedTuple):
    """A block of code of a page: its language (empty: indented, without one), the line on which it begins, its text."""

    language: str
    line: int
    text: str


def blocks(page: str) -> Iterator[Block]:
    """Every fenced and every indented block of a page."""
    for match in FENCE.finditer(page):
        indent = match["indent"]
        text = "\n".join(line.removeprefix(indent) for line in match["text"].splitlines())
        yield Block(match["language"], page.count("\n", 0, match.start()) + 2, text)
    rest = FENCE.sub(lambda match: re.sub(r"[^\n]", "", match[0]), page)
    for match in re.finditer(r"(?:(?<=\n\n)|\A)(?: {4}.*\n)(?:(?: {4}.*)?\n)*", rest):
        yield Block("", rest.count("\n", 0, match.start()) + 1, re.sub(r"(?m)^ {4}", "", match[0]))


def words_of(line: str) -> Iterator[list[str]]:
    """The words of each command of unalike in a line of the shell, without the program's name."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split = True
    command: list[str] = []
    for word in (*lexer, ";"):
        if word not in OPERATORS:
            command.append(word)
            continue
        if command and PROGRAM.match(f"{' '.join(command)} "):
            start = next(n for n, part in enumerate(command) if Path(part).name in ("unalike", "ml_recog"))
            yield command[start + 1 :]
        command = []


def command_lines(page: str) -> Iterator[tuple[int, list[str], bool]]:
    """Line number and words of every command of unalike in a page's shell blocks and in its inline code; whether it is inline.

    Inline code with a placeholder for the command (`unalike COMMAND`) or a choice (`gallery add|remove`) is left out.
    """
    for block in blocks(page):
        if block.language in (*SHELL, ""):
            joined = block.text.replace("\\\n", "  ")
            for number, line in enumerate(joined.splitlines()):
                if PROGRAM.match(f"{line} "):
                    yield from ((block.line + number, words, False) for words in words_of(line.removeprefix("$ ")))
    rest = FENCE.sub(lambda match: re.sub(r"[^\n]", "", match[0]), page)
    for match in re.finditer(r"`((?:unalike|ml_recog) [^`]+)`", rest):
        line = rest.count("\n", 0, match.start()) + 1
        for words in words_of(" ".join(re.sub(r"\\?\|", r"\|", match[1]).split())):
            if not words[0].isupper() and not any("|" in word for word in words):
                yield line, words, True


def parse_command(words: list[str]) -> None:
    """Parse a command line as the program does, without running it.

    Raises:
        SpecError: There is no such command, key or value.
        click.UsageError: There is no such option, or a value is not valid.
    """
    from unalike.cli.commands import ALIASES, is_command, load_command
    from unalike.cli.shared_options import split_overrides
    from unalike.errors import SpecError
    from unalike.spec.actions import ACTIONS, action_of
    from unalike.spec.load import load_spec

    name, *arguments = words
    if name.startswith("-"):
        return
    if not is_command(name):
        raise SpecError(f"no command {name!r}")
    command: Any = load_command(name)
    title = ALIASES.get(name, name)
    default = getattr(command, "default_command", None)
    if default is not None and (not arguments or arguments[0] not in command.commands):
        arguments = [default, *arguments]
    while hasattr(command, "commands") and not arguments[0].startswith("-"):
        subcommand, *arguments = arguments
        title = f"{title} {subcommand}"
        if subcommand not in command.commands:
            raise SpecError(f"no command {title!r}")
        command = command.commands[subcommand]
    context = command.make_context(title, list(arguments), resilient_parsing="--help" in arguments)
    values = [value for value in context.params.get("arguments") or () if isinstance(value, str)]
    action = action_of(title)
    if title == "job create":
        action = action_of(str(context.params["action"]))
    overrides = split_overrides(values, f"{action}." if title in ("gallery rename", "gallery remove") else "")[1]
    if overrides and (action in ACTIONS or action == "check"):
        load_spec(action, None, overrides)
