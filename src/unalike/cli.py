"""The command line: argv becomes one call of one function in ``api``.

``unalike``, ``ml_recog`` and ``python -m unalike`` are this program. Standard output carries results alone; everything
else goes to standard error. Nothing heavy is imported before an action is known, so that ``--help`` answers at once.
"""

import dataclasses
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__
from .errors import SpecError, UnalikeError, closest
from .progress import set_verbosity

# The contract: a positional that holds "=" after a dotted key is an override, any other is the data.
OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_0-9]\w*)*=", re.ASCII)
PROGRAMS = ("unalike", "ml_recog")
# What evaluate and inference take in place of a checkpoint: the trunk with its pretrained weights.
PRETRAINED = "pretrained"
# typer < 0.2x raises click's exceptions, later ones their own copy: both are what BadParameter descends from.
UsageError: type[Exception]
ClickException: type[Exception]
UsageError, ClickException = typer.BadParameter.__mro__[1:3]  # type: ignore[assignment]

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[DATA] [KEY=VALUE]...", help="A data folder, and overrides such as train.num_epochs=20."),
]
SpecFile = Annotated[str | None, typer.Option("-e", "--spec", metavar="FILE", help="Spec file (YAML).")]
ResultsDir = Annotated[
    str | None, typer.Option("-r", "--results-dir", metavar="DIR", help="Root of the results: DIR/<action>.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the results folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in the results folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more; show tracebacks.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say errors only.")]

app = typer.Typer(
    name="unalike",
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Teach a computer to tell look-alikes apart: from a folder of images to a recogniser in production.",
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"unalike {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say it.")] = False,
) -> None:
    pass


# ---- from words to arguments ----


def split_words(words: Sequence[str] | None) -> tuple[str | None, list[str]]:
    """Positional words as (data, overrides); SpecError when there are two data folders."""
    overrides = [word for word in words or () if OVERRIDE.match(word)]
    others = [word for word in words or () if not OVERRIDE.match(word)]
    if len(others) > 1:
        raise SpecError(f"two data folders, {others[0]!r} and {others[1]!r}", expected="one",
                        remedy="write overrides as key=value, without blanks around '='")  # fmt: skip
    return (others[0] if others else None), overrides


def _flag_overrides(action: str, overrides: Sequence[str], results_dir: str | None, policy: str | None) -> list[str]:
    """Flags as overrides; they stand last, since a flag rules over the spec's key."""
    flags = []
    if results_dir is not None:
        flags.append(f"results_dir={json.dumps(results_dir)}")
        if not any(word.startswith(f"{action}.results_dir=") for word in overrides):
            flags.append(f"{action}.results_dir=null")  # else a spec's own folder would win over the flag in silence
    if policy is not None:
        flags.append(f"automl_policy={policy}")
    return [*overrides, *flags]


def _set_voice(verbose: bool, quiet: bool) -> None:
    set_verbosity(0 if quiet else 2 if verbose else 1)


# ---- results ----


def _as_plain(value: Any) -> Any:
    """A result as JSON can hold it: dataclasses as objects, paths as text, not-finite numbers as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_as_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _as_plain(value.tolist())
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


def show_result(result: Any, as_json: bool) -> None:
    """Print a result to standard output: one JSON object, or a line a figure."""
    plain = _as_plain(result)
    if not isinstance(plain, dict):
        plain = {} if plain is None else {"result": plain}
    if as_json:
        print(json.dumps(plain, ensure_ascii=False))
        return
    for name, value in plain.items():
        if isinstance(value, dict):
            for key, item in value.items():
                if not isinstance(item, (dict, list)):
                    print(f"{key}: {_short(item)}")
        elif isinstance(value, list):
            print(f"{name}: {len(value)}" if len(value) > 8 else f"{name}: {', '.join(map(_short, value))}")
        elif value is not None and (name, value) != ("results_dir", "."):
            print(f"{name}: {_short(value)}")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ---- the actions ----


def _act(
    action: str, words: list[str] | None, spec: str | None, results_dir: str | None, *,
    resume: bool = False, overwrite: bool = False, policy: str | None = None, as_json: bool = False,
    verbose: bool = False, quiet: bool = False,
) -> None:  # fmt: skip
    _set_voice(verbose, quiet)
    data, overrides = split_words(words)
    overrides = _flag_overrides(action, overrides, results_dir, policy)
    from . import api

    perform = {"train": api.train, "evaluate": api.evaluate, "inference": api.infer, "export": api.export}[action]
    show_result(perform(spec, overrides, data=data, resume=resume, overwrite=overwrite), as_json)


@app.command(short_help="Train an embedding on a folder of images.")
def train(
    words: Words = None, spec: SpecFile = None, results_dir: ResultsDir = None, resume: Resume = False,
    overwrite: Overwrite = False,
    automl_policy: Annotated[
        str | None, typer.Option(metavar="auto|off", help="Search for the best training, or train plainly.")
    ] = None,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Train an embedding on a folder of images, one folder a class.

    Examples: unalike train photographs/   |   ml_recog train -e spec.yaml train.num_epochs=20
    """
    _act("train", words, spec, results_dir, resume=resume, overwrite=overwrite, policy=automl_policy,
         as_json=as_json, verbose=verbose, quiet=quiet)  # fmt: skip


