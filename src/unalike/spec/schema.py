"""JSON Schema (2020-12) of an action's spec, the manifest of all, and their files in the package."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from typing import Any, get_origin

from unalike.spec import value_schemas
from unalike.spec.actions import ACTIONS, MODEL_ACTIONS, STANDALONE_ACTIONS, command_of
from unalike.spec.automl import ALGORITHMS, SPELLINGS
from unalike.spec.conditions import MAX_THREADS, MAX_WHOLE, OUTPUT_PATHS
from unalike.spec.experiment import Experiment
from unalike.spec.fields import ROOT_HELP, fields_of, top_level
from unalike.spec.load import load_spec
from unalike.spec.nodes import SpecNode
from unalike.spec.shorthand import BY_ACTION, SHORTHAND, long_name
from unalike.spec.tao import RENAMED_KEYS, UNUSED_KEYS
from unalike.spec.template import DEPLOY, deploy_template_for, template_for

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_INDICES: dict[str, Any] = {"items": {"type": "integer", "minimum": 0}, "uniqueItems": True, "minItems": 1}
# What conditions (``conditions.CONDITIONS``) ask of one field by itself.
OF_CONDITIONS: dict[str, dict[str, Any]] = {
    **{f"{action}.batch_size": value_schemas.NOT_ZERO for action in ("export", "gen_trt_engine")},
    "train.checkpointer.save_top_k": value_schemas.NOT_ZERO,
    "train.optim.steps": {"items": {"type": "integer", "minimum": 0}, "uniqueItems": True},
    **{f"{action}.gpu_ids": _INDICES for action in ("train", "evaluate", "inference")},
    **dict.fromkeys(OUTPUT_PATHS, value_schemas.LOCAL_PATH),
    "automl.algorithm": {"enum": [*ALGORITHMS, None]},
}


def _lists(nodes: dict[str, SpecNode]) -> dict[str, list[str]]:
    """The fields that a search varies by default, those that it may not vary, and those that users set most."""
    return {
        "automl_default_parameters": sorted(p for p, d in nodes.items() if d.facts.get("automl_enabled") is True),
        "automl_disabled_parameters": sorted(
            p for p, d in nodes.items() if d.section or get_origin(d.kind) in (list, dict) or d.kind in (list, dict)
        ),
        "popular": sorted(p for p, d in nodes.items() if d.facts.get("popular") is True),
    }


def schema_for(action: str) -> dict[str, Any]:
    """The schema of an action (one of ACTIONS).

    That of a model action holds the common sections, ``train`` and its own; a spec may contain sections of other
    model actions too, which are checked by theirs. That of a standalone action holds ``results_dir`` and its own section.
    """
    if action not in ACTIONS:
        raise ValueError(f"no schema for {action!r}")
    full = deepcopy(_full_schema())
    tops = [name for name in full["properties"] if name in top_level(action)]
    properties = {name: full["properties"][name] for name in tops}
    patterns = {}
    if "results_dir" in properties and action in STANDALONE_ACTIONS:
        properties["results_dir"] = properties["results_dir"] | {"description": ROOT_HELP.format(action=action)}
    elif action in MODEL_ACTIONS:
        properties |= _spellings(full)
        _add_other_keys(properties, full["$defs"], action)
        others = [name for name in MODEL_ACTIONS if name not in tops]
        patterns = {"patternProperties": {f"^({'|'.join(others)})$": {"type": ["object", "null"]}}}
    definitions = _reachable(properties, full["$defs"])
    default = load_spec(action).to_dict()
    if "train" in default:
        del default["train"]["recipe"]  # a spec without it means TAO's, and so does the template of this default
    return {
        "$schema": DIALECT,
        "$id": f"{action}.schema.json",
        "title": f"Spec of unalike {command_of(action)}",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        **patterns,
        "default": {name: default[name] for name in tops},
        **_lists(fields_of(action)),
        "$defs": definitions,
    }


@cache
def _full_schema() -> dict[str, Any]:
    """The schema of all fields of all actions, which takes pydantic some 60 ms."""
    full = Experiment.model_json_schema()
    _separate_bounds(full)
    _limit_whole_numbers(full)
    for definition in full["$defs"].values():
        if definition.get("type") == "object":
            definition["type"] = ["object", "null"]  # a section of which all lines are comments
    for path, schema in OF_CONDITIONS.items():
        *parents, name = path.split(".")
        properties = _properties_of(full["properties"], full["$defs"], parents)
        assert properties is not None, path
        properties[name] |= schema
    return full


def _properties_of(
    properties: dict[str, Any], definitions: dict[str, Any], parents: list[str]
) -> dict[str, Any] | None:
    """The properties of a section by the names above its fields; None where there is no such section."""
    for name in parents:
        names = sorted(_references(properties.get(name, {})))
        if not names:
            return None
        properties = definitions[names[0]]["properties"]
    return properties


def _limit_whole_numbers(node: Any, name: str = "") -> None:
    """Add the bounds of whole numbers that are checked for all fields alike (``conditions.MAX_WHOLE``)."""
    if isinstance(node, list):
        for item in node:
            _limit_whole_numbers(item, name)
    if not isinstance(node, dict):
        return
    kinds = node.get("type")
    if kinds == "integer" or (isinstance(kinds, list) and "integer" in kinds):  # a bound concerns the numbers alone
        most = MAX_THREADS if name in ("threads", "streams") else MAX_WHOLE
        if not {"maximum", "exclusiveMaximum"} & set(node):
            node["maximum"] = most
        if not {"minimum", "exclusiveMinimum"} & set(node):
            node["minimum"] = -most
    for key, value in node.items():
        _limit_whole_numbers(value, name if key in ("anyOf", "items", "allOf") else key)


def _spellings(full: dict[str, Any]) -> dict[str, Any]:
    """TAO's settings of a search at the top of a spec, each with the schema of the field that it sets."""
    fields = full["$defs"]["Automl"]["properties"]
    return {
        name: {k: v for k, v in fields[path.partition(".")[2]].items() if k not in ("title", "default")}
        | {"description": f"TAO's name for {path}."}
        for name, path in SPELLINGS.items()
    }


