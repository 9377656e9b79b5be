"""The packaged skill: fresh, whole, installable; what it says is so."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import unalike
from unalike.actions import skill as handbook
from unalike.cli import app, run_command
from unalike.errors import RunError
from unalike.jobs import data_sources
from unalike.jobs.parent_fields import FIELD_RULES, FUNCTIONS
from unalike.jobs.tao_layout import DATA_SOURCES
from unalike.spec import ACTIONS, load_spec, schema_for
from unalike.spec.actions import JOB_ACTIONS
from unalike.spec.fields import declared_fields
from unalike.spec.load import DATA_FIELD
from unalike.spec.shorthand import BY_ACTION, SHORTHAND, long_name
from unalike.spec.template import DEPLOY, deploy_template_for

SKILL = Path(handbook.FOLDER)
TEXT = (SKILL / "SKILL.md").read_text(encoding="utf-8")
INFO: dict[str, Any] = yaml.safe_load((SKILL / handbook.INFO).read_text(encoding="utf-8"))
SOURCE = Path(unalike.__file__).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every command of the skill as words, those inside $( ) too. Blocks in bash need files of the user and are not run."""
    found = []
    for line in "".join(blocks("sh") + blocks("bash")).splitlines():
        inner = re.search(r"\$\((.*)\)", line)
        found.append(shlex.split((inner[1] if inner else line).replace("$", "")))
    return found


# ---- fresh ----


def test_packaged_files_are_fresh() -> None:
    """Regenerate with `unalike schema` when this fails."""
    for name, content in handbook.package_files().items():
        assert (SKILL / name).read_text(encoding="utf-8") == content, name
    generated = {SKILL / name for name in handbook.package_files()}
    assert {path for path in SKILL.rglob("*") if path.is_file()} == generated | {
        SKILL / "SKILL.md", SKILL / "references/deploy.md", SKILL / "evals/evals.json",
    }  # fmt: skip


def test_a_default_changed_without_regenerating_is_found(tmp_path: Path) -> None:
    """What CI would see: the same test on a copy of the package in which one default was changed."""
    if os.environ.get("UNALIKE_DRIFT_TEST"):
        pytest.skip("this is the inner run")
    shutil.copytree(SOURCE, tmp_path / "unalike", ignore=shutil.ignore_patterns("__pycache__"))
    train = tmp_path / "unalike" / "spec" / "train.py"
    text = train.read_text(encoding="utf-8")
    assert text.count("num_epochs: int = field(\n        10,") + text.count("num_epochs: int = field(10,") == 1
    train.write_text(re.sub(r"(num_epochs: int = field\(\s*)10,", r"\g<1>11,", text), encoding="utf-8")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--noconftest", "-o", "addopts=",
             "--rootdir", str(tmp_path), f"{__file__}::{test_packaged_files_are_fresh.__name__}"]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "UNALIKE_DRIFT_TEST": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=1200, check=False)
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout[-2000:]


# ---- whole ----


