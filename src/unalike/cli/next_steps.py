"""What to do after a command: the report to open and the commands that usually follow, with the paths of this call."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from unalike.errors import Interrupted
from unalike.progress import say
from unalike.runs.filenames import REPORT_FILE
from unalike.runs.record import failed_without_results

# Action -> the commands that usually follow it. {path} is the file that it wrote, {data} its data, {gallery} a file name made of
# the data's; {model} and {reference} are those of the call. A command with a part that the call did not name shows that
# part in capitals.
_FOLLOWING: Mapping[str, tuple[str, ...]] = {
    "train": ("unalike gallery build {gallery} {data} -m {path}", "unalike export {path}"),
    "evaluate": ("unalike gallery build {gallery} {reference} -m {model}",),
    "inference": ("unalike gallery build {gallery} {reference} -m {model}",),
    "export": ("unalike engine {path} {data}", "unalike quantize {path} {data}"),
    "quantize": ("unalike bench-engine {path}",),
    "gen_engine": ("unalike bench-engine {path}",),
    "gen_trt_engine": ("unalike evaluate {path} --reference {reference} --query QUERY",),
    "convert": ("unalike evaluate {path} --reference {reference} --query QUERY",),
    "gallery_build": ("unalike identify {path} IMAGE",),
    "gallery_add": ("unalike identify {path} IMAGE",),
    "gallery_merge": ("unalike identify {path} IMAGE",),
    "gallery_copy": ("unalike identify {path} IMAGE",),
    "gallery_remove": ("unalike identify {path} IMAGE",),
    "gallery_rename": ("unalike identify {path} IMAGE",),
    "calibrate": ("unalike identify {path} IMAGE",),
    "inspect_fit": ("unalike inspect run {path} IMAGE -o runs/inspection",),
    "inspect_learn": ("unalike inspect run {path} IMAGE -o runs/inspection",),
    "export_maps": ("unalike inspect fit GOOD -m {path} -o part.inspector",),
    "discover": ("unalike discover {path} --name", "unalike train {source}"),
    "distill": ("unalike evaluate {path} --reference REFERENCE --query QUERY", "unalike quantize {path} {data}"),
    "discover_name": ("unalike train {path}",),
    "check": ("unalike train {data}",),
    "default_specs": ("unalike {command} -e {path}",),
    "demo": ("unalike gallery build brands.gallery {images}/unseen/reference -m {model}", "unalike train DATA"),
    "job": ("unalike job wait {path}", "unalike job logs {path}"),
}


def suggest(action: str, *, folder: str | Path | None = None, **parts: str | Path | None) -> None:
    """Print on standard error the report in a results folder, if there is one, and the commands that usually follow.

    Args:
        action: The action, or another key of the table above.
        folder: The results folder.
        **parts: Values of the parts of the commands; None is a part that the call did not name.
    """
    if folder is not None and (report := Path(folder) / REPORT_FILE).is_file():
        say(f"report: {report}")
    for line in following(action, parts):
        say(f"next: {line}")


def following(action: str, parts: Mapping[str, str | Path | None]) -> Sequence[str]:
    """The commands that usually follow an action, with these parts filled in."""
    if action != "check":  # training and evaluation read sets of tar files, the commands that follow them do not
        parts = {
            name: value for name, value in parts.items() if name not in ("data", "reference") or not _is_tar_set(value)
        }
    words = {name: shlex.quote(str(value)) for name, value in parts.items() if value is not None}
    source = parts.get("data") or parts.get("reference")
    stem = Path(str(source)).name.partition(".")[0] if source is not None else ""
    words.setdefault("gallery", shlex.quote(f"{stem or 'images'}.gallery"))
    return [line.format_map(_Capitals(words)) for line in _FOLLOWING.get(action, ())]


def _is_tar_set(source: str | Path | None) -> bool:
    """Whether a source is several tar files: a pattern, or a folder that holds some."""
    text = str(source or "")
    if re.search(r"\{[0-9]+\.\.[0-9]+\}", text):
        return True
    return os.path.isdir(text) and any(name.lower().endswith(".tar") for name in os.listdir(text))


def suggest_resume(argv: Sequence[str], interruption: Interrupted) -> None:
    """Print the command that continues a training which a signal stopped; nothing where nothing was written.

    Args:
        argv: Command line of the training, without the program's name.
        interruption: Its error.
    """
    folder = Path(interruption.run_folder)
    if not interruption.run_folder or argv[:1] != ["train"] or not folder.is_dir() or failed_without_results(folder):
        return
    words = [word for word in argv if word not in ("--overwrite", "--resume")] + ["--resume"]
    words += [] if interruption.is_named else [f"train.results_dir={folder}"]
    say(f"next: unalike {shlex.join(words)}")


class _Capitals(dict[str, str]):
    """Parts of a command; one that is not known is its name in capitals."""

    def __missing__(self, key: str) -> str:
        return key.upper()
