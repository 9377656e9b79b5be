"""The command line: argv becomes one call of one public function.

``unalike``, ``ml_recog`` and ``python -m unalike`` are this program. Standard output carries results alone; everything
else goes to standard error. Nothing heavy is imported before an action is known, so that ``--help`` answers at once.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from unalike import __version__
from unalike.cli.commands import ALIASES, COMMANDS, LazyGroup, is_command, load_command
from unalike.cli.output import replace_closed_streams, tolerate_narrow_encodings
from unalike.cli.positionals import unquoted_path
from unalike.cli.signals import end_in_order
from unalike.errors import Interrupted, RunError, SpecError, closest
from unalike.runs.program_start import mark_program
from unalike.sanitize import one_line, redact
from unalike.storage.downloads import set_command

PROGRAMS = ("unalike", "ml_recog")
# typer < 0.2x raises click's exceptions, later ones their own copy: both are what BadParameter descends from.
UsageError: type[Exception]
ClickException: type[Exception]
UsageError, ClickException = typer.BadParameter.__mro__[1:3]

app = typer.Typer(
    name="unalike",
    cls=LazyGroup,
    rich_markup_mode=None,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Teach a computer to tell look-alikes apart: from a folder of images to a recognizer in production.",
)


def _show_version(is_set: bool) -> None:
    if is_set:
        print(f"unalike {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _refuse_unknown_command(argv: Sequence[str]) -> None:
    """Raise SpecError with the close spellings of a command that does not exist."""
    name = argv[0] if argv else ""
    if name and not name.startswith("-") and not is_command(name):
        raise SpecError(f"no command {name!r}",
                        remedy=closest(name, (*COMMANDS, *ALIASES)) or f"the commands are {', '.join(COMMANDS)}")  # fmt: skip


def _save_traceback(error: BaseException) -> str:
    """Save the traceback in the run's folder if a run was open, else in a temporary file; returns its path."""
    import tempfile
    import traceback

    from unalike.runs.failures import saved_traceback

    path = saved_traceback(error)
    if path is not None:
        return str(path)
    try:
        handle, name = tempfile.mkstemp(prefix="unalike-", suffix=".traceback.txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(redact("".join(traceback.format_exception(error))))
    except OSError:
        return "nowhere: no temporary file could be written; -v shows it"
    return name


def _explain(error: BaseException, verbose: bool, argv: Sequence[str]) -> int:
    """One line on standard error, and the command that continues a stopped training; returns the exit code."""
    import traceback

    from unalike.runs.failures import known_failure

    if verbose and not isinstance(error, UsageError):
        for line in "".join(traceback.format_exception(error)).splitlines():
            print(one_line(redact(line)), file=sys.stderr)
    failure = known_failure(error)
    if failure is not None:
        quoted = unquoted_path(argv[1:])
        hint = f"; a name with blanks is written in quotes: {shlex.quote(quoted)}" if quoted else ""
        print(f"error: {failure}{hint}", file=sys.stderr)
        if isinstance(failure, Interrupted):
            from unalike.cli.next_steps import suggest_resume

            suggest_resume(argv, failure)
        return failure.exit_code
    text = one_line(redact(" ".join(str(error).split()))) or "no message"
    print(f"error: {type(error).__name__}: {text} (unexpected; traceback: {_save_traceback(error)})", file=sys.stderr)
    return 1


def _called_as() -> str:
    name = Path(sys.argv[0]).stem
    return name if name in PROGRAMS else "python -m unalike" if name == "__main__" else PROGRAMS[0]


def _help_of(error: Exception, argv: Sequence[str]) -> str:
    """The command that shows the help of the command whose call was wrong."""
    context = getattr(error, "ctx", None)
    if context is not None:
        return f"{context.command_path} --help"
    if not is_command(argv[0]):
        return f"{_called_as()} --help"
    words = argv[:2] if isinstance(load_command(argv[0]), TyperGroup) and not argv[1].startswith("-") else argv[:1]
    return f"{_called_as()} {' '.join(words)} --help"


def _remedy_of(error: Exception) -> str:
    """For an option that a command lacks: the field of the spec of such a name, or the option for the results folder.

    For a command of several that was called without one of them: their names.
    """
    option, context = getattr(error, "option_name", ""), getattr(error, "ctx", None)
    if isinstance(getattr(context, "command", None), TyperGroup) and str(getattr(error, "message", "")).startswith(
        "Missing command"
    ):
        return f"; one of {', '.join(context.command.list_commands(context))}"  # type: ignore[union-attr]
    if not option or context is None:
        return ""
    options = {name for parameter in context.command.params for name in parameter.opts}
    if option in ("-o", "--out", "--output") and "--results-dir" in options:
        return "; the folder of the results is -r DIR"
    if not any("KEY=VALUE" in (parameter.metavar or "") for parameter in context.command.params):
        return ""
    from unalike.spec.faults import similar_fields

    fields = [field for field in similar_fields(option.lstrip("-").replace("-", "_")) if _is_own(field, context)]
    is_exact = bool(fields) and fields[0].endswith(f".{option.lstrip('-').replace('-', '_')}")
    if not fields or (getattr(error, "possibilities", None) and not is_exact):
        return ""
    return f"; fields of a spec are written without dashes: {fields[0]}=VALUE"


def _is_own(field: str, context: typer.Context) -> bool:
    """Whether a command's spec has a field: not one of another command, such as ``identify.where`` of ``gallery add``."""
    from unalike.spec.actions import STANDALONE_ACTIONS, action_of

    own = action_of(context.command_path.removeprefix(_called_as()).strip())
    section = field.partition(".")[0]
    return section == own or (section not in STANDALONE_ACTIONS and own not in STANDALONE_ACTIONS)


def _require_working_folder() -> None:
    """Raise RunError where the working folder was removed: relative paths lead nowhere, and torch ends the process."""
    try:
        os.getcwd()
    except OSError as error:
        raise RunError(
            f"the working folder cannot be used ({error.strerror})", remedy="change to a folder that exists: cd DIR"
        ) from error


def run_command(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; every error is one line on standard error."""
    argv = list(argv) or ["--help"]
    if argv[0] == "help":
        argv = [*argv[1:], "--help"]
    replace_closed_streams()
    tolerate_narrow_encodings()
    verbose = "-v" in argv or "--verbose" in argv
    set_command(argv)
    try:
        _refuse_unknown_command(argv)
        _require_working_folder()
        # A callable result: the code of typer.Exit, else what the command returned (None).
        code = app(args=argv, prog_name=_called_as(), standalone_mode=False)
        sys.stdout.flush()
    except ClickException as error:
        message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
        print(
            f"error: {one_line(redact(message)).rstrip('.')}{_remedy_of(error)}; see '{_help_of(error, argv)}'",
            file=sys.stderr,
        )
        return 2
    except typer.Abort:
        return _explain(KeyboardInterrupt(), verbose, argv)
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # nobody reads the output any more; the interpreter is not to complain
        return 1
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the last frame of the program
        return _explain(error, verbose, argv)
    return code if isinstance(code, int) else 0


def main() -> None:
    """The entry point of ``unalike`` and ``ml_recog``."""
    mark_program()
    end_in_order()
    sys.exit(run_command(sys.argv[1:]))
