"""Looking at a search: what was tried, what mattered, what won."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unalike.cli.options import AsJson, Quiet, Verbose, set_verbosity
from unalike.cli.output import print_json, print_line
from unalike.errors import RunError
from unalike.runs.filenames import SEARCH_FILE

automl_app = typer.Typer(name="automl", rich_markup_mode=None, help="Look at a search for good settings.",
                         no_args_is_help=True)  # fmt: skip

SHOWN = 20


@automl_app.callback()
def _automl() -> None:
    """Look at a search for good settings (`unalike train DIR --trials 20` makes one)."""


@automl_app.command(short_help="What a search tried, what mattered, what won.")
def show(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The search's folder, or the results folder above it.")],
    every: Annotated[bool, typer.Option("--all", help=f"Every trial, not the best {SHOWN}.")] = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Show a search, while it runs or afterwards."""
    set_verbosity(verbose, quiet)

    record = _read(Path(folder))
    if as_json:
        print_json(record)
        return
    for line in _lines(record, every=every):
        print_line(line)


def _read(folder: Path) -> dict[str, Any]:
    import json

    for place in (folder, folder / "train"):
        try:
            record: dict[str, Any] = json.loads((place / SEARCH_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise RunError(f"{place / 'search.json'} cannot be read: {error}") from error
        return record
    raise RunError(f"{folder} holds no search", expected="a folder with search.json",
                   remedy="search with: unalike train DIR --trials 20")  # fmt: skip


def _lines(record: dict[str, Any], *, every: bool) -> list[str]:
    counts = ", ".join(f"{number} {state}" for state, number in record["counts"].items())
    head = f"{record['algorithm']}: {counts}, {record['seconds'] / 60:.1f} minutes; "
    lines = [head + f"selected by {record['monitor']} on {record['selected_on']}"]
    best = record.get("best")
    if best:
        lines.append(f"best: trial {best['trial']}, {best['value']:.4f} at epoch {best['best_epoch']}: {_drawn(best)}")
    for name, value in (record.get("on_your_query") or {}).items():
        lines.append(f"on your query set: {name} {value:.4f}")
    shares = record.get("importance") or {}
    if shares:
        lines.append("what mattered: " + ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:8]))
    sign = record["sign"]
    trials = sorted(record["trials"], key=lambda t: (t["value"] is None, -sign * (t["value"] or 0.0), t["trial"]))
    shown = trials if every else trials[:SHOWN]
    for trial in shown:
        value = "     -" if trial["value"] is None else f"{trial['value']:.4f}"
        why = f" ({trial['reason']})" if trial["reason"] else ""
        lines.append(
            f"{trial['trial']:4d}  {value}  {trial['state']:<9} {trial['epochs']:3d} epochs  {_drawn(trial)}{why}"
        )
    if len(shown) < len(trials):
        lines.append(f"{len(trials) - len(shown)} more with --all")
    return lines


def _drawn(trial: dict[str, Any]) -> str:
    values = trial["values"].items()
    text = ", ".join(f"{path}={value:.4g}" if isinstance(value, float) else f"{path}={value}" for path, value in values)
    return text or "your own spec"
