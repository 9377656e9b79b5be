"""The commands job create, list, show, logs, wait, cancel, pause, resume and delete."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unalike.cli.options import Arguments, AsJson, Quiet, SpecFile, Verbose, parse_arguments, set_verbosity
from unalike.cli.output import print_json, print_line, print_lines, print_piece
from unalike.errors import RunError, SpecError

if TYPE_CHECKING:
    from unalike.jobs import Job, Workspace

job_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Actions that run on their own, one after another."
)

Place = Annotated[
    str | None,
    typer.Option("-w", "--workspace", metavar="DIR", help="Folder of the jobs; $UNALIKE_WORKSPACE, else ./workspace."),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="A job's id, or the beginning of it.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Jobs' ids, or their beginnings.")]
WaitForParent = Annotated[bool, typer.Option("--wait-for-parent", help="Wait until the parent is complete.")]


def _open(workspace: str | None) -> "Workspace":
    from unalike.jobs.workspace import Workspace

    return Workspace(workspace)


def _show(job: "Job", as_json: bool) -> None:
    if as_json:
        print_json(job.to_dict())
    else:
        print_line(_line(job))


def _line(job: "Job") -> str:
    parent = f" of {job.parent_job_id}" if job.parent_job_id else ""
    note = f": {job.error or job.note}" if job.error or job.note else ""
    asked = f" ({job.requested} asked for)" if job.requested else ""
    return f"{job.id}  {job.status:<8}  {job.action}{parent}{asked}{note}"


@job_app.command(short_help="Start an action as a job, completed from its parent.")
def create(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="train, evaluate, export, compare, inspect_fit, inspect_run, ...")],
    arguments: Arguments = None,
    spec: SpecFile = None,
    parent: Annotated[str | None, typer.Option(metavar="ID", help="The job whose model, network or engine is taken.")] = None,
    wait_for_parent: WaitForParent = False,
    root: Annotated[
        str | None, typer.Option(metavar="DIR|URI", help="Where TAO's layout of archives lies: fills the data fields.")
    ] = None,
    automl_policy: Annotated[
        str | None, typer.Option(metavar="auto|off", help="Of a training: search for the best one (also if unset), or not.")
    ] = None,
    where: Annotated[str, typer.Option(metavar="PLACE", help="local, slurm, ray or kubernetes.")] = "local",
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the place, such as partition=gpu or image=NAME.")
    ] = None,
    at_once: Annotated[int | None, typer.Option(min=1, help="Local jobs that may run at once; kept in the workspace.")] = None,
    workspace: Place = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Start an action as a job and come back at once; with -q its id alone is printed.

    Examples: unalike job create train photographs/   |   unalike job create export --parent 3f2a --wait-for-parent
    """
    set_verbosity(verbose, quiet)
    data, overrides = parse_arguments(arguments)
    store = _open(workspace)
    if at_once is not None:
        store.allow_at_once(at_once)
    if root is not None:
        overrides = [*_sources(action, root), *overrides]
    job = store.create(action, overrides, spec=spec, data=data, parent_job_id=parent, automl_policy=automl_policy,
                      wait_for_parent=wait_for_parent, where=where, options=_options(option))  # fmt: skip
    if quiet and not as_json:
        print_line(job.id)
    else:
        _show(job, as_json)


def _sources(action: str, root: str) -> list[str]:
    """The data of an action in TAO's layout below a root, as overrides."""
    from unalike.jobs.tao_layout import data_sources
    from unalike.spec.reading import yaml_line

    return [f"{path}={yaml_line(value)}" for path, value in data_sources(action, root).items()]


def _options(arguments: list[str] | None) -> dict[str, Any]:
    """NAME=VALUE with YAML values; a name that comes twice makes a list."""
    from unalike.spec.reading import parse_yaml

    found: dict[str, Any] = {}
    for argument in arguments or ():
        name, equals, text = argument.partition("=")
        if not equals:
            raise SpecError(f"--option {argument}", expected="NAME=VALUE, such as gpus=1")
        value = parse_yaml(text)
        if name in found:
            value = [*(found[name] if isinstance(found[name], list) else [found[name]]), value]
        found[name] = value
    return found