def _separate_bounds(node: Any) -> None:
    """Where a field shows TAO's bound, move its wider bound of validity into the alternative (``declare._limits``)."""
    if isinstance(node, list):
        for item in node:
            _separate_bounds(item)
    if not isinstance(node, dict):
        return
    if "allOf" in node:
        of_search = node["allOf"][0]["anyOf"][0]
        of_spec = {key: node.pop(key) for key in ("minimum", "maximum") if key in of_search and key in node}
        node["allOf"] = [{"anyOf": [of_search, of_spec]}]
    for value in node.values():
        _separate_bounds(value)


def _add_other_keys(properties: dict[str, Any], definitions: dict[str, Any], action: str) -> None:
    """Add the keys that a spec may hold besides the declared fields: short names, and TAO's older keys."""

    others = {**RENAMED_KEYS, **{name: long_name(name, action) for name in (*SHORTHAND, *BY_ACTION)}}
    for path, new in {**others, **dict.fromkeys(UNUSED_KEYS, "")}.items():
        *parents, name = path.split(".")
        *new_parents, new_name = new.split(".")
        place, source = (_properties_of(properties, definitions, names) for names in (parents, new_parents))
        if place is not None and name not in place:
            field = (source or {}).get(new_name, {})
            text = f"Another name of {new}." if new else f"Accepted and not used: {UNUSED_KEYS[path]}."
            place[name] = {k: v for k, v in field.items() if k in ("type", "anyOf", "enum", "items", "$ref")} | {
                "description": text, "deprecated": True}  # fmt: skip


def _references(node: Any) -> set[str]:
    if isinstance(node, dict):
        here = {node["$ref"].rsplit("/", 1)[-1]} if isinstance(node.get("$ref"), str) else set()
        return here.union(*(_references(v) for v in node.values()))
    if isinstance(node, list):
        return set().union(*(_references(v) for v in node))
    return set()


def _reachable(properties: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    names, queue = set(), _references(properties)
    while queue:
        name = queue.pop()
        if name not in names:
            names.add(name)
            queue |= _references(definitions[name])
    return {name: definitions[name] for name in sorted(names)}


def manifest() -> dict[str, Any]:
    """One entry an action: its schema, its templates (paths relative to the manifest) and its three lists."""
    return {"actions": {action: _entry(action) for action in ACTIONS}}


def _entry(action: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "schema": f"{action}.schema.json",
        "path": f"{action}.schema.json",  # TAO's name of the same
        "spec_template": f"../references/spec_template_{action}.yaml",
    }
    if action in DEPLOY:
        entry["deploy_spec_template"] = f"../references/spec_template_deploy_{action}.yaml"
    lists = _lists(fields_of(action))
    by_section: dict[str, list[str]] = {}
    for path in lists["popular"]:
        section, _, name = path.partition(".")
        by_section.setdefault(section, []).append(name)
    tops = [name for name in load_spec(action).to_dict() if name in top_level(action)]
    return entry | {"top_level_keys": tops} | lists | {"popular_by_section": by_section}


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _for_editors(action: str, template: str) -> str:
    """A template that tells editors (those with a YAML language server) which schema completes and checks it."""
    return f"# yaml-language-server: $schema=../schemas/{action}.schema.json\n{template}"


def schema_text(action: str) -> str:
    """The schema of an action as the packaged file holds it."""
    return _text(schema_for(action))


def package_files() -> dict[str, str]:
    """Relative path -> content of every generated file of the packaged skill."""
    files = {f"schemas/{action}.schema.json": schema_text(action) for action in ACTIONS}
    files["schemas/manifest.json"] = _text(manifest())
    for action in ACTIONS:
        files[f"references/spec_template_{action}.yaml"] = _for_editors(action, template_for(action, recipe=False))
    for action in DEPLOY:
        name = f"references/spec_template_deploy_{action}.yaml"
        files[name] = _for_editors(action, deploy_template_for(action))
    return files