@app.command(short_help="Measure a trained embedding on reference and query images.")
def evaluate(
    words: Words = None, spec: SpecFile = None, results_dir: ResultsDir = None, overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Measure a trained embedding: how often is the nearest reference of the query's class?

    Example: unalike evaluate -e spec.yaml evaluate.checkpoint=results/train/ml_model_best.pth
    """
    _act("evaluate", words, spec, results_dir, overwrite=overwrite, as_json=as_json, verbose=verbose, quiet=quiet)


@app.command(short_help="Name the nearest reference classes of images.")
def inference(
    words: Words = None, spec: SpecFile = None, results_dir: ResultsDir = None, overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Name the nearest reference classes of an image, a folder or class folders.

    Example: unalike inference new/ -e spec.yaml inference.checkpoint=results/train/ml_model_best.pth
    """
    _act("inference", words, spec, results_dir, overwrite=overwrite, as_json=as_json, verbose=verbose, quiet=quiet)


@app.command(short_help="Write a trained embedding as ONNX, checked against the network.")
def export(
    words: Words = None, spec: SpecFile = None, results_dir: ResultsDir = None, overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write a trained embedding as ONNX; done only when its vectors equal the network's.

    Example: unalike export -e spec.yaml export.checkpoint=results/train/ml_model_best.pth
    """
    _act("export", words, spec, results_dir, overwrite=overwrite, as_json=as_json, verbose=verbose, quiet=quiet)


@app.command("gen_trt_engine", short_help="Build a TensorRT engine (not in this version).")
def gen_trt_engine(
    words: Words = None, spec: SpecFile = None, results_dir: ResultsDir = None, overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Build a TensorRT engine from an exported model. Not in this version."""
    raise UnalikeError(f"gen_trt_engine is not built in unalike {__version__}",
                       remedy="use 'unalike export' for ONNX, which ONNX Runtime and OpenVINO run")  # fmt: skip


@app.command("default_specs", short_help="Write a commented spec with every default.")
def default_specs(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[ACTION] [results_dir=DIR]", help="The action; train if unnamed.")
    ] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="FILE", help="File; standard output if unset.")] = None,
    verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write the commented default spec of an action."""
    _set_voice(verbose, quiet)
    action, overrides = split_words(words)
    action = action or "train"
    for word in overrides:
        key, _, value = word.partition("=")
        if key != "results_dir" or out:
            raise SpecError(f"{word!r} for default_specs", expected="[ACTION] and results_dir=DIR or -o FILE")
        out = str(Path(value) / f"spec_template_{action}.yaml")
    from . import api
    from .spec import ACTIONS

    if action not in ACTIONS:
        raise SpecError(f"no action {action!r}", remedy=closest(action, ACTIONS) or f"one of {', '.join(ACTIONS)}")
    text = api.default_specs(action, out)
    print(out or text.rstrip())


@app.command(short_help="Write an action's JSON Schema and template into the package.")
def schema(
    action: Annotated[str, typer.Argument(metavar="ACTION")] = "train",
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="DIR", help="Another place than the installed package.")
    ] = None,
    verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write <action>.schema.json and spec_template_<action>.yaml."""
    _set_voice(verbose, quiet)
    from .spec.schema import package_files, write_schemas

    written = [name for name in package_files() if name.endswith(".schema.json")]
    known = [Path(name).name.removesuffix(".schema.json") for name in written]
    if action not in known:
        raise SpecError(f"schema of {action!r}", expected=f"one of {', '.join(known)}", remedy=closest(action, known))
    for path in write_schemas(out):
        print(path)


