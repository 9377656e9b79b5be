"""The command automl show: trials, importance of the hyperparameters and the best trial of a search."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unalike.cli.output import print_json, print_line
from unalike.cli.shared_options import AsJson, Quiet, Verbose, set_verbosity
from unalike.errors import RunError
from unalike.runs.filenames import SEARCH_FILE
from unalike.runs.kpi_names import short_name

automl_app = typer.Typer(name="automl", rich_markup_mode=None, help="Show the trials of a hyperparameter search.")

MOST_TRIALS = 20  # listed without --all


@automl_app.callback()
def _automl() -> None:
    """Show the trials of a hyperparameter search, which `unalike train DIR --trials 20` runs."""


@automl_app.command(short_help="Show trials, importance of the hyperparameters and the best trial.")
def show(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The search's folder, or the results folder above it.")],
    every: Annotated[bool, typer.Option("--all", help=f"List all trials, not only the best {MOST_TRIALS}.")] = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Show a search while it runs or afterwards."""
    set_verbosity(verbose, quiet)

    record = _read(Path(folder))
    if as_json:
        print_json(record)
        return
    for line in _format_record(record, every=every):
        print_line(line)


def _read(folder: Path) -> dict[str, Any]:
    import json

    for path in (folder / SEARCH_FILE, folder / "train" / SEARCH_FILE):
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error
        return record
    raise RunError(f"{folder} holds no search", expected="a folder with search.json",
                   remedy="search with: unalike train DIR --trials 20")  # fmt: skip


def _format_record(record: dict[str, Any], *, every: bool) -> list[str]:
    counts = ", ".join(f"{number} {state}" for state, number in record["counts"].items())
    head = f"{record['algorithm']}: {counts}, {record['seconds'] / 60:.1f} minutes; "
    lines = [head + f"selected by {short_name(record['monitor'])} on {record['selected_on']}"]
    best = record.get("best")
    if best:
        lines.append(
            f"best: trial {best['trial']}, {_format_value(record)} in epoch {best['best_epoch'] + 1}: {_format_values(best)}"
        )
    for name, value in (record.get("on_your_query") or {}).items():
        lines.append(f"on your query set: {short_name(name)} {value:.4f}")
    shares = record.get("importance") or {}
    if shares:
        lines.append("importance: " + ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:8]))
    sign = record["sign"]
    trials = sorted(record["trials"], key=lambda t: (t["value"] is None, -sign * (t["value"] or 0.0), t["trial"]))
    rows = trials if every else trials[:MOST_TRIALS]
    for trial in rows:
        value = "     -" if trial["value"] is None else f"{trial['value']:.4f}"
        reason = f" ({trial['reason']})" if trial["reason"] else ""
        lines.append(
            f"{trial['trial']:4d}  {value}  {trial['state']:<9} {trial['epochs']:3d} epochs  {_format_values(trial)}{reason}"
        )
    if len(rows) < len(trials):
        lines.append(f"{len(trials) - len(rows)} more with --all")
    return lines


def _format_value(record: dict[str, Any]) -> str:
    """The metric of the best trial: on the user's query set where that was measured, and the one it was selected by."""
    value = f"{record['best']['value']:.4f}"
    own = record.get("monitored")
    return value if own is None else f"{own:.4f} on your query set (selected by {value})"


def _format_values(trial: dict[str, Any]) -> str:
    values = trial["values"].items()
    text = ", ".join(f"{path}={value:.4g}" if isinstance(value, float) else f"{path}={value}" for path, value in values)
    return text or "your own spec"
