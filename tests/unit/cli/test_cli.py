"""argv becomes one call; every mistake becomes one line."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import unalike
from unalike import cli
from unalike.cli import next_steps
from unalike.cli.commands import ALIASES, COMMANDS, load_command
from unalike.cli.output import show_result
from unalike.cli.shared_options import EXIT_NO, parse_arguments
from unalike.errors import DataError, Interrupted

ACTIONS = (
    "train", "evaluate", "inference", "export", "quantize", "engine", "gen-trt-engine", "bench-engine", "default-specs",
    "schema", "keys", "check", "embed", "demo",
)  # fmt: skip


@dataclass
class Answer:
    results_dir: Path = Path("runs/x")
    path: Path | None = None
    figures: dict[str, float] = field(default_factory=lambda: {"R@1": 0.51234567, "bad": float("nan")})


class Calls:
    """Stands in for the public functions and keeps what it was called with."""

    PRETRAINED = "pretrained"

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.error: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Answer:
            self.seen.append((name, args, kwargs))
            if self.error is not None:
                raise self.error
            return Answer()

        return call


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    for name in ("train", "evaluate", "infer", "export", "embed", "check", "bench_engine"):
        monkeypatch.setattr(unalike, name, getattr(calls, name), raising=False)
    return calls


def test_arguments_are_data_and_overrides() -> None:
    assert parse_arguments(["a.b=c", "photos", "seed=1"]) == ("photos", ["a.b=c", "seed=1"])
    assert parse_arguments(["./odd=name"]) == ("./odd=name", [])
    assert parse_arguments(["a.0=x"]) == (None, ["a.0=x"])
    assert parse_arguments(None) == (None, [])


@pytest.mark.parametrize(
    ("action", "function"),
    [("train", "train"), ("evaluate", "evaluate"), ("inference", "infer"), ("export", "export")],
)
def test_actions_call_the_api(api: Calls, action: str, function: str) -> None:
    assert cli.run_command([action, "-e", "s.yaml", "photos", "a.b=-1", "--overwrite"]) == 0
    ((name, args, kwargs),) = api.seen
    assert name == function
    assert args == ("s.yaml", ["a.b=-1"])
    assert kwargs == {"data": "photos", "resume": False, "overwrite": True}


@pytest.mark.parametrize(
    ("argv", "data", "overrides"),
    [
        (["evaluate", "a.pth", "photos"], "photos", ['evaluate.checkpoint="a.pth"']),
        (["evaluate", "photos", "a.onnx"], "photos", ['evaluate.onnx_file="a.onnx"']),
        (["evaluate", "a.xml", "--reference", "r", "--query", "q"], None,
         ['evaluate.engine="a.xml"', 'dataset.val_dataset.reference="r"', 'dataset.val_dataset.query="q"']),
        (["inference", "a.engine", "new", "--reference", "my r"], "new",
         ['inference.trt_engine="a.engine"', 'dataset.val_dataset.reference="my r"']),
        (["inference", "pretrained", "new"], "new", ['inference.checkpoint="pretrained"']),
        (["export", "a.ckpt", "-o", "b.onnx"], None, ['export.checkpoint="a.ckpt"', 'export.onnx_file="b.onnx"']),
    ],
)  # fmt: skip
def test_a_positional_argument_may_be_a_model(
    api: Calls, argv: list[str], data: str | None, overrides: list[str]
) -> None:
    assert cli.run_command(argv) == 0
    ((_, args, kwargs),) = api.seen
    assert (kwargs["data"], args[1]) == (data, overrides)


def test_the_folder_of_a_run_is_its_model(api: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(action: str) -> Path:
        folder = tmp_path / action
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"action": action}))
        return folder

    exported, discovered, evaluated = run("export"), run("discover"), run("evaluate")
    (exported / "model.onnx").write_bytes(b"x")
    assert cli.run_command(["evaluate", str(exported), str(discovered)]) == 0
    ((_, args, kwargs),) = api.seen
    assert (kwargs["data"], args[1]) == (str(discovered), [f'evaluate.onnx_file="{exported / "model.onnx"}"'])
    assert cli.run_command(["evaluate", str(evaluated)]) == 1
    assert "holds a run of evaluate, which writes no model" in capsys.readouterr().err
    (exported / "model.onnx").unlink()
    assert cli.run_command(["evaluate", str(exported)]) == 1
    assert "without a model" in capsys.readouterr().err
    trained = run("train")
    with zipfile.ZipFile(trained / "ml_model_best.pth", "w") as archive:
        archive.writestr("data.pkl", "x")
    assert cli.run_command(["evaluate", str(tmp_path)]) == 0  # the root of several runs
    assert api.seen[-1][1][1] == [f'evaluate.checkpoint="{trained / "ml_model_best.pth"}"']


def test_flags_rule_over_the_spec(api: Calls) -> None:
    assert cli.run_command(["train", "x", "-r", "my results", "--automl-policy", "off", "--resume"]) == 0
    ((_, args, kwargs),) = api.seen
    assert args[1] == ['results_dir="my results"', "train.results_dir=null", "automl_policy=off"]
    assert kwargs["resume"]
    cli.run_command(["train", "train.results_dir=there", "-r", "root"])
    assert api.seen[1][1][1] == ["train.results_dir=there", 'results_dir="root"']


def test_the_folder_of_a_run_may_be_given_in_place_of_its_root(api: Calls, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"action": "train"}))
    assert cli.run_command(["train", "x", "-r", str(tmp_path), "--resume"]) == 0
    assert api.seen[0][1][1] == [f'train.results_dir="{tmp_path}"']
    cli.run_command(["evaluate", "-r", str(tmp_path)])
    (tmp_path / "train").mkdir()
    cli.run_command(["train", "x", "-r", str(tmp_path), "--resume"])
    assert all(seen[1][1][0] == f'results_dir="{tmp_path}"' for seen in api.seen[1:])


@pytest.mark.parametrize("is_named", [True, False])
def test_a_stopped_training_names_the_command_that_continues_it(
    api: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str], is_named: bool
) -> None:
    stopped = Interrupted(2, "stopped by Ctrl-C")
    stopped.run_folder, stopped.is_named = str(tmp_path), is_named
    api.error = stopped
    assert cli.run_command(["train", "my photos", "--minutes", "1"]) == 130
    assert "next:" in capsys.readouterr().err
    assert cli.run_command(["train", "my photos", "--overwrite"]) == 130
    folder = "" if is_named else f" train.results_dir={tmp_path}"
    assert capsys.readouterr().err.splitlines() == [
        "error: stopped by Ctrl-C", f"next: unalike train 'my photos' --resume{folder}",
    ]  # fmt: skip
    (tmp_path / "status.json").write_text(json.dumps({"status": "FAILURE"}))
    for argv in (["train", "x"], ["evaluate", "x"]):
        cli.run_command(argv)
        assert "next" not in capsys.readouterr().err, "nothing to continue"


def test_intervals_are_one_line_with_their_name(capsys: pytest.CaptureFixture[str]) -> None:
    interval = {"value": 0.05, "low": 0.013, "high": 0.169}
    show_result({"false_alarms": interval, "figures": {"found": interval, "n": 3}}, as_json=False)
    line = "0.05 [0.013, 0.169]"
    assert capsys.readouterr().out.splitlines() == [f"false_alarms: {line}", f"found: {line}", "n: 3"]


def test_metrics_have_short_names_in_the_terminal_and_their_own_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"figures": {"test Precision at Rank 1": 0.5, "test Mean Average Precision": 0.25}}
    show_result(result, as_json=False)
    assert capsys.readouterr().out.splitlines() == ["test R@1: 0.5", "test MAP@R: 0.25"]
    show_result(result, as_json=True)
    assert json.loads(capsys.readouterr().out) == result


def test_standard_output_is_results_only(api: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run_command(["evaluate", "--json"])
    expected = {"results_dir": "runs/x", "path": None, "figures": {"R@1": 0.51234567, "bad": None}}
    assert json.loads(capsys.readouterr().out) == expected
    cli.run_command(["evaluate"])
    assert capsys.readouterr().out.splitlines() == ["results_dir: runs/x", "R@1: 0.5123", "bad: None"]


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["trian"], 2, "error: no command 'trian'; did you mean 'train'?"),
        (["train", "--reusme"], 2, "error: No such option: --reusme"),
        (
            ["train", "--epochs", "3"],
            2,
            "error: No such option: --epochs; fields of a spec are written without dashes: train.num_epochs=VALUE",
        ),
        (
            ["train", "--seed", "3"],
            2,
            "error: No such option: --seed (Possible options: --spec); fields of a spec are written without dashes: train.seed=VALUE",
        ),
        (["train", "a", "-o", "b"], 2, "error: No such option: -o; the folder of the results is -r DIR"),
        (["gallery", "list", "--epochs"], 2, "error: No such option: --epochs"),
        (["train", "a", "--take"], 2, "error: Option '--take' requires an argument; see '"),
        (["skill"], 2, "error: Missing command; one of install, show; see '"),
        (["job"], 2, "error: Missing command; one of create, "),
        (["inspect", "fitt"], 2, "error: No such command 'fitt'"),
        (["train", "a", "b"], 2, "error: two data folders, 'a' and 'b'"),
        (["evaluate", "a.pth", "b.onnx"], 2, "error: two models, 'a.pth' and 'b.onnx'"),
        (["train", "a.pth"], 2, "error: a.pth is a model, not data for train"),
        (["export", "a.onnx"], 2, "error: a.onnx for export; expected a model of kind .pth, .ckpt"),
        (["gen_trt_engine", "a.pth"], 2, "error: a.pth for gen_trt_engine; expected a model of kind .onnx"),
        (["check"], 2, "error: check without a spec or a folder"),
        (["check", "a", "-e", "b"], 2, "error: check with two things to check"),
        (["bench-engine"], 2, "error: bench_engine.model is not set"),
        (["default_specs", "trian"], 2, "error: no action 'trian'; did you mean 'train'?"),
        (["default_specs", "train.seed=1"], 2, "error: 'train.seed=1' for default_specs"),
        (["embed", "photos"], 2, "error: embed.output is not set"),
        (["embed", "a.onnx", "photos"], 2, "error: a.onnx is a model, not images"),
        (["evaluate", "photos", "--query", "a.onnx"], 2, "error: --query a.onnx is a model, not images"),
    ],
)
def test_mistakes_are_one_line(
    api: Calls, capsys: pytest.CaptureFixture[str], argv: list[str], code: int, text: str
) -> None:
    assert cli.run_command(argv) == code
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.startswith(text) and seen.err.count("\n") == 1


def test_help_is_a_word_too(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for argv in (["help"], ["--help"], ["help", "train"], ["train", "--help"]):
        assert cli.run_command(argv) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2] == outputs[3]


def test_two_folders_or_files_are_told_with_the_call_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("shop", "new"):
        Path(name).mkdir()
        Path(name, "1.jpg").write_bytes(b"")
    for argv, remedy in (
        (["train", "shop", "new"], "unalike train shop dataset.val_dataset.query=new"),
        (["evaluate", "pretrained", "shop", "new"], "unalike evaluate MODEL --reference shop --query new"),
        (["inference", "shop", "new"], "unalike inference MODEL --reference shop new"),
        (["train", "shop/1.jpg", "new/1.jpg"], "give their folder, shop, or a table of them"),
        (["train", "shop", "=", "3"], "write overrides as key=value, without blanks around '='"),
    ):
        assert cli.run_command(argv) == 2
        assert remedy in capsys.readouterr().err


def test_a_name_with_blanks_without_quotes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my new photo.jpg").write_bytes(b"")
    for argv in (["identify", "g.gallery", "my", "new", "photo.jpg"], ["train", "my", "new", "photo.jpg"]):
        assert cli.run_command(argv) != 0
        assert capsys.readouterr().err.endswith("; a name with blanks is written in quotes: 'my new photo.jpg'\n")
    assert cli.run_command(["train", "my", "old"]) == 2
    assert "quotes" not in capsys.readouterr().err


def test_a_mistyped_model_is_not_taken_for_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shop").mkdir()
    assert cli.run_command(["evaluate", "runs/latest", "--reference", "shop"]) == 1
    assert capsys.readouterr().err == (
        "error: runs/latest: no such file or folder; expected a model, the folder of its run, or images; there is no folder runs either\n"
    )
    assert cli.run_command(["export", "shop"]) == 2
    assert "export.checkpoint is not set" in capsys.readouterr().err


def test_of_several_processes_the_first_prints_the_result(
    api: Calls, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert cli.run_command(["train", "photos", "--json"]) == 0
        assert capsys.readouterr().out.count("\n") == lines


def test_known_errors_keep_their_exit_code(api: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    api.error = DataError("photos is empty", expected="images")
    assert cli.run_command(["train", "photos"]) == 1
    assert capsys.readouterr().err == "error: photos is empty; expected images\n"
    api.error = Interrupted(15, "stopped by SIGTERM")
    assert cli.run_command(["train", "photos"]) == 143
    api.error = KeyboardInterrupt()
    assert cli.run_command(["train", "photos"]) == 130


def test_a_working_folder_that_was_removed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "removed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    for call in (["gallery", "list", "a.gallery"], ["train", str(tmp_path)], ["check", str(tmp_path)]):
        assert cli.run_command(call) == 1
        assert "the working folder cannot be used (No such file or directory); change" in capsys.readouterr().err


def test_unexpected_errors_save_their_traceback(api: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    api.error = ZeroDivisionError("by\nzero")
    assert cli.run_command(["train", "photos"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ZeroDivisionError: by zero (unexpected; traceback: ")
    path = Path(line.rsplit(" ", 1)[1].rstrip(")"))
    assert "ZeroDivisionError" in path.read_text()
    path.unlink()
    assert cli.run_command(["train", "photos", "-v"]) == 1
    verbose = capsys.readouterr().err
    assert "Traceback (most recent call last)" in verbose
    Path(verbose.splitlines()[-1].rsplit(" ", 1)[1].rstrip(")")).unlink()


def test_default_specs_writes_where_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.run_command(["default_specs", "evaluate", f"results_dir={tmp_path}"]) == 0
    path = tmp_path / "spec_template_evaluate.yaml"
    assert capsys.readouterr().out == f"{path}\n"
    assert cli.run_command(["default_specs", "evaluate"]) == 0
    assert capsys.readouterr().out.rstrip() == path.read_text().rstrip()
    assert cli.run_command(["default_specs", "evaluate", "-o", str(path)]) == 2  # never over a file


def test_embed_refuses_to_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "vectors.npz"
    out.write_text("x")
    assert cli.run_command(["embed", "photos", "-o", str(out)]) == 2
    assert out.read_text() == "x"


def test_three_names_are_one_program() -> None:
    script = Path(sys.executable).parent
    commands = [[str(script / name)] for name in cli.PROGRAMS if (script / name).exists()]
    shown = {
        subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        for command in [*commands, [sys.executable, "-m", "unalike"]]
    }
    assert shown == {f"unalike {unalike.__version__}\n"}


def test_every_command_loads_and_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert load_command(name).name == name
        assert cli.run_command([name, "--help"]) == 0
        assert "Usage: " in capsys.readouterr().out
    for alias, name in ALIASES.items():
        assert load_command(alias).name == name


def test_a_usage_error_names_the_help_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_command(["gallery", "build", "--reusme"]) == 2
    assert capsys.readouterr().err.rstrip().endswith("gallery build --help'")


def test_what_to_do_next_has_the_paths_of_the_call(
    api: Calls, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.html").write_text("x")
    monkeypatch.setattr(Answer, "results_dir", tmp_path)
    monkeypatch.setattr(unalike, "train", lambda *args, **kwargs: Answer(tmp_path, tmp_path / "best.pth"))
    assert cli.run_command(["train", "my photos/", "-v"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"report: {tmp_path / 'report.html'}",
        f"next: unalike gallery build 'my photos.gallery' 'my photos/' -m {tmp_path / 'best.pth'}",
        f"next: unalike export {tmp_path / 'best.pth'}",
    ]
    for quiet in ("-q", "--json"):
        assert cli.run_command(["train", "photos", quiet]) == 0
        assert "next:" not in capsys.readouterr().err


def test_an_engine_is_compared_on_images_so_its_command_names_some() -> None:
    assert next_steps.following("export", {"path": "a.onnx", "data": "photos/"})[0] == "unalike engine a.onnx photos/"
    assert next_steps.following("export", {"path": "a.onnx"})[0] == "unalike engine a.onnx DATA"


def test_a_gallery_is_not_built_from_a_set_of_tar_files(tmp_path: Path) -> None:
    (tmp_path / "part-000.tar").touch()
    for data in ("shards/part-{000..127}.tar", "s3://bucket/part-{0..9}.tar", tmp_path):
        lines = next_steps.following("train", {"path": "a.pth", "data": data})
        assert lines[0] == "unalike gallery build images.gallery DATA -m a.pth"
        assert next_steps.following("check", {"data": data})[0].startswith("unalike train ")
        assert "DATA" not in next_steps.following("check", {"data": data})[0]
    for data in ("a.tar", "photos/", "s3://bucket/photos"):
        assert data in next_steps.following("train", {"path": "a.pth", "data": data})[0]


def test_the_commands_that_follow_are_commands() -> None:
    parts = {name: "x" for name in ("path", "data", "reference", "model")} | {"command": "train"}
    for action in next_steps._FOLLOWING:
        for line in next_steps.following(action, parts):
            words = line.split()
            command = load_command(words[1])
            if hasattr(command, "commands"):
                command, words = command.commands[words[2]], words[1:]
            assert command.make_context(words[1], words[2:], resilient_parsing=False)
    # Of a table no image lies in the folder.
    assert next_steps.following("discover", {"path": "d", "source": "d/groups.csv"})[1] == "unalike train d/groups.csv"
    assert next_steps.following("train", {})[0] == "unalike gallery build images.gallery DATA -m PATH"


def test_keys_are_found_by_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_command(["keys", "margin", "--action", "train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "train.optim.triplet_loss_margin=0.3  (a number >= 0)"
    assert not any(line.startswith("compare.") for line in lines)
    assert cli.run_command(["keys", "no such word"]) == 2


def test_help_names_every_action(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["--help"]):
        assert cli.run_command(argv) == 0
        text = capsys.readouterr()
        for action in ACTIONS:
            assert f"\n  {action} " in text.out + text.err


@pytest.mark.parametrize("closed", ["1", "2", "0", "0 1 2"])
def test_a_closed_stream_ends_no_command(tmp_path: Path, closed: str) -> None:
    """As with cron, or ``>&-``."""
    closing = " ".join(f"{number}>&-" for number in closed.split())
    command = f'"{sys.executable}" -m unalike default_specs compare {closing}'
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr and done.returncode == 0


def test_a_folder_named_like_an_override_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "day=1").mkdir()
    assert parse_arguments(["day=1", "train.num_epochs=2"]) == ("day=1", ["train.num_epochs=2"])
    assert parse_arguments(["./day=2"]) == ("./day=2", [])


def leaves() -> list[tuple[str, ...]]:
    """Every command of the program, with its subcommand where it has some."""
    found: list[tuple[str, ...]] = []
    for name in COMMANDS:
        command = load_command(name)
        found += [(name, inner) for inner in command.commands] if hasattr(command, "commands") else [(name,)]
    return found


def test_an_option_without_its_value_points_to_the_help_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words, own in ((["gallery", "add", "g", "x", "--attribute"], "gallery add"), (["train", "--take"], "train")):
        assert cli.run_command(words) == 2
        assert capsys.readouterr().err.rstrip().endswith(f"unalike {own} --help'")


def test_a_remedy_names_no_field_of_another_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_command(["gallery", "add", "g", "x", "--where", "a=b"]) == 2
    assert "identify" not in capsys.readouterr().err
    assert cli.run_command(["gallery", "add", "g", "x", "--attribute-columns", "a"]) == 2
    assert "gallery_add.attribute_columns=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("words", leaves(), ids=" ".join)
def test_a_mistake_in_any_call_exits_with_2_and_points_to_the_commands_help(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run_command([*words, "--no-such-option"]) == 2
    seen = capsys.readouterr()
    assert seen.out == "" and seen.err.count("\n") == 1
    assert seen.err.rstrip().endswith(f"{' '.join(words)} --help'"), seen.err


# Calls that are complete, of things that do not exist; demo, keys, schema, default-specs and skill read nothing.
FAILURES = {
    "train": ["nowhere"], "discover": ["nowhere", "-o", "groups"], "distill": ["nowhere", "-t", "no.onnx"],
    "automl show": ["nowhere"],
    "gallery build": ["new.gallery", "nowhere", "-m", "no.onnx"], "gallery add": ["no.gallery", "nowhere"],
    "gallery remove": ["no.gallery", "mug"], "gallery rename": ["no.gallery", "mug", "cup"],
    "gallery merge": ["no.gallery", "mug", "cup", "--into", "cups"], "gallery list": ["no.gallery"], "gallery copy": ["no.gallery", "b.gallery"],
    "calibrate": ["no.gallery"], "identify": ["no.gallery", "no.jpg"],
    "inference": ["no.onnx", "nowhere", "--reference", "nowhere"], "embed": ["nowhere", "-m", "no.onnx", "-o", "a.npz"],
    "compare": ["no.png", "no.jpg"], "inspect fit": ["nowhere", "-o", "a.inspector"],
    "inspect learn": ["no.inspector", "no.jpg", "-o", "a.inspector"], "inspect run": ["no.inspector", "no.jpg"], "verify": ["no.jpg", "--reference", "nowhere"], "export": ["no.pth"],
    "quantize": ["no.onnx", "nowhere"], "engine": ["no.onnx"], "gen-trt-engine": ["no.onnx"],
    "export-maps": ["no.pth", "-o", "a.onnx"], "convert": ["no.pth", "-o", "a.pth"],
    "evaluate": ["no.onnx", "--reference", "nowhere"], "bench-engine": ["no.onnx"], "check": ["nowhere"],
    **{f"job {name}": ["nowhere"] for name in ("show", "logs", "wait", "cancel", "pause", "resume", "delete")},
    "job create": ["train", "nowhere"], "serve start": ["nowhere"], "serve backup": ["backup", "--folder", "nowhere"],
    "serve restore": ["nowhere", "--folder", "own"], "improve": ["nowhere"], "serve purge": ["--class", "oak", "--folder", "nowhere"],
    "trunks list": ["no_such_trunk"], "trunks fetch": ["no_such_trunk"], "trunks pack": ["no_such_trunk", "-o", "a.zip"],
    "trunks unpack": ["no.zip"],
}  # fmt: skip


@pytest.mark.parametrize("words", leaves(), ids=" ".join)
def test_a_failure_of_any_command_exits_with_1(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0] in ("demo", "keys", "schema", "default-specs", "skill") or words in (
        ("job", "list"),
        ("serve", "keys"),
    ):
        return
    monkeypatch.chdir(tmp_path)
    code = (
        2 if words in (("serve", "backup"), ("serve", "purge"), ("improve",)) else 1
    )  # their folder is an option, with a default
    assert cli.run_command([*words, *FAILURES[" ".join(words)]]) == code
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and "unexpected" not in error[0], error
    assert not list(tmp_path.glob("runs*")), "a failed call leaves no folder"


def test_every_option_of_an_answer_exits_with_3() -> None:
    answering = [words for words in leaves() if any("--exit-code" in p.opts for p in parameters(words))]
    assert answering == [("identify",), ("compare",), ("inspect", "run"), ("verify",)]
    for words in answering:
        (option,) = [p for p in parameters(words) if "--exit-code" in p.opts]
        assert option.help.startswith("Exit with 3 "), words
    assert EXIT_NO == 3


def parameters(words: tuple[str, ...]) -> list[Any]:
    command = load_command(words[0])
    return list((command.commands[words[1]] if len(words) > 1 else command).params)