@app.command(short_help="Validate a spec or a folder, weights, extras and devices without training.")
def check(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="SPEC|DIR [KEY=VALUE]...", help="A spec file or a data folder.")
    ] = None,
    spec: SpecFile = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Validate a spec or a data folder, and what a run would need, without training."""
    _set_voice(verbose, quiet)
    target, overrides = split_words(words)
    if (target is None) == (spec is None):
        raise SpecError("check without a spec or a folder" if target is None else "check with two things to check",
                        expected="unalike check SPEC.yaml, or unalike check DIR")  # fmt: skip
    from . import api

    result = api.check(target or spec, overrides)
    show_result(result, as_json)
    if getattr(result, "ok", True) is False:
        raise typer.Exit(1)


@app.command(short_help="Write the vectors of a folder of images.")
def embed(
    source: Annotated[str, typer.Argument(metavar="DIR", help="Images: a folder, an archive, a manifest, one image.")],
    output: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="vectors.npz or vectors.parquet.")],
    model: Annotated[
        str | None, typer.Option("-m", "--model", metavar="FILE", help="A .pth or .onnx model; if unset, a trunk as it came.")
    ] = None,
    runtime: Annotated[str, typer.Option(metavar="NAME", help="auto, torch, onnxruntime or openvino.")] = "auto",
    precision: Annotated[str, typer.Option(metavar="NAME", help="auto, fp32, bf16 or fp16.")] = "auto",
    labelled: Annotated[bool, typer.Option("--labelled", help="Folders are classes; write their labels too.")] = False,
    overwrite: Overwrite = False, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write the vectors of images, with their paths and, on request, labels."""
    _set_voice(verbose, quiet)
    if Path(output).exists() and not overwrite:
        raise SpecError(f"{output} exists", remedy="name another file or add --overwrite")
    from . import api

    result = api.embed(
        source, output, checkpoint=model or PRETRAINED, runtime=runtime, precision=precision, labelled=labelled
    )
    show_result(result, as_json)


@app.command(short_help="Learn to tell brand marks apart that were never seen in training.")
def demo(
    out: Annotated[str, typer.Option("-o", "--out", metavar="DIR", help="Where runs and report go.")] = "runs/demo",
    keep: Annotated[str | None, typer.Option(metavar="DIR", help="Leave the rendered images there, as folders.")] = None,
    brands: Annotated[int, typer.Option(min=2, help="Brands to train on.")] = 200,
    unseen: Annotated[int, typer.Option(min=2, help="Other brands, to be recognised.")] = 120,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs; if unset, what fits five minutes.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same images.")] = 0,
    overwrite: Overwrite = False, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Render brand marks as a camera would meet them, train on some, recognise others, and write report.html."""
    _set_voice(verbose, quiet)
    from .demo import run_demo

    result = run_demo(out, keep=keep, brands=brands, unseen=unseen, epochs=epochs, seed=seed, overwrite=overwrite)
    show_result(result, as_json)


# ---- the way in and the way out ----


def _refuse_unknown_command(argv: Sequence[str]) -> None:
    """A misspelt command gets its close spellings."""
    names = [info.name or (info.callback.__name__ if info.callback else "") for info in app.registered_commands]
    word = argv[0] if argv else ""
    if word and not word.startswith("-") and word not in names:
        raise SpecError(f"no command {word!r}",
                        remedy=closest(word, names) or f"the commands are {', '.join(names)}")  # fmt: skip


def _save_traceback(error: BaseException) -> str:
    """Where the traceback lies: in the run's folder if a run was open, else in a temporary file."""
    import tempfile
    import traceback

    from .run import saved_traceback

    path = saved_traceback(error)
    if path is not None:
        return str(path)
    try:
        handle, name = tempfile.mkstemp(prefix="unalike-", suffix=".traceback.txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return "nowhere: no temporary file could be written; -v shows it"
    return name


def _explain(error: BaseException, verbose: bool) -> int:
    """One line on standard error; returns the exit code."""
    import traceback

    from .run import known_failure

    if verbose and not isinstance(error, UsageError):
        traceback.print_exception(error, file=sys.stderr)
    known = known_failure(error)
    if known is not None:
        print(f"error: {known}", file=sys.stderr)
        return known.exit_code
    text = " ".join(str(error).split()) or "no message"
    print(f"error: {type(error).__name__}: {text} (unexpected; traceback: {_save_traceback(error)})", file=sys.stderr)
    return 1


def _called_as() -> str:
    name = Path(sys.argv[0]).stem
    return name if name in PROGRAMS else "python -m unalike" if name == "__main__" else PROGRAMS[0]


def run_command(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; every error is one line on standard error."""
    argv = list(argv) or ["--help"]
    verbose = "-v" in argv or "--verbose" in argv
    try:
        _refuse_unknown_command(argv)
        # A callable result: the code of typer.Exit, else what the command returned (None).
        code = app(args=argv, prog_name=_called_as(), standalone_mode=False)
        sys.stdout.flush()
    except ClickException as error:
        message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
        print(f"error: {message.rstrip('.')}; see '{_called_as()} --help'", file=sys.stderr)
        return 2
    except typer.Abort:
        return _explain(KeyboardInterrupt(), verbose)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; keep the interpreter quiet
        return 1
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the last frame of the program
        return _explain(error, verbose)
    return code if isinstance(code, int) else 0


def main() -> None:
    """The entry point of ``unalike`` and ``ml_recog``."""
    sys.exit(run_command(sys.argv[1:]))