@job_app.command("list", short_help="Every job and its status.")
def list_jobs(
    status: Annotated[str | None, typer.Option(metavar="STATUS", help="Only jobs of this status, such as Running.")] = None,
    trials: Annotated[bool, typer.Option("--trials", help="The trials of searches too.")] = False,
    workspace: Place = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """List the jobs of a workspace, the oldest first."""
    set_verbosity(verbose, quiet)
    from unalike.jobs.database import STATUSES

    if status is not None and status.capitalize() not in STATUSES:
        raise SpecError(f"--status {status}", expected=f"one of {', '.join(STATUSES)}")
    jobs = [job for job in _open(workspace).jobs() if trials or as_json or job.trial is None]
    jobs = [job for job in jobs if status is None or job.status == status.capitalize()]
    if as_json:
        print_json({"jobs": [job.to_dict() for job in jobs]})
        return
    for job in jobs:
        print_line(_line(job))


@job_app.command(short_help="Everything about a job.")
def show(
    job_id: Id, workspace: Place = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False
) -> None:
    """Show a job: its spec, what was completed from its parent, its folder, its figures, and the model that it left."""
    set_verbosity(verbose, quiet)
    from unalike.jobs.outputs import folder_of

    store = _open(workspace)
    job = store.get(job_id)
    summary = job.to_dict() | {"log": str(store.log_file(job))}
    if job.status == "Complete":
        try:
            model = store.model(job.id)
            summary |= {"model": str(model), "model_folder": folder_of(model)}
        except RunError:
            pass  # an evaluation leaves none
    if as_json:
        print_json(summary)
        return
    for name, value in summary.items():
        if value not in (None, "", {}, [], ()):
            print_line(
                f"{name}: {json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else value}"
            )


@job_app.command(short_help="The log of a job.")
def logs(
    job_id: Id,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Continue until the job has ended.")] = False,
    lines: Annotated[int | None, typer.Option("-n", "--lines", min=1, help="Only the last N lines.")] = None,
    workspace: Place = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Print a job's log; with -f as it grows."""
    set_verbosity(verbose, quiet)
    store = _open(workspace)
    if as_json:
        text = "".join(store.log(job_id, follow=follow)).splitlines()
        print_json({"id": store.get(job_id).id, "lines": text[-lines:] if lines else text})
        return
    for number, piece in enumerate(store.log(job_id, follow=follow)):
        if number == 0 and lines:
            piece = "".join(piece.splitlines(keepends=True)[-lines:])
        print_piece(piece)


@job_app.command(short_help="Wait until jobs have ended.")
def wait(
    job_ids: Ids,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Give up after so long.")] = None,
    workspace: Place = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Wait for jobs; the exit code is 0 only when every one is complete."""
    set_verbosity(verbose, quiet)
    jobs = _open(workspace).wait(job_ids, timeout=timeout)
    if as_json:
        print_json({"jobs": [job.to_dict() for job in jobs]})
    else:
        for job in jobs:
            print_line(_line(job))
    unfinished = [job for job in jobs if job.status != "Complete"]
    if unfinished:
        raise RunError(
            "; ".join(f"{job.id} is {job.status}{': ' + job.error if job.error else ''}" for job in unfinished)
        )


@job_app.command(short_help="Save and end a job.")
def cancel(
    job_ids: Ids,
    now: Annotated[bool, typer.Option("--now", help="Without saving first.")] = False,
    workspace: Place = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """End jobs; a training saves a checkpoint first and can be resumed."""
    set_verbosity(verbose, quiet)
    store = _open(workspace)
    for job_id in job_ids:
        _show(store.cancel(job_id, now_=now), as_json)


@job_app.command(short_help="Save and end a job, to go on later.")
def pause(
    job_ids: Ids, workspace: Place = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False
) -> None:
    """Pause jobs: a training saves a checkpoint, frees its devices, and goes on with `unalike job resume`."""
    set_verbosity(verbose, quiet)
    store = _open(workspace)
    for job_id in job_ids:
        _show(store.pause(job_id), as_json)


@job_app.command(short_help="Take a job up again.")
def resume(
    job_ids: Ids, wait_for_parent: WaitForParent = False, workspace: Place = None, as_json: AsJson = False,
    verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Resume jobs that were paused, cancelled, or ended in an error; a training goes on from its newest checkpoint."""
    set_verbosity(verbose, quiet)
    store = _open(workspace)
    for job_id in job_ids:
        _show(store.resume(job_id, wait_for_parent=wait_for_parent), as_json)


@job_app.command(short_help="Forget a job and delete its folder.")
def delete(
    job_ids: Ids, workspace: Place = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False
) -> None:
    """Delete jobs that are not at work, with their folders in the workspace and their trials."""
    set_verbosity(verbose, quiet)
    store = _open(workspace)
    gone = [name for job_id in job_ids for name in store.delete(job_id)]
    if as_json:
        print_json({"deleted": gone})
    else:
        print_lines("\n".join(gone))
