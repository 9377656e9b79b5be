"""Print and write spec templates."""

from __future__ import annotations

from pathlib import Path

from unalike.errors import SpecError
from unalike.storage.atomic import write_text
from unalike.storage.overwrite import refuse_existing


def default_specs(action: str = "train", output: str | Path | None = None) -> str:
    """The commented spec template of an action, as text; also written to ``output`` when given."""
    from unalike.spec import template_for

    text: str = template_for(action)
    if output is not None:
        path = Path(output)
        refuse_existing(path, error=SpecError)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return text
