"""Format of a model card: Markdown from its JSON, and sections that later actions add to a card."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unalike.runs.kpi_names import short_name
from unalike.sanitize import one_line
from unalike.storage.atomic import write_text
from unalike.storage.file_lock import file_lock

# Sections of a training's card whose entries are listed one on a line; those of OTHER_SECTIONS are formatted differently or left out.
LISTED_SECTIONS = ("trunk", "vector", "view", "data", "training")
OTHER_SECTIONS = (
    *LISTED_SECTIONS,
    "format_version",
    "name",
    "made",
    "checkpoint",
    "validation",
    "class_names",
    "versions",
)
# What would be markup in a line of text: HTML, code, emphasis, the end of a link's text, a cell of a table.
_MARKUP = re.compile(r"[<>`*|\\]|(?<=\])\(")


def card_markdown(card: dict[str, Any]) -> str:
    """The card as Markdown."""
    lines = [f"# Recogniser {_text(card.get('name') or card.get('checkpoint', ''))}".rstrip(), ""]
    lines += (
        [f"Made {_text(card['made'])}; checkpoint {_text(card['checkpoint'])}.", ""] if "checkpoint" in card else []
    )
    for title in LISTED_SECTIONS:
        if title in card:
            lines += [f"## {title.capitalize()}", ""]
            lines += [f"- {_text(key).replace('_', ' ')}: {_text(value)}" for key, value in _shown(card[title])] + [""]
    if "validation" in card:
        validation = card["validation"]
        sets = f"Query against reference: {_text(validation['made_of'])}; {_text(validation['note'])}."
        lines += ["## Validation", "", sets, ""]
        micro = validation["metrics"].get("micro", {})
        if any(
            isinstance(value, dict) and None not in (value.get("low"), value.get("high")) for value in micro.values()
        ):
            confidence = validation["metrics"].get("intervals", {}).get("confidence", 0.95)
            lines += [f"In brackets: the {100 * confidence:g} % interval of the mean over all such images.", ""]
        lines += [f"- {short_name(name)}: {_figure(value)}" for name, value in micro.items()] or ["- not measured"]
        lines.append("")
    for title, content in card.items():
        if title not in OTHER_SECTIONS:
            lines += [f"## {_text(title).capitalize()}", "", *_lines(content), ""]
    if "versions" in card:
        lines += ["## Versions", ""] + [f"- {_text(k)} {_text(v)}" for k, v in card["versions"].items()]
    return "\n".join(lines).rstrip() + "\n"


def _text(value: object) -> str:
    """A value as one line of plain text: names of files and classes are no HTML, no links and no formatting."""
    return _MARKUP.sub(r"\\\g<0>", one_line(str(value)))


def _shown(section: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """Entries of a section; an epoch, which files count from 0, is counted from 1 for people."""
    for key, value in section.items():
        yield key, value + 1 if key == "best_epoch" and isinstance(value, int) else value


def _figure(value: object) -> str:
    if isinstance(value, dict):
        low, high = value.get("low"), value.get("high")
        interval = f" [{low:.4f}, {high:.4f}]" if low is not None and high is not None else ""
        return f"{value.get('value'):.4f}{interval}" if value.get("value") is not None else "none"
    return f"{value:.4f}" if isinstance(value, float) else _text(value)


def add_section(folder: Path, title: str, content: dict[str, Any], *, source: Path | None, stem: str) -> dict[str, Any]:
    """Add a section to a card and write it as ``<stem>.json`` and ``<stem>.md``.

    Args:
        folder: Folder of the files; an existing card of this name is extended.
        title: Title of the section.
        content: Its entries; the time is added.
        source: Another card, copied where ``folder`` has none.
        stem: Name of the files without suffix.

    Returns:
        The card.
    """
    own = folder / f"{stem}.json"
    with file_lock(own):  # evaluations of one model may end at one moment
        card: dict[str, Any] = {"format_version": 1}
        for path in (own, source):
            if path is not None and path.is_file():
                try:
                    existing = json.loads(path.read_text(encoding="utf-8"))
                except (ValueError, RecursionError):
                    continue  # not a model card of this tool
                if isinstance(existing, dict) and "format_version" in existing:
                    card = existing
                    break
        card[title] = {"made": datetime.now(UTC).isoformat(timespec="seconds"), **content}
        write_text(own, json.dumps(card, indent=2, ensure_ascii=False, default=str) + "\n")
        write_text(folder / f"{stem}.md", card_markdown(card))
    return card


def _lines(content: dict[str, Any], prefix: str = "") -> list[str]:
    """Entries of a section, one line each; a nested entry is named by both names."""
    lines = []
    for key, value in content.items():
        name = f"{prefix}{_text(short_name(key)).replace('_', ' ')}"
        entries = value if isinstance(value, list) and value and isinstance(value[0], dict) else None
        if isinstance(value, dict) and "value" in value:
            lines.append(f"- {name}: {_figure(value)}")
        elif isinstance(value, dict):
            lines += _lines(value, f"{name}, ")
        elif entries is not None:
            for entry in entries:
                (first, at), *others = entry.items()
                lines += _lines(
                    dict(others), f"{name} {first.replace('_', ' ')} {at:g}: " if isinstance(at, float) else f"{name} "
                )
        elif value is not None:
            lines.append(f"- {name}: {_figure(value)}")
    return lines
