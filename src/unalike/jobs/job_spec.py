"""The user's own spec of a job: checked completely on creation, with long field names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unalike.errors import SpecError, closest
from unalike.progress import say
from unalike.sanitize import redact
from unalike.spec import load_spec
from unalike.spec.actions import JOB_ACTIONS
from unalike.spec.experiment import normalize_policy
from unalike.spec.faults import Fault, spec_error
from unalike.spec.fields import declared_fields
from unalike.spec.load import DATA_FIELD, data_value
from unalike.spec.overrides import Overrides, apply_overrides
from unalike.spec.reading import plain, read_file

SpecSource = str | Path | Mapping[str, Any] | None
POLICIES = ("auto", "off")


class JobSpec(NamedTuple):
    """The user's own spec (None without one), overrides by dotted long name, and the policy of a training."""

    spec: dict[str, Any] | None
    overrides: dict[str, Any]
    policy: str | None


def check_job_spec(
    action: str, spec: SpecSource, overrides: Overrides, data: str | Path | None, policy: str | None
) -> JobSpec:
    """Check the spec of a job.

    Args:
        action: Name of the action.
        spec: YAML file, mapping, or None.
        overrides: Dotted overrides; short names are allowed.
        data: The action's data, in place of its field.
        policy: ``auto`` or ``off`` for a training, or None.

    Raises:
        SpecError: Lists every fault.
    """
    if action not in JOB_ACTIONS:
        raise SpecError(
            f"no action {action!r} for a job",
            expected=f"one of {', '.join(JOB_ACTIONS)}",
            remedy=closest(action, JOB_ACTIONS),
        )
    policy = None if policy is None else str(normalize_policy(policy))
    if policy is not None and policy not in POLICIES:
        raise SpecError(f"automl_policy {policy!r}", expected="auto or off")
    experiment = load_spec(action, spec, overrides, data=data)
    if policy is not None and action != "train":
        say(f"automl_policy: {policy} is not used by {action}: it is the policy of a training")
    # The policy of this run alone; the policy that the packaged skill records for the model does not change.
    used_policy = (policy or experiment.automl_policy or "auto") if action == "train" else None
    tree: dict[str, Any] = {}
    apply_overrides(tree, overrides, action)
    if data is not None:
        apply_overrides(tree, {DATA_FIELD[action]: data_value(action, data)}, action)
    own = None if spec is None else plain(spec if isinstance(spec, Mapping) else read_file(spec))
    _refuse_secrets(own or {}, tree)
    if used_policy == "off" and own is None and not experiment.is_set("train.recipe"):
        apply_overrides(
            tree, {"train.recipe": "tao"}, action
        )  # a plain training of a job is TAO's, with a spec or without
    return JobSpec(None if own is None else json.loads(json.dumps(own, default=str)), _flat(tree), used_policy)


def _refuse_secrets(*trees: Any) -> None:
    """Raise SpecError for fields that hold credentials: a job is stored, and they must not be."""
    faults = [
        Fault(path, f"{redact(value)} holds credentials, and a job is stored on disk; expected credentials where the "
              "store's own tools look (such as AWS_... or HF_TOKEN)")
        for tree in trees for path, value in _texts(tree, "") if redact(value) != value
    ]  # fmt: skip
    if faults:
        raise spec_error("", faults)


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
    """Nested overrides by dotted field."""
    fields: dict[str, Any] = {}
    for key, value in tree.items():
        node = declared_fields().get(f"{prefix}{key}")
        if isinstance(value, dict) and value and node is not None and node.section:
            fields |= _flat(value, f"{prefix}{key}.")
        else:
            fields[f"{prefix}{key}"] = value
    return fields