def test_front_matter_and_files() -> None:
    facts = yaml.safe_load(TEXT.split("---\n")[1])
    assert facts["name"] == handbook.NAME == INFO["name"] and 100 < len(facts["description"]) <= 1024
    assert len(TEXT.splitlines()) < 500
    named = set(re.findall(r"`((?:references|schemas)/[^`<]+?)`", TEXT))
    assert named and all((SKILL / name).exists() for name in named), named
    manifest = json.loads((SKILL / "schemas/manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["actions"]) == set(ACTIONS)
    for action, entry in manifest["actions"].items():
        for key in ("schema", "spec_template", *(["deploy_spec_template"] if action in DEPLOY else [])):
            assert (SKILL / "schemas" / entry[key]).resolve().is_file()


def _uncomment(line: re.Match[str]) -> str:
    """A default that is commented out, as a line of the spec; a line of help stays what it is."""
    names = {path.rpartition(".")[2] for path in declared_fields()}
    return f"{line[1]}{line[2]}{line[3]}" if line[2] in names else line[0]


def test_every_template_passes_its_schema_and_loads() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    templates = sorted((SKILL / "references").glob("spec_template_*.yaml"))
    assert len(templates) == len(ACTIONS) + len(DEPLOY)
    for path in templates:
        action = path.stem.removeprefix("spec_template_").removeprefix("deploy_")
        text = path.read_text(encoding="utf-8")
        tree = yaml.safe_load(text)
        validator = jsonschema.Draft202012Validator(schema_for(action))
        assert not list(validator.iter_errors(tree)), path
        load_spec(action, path)
        marked = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
        assert marked and (path.parent / marked[1]).resolve() == SKILL / "schemas" / f"{action}.schema.json"
        # With every commented default taken in too, it is still a valid spec.
        whole = yaml.safe_load(re.sub(r"^( *)# (\w+)(:(?: .*)?)$", _uncomment, text, flags=re.MULTILINE))
        assert not list(validator.iter_errors(whole)), path
        load_spec(action, whole)


@pytest.mark.parametrize("action", sorted(DEPLOY))
def test_deploy_templates_hold_defaults_alone(action: str) -> None:
    told, plain = load_spec(action, yaml.safe_load(deploy_template_for(action))), load_spec(action, {})
    assert told.to_dict() == plain.to_dict()


def test_skill_info_says_what_the_code_does() -> None:
    assert INFO["automl_enabled"] is True and set(INFO["actions"]) == set(ACTIONS)
    for action, told in INFO["actions"].items():
        assert load_spec(action) and not set(told["inputs"]) - set(declared_fields())
        assert set(told.get("one_of", [])) <= set(told["inputs"])
        assert (SKILL / "references" / told["schema"]).resolve().is_file()
        assert (SKILL / "references" / told["spec_template"]).is_file()
        table = {e.field: e.function for e in FIELD_RULES if e.action in ("*", action)}
        if action in JOB_ACTIONS:
            assert INFO["spec_params"][action] == table
        assert (action in INFO["spec_params"]) == ("job" in told) == (action in JOB_ACTIONS)
        assert set(table.values()) <= set(FUNCTIONS)
    for key, place in INFO["spec_shorthand_keys"].items():
        if isinstance(place, str):
            assert long_name(key, "train") == place in declared_fields()
        else:
            assert all(long_name(key, action) == place.get(action, place["otherwise"]) for action in ACTIONS)
    assert set(INFO["spec_shorthand_keys"]) == {*SHORTHAND, *BY_ACTION}
    named = {key for key in INFO["spec_shorthand_keys"] if f"`{key}" in TEXT or f" {key}=" in TEXT}
    assert named == set(INFO["spec_shorthand_keys"])


def test_data_sources_are_the_contracts() -> None:
    root = "metric_learning_recognition/retail-product-checkout-dataset_classification_demo"
    assert data_sources("train", "s3://b/") == {
        "dataset.train_dataset": f"s3://b/{root}/known_classes/train.tar.gz",
        "dataset.val_dataset.reference": f"s3://b/{root}/known_classes/reference.tar.gz",
        "dataset.val_dataset.query": f"s3://b/{root}/known_classes/val.tar.gz",
    }
    assert data_sources("evaluate", "d")["dataset.val_dataset.query"] == f"d/{root}/unknown_classes/test.tar.gz"
    assert data_sources("inference", "d")["inference.input_path"] == f"d/{root}/unknown_classes/test.tar.gz"
    calibration = data_sources("gen_trt_engine", "d")["gen_trt_engine.tensorrt.calibration.cal_image_dir"]
    assert calibration == [f"d/{root}/known_classes/test.tar.gz"] and data_sources("export", "d") == {}
    assert INFO["data_sources"] == {action: dict(fields) for action, fields in DATA_SOURCES.items()}
    for action in DATA_SOURCES:
        load_spec(action, None, data_sources(action, "s3://b"))


# ---- what it says ----


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words[:3]))
def test_every_command_is_one(words: list[str]) -> None:
    """Parsed by the program itself, its overrides checked against the spec; run for real by the slow tests."""
    assert words[0] == "unalike"
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    context = None
    while hasattr(command, "commands"):
        context = typer.Context(command, parent=context, info_name=rest[0])
        command, rest = command.get_command(context, rest[0]), rest[1:]
    parsed = command.make_context(words[1], list(rest), parent=context).params
    overrides = [argument for argument in parsed.get("arguments") or [] if "=" in argument]
    action = parsed.get("action") or words[1]
    if overrides and action in DATA_FIELD:
        load_spec(action, None, overrides)


