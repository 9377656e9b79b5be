"""Command lines of the standalone actions: each sets the fields of its section, and nothing else."""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.program import unalike as in_process
from unalike.cli import run_command
from unalike.cli.commands import load_command
from unalike.cli.section_options import takes_null
from unalike.spec import Experiment
from unalike.spec.actions import STANDALONE_ACTIONS, command_of
from unalike.spec.declare import Section
from unalike.spec.fields import fields_of
from unalike.storage.downloads import VARIABLE, allowing_line

# Action -> the function that its command calls.
TARGETS = {
    "compare": "unalike.actions.compare.compare",
    "inspect_fit": "unalike.actions.inspect.fit",
    "inspect_learn": "unalike.actions.inspect.learn",
    "inspect_run": "unalike.actions.inspect.inspect",
    "verify": "unalike.actions.verify.verify",
    "discover": "unalike.actions.discover.run_discovery",
    "distill": "unalike.actions.distill.run_distillation",
    "gallery_build": "unalike.actions.gallery.build",
    "bench_engine": "unalike.actions.benchmark.run_benchmark",
    "embed": "unalike.actions.embed.run_embedding",
    "calibrate": "unalike.actions.gallery.calibrate_file",
    "identify": "unalike.actions.gallery.identify",
    "gallery_add": "unalike.actions.gallery.add",
    "gallery_remove": "unalike.actions.gallery.remove",
    "gallery_rename": "unalike.actions.gallery.rename",
    "gallery_merge": "unalike.actions.gallery.merge",
    "gallery_copy": "unalike.actions.gallery.copy",
    "gallery_list": "unalike.actions.gallery.load_gallery",
    "export_maps": "unalike.actions.export.run_export_maps",
    "demo": "unalike.actions.demo.run_demo",
    "serve": "unalike.serve.server.run_service",
    "improve": "unalike.serve.learning.improvement.improve",
}
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
    "inspect fit good/ -o part.inspector --rate 0.01": {"good": "good/", "inspector": "part.inspector"},
    "inspect fit good -o p.inspector -m maps.onnx --rate 0.05 --size 32x48 --overwrite --json": {
        "good": "good", "inspector": "p.inspector", "model": "maps.onnx", "rate": 0.05, "size": [32, 48],
        "overwrite": True,
    },
    "inspect fit g -o p --no-threshold --rate 0.1 --size 320 --stages 8,16 --fit whole --light even --threads 2": {
        "good": "g", "inspector": "p", "rate": None, "size": [320, 320], "stages": [8, 16], "fit": "whole",
        "light": "even", "threads": 2,
    },
    "inspect fit g -o p --defects bad --masks m --part '^[a-z]+' --memory 60000 --border 0 --flaws 500 --fixture 0.02": {
        "good": "g", "inspector": "p", "defects": "bad", "masks": "m", "parts": "^[a-z]+", "memory": 60000,
        "border": 0.0, "synthetic_defects": 500, "fixture": 0.02,
    },
    "inspect fit g -o p --scale 0.5 --stages blocks.2,blocks.4 --search ann --runtime openvino --precision bf16 --seed 3": {
        "good": "g", "inspector": "p", "scale": 0.5, "stages": ["blocks.2", "blocks.4"], "search": "ann",
        "runtime": "openvino", "precision": "bf16", "seed": 3,
    },
    "inspect learn part.inspector a.png confirmed/ -o part2.inspector --rate 0.05 --part '[0-9]+' --runtime onnxruntime --threads 2": {
        "inspector": "part.inspector", "images": ["a.png", "confirmed/"], "output": "part2.inspector", "rate": 0.05,
        "parts": "[0-9]+", "runtime": "onnxruntime", "threads": 2,
    },
    "inspect run plate.inspector parts/test -o out --good good --truth parts/masks --overlays all": {
        "inspector": "plate.inspector", "images": ["parts/test"], "results_dir": "out", "good": "good",
        "truth": "parts/masks", "overlays": "all",
    },
    "inspect run p.inspector a.png b.png new/ --search exact --runtime onnxruntime --precision fp32 --threads 1 -v": {
        "inspector": "p.inspector", "images": ["a.png", "b.png", "new/"], "search": "exact", "runtime": "onnxruntime",
        "precision": "fp32", "threads": 1,
    },
    "verify --reference assets/ --save brand.set": {"reference": "assets/", "save": "brand.set"},
    "verify --reference brand.set photo.jpg more/ -o out/ --json": {
        "reference": "brand.set", "images": ["photo.jpg", "more/"], "results_dir": "out/",
    },
    "verify --reference a --save s --rate 0.25 --trials 6 --kinds 'recolour, stretch' --seed 4 -m m.onnx --overwrite": {
        "reference": "a", "save": "s", "rate": 0.25, "trials": 6, "kinds": ["recolour", "stretch"], "seed": 4,
        "model": "m.onnx", "overwrite": True,
    },
    "verify x.png --reference s --kinds stretch --kinds recolour,hue": {
        "reference": "s", "images": ["x.png"], "kinds": ["stretch", "recolour", "hue"],
    },
    "compare a b --ignore-boxes 0,0,9,9 --ignore-boxes 10,10,20,20": {
        "reference": "a", "image": "b", "ignore_boxes": [[0, 0, 9, 9], [10, 10, 20, 20]],
    },
    "gallery build g refs.csv -m m.pth --attributes site --attributes season,shelf --attribute a=1 --attribute b=2,3": {
        "gallery": "g", "source": "refs.csv", "model": "m.pth", "attribute_columns": ["site", "season", "shelf"],
        "attributes": ["a=1", "b=2,3"],
    },
    "verify x.png --reference s --asset 'mark 2' --strict --runtime onnxruntime --precision fp32": {
        "reference": "s", "images": ["x.png"], "asset": "mark 2", "runtime": "onnxruntime", "precision": "fp32",
    },
    "discover heap/ -o sorted/": {"source": "heap/", "results_dir": "sorted/"},
    "discover heap.zip -m model.onnx --groups 4 --link --seed 2 --json": {
        "source": "heap.zip", "model": "model.onnx", "groups": 4, "kind": "link", "seed": 2,
    },
    "discover heap --table --runtime torch --precision fp32": {
        "source": "heap", "kind": "table", "runtime": "torch", "precision": "fp32",
    },
    "distill photos/ --teacher best.pth -o small/": {"source": "photos/", "teachers": ["best.pth"], "results_dir": "small/"},
    "distill photos/ --labelled -t a.pth --teacher b.onnx --further heap/ --student pretrained:x --minutes 30 --dim 64 --overwrite": {
        "source": "photos/", "teachers": ["a.pth", "b.onnx"], "further": "heap/", "student": "pretrained:x", "minutes": 30.0,
        "dim": 64, "labeled": True, "overwrite": True,
    },
    "distill photos/ -t a.xml --max-unreadable 0.5 --workers 3 --seed 2 --runtime openvino --precision bf16": {
        "source": "photos/", "teachers": ["a.xml"], "max_unreadable": 0.5, "workers": 3, "seed": 2, "runtime": "openvino",
        "precision": "bf16",
    },
    "gallery build shop.gallery reference/ -m model.onnx --no-calibration": {
        "gallery": "shop.gallery", "source": "reference/", "model": "model.onnx", "rate": None,
    },
    "gallery build g refs -m m.pth --rate 0.1 --by vote --half --runtime openvino --precision fp32 --overwrite -q": {
        "gallery": "g", "source": "refs", "model": "m.pth", "rate": 0.1, "rule": "vote", "half": True,
        "runtime": "openvino", "precision": "fp32", "overwrite": True,
    },
    "bench-engine model.onnx --data photographs/": {"model": "model.onnx", "data": "photographs/"},
    "bench-engine m.pth --batches 1,4 --seconds 0.2 --runtimes openvino,torch --threads 2 -o out/bench.json": {
        "model": "m.pth", "batches": [1, 4], "seconds": 0.2, "runtimes": ["openvino", "torch"], "threads": 2,
        "output": "out/bench.json",
    },
    "embed photographs/ -o v.npz": {"source": "photographs/", "output": "v.npz"},
    "embed all.csv --out v.parquet -m m.xml --labelled --runtime openvino --precision fp32 --overwrite": {
        "source": "all.csv", "output": "v.parquet", "model": "m.xml", "labeled": True, "runtime": "openvino",
        "precision": "fp32", "overwrite": True,
    },
    "embed s3://b/in -o s3://b/out --shard-size 500 --cluster ray --address auto --workers 4 --resume": {
        "source": "s3://b/in", "output": "s3://b/out", "shard_size": 500, "cluster": "ray", "address": "auto", "workers": 4,
    },
    "embed heap -o v.npz --labeled": {"source": "heap", "output": "v.npz", "labeled": True},
    "calibrate shop.gallery --rate 0.05": {"gallery": "shop.gallery", "rate": 0.05},
    "calibrate g --wrong 0.1 --images new/ --trials-from both --by vote -k 4 --confidence 0.9 --seed 3 -m m.onnx": {
        "gallery": "g", "wrong": 0.1, "images": "new/", "trials_from": "both", "rule": "vote", "k": 4, "confidence": 0.9,
        "seed": 3, "model": "m.onnx",
    },
    "identify shop.gallery photo.jpg --json": {"gallery": "shop.gallery", "images": ["photo.jpg"]},
    "identify g a.png new/ -k 2 --by prototype --approximate -m m.pth --runtime onnxruntime --precision fp32 -q": {
        "gallery": "g", "images": ["a.png", "new/"], "k": 2, "rule": "prototype", "approximate": True, "model": "m.pth",
        "runtime": "onnxruntime", "precision": "fp32",
    },
    "gallery add shop.gallery new/ -m model.onnx": {"gallery": "shop.gallery", "source": "new/", "model": "model.onnx"},
    "gallery add g a.png --label 'red mug' --runtime openvino --precision fp32 --json -q": {
        "gallery": "g", "source": "a.png", "label": "red mug", "runtime": "openvino", "precision": "fp32",
    },
    "gallery add g new.csv --attribute site=berlin --attribute 'line=a, b' --attributes season,shift": {
        "gallery": "g", "source": "new.csv", "attributes": ["site=berlin", "line=a, b"],
        "attribute_columns": ["season", "shift"],
    },
    "gallery build g refs.csv -m m.onnx --attributes site --attribute line=1": {
        "gallery": "g", "source": "refs.csv", "model": "m.onnx", "attribute_columns": ["site"], "attributes": ["line=1"],
    },
    "identify g a.png --where site=berlin --where season=ss26 --where season=fw26": {
        "gallery": "g", "images": ["a.png"], "where": ["site=berlin", "season=ss26", "season=fw26"],
    },
    "gallery remove g oak 'red, mug' x.y=z": {"gallery": "g", "labels": ["oak", "red, mug", "x.y=z"]},
    "gallery remove g --image 'a, b.png' --image c.png": {"gallery": "g", "names": ["a, b.png", "c.png"]},
    "gallery remove g gallery_remove.labels=[oak]": {"gallery": "g", "labels": ["oak"]},
    "gallery rename g a=b c=d": {"gallery": "g", "label": "a=b", "new": "c=d"},
    "gallery merge g oak elm --into trees --json": {"gallery": "g", "labels": ["oak", "elm"], "into": "trees"},
    "gallery copy g other.gallery --overwrite --json": {"gallery": "g", "target": "other.gallery", "overwrite": True},
    "gallery merge --into trees g a=b": {"gallery": "g", "labels": ["a=b"], "into": "trees"},
    "gallery list g --verify": {"gallery": "g", "verify": True},
    "export-maps pretrained --size 320 --no-vector -o maps.onnx": {
        "source": "pretrained", "size": [320, 320], "vector": False, "output": "maps.onnx",
    },
    "export-maps m.pth --stages 8,16 --size 48x32 --out maps.onnx --json": {
        "source": "m.pth", "stages": [8, 16], "size": [48, 32], "output": "maps.onnx",
    },
    "export-maps m.pth --stages blocks.2,blocks.4 -o m.onnx": {
        "source": "m.pth", "stages": ["blocks.2", "blocks.4"], "output": "m.onnx",
    },
    "demo -o out --keep images --brands 4 --unseen 3 --epochs 1 --seed 2 --overwrite -v": {
        "out": "out", "keep": "images", "brands": 4, "unseen": 3, "epochs": 1, "seed": 2, "overwrite": True,
    },
    "demo demo.brands=4": {"brands": 4},
    "serve runs/demo": {"run": "runs/demo"},
    "serve start runs/demo --port 8080": {"run": "runs/demo", "port": 8080},
    "serve -m m.onnx -g a=x.gallery -g y.gallery --inspector p.inspector --assets b=brand.set --folder own -q": {
        "model": "m.onnx", "galleries": ["a=x.gallery", "y.gallery"], "inspectors": ["p.inspector"], "assets": ["b=brand.set"],
        "folder": "own",
    },
    "serve r --store postgresql://h/d --images s3://b/i --no-keep-images --retention-days 7 --decision-days 90 --host 0.0.0.0 --workers 2": {
        "run": "r", "store": "postgresql://h/d", "images": "s3://b/i", "keep_images": False, "retention_days": 7.0, "decision_days": 90.0,
        "host": "0.0.0.0", "workers": 2,
    },
    "serve r --runtime openvino --precision fp32 --threads 2 --wait-ms 5 --queue 64 --deadline 2.5 --max-bytes 4096": {
        "run": "r", "runtime": "openvino", "precision": "fp32", "threads": 2, "wait_ms": 5.0, "queue": 64, "deadline": 2.5,
        "max_bytes": 4096,
    },
    "serve r --max-pixels 1000 --max-files 3 --rate-limit 5 --url-host a.example --url-host b.example --logs json": {
        "run": "r", "max_pixels": 1000, "max_files": 3, "rate_limit": 5.0, "url_hosts": ["a.example", "b.example"],
        "logs": "json",
    },
    "serve r --train-folder old=photos --train-folder more.csv --train-cores 2,3 --train-spec t.yaml": {
        "run": "r", "train_folders": ["old=photos", "more.csv"], "train_cores": [2, 3], "train_spec": "t.yaml",
    },
    "serve r --tls self-signed --approximate": {"run": "r", "tls": "self-signed", "approximate": True},
    "serve r --tls-cert c.pem --tls-key k.pem": {"run": "r", "tls_cert": "c.pem", "tls_key": "k.pem"},
    "improve photos/ --gallery shop --minutes 30 --goal known-classes --share 0.5 --name second --no-promote": {
        "data": "photos/", "gallery": "shop", "minutes": 30.0, "goal": "known-classes", "share": 0.5, "name": "second",
        "promote": False,
    },
    "improve --candidate 0197 --override --reason tested --source pictures/ -m m.onnx --runtime onnxruntime --precision fp32": {
        "candidate": "0197", "override": True, "reason": "tested", "source": "pictures/", "model": "m.onnx",
        "runtime": "onnxruntime", "precision": "fp32",
    },
    "improve --roll-back -g shop --threads 2": {"roll_back": True, "gallery": "shop", "threads": 2},
    "improve old/ --no-service --training-spec t.yaml --images s3://b/i": {
        "data": "old/", "with_service": False, "training_spec": "t.yaml", "images": "s3://b/i",
    },
    "identify g identify.images=[a.png,b.png] identify.k=5 -k 4": {"gallery": "g", "images": ["a.png", "b.png"], "k": 4},
}  # fmt: skip


