"""Sections of the standalone actions: schemas, templates, and Python signatures with the same names and defaults."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from unalike.actions.benchmark import measure_engines
from unalike.actions.demo_images import render_brands
from unalike.actions.distill import distill
from unalike.actions.embed import embed
from unalike.actions.export import export_maps
from unalike.cli.commands import ALIASES, COMMANDS
from unalike.comparison.comparer import Comparer
from unalike.discovery.clustering import group_images
from unalike.errors import SpecError
from unalike.inspection.anomaly_model import AnomalyModelConfig
from unalike.inspection.inspector import Inspector
from unalike.recognition.backends.address import copy_gallery
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_calibration import calibrate
from unalike.recognition.recognizer import Recogniser
from unalike.spec import Experiment, load_spec, schema_for, template_for
from unalike.spec.actions import ACTIONS, FOLDERLESS_ACTIONS, MODEL_ACTIONS, STANDALONE_ACTIONS, TAO_ACTIONS, command_of
from unalike.spec.discover import Discover
from unalike.spec.distill import Distill
from unalike.spec.fields import declared_fields
from unalike.spec.gallery import GalleryBuild
from unalike.spec.inspect import InspectFit
from unalike.spec.load import check_fields
from unalike.spec.schema import schema_text
from unalike.verification.verifier import Verifier

# SHA-256 of the schemas of 2026-11-29. They change only when a field of TAO's sections does (dataset.decoding, train.epoch_images since; section mlflow, ours; model.download; train.lora, train.drop_path, optim.layer_decay and decay_norms; train.cluster, address and workers; dataset.class_sampling; train.loss.memory_size, train.finish.label_weights); descriptions keep their spelling too.
TAO_SCHEMAS = {
    "train": "cd4a95120fe1b002d6b056bebab0f05d510080cc9ca9a408a352135a16e94b30",
    "evaluate": "3f1352ee03c4a778438c75753102f5fe36376bc42ffde2d9a30a4ef290cefe0e",
    "inference": "2e7248be58ddad55dfc49c4dc8fb71e23214069603bcd6b1a36f4be3aa645bfd",
    "export": "771d91c05b03963bb3d9de86d237e5597eb156457da1aaea4a3ef8aed6166d6e",
    "gen_trt_engine": "a6a546d166f164372a77d0965aff3b19b817bfa7adb62320d17bd2a873b1a902",
}
CONFIG = {field.name for field in dataclasses.fields(AnomalyModelConfig)}
VERIFICATION = {"reference", "images", "results_dir", "asset", "save", "box"}
DECODING = {"ground", "range"}
CALIBRATION = {"rate", "trials", "kinds", "confidence", "seed"}
# Functions whose arguments are fields of a section, and the fields that they do not take.
SIGNATURES: tuple[tuple[str, Callable[..., Any], set[str]], ...] = (
    ("compare", Comparer, {"reference", "image", "results_dir"}),
    ("inspect_fit", Inspector.fit, {"inspector", "results_dir", *CONFIG}),
    ("inspect_fit", AnomalyModelConfig, set(InspectFit.model_fields) - CONFIG),
    ("inspect_learn", Inspector.learn, {"inspector", "output", "runtime", "threads"}),
    ("inspect_run", Inspector.load, {"inspector", "images", "results_dir", "overlays", "good", "truth"}),
    ("verify", Verifier.load, {*VERIFICATION, *CALIBRATION, *DECODING}),
    ("verify", Verifier.build, {*VERIFICATION, *CALIBRATION}),
    ("verify", Verifier.calibrate, {*VERIFICATION, *DECODING, "model", "runtime", "precision"}),
    ("gallery_build", Recogniser.calibrate, set(GalleryBuild.model_fields) - {"rate", "rule"}),
    ("discover", group_images, set(Discover.model_fields) - {"groups", "seed"}),
    ("distill", distill, set(Distill.model_fields) - {"source", "teachers"}),
    ("bench_engine", measure_engines, {"output", "results_dir"}),
    ("embed", embed, {"results_dir", "model", "labeled"}),
    ("calibrate", calibrate, {"model", "runtime", "precision"}),
    ("gallery_remove", Gallery.remove, {"gallery"}),
    ("gallery_rename", Gallery.rename, {"gallery"}),
    ("gallery_merge", Gallery.merge, {"gallery"}),
    ("gallery_copy", copy_gallery, {"gallery"}),
    ("gallery_list", Gallery.load, {"gallery"}),
    ("export_maps", export_maps, set()),
    ("demo", render_brands, {"out", "keep", "epochs"}),
)
# Fields that may be unset where the function has a value: what is unset is not passed on.
UNSET = {
    ("inspect_fit", "defects"),
    ("verify", "rate"),
    ("verify", "kinds"),
    ("gallery_remove", "labels"),
    ("gallery_remove", "names"),
}


@pytest.mark.parametrize(("action", "function", "others"), SIGNATURES)
def test_signatures_have_the_names_and_defaults_of_the_section(
    action: str, function: Callable[..., Any], others: set[str]
) -> None:
    section = getattr(Experiment(), action)
    parameters = inspect.signature(function).parameters
    shared = {name: parameters[name].default for name in type(section).model_fields if name in parameters}
    assert set(type(section).model_fields) - set(shared) == others
    for name, default in shared.items():
        if default is not inspect.Parameter.empty and (action, name) not in UNSET:
            assert (list(default) if isinstance(default, tuple) else default) == getattr(section, name), name


def test_bounds_of_the_anomaly_model_are_those_of_the_section() -> None:
    """At a bound the class takes what the section takes; just beyond it refuses."""
    for name in CONFIG - {"seed"}:
        node = declared_fields()[f"inspect_fit.{name}"]
        step = 1 if node.kind is int else 0.01
        others = {"memory": 1} if name == "patches" else {}
        for item in node.metadata:
            ends = [(item.ge, -step)] if hasattr(item, "ge") else [(item.le, step)] if hasattr(item, "le") else []
            for bound, beyond in ends:
                if hasattr(item, "le") and node.kind is int:
                    continue  # numbers of patches, folds and defects have an upper bound in a spec alone
                assert getattr(AnomalyModelConfig(**{**others, name: bound}), name) == bound
                with pytest.raises(SpecError):
                    AnomalyModelConfig(**{**others, name: bound + beyond})


@pytest.mark.parametrize("action", TAO_ACTIONS)
def test_schemas_of_taos_actions_stay(action: str) -> None:
    assert hashlib.sha256(schema_text(action).encode()).hexdigest() == TAO_SCHEMAS[action]


@pytest.mark.parametrize("action", STANDALONE_ACTIONS)
def test_a_standalone_section_stands_in_its_own_spec_alone(action: str) -> None:
    top_level = {action} if action in FOLDERLESS_ACTIONS else {"results_dir", action}
    assert set(schema_for(action)["properties"]) == top_level
    assert set(load_spec(action).to_dict()) == top_level
    for other in (name for name in ACTIONS if name != action):
        assert action not in load_spec(other).to_dict() and f"\n{action}:" not in template_for(other)
        assert action not in schema_for(other)["properties"]
    with pytest.raises(SpecError, match=f"{action}: belongs in a spec of its own"):
        load_spec("train", {action: {}})


def test_every_action_has_a_command() -> None:
    assert set(ACTIONS) == {*MODEL_ACTIONS, *STANDALONE_ACTIONS}
    assert {command_of(action).split()[0] for action in ACTIONS} <= {*COMMANDS, *ALIASES}


def test_fields_are_checked_by_their_declarations() -> None:
    assert check_fields("compare", tolerance=5).tolerance == 5
    with pytest.raises(SpecError) as caught:
        check_fields("compare", tolerance=33, align="rigit")
    assert str(caught.value).splitlines() == [
        "2 faults",
        "  align: found 'rigit', expected one of auto, none, shift, rigid, affine, homography; did you mean 'rigid'?",
        "  tolerance: found 33, expected a whole number >= 0 and <= 32 or null",
    ]
