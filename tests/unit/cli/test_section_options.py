"""Command lines of the standalone actions: each sets the fields of its section, and nothing else."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from unalike.cli import run_command
from unalike.spec import Experiment

# Action -> the function that its command calls.
TARGETS = {"compare": "unalike.actions.compare.compare"}
# Command line -> what it sets; from README, docs, examples and tests, and every option once.
LINES: dict[str, dict[str, Any]] = {
    "compare a.png b.png": {"reference": "a.png", "image": "b.png"},
    "compare golden.png tested/ -o found/": {"reference": "golden.png", "image": "tested/", "results_dir": "found/"},
    "compare pairs.csv --out found/ --overwrite": {"reference": "pairs.csv", "results_dir": "found/", "overwrite": True},
    "compare approved.png seen.jpg --tolerance 2 -o found/": {
        "reference": "approved.png", "image": "seen.jpg", "tolerance": 2, "results_dir": "found/",
    },
    "compare golden/ tested/ --level features --json": {"reference": "golden/", "image": "tested/", "level": "features"},
    "compare --align rigid --lighting none a --contrast 20 --min-area 30 b --margin 4 --mirror --no-bend": {
        "reference": "a", "image": "b", "align": "rigid", "lighting": "none", "contrast": 20.0, "min_area": 30,
        "margin": 4, "mirror": True, "flexible": False,
    },
    "compare a b --level both -m maps.onnx --runtime onnxruntime --precision fp32 --exit-code -q": {
        "reference": "a", "image": "b", "level": "both", "model": "maps.onnx", "runtime": "onnxruntime",
        "precision": "fp32",
    },
}  # fmt: skip


class Call(dict[str, Any]):
    """Stands in for the function of an action and keeps the spec that it was called with."""

    def __call__(self, experiment: Experiment, **options: Any) -> dict[str, Any]:
        self.update(experiment=experiment, options=options)
        raise KeyboardInterrupt  # nothing is to be printed


def call_of(line: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Call]:
    words = shlex.split(line)
    action = next(
        name for name in TARGETS if line.replace("-", "_").startswith(name.replace("_", " ")) or name == words[0]
    )
    call = Call()
    monkeypatch.setattr(TARGETS[action], call)
    run_command(words)
    return action, call


def changed(experiment: Experiment, action: str) -> dict[str, Any]:
    """The fields of the section that do not have their defaults."""
    defaults = getattr(Experiment(), action).model_dump()
    return {name: value for name, value in getattr(experiment, action).model_dump().items() if value != defaults[name]}


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_sets_what_it_says(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    action, call = call_of(line, monkeypatch)
    expected = dict(LINES[line])
    assert call["options"].get("overwrite", False) == expected.pop("overwrite", False)
    assert changed(call["experiment"], action) == expected


def test_options_rule_over_overrides_and_these_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(
        yaml.safe_dump({"compare": {"reference": "a", "image": "b", "tolerance": 1, "contrast": 50.0, "min_area": 5}})
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compare.tolerance=2").write_text("a file of that name is no override")
    line = f"compare -e {file} x compare.tolerance=2 compare.contrast=60 compare.min_area=7 --min-area 9 --align auto"
    _, call = call_of(line, monkeypatch)
    assert changed(call["experiment"], "compare") == {
        "reference": "x", "image": "compare.tolerance=2", "tolerance": 1, "contrast": 60.0, "min_area": 9,
    }  # fmt: skip
    assert call["experiment"].is_set("compare.align") and not call["experiment"].is_set("compare.lighting")


@pytest.mark.parametrize("name", ["Käse 🧀.png", "with = and 'quotes'.png", "null", "1e5", "odd\udcff.png"])
def test_any_name_of_a_file_is_taken_as_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call()
    monkeypatch.setattr(TARGETS["compare"], call)
    run_command(["compare", name, "b", "-o", name])
    assert (call["experiment"].compare.reference, call["experiment"].compare.results_dir) == (name, name)


def test_help_shows_words_bounds_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["compare", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "shift, rigid, affine, homography. [default: auto]",
        "(0 to 32). [default: 3]",
        "--no-bend",
        "-m, --model FILE",
    ):
        assert part in text
