"""A commented YAML template of an action: every field with its help, its bounds and its default."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

from unalike.spec.actions import ACTIONS, command_of
from unalike.spec.fields import expectation, fields_of
from unalike.spec.load import UNSET, load_spec
from unalike.spec.nodes import SpecNode

WIDTH = 118
HEAD = """\
# Spec of `unalike {command}`: every field with its default.
# A line that is commented out shows a default that is filled in by a fact (of the data, the trunk, this machine) or
# that may stay empty; take the # away to decide it yourself. Any field can be given on the command line:
# {example}
"""
DEPLOY_HEAD = """\
# Spec of `unalike {command}` on an exported network or an engine: the fields that matter there, with their defaults.
# A line that is commented out shows a default that is filled in by a fact or that may stay empty; take the # away to
# decide it yourself. As a job the paths come from its parent: {example}
"""
_ENGINE_RUN = ("trt_engine", "engine", "onnx_file", "results_dir", "batch_size", "topk", "runtime", "precision", "device",
               "threads", "streams")  # fmt: skip
_SETS = ("results_dir", "dataset.val_dataset", "dataset.class_map", "dataset.class_from")
# What a spec for engines holds of each action: dotted fields, or sections with all that is in them.
DEPLOY: Mapping[str, tuple[str, ...]] = {
    "quantize": ("results_dir", "dataset.val_dataset", "quantize"),
    "gen_engine": ("results_dir", "gen_engine"),
    "gen_trt_engine": ("results_dir", "gen_trt_engine"),
    "evaluate": (*_SETS, *(f"evaluate.{name}" for name in _ENGINE_RUN), "evaluate.report_accuracy_per_class", "evaluate.ks"),
    "inference": (*_SETS, *(f"inference.{name}" for name in _ENGINE_RUN), "inference.input_path",
                  "inference.inference_input_type"),
}  # fmt: skip
EXAMPLE = {
    "train": "train.num_epochs=20",
    "export": "export.batch_size=1",
    "gen_trt_engine": "gen_trt_engine.batch_size=8",
    "quantize": "quantize.data_type=FP16",
    "gen_engine": "gen_engine.runtime=openvino",
    "compare": "compare.tolerance=5",
    "inspect_fit": "inspect_fit.rate=0.02",
    "inspect_learn": "inspect_learn.rate=0.02",
    "inspect_run": "inspect_run.overlays=all",
    "verify": "verify.rate=0.001",
    "discover": "discover.groups=40",
    "distill": "distill.minutes=30",
    "gallery_build": "gallery_build.rate=0.001",
    "bench_engine": "bench_engine.seconds=0.5",
    "embed": "embed.precision=fp32",
    "calibrate": "calibrate.rate=0.001",
    "identify": "identify.k=5",
    "gallery_add": "gallery_add.label=oak",
    "gallery_remove": "gallery_remove.labels=[oak]",
    "gallery_rename": "gallery_rename.new=oak",
    "gallery_merge": "gallery_merge.into=oak",
    "gallery_copy": "gallery_copy.target=copy.gallery",
    "gallery_list": "gallery_list.verify=true",
    "export_maps": "export_maps.size=320",
    "demo": "demo.epochs=2",
    "serve": "serve.port=8080",
    "improve": "improve.minutes=30",
}


def _value(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").removesuffix("\n")


def _comment(node: SpecNode, indent: str) -> list[str]:
    text = node.help
    if not node.section:
        units = node.facts.get("units")
        text += f" [{expectation(node)}{', ' + units if units else ''}]"
    return [f"{indent}# {line}" for line in textwrap.wrap(text, WIDTH - len(indent) - 2)]


def template_for(action: str, *, recipe: bool = True) -> str:
    """The template of an action.

    Args:
        action: One of ACTIONS.
        recipe: Hold ``train.recipe``: the template loads to what no spec at all gives. Without it, it is a spec by TAO's recipe.
    """
    if action not in ACTIONS:
        raise ValueError(f"no template for {action!r}")
    example = EXAMPLE.get(action, f"{action}.batch_size=32")
    return HEAD.format(command=command_of(action), example=example) + _lines(
        action, {path: node for path, node in fields_of(action).items() if recipe or path != "train.recipe"}
    )


def deploy_template_for(action: str) -> str:
    """The short template of an action on engines (one of DEPLOY)."""
    paths = DEPLOY[action]
    nodes = {
        path: node
        for path, node in fields_of(action).items()
        if any(path == w or path.startswith(w + ".") or w.startswith(path + ".") for w in paths)
    }
    return DEPLOY_HEAD.format(command=command_of(action), example=f"unalike job create {action} --parent ID") + _lines(
        action, nodes
    )


def _lines(action: str, nodes: Mapping[str, SpecNode]) -> str:
    defaults = load_spec(action).to_dict()
    lines: list[str] = []
    # A spec without a line is no spec: where no field has a default, the mandatory ones are marked as unset.
    only_mandatory = all(_hidden(entry) or entry.section for entry in nodes.values())
    for path, node in nodes.items():
        depth, name = path.count("."), path.rpartition(".")[2]
        hidden = any(_hidden(nodes[p]) for p in _prefixes(path))
        indent = "  " * depth
        mark = "# " if hidden or _all_hidden(path, nodes) else ""
        if only_mandatory and (depth == 0 or node.facts.get("mandatory")):
            mark = ""
        if depth == 0:
            lines += [""] if node.section or not lines else []
        lines += _comment(node, indent)
        value = defaults
        for part in path.split("."):
            value = value.get(part) if value is not None else None  # type: ignore[assignment]
        if node.section:
            lines.append(f"{indent}{mark}{name}:")
        elif only_mandatory and not mark:
            lines.append(f"{indent}{name}: {UNSET[0]}")
        else:
            lines.append(f"{indent}{mark}{name}: {_value(value)}")
    return "\n".join(lines) + "\n"


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]


def _hidden(node: SpecNode) -> bool:
    """Commented out: what may be settled, and what has no default to show."""
    return bool(node.facts.get("settled")) or node.nullable and node.info.default is None


def _all_hidden(path: str, nodes: Mapping[str, SpecNode]) -> bool:
    """A section of which every leaf is commented out: an empty mapping in its place would mean null."""
    leaves = [d for p, d in nodes.items() if p.startswith(path + ".") and not d.section]
    return bool(leaves) and all(any(_hidden(nodes[p]) for p in _prefixes(d.path)) for d in leaves)