class Call(dict[str, Any]):
    """Stands in for the function of an action and keeps the spec, or the section of it, that it was called with."""

    def __call__(self, experiment: Experiment | Section, **options: Any) -> dict[str, Any]:
        self.update(experiment=experiment, options=options)
        raise KeyboardInterrupt  # nothing is to be printed


def call_of(line: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Call]:
    words = shlex.split(line)
    action = next(name for name in TARGETS if line.startswith(command_of(name) + " "))
    call = Call()
    monkeypatch.setattr(TARGETS[action], call)
    run_command(words)
    return action, call


def changed(experiment: Experiment | Section, action: str) -> dict[str, Any]:
    """The fields of the section that do not have their defaults."""
    defaults = getattr(Experiment(), action).model_dump()
    section = getattr(experiment, action) if isinstance(experiment, Experiment) else experiment
    return {name: value for name, value in section.model_dump().items() if value != defaults[name]}


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_sets_what_it_says(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    action, call = call_of(line, monkeypatch)
    expected = dict(LINES[line])
    assert call["options"].get("overwrite", False) == expected.pop("overwrite", False)
    assert changed(call["experiment"], action) == expected


def test_every_standalone_action_has_lines() -> None:
    assert set(TARGETS) == set(STANDALONE_ACTIONS)
    assert all(any(line.startswith(command_of(action) + " ") for line in LINES) for action in TARGETS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("identify g", "identify.images is not set"),
        ("identify g a.png -k 0", "identify.k: found 0, expected a whole number >= 1"),
        (
            "identify g a.png --by nearst",
            "identify.rule: found 'nearst', expected one of nearest, prototype, vote or null; did",
        ),
        ("identify -e none.yaml g a.png", "no spec file none.yaml"),
        ("calibrate", "calibrate.gallery is not set"),
        ("calibrate g --rate 1", "calibrate.rate: found 1.0, expected a number > 0 and < 1"),
        ("embed photographs", "embed.output is not set"),
        ("distill photographs", "distill.teachers is not set; expected unalike distill DIR -t FILE"),
        (
            "gallery build g.gallery",
            "gallery_build.source and gallery_build.model are not set; expected unalike gallery build GALLERY DIR -m FILE",
        ),
        ("gallery remove g", "remove without a class or --image; expected unalike gallery remove GALLERY CLASS"),
        ("gallery merge g oak", "gallery_merge.into is not set"),
        ("gallery copy g", "gallery_copy.target is not set"),
        ("gallery rename g a b c", "unexpected argument 'c'; expected unalike gallery rename [GALLERY] [CLASS] [NEW]"),
        ("export-maps pretrained", "export_maps.output is not set"),
        ("inspect fit good -o p.inspector --size 32 --size 48", "inspect_fit.size: found '32,48'"),
        ("demo --brands 1", "demo.brands: found 1, expected a whole number >= 2"),
        (
            "embed photographs -o vectors.txt",
            "embed.output is vectors.txt; expected a name that ends in .npz or .parquet",
        ),
        # A variable of the shell that is not set: an empty text is unset in a spec, and would mean another network here.
        ("embed photographs -o a.npz -m ''", "embed.model is empty"),
        ("gallery build '' refs -m net.onnx", "gallery_build.gallery is empty"),
        ("identify g a.png --where ''", "identify.where is empty"),
        ("discover photographs -e ''", "--spec is empty"),
        ("evaluate '' --reference refs", "an argument is empty"),
        ("evaluate net.onnx --reference ''", "dataset.val_dataset.reference is empty"),
        ("export net.pth -r ''", "--results-dir is empty"),
    ],
)
def test_mistakes_name_the_field(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(shlex.split(line)) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def option_of(action: str, field: str) -> str:
    """The flag that sets a field of a command; empty where it has none."""
    command = load_command(command_of(action).split()[0])
    for word in command_of(action).split()[1:]:
        command = command.commands[word]
    if getattr(command, "commands", None):  # serve: its first command starts the service
        command = command.commands["start"]
    return next((p.opts[0] for p in command.params if p.name == field and p.opts[0].startswith("-")), "")


NULL_FIELDS = [
    path for action in TARGETS for path, node in fields_of(action).items()
    if path.startswith(f"{action}.") and takes_null(node) and option_of(action, node.name)
]  # fmt: skip
# The shortest line of each action, to which an option is added.
SHORT = {
    action: min((line for line in LINES if line.startswith(command_of(action) + " ")), key=len) for action in TARGETS
}


@pytest.mark.parametrize("word", ["null", "none", "None"])
@pytest.mark.parametrize("path", NULL_FIELDS)
def test_a_field_that_may_be_null_takes_the_word(path: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    action, name = path.split(".")
    _, call = call_of(f"{SHORT[action]} {option_of(action, name)} {word}", monkeypatch)
    experiment = call["experiment"]
    assert getattr(getattr(experiment, action) if isinstance(experiment, Experiment) else experiment, name) is None


def test_options_whose_help_says_null_take_it() -> None:
    assert {"gallery_build.rate", "inspect_fit.rate", "identify.rule", "discover.groups"} <= set(NULL_FIELDS)
    said = [path for action in TARGETS for path, node in fields_of(action).items()
            if path.startswith(f"{action}.") and "null" in node.help and option_of(action, node.name)]  # fmt: skip
    assert set(said) <= set(NULL_FIELDS)


@pytest.mark.parametrize(
    "line", ["discover heap --groups four", "gallery build g refs --rate nul", "inspect fit g -o p --rate x"]
)
def test_what_is_no_number_is_refused(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(shlex.split(line)) == 2
    err = capsys.readouterr().err
    assert err.startswith("error:") and repr(line.split()[-1]) in err and "number, nor null" in err


def test_two_flags_of_one_field_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["discover", "heap", "--link", "--table"]) == 2
    assert capsys.readouterr().err == "error: --link and --table together; choose one\n"


def test_commands_that_take_a_network_state_what_may_be_downloaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = (VARIABLE, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    for line, values in (
        ("embed photographs/ -o v.npz", ["", "", ""]),
        ("embed photographs/ -o v.npz --download", ["always", "", ""]),
        ("gallery build g photographs/ -m m.onnx --offline", ["never", "1", "1"]),
    ):
        for name in variables:
            monkeypatch.setenv(name, "")
        call_of(line, monkeypatch)
        assert [os.environ[name] for name in variables] == values, line
        assert allowing_line() == f"unalike {line} --download"
    assert run_command(["embed", "photographs/", "-o", "v.npz", "--download", "--offline"]) == 2
    assert capsys.readouterr().err.endswith("error: --download and --offline together; choose one\n")
    assert run_command(["gallery", "list", "g", "--offline"]) == 2, "a command that loads no network"


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
        "unset, measured in each pair (0 to 32).",
        "--no-bend",
        "-m, --model FILE",
    ):
        assert part in text


def test_variables_set_fields_and_what_is_written_takes_precedence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("PORT", "8081"),
        ("QUEUE", "7"),
        ("GALLERIES", "a=x.gallery, y.gallery"),
        ("KEEP_IMAGES", "false"),
    ):
        monkeypatch.setenv(f"UNALIKE_SERVE_{name}", value)
    _, call = call_of("serve r --port 8082", monkeypatch)
    fields = {"run": "r", "port": 8082, "queue": 7, "galleries": ["a=x.gallery", "y.gallery"], "keep_images": False}
    assert changed(call["experiment"], "serve") == fields
    spec = tmp_path / "s.yaml"
    spec.write_text("serve:\n  queue: 9\n")
    _, call = call_of(f"serve -e {spec} r serve.port=8083", monkeypatch)
    assert changed(call["experiment"], "serve") == {**fields, "port": 8083, "queue": 9}


def test_a_variable_of_another_type_is_refused_by_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNALIKE_SERVE_PORT", "many")
    result = in_process("serve", "r")
    assert result.returncode == 2 and "serve.port: found 'many', expected a whole number" in result.stderr


def test_the_service_searches_with_one_thread_of_openblas() -> None:
    """The variable counts only where numpy is not imported yet."""
    program = """
import sys, types
fake = types.ModuleType("unalike.serve.server")
def run_service(settings):
    from threadpoolctl import threadpool_info
    import numpy
    print([pool["num_threads"] for pool in threadpool_info() if pool["internal_api"] == "openblas"])
fake.run_service = run_service
sys.modules["unalike.serve.server"] = fake
from unalike.cli import run_command
sys.exit(run_command(["serve", "--port", "0"]))
"""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert set(ast.literal_eval(done.stdout)) <= {1}, done.stdout