def test_every_command_is_named_and_evals_have_the_public_form() -> None:
    from unalike.cli.commands import COMMANDS

    assert all(re.search(rf"`(unalike )?{re.escape(name)}\b", TEXT) for name in COMMANDS)
    for word in (
        "fine-grained",
        "retrieval",
        "triplet",
        "contrastive",
        "ml-recog",
        "no-labels",
        "## Instructions",
        "## Examples",
    ):
        assert word.lower() in TEXT.lower()
    content = json.loads((SKILL / "evals/evals.json").read_text(encoding="utf-8"))
    assert content["skill_name"] == "unalike" and len(content["evals"]) >= 5
    for entry in content["evals"]:
        assert entry["prompt"] and entry["expected_output"] and len(entry["expectations"]) >= 3


def test_manifest_has_taos_keys() -> None:
    manifest = json.loads((SKILL / "schemas/manifest.json").read_text(encoding="utf-8"))
    for action, entry in manifest["actions"].items():
        assert entry["path"] == entry["schema"] and (SKILL / "schemas" / entry["path"]).is_file()
        assert entry["top_level_keys"] == list(schema_for(action)["default"])
        flat = {f"{section}.{name}" for section, names in entry["popular_by_section"].items() for name in names}
        assert flat == set(entry["popular"])


def test_typical_overrides_load() -> None:
    rows = re.search(r"### Typical overrides.*?\n\|---\|---\|\n(.*?)\n\n", TEXT, re.DOTALL)
    assert rows
    told = [re.search(r"\| `([^`]+)`", row) for row in rows[1].splitlines()]
    assert len(told) >= 10
    for found in told:
        assert found
        load_spec("train", None, found[1].split())


def test_fields_that_it_names_exist() -> None:
    fields = declared_fields()
    for name in re.findall(
        r"`((?:train|model|dataset|evaluate|inference|automl|export|gen_\w+|quantize)\.[a-z_.]+)`", TEXT
    ):
        assert name in fields or name.endswith((".onnx", ".xml", ".engine")), name


def test_error_patterns_are_words_of_the_program() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    plain = re.sub(r'"\s*\n?\s*f?"', "", source)  # sentences that run over several lines
    rows = re.findall(r"^\| (`.*?) \|", TEXT.split("## When something fails")[1], re.MULTILINE)
    assert len(rows) >= 15
    for phrase in re.findall(r"`([^`]+)`", "\n".join(rows)):
        # What stands for a name, a number or a file is left out.
        parts = re.split(r"\.\.\.|[;:'\[\]()]|FILE|train\.num_epochs|num_epochs|\d|torch|faiss", phrase)
        for part in (part.strip(" ,") for part in parts):
            assert len(part) < 6 or part in plain, (phrase, part)


def test_policy_phrases_and_budget_are_there() -> None:
    for phrase in ("turn off AutoML", "disable AutoML", "no HPO", "plain training"):
        assert f'"{phrase}"' in TEXT
    assert "10 minutes without a GPU and 20 trials with one" in TEXT
    assert load_spec("train", {"automl_policy": True}).automl_policy == "auto"  # TAO's bare `on`
    assert load_spec("train", {"automl_policy": "on"}).automl_policy == "auto"


# ---- installed ----


def test_install_writes_refuses_and_replaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["skill", "install", str(tmp_path / "skills"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    there = tmp_path / "skills" / "unalike"
    assert told == {"skill": str(there / "SKILL.md")}
    assert {p.relative_to(there) for p in there.rglob("*") if p.is_file()} == {
        p.relative_to(SKILL) for p in SKILL.rglob("*") if p.is_file()
    }
    (there / "notes.md").write_text("mine")
    (there / "SKILL.md").write_text("old")
    with pytest.raises(RunError, match="SKILL.md exists.*--overwrite"):
        handbook.install(tmp_path / "skills")
    assert handbook.install(tmp_path / "skills", overwrite=True).read_text() == TEXT
    assert (there / "notes.md").read_text() == "mine"
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be written"):
        handbook.install(tmp_path / "file")
    assert run_command(["skill", "show"]) == 0 and str(SKILL) in capsys.readouterr().out


def test_schema_prints_one_or_writes_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["schema", "train"]) == 0
    assert json.loads(capsys.readouterr().out) == schema_for("train")
    assert run_command(["schema", "export", "-o", str(tmp_path / "e.json")]) == 0
    assert json.loads((tmp_path / "e.json").read_text()) == schema_for("export")
    assert run_command(["schema", "-o", str(tmp_path / "all")]) == 0
    written = {str(path.relative_to(tmp_path / "all")) for path in (tmp_path / "all").rglob("*") if path.is_file()}
    assert written == set(handbook.package_files())
    capsys.readouterr()
    assert run_command(["schema", "trian"]) == 2 and "did you mean 'train'" in capsys.readouterr().err
