"""Load a spec from a YAML file or a dict and overrides, and validate it; all faults are reported in one error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, get_origin

from pydantic import ValidationError

from unalike.errors import SpecError, closest
from unalike.progress import say
from unalike.spec.actions import ACTIONS, STANDALONE_ACTIONS, command_of
from unalike.spec.automl import SPELLINGS
from unalike.spec.conditions import check_conditions
from unalike.spec.experiment import Experiment
from unalike.spec.faults import Fault, faults_of, spec_error
from unalike.spec.fields import declared_fields, top_level
from unalike.spec.overrides import Overrides, apply_overrides
from unalike.spec.reading import format_value, plain, read_file
from unalike.spec.shorthand import BY_ACTION, SHORTHAND, long_name
from unalike.spec.tao import translate_tao_keys

# The field that the data folder of the command line is written to; `check` has no section of its own.
DATA_FIELD = {
    "train": "dataset.train_dataset",
    "evaluate": "dataset.val_dataset.reference",
    "inference": "inference.input_path",
    "export": "dataset.val_dataset.reference",
    "gen_trt_engine": "gen_trt_engine.tensorrt.calibration.cal_image_dir",
    "quantize": "quantize.calibration.cal_image_dir",
    "gen_engine": "gen_engine.calibration.cal_image_dir",
    "compare": "compare.image",
    "inspect_fit": "inspect_fit.good",
    "inspect_learn": "inspect_learn.images",
    "inspect_run": "inspect_run.images",
    "verify": "verify.images",
    "discover": "discover.source",
    "distill": "distill.source",
    "gallery_build": "gallery_build.source",
    "bench_engine": "bench_engine.data",
    "calibrate": "calibrate.images",
    "identify": "identify.images",
    "gallery_add": "gallery_add.source",
    "gallery_remove": "gallery_remove.gallery",
    "gallery_rename": "gallery_rename.gallery",
    "gallery_merge": "gallery_merge.gallery",
    "gallery_copy": "gallery_copy.gallery",
    "gallery_list": "gallery_list.gallery",
    "export_maps": "export_maps.source",
    "demo": "demo.keep",
    "serve": "serve.run",
    "improve": "improve.data",
    "embed": "embed.source",
    "check": "dataset.train_dataset",
}
UNSET = ("???", "<required>")  # TAO's marks of a mandatory field that the user has to fill in


def load_spec(
    action: str,
    spec: str | Path | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    *,
    data: str | Path | None = None,
) -> Experiment:
    """Load and validate the spec of an action; later sources replace the values of earlier ones.

    Args:
        action: The action, or ``check`` for a spec of any action.
        spec: A YAML file or a dict, which replaces defaults.
        overrides: ``a.b=c`` with YAML values, or a mapping of dotted names; short names such as ``num_epochs`` are allowed.
        data: A data folder, archive or manifest, for the action's data field.

    Raises:
        SpecError: Lists every fault by dotted path.
    """
    experiment, faults = read_spec(action, spec, overrides, data=data)
    if faults:
        raise spec_error(str(spec) if isinstance(spec, str | PurePath) else "", faults)
    return experiment


def check_fields(action: str, **values: object) -> Any:
    """Validate fields of a standalone action's section by their declarations.

    Returns:
        The section with these values, its other fields with their defaults.

    Raises:
        SpecError: A value is not valid; the error lists every fault by the field's name.
    """
    try:
        return getattr(Experiment.model_validate({action: plain(values)}), action)
    except ValidationError as error:
        faults, _ = faults_of(error)
        raise spec_error("", [Fault(fault.path.removeprefix(f"{action}."), fault.text) for fault in faults]) from error


def read_spec(
    action: str,
    spec: str | Path | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    *,
    data: str | Path | None = None,
) -> tuple[Experiment, list[Fault]]:
    """As ``load_spec``, but returns the faults, with a spec in which the faulty fields have their defaults.

    Raises:
        SpecError: The file cannot be read.
    """
    if action not in DATA_FIELD:
        raise SpecError(
            f"no action {action!r}", expected=f"one of {', '.join(ACTIONS)}", remedy=closest(action, ACTIONS)
        )
    tree = _read(spec)
    faults = _drop_odd_keys(tree)
    faults += _respell(tree)
    faults += _write_out_short_names(tree, action)
    override_paths: list[str] = []
    faults += apply_overrides(tree, overrides, action, override_paths)
    if data is not None:
        faults += _place_data(tree, action, data, overrides)
    paths: list[str] = []
    _drop_unset(tree, paths)
    faults += translate_tao_keys(tree)
    faults += _drop_foreign_sections(tree, action)
    experiment = _validate(tree, faults, action)
    experiment.mark_unset(paths)
    experiment.override_paths = tuple(dict.fromkeys(override_paths))
    _complete(experiment, action, spec_given=spec is not None)
    return experiment, faults


def _read(spec: str | Path | Mapping[str, Any] | None) -> dict[Any, Any]:
    if spec is None:
        return {}
    if isinstance(spec, str | PurePath):
        spec = read_file(spec)
    if isinstance(spec, Mapping):
        tree: dict[Any, Any] = plain(spec)
        return tree
    raise SpecError(f"the spec is a {type(spec).__name__}", expected="a YAML file's path or a dict")


def data_value(action: str, data: str | Path) -> str | list[str]:
    """The data folder as the field of DATA_FIELD holds it: some fields are lists."""
    node = declared_fields()[DATA_FIELD[action]]
    return [str(data)] if get_origin(node.kind) is list else str(data)


def _place_data(tree: dict[Any, Any], action: str, data: str | Path, overrides: Overrides) -> list[Fault]:
    path = DATA_FIELD[action]
    value: Any = data_value(action, data)
    keys = (
        [overrides] if isinstance(overrides, str) else [key[0] if isinstance(key, tuple) else key for key in overrides]
    )
    if any(str(key).partition("=")[0].strip() == path for key in keys):
        return [Fault(path, f"given twice, as an override and as the data folder {str(data)!r}; keep one of the two")]
    return apply_overrides(tree, {path: value}, action)


def _drop_odd_keys(tree: dict[Any, Any], prefix: str = "") -> list[Fault]:
    """Remove and report keys that are not text (``on:`` is true in YAML, ``1:`` a number)."""
    odd = [key for key in tree if not isinstance(key, str)]
    for key in odd:
        del tree[key]
    faults = [Fault(prefix.removesuffix("."), f"found a key {format_value(key)}, expected a name") for key in odd]
    for key, value in tree.items():
        if isinstance(value, dict):
            faults += _drop_odd_keys(value, f"{prefix}{key}.")
    return faults


def _drop_foreign_sections(tree: dict[Any, Any], action: str) -> list[Fault]:
    """Remove and report sections that do not belong in a spec of this action."""
    if action == "check":
        return []
    standalone = action in STANDALONE_ACTIONS
    foreign = [
        key for key in tree
        if key in declared_fields() and (key not in top_level(action) if standalone else key in STANDALONE_ACTIONS)
    ]  # fmt: skip
    faults = []
    for key in foreign:
        del tree[key]
        rule = f"a spec for {action} holds {' and '.join(top_level(action))}"
        faults.append(
            Fault(key, rule if standalone else f"belongs in a spec of its own, for unalike {command_of(key)}")
        )
    return faults


def _respell(tree: dict[Any, Any]) -> list[Fault]:
    """Move TAO's settings of a search from the top of a spec to the fields of ``automl``."""
    faults: list[Fault] = []
    for key in [key for key in tree if key in SPELLINGS]:
        path, value = SPELLINGS[key], tree.pop(key)
        inner = tree.get("automl")
        if isinstance(inner, dict) and path.partition(".")[2] in inner:
            faults.append(Fault(path, f"given twice, as {key} and as {path}; keep one of the two"))
        else:
            faults += apply_overrides(tree, {path: value}, "train")
    return faults


