"""What a job is told: the user's spec and overrides, checked whole when the job is made, short names written out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unalike.errors import SpecError, closest, redact
from unalike.spec import ACTIONS, load_spec
from unalike.spec.experiment import policy_word
from unalike.spec.faults import Fault, report
from unalike.spec.fields import declared_fields
from unalike.spec.load import DATA_FIELD, data_value
from unalike.spec.overrides import Overrides, apply_overrides
from unalike.spec.reading import plain, read_file

Spec = str | Path | Mapping[str, Any] | None
POLICIES = ("auto", "off")


class Specified(NamedTuple):
    """The user's own spec (None without one), overrides by dotted long name, and a training's policy."""

    spec: dict[str, Any] | None
    overrides: dict[str, Any]
    policy: str | None


def specified(action: str, spec: Spec, overrides: Overrides, data: str | Path | None, policy: str | None) -> Specified:
    """Check what a job is told. Raises SpecError that lists every fault."""
    if action not in ACTIONS:
        raise SpecError(
            f"no action {action!r}", expected=f"one of {', '.join(ACTIONS)}", remedy=closest(action, ACTIONS)
        )
    policy = None if policy is None else str(policy_word(policy))
    if policy is not None and policy not in POLICIES:
        raise SpecError(f"automl_policy {policy!r}", expected="auto or off")
    experiment = load_spec(action, spec, overrides, data=data)
    tree: dict[str, Any] = {}
    apply_overrides(tree, overrides, action)
    if data is not None:
        apply_overrides(tree, {DATA_FIELD[action]: data_value(action, data)}, action)
    own = None if spec is None else plain(spec if isinstance(spec, Mapping) else read_file(spec))
    _refuse_secrets(own or {}, tree)
    # Of a run alone: what the packaged skill says of the model stays as it is.
    chosen = (policy or experiment.automl_policy or "auto") if action == "train" else None
    return Specified(None if own is None else json.loads(json.dumps(own, default=str)), _flat(tree), chosen)


def _refuse_secrets(*trees: Any) -> None:
    """A job is written down, and what gives access must not be. Raises SpecError that names the fields."""
    faults = [
        Fault(path, f"{redact(value)} holds what gives access, and a job is written down; expected credentials where the "
              "store's own tools look (such as AWS_... or HF_TOKEN)")
        for tree in trees for path, value in _texts(tree, "") if redact(value) != value
    ]  # fmt: skip
    if faults:
        raise report("", faults)


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path.removesuffix("."), value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{path}{key}.")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, path)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        declared = declared_fields().get(f"{prefix}{key}")
        if isinstance(value, dict) and value and declared is not None and declared.section:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
