"""Every leaf of every spec is read by some module, or its help says that it is not used: no setting vanishes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import unalike
from unalike.spec.actions import STANDALONE_ACTIONS
from unalike.spec.declare import Section
from unalike.spec.experiment import Experiment

SOURCE = Path(unalike.__file__).parent
CODE = "\n".join(p.read_text(encoding="utf-8") for p in SOURCE.rglob("*.py") if p.parent.name != "spec")
READ = set(re.findall(r"\.([a-z_0-9]+)\b", CODE)) | set(re.findall(r"[\"'](?:[a-z_0-9]+\.)*([a-z_0-9]+)[\"']", CODE))
PARAMETERS = set(
    re.findall(r"\b([a-z_0-9]+)(?:: [^=\n]+)? ?=", CODE)
)  # sections of their own become arguments of a function
UNUSED = re.compile(r"not used|without effect|no effect|unused", re.IGNORECASE)


def leaves(section: type[Section], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted path and help of every leaf."""
    for name, info in section.model_fields.items():
        kind = info.annotation
        parts = [kind, *getattr(kind, "__args__", ())]
        inner = next((p for p in parts if isinstance(p, type) and issubclass(p, Section)), None)
        if inner is not None:
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, info.description or ""


@pytest.mark.parametrize("section", Experiment.model_fields)
def test_every_leaf_is_read_or_said_to_be_unused(section: str) -> None:
    read = READ | PARAMETERS if section in STANDALONE_ACTIONS else READ
    vanished = [
        path
        for path, text in leaves(Experiment)
        if path.partition(".")[0] == section and path.rpartition(".")[2] not in read and not UNUSED.search(text)
    ]
    assert not vanished