def _write_out_short_names(tree: dict[Any, Any], action: str) -> list[Fault]:
    """Move short names such as ``num_epochs`` from the top of a spec to the fields that they stand for."""
    faults: list[Fault] = []
    if action in STANDALONE_ACTIONS:
        return faults
    for key in [key for key in tree if key in SHORTHAND or key in BY_ACTION]:
        path, value = long_name(key, action), tree.pop(key)
        parent: Any = tree
        for part in path.split(".")[:-1]:
            parent = parent.get(part) if isinstance(parent, dict) else None
        if isinstance(parent, dict) and path.rpartition(".")[2] in parent:
            faults.append(Fault(path, f"given twice, as {key} and as {path}; keep one of the two"))
        else:
            faults += apply_overrides(tree, {path: value}, action)
    return faults


def _drop_unset(tree: dict[Any, Any], paths: list[str], prefix: str = "") -> None:
    """Remove ``???`` and ``<required>`` (mandatory and unset), also alone in a list, and empty sections (all their lines are comments)."""
    for key in list(tree):
        path, value = f"{prefix}{key}", tree[key]
        node = declared_fields().get(path)
        if any(value in (mark, [mark]) for mark in UNSET):
            del tree[key]
            paths.append(path)
        elif node is not None and node.section:
            if value is None and not node.nullable:
                del tree[key]
            elif isinstance(value, dict):
                _drop_unset(value, paths, path + ".")


def _leaves(tree: dict[Any, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        node = declared_fields().get(f"{prefix}{key}")
        if node is not None and node.section and isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _validate(tree: dict[Any, Any], faults: list[Fault], action: str) -> Experiment:
    """Validate the tree, mark the fields that the user set, and add faults to ``faults``.

    Faulty fields are removed, so that conditions between the others are checked in the same report.
    """
    bad_paths: list[str] = []
    while True:
        try:
            experiment = Experiment.model_validate(tree)
            break
        except ValidationError as error:
            field_faults, locations = faults_of(error)
            faults += field_faults
            removals = [_remove(tree, location) for location in locations]
            if not any(removals):
                raise spec_error("", faults) from error
            bad_paths += [".".join(str(part) for part in location) for location in locations]
    experiment.mark_set(_leaves(tree))
    faults += check_conditions(experiment, action, bad_paths)
    return experiment


def _remove(tree: dict[Any, Any], location: tuple[Any, ...]) -> bool:
    parent: Any = tree
    for part in location[:-1]:
        parent = parent.get(part) if isinstance(parent, dict) else None
    if not isinstance(parent, dict) or not location or location[-1] not in parent:
        return False
    del parent[location[-1]]
    return True


def _complete(experiment: Experiment, action: str, *, spec_given: bool) -> None:
    """Set the fields that follow from the source of the spec, before data or trunk are known."""
    experiment._action = action
    experiment._spec_given = spec_given
    if spec_given and not experiment.is_set("train.recipe"):
        experiment.train.recipe = "tao"
    if not experiment.is_set("wandb.enable"):
        # TAO's default is true; here nothing leaves the machine unless the user wrote so (and a resolved spec that is
        # loaded again must not look as if they had).
        experiment.wandb.enable = False
    for part in (experiment.train, experiment.evaluate, experiment.inference):
        if len(part.gpu_ids) != part.num_gpus:
            part.gpu_ids = list(range(part.num_gpus))
    if experiment.encryption_key:
        say("encryption_key is not used here: nothing is encrypted", once=True)
