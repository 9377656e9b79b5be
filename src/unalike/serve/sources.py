"""What a service serves: models, galleries, inspectors and assets, found from its options or in the folder of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from unalike.errors import RunError, SpecError
from unalike.inference.model_files import EXPORTED, SUFFIXES
from unalike.runs.filenames import EXPERIMENT_FILE
from unalike.runs.record import recorded_action
from unalike.runs.written_model import model_in_folder, run_in_folder
from unalike.storage.filesystems import split_address
from unalike.storage.overwrite import refuse_address

if TYPE_CHECKING:
    from unalike.spec.serve import Serve

DEMO_FOLDER = Path("runs/demo")
SERVICE_FOLDER = "serve"
NEW_GALLERY = "images.gallery"
DEFAULT_NAME = "default"
# Folder of a demo's references, which no training saw.
_DEMO_REFERENCES = Path("images/unseen/reference")
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})=(.+)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True)
class Sources:
    """What a service serves.

    Attributes:
        model: file of the network; None where each gallery names its own.
        galleries, inspectors, assets: name -> file, folder or address; the first is the default one.
        folder: the service's own folder.
        references: class folders from which a new gallery is built at the first start.
    """

    model: str | None = None
    galleries: dict[str, str] = field(default_factory=dict)
    inspectors: dict[str, str] = field(default_factory=dict)
    assets: dict[str, str] = field(default_factory=dict)
    folder: Path = Path("runs", SERVICE_FOLDER)
    references: Path | None = None

    @property
    def new_gallery(self) -> Path:
        """The gallery that the service makes where none is named."""
        return self.folder / NEW_GALLERY

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to serve."""
        return not (self.model or self.galleries or self.inspectors or self.assets)


def find_sources(settings: Serve) -> Sources:
    """Find what the options name.

    Raises:
        SpecError: nothing is named and there is no demo; a name is used twice.
        RunError: the folder of the run holds nothing that can be served.
    """
    sources = Sources(
        model=settings.model,
        galleries=named(settings.galleries or (), "gallery"),
        inspectors=named(settings.inspectors or (), "inspector"),
        assets=named(settings.assets or (), "set of assets"),
    )
    run = settings.run
    if run is None and sources.is_empty:
        if not DEMO_FOLDER.is_dir():
            raise SpecError("nothing to serve", expected="RUN_DIR, --model, --gallery, --inspector or --assets",
                            remedy="or run unalike demo (make demo) first, which leaves runs/demo")  # fmt: skip
        run = str(DEMO_FOLDER)
    if run is not None:
        sources = _with_run(sources, Path(run))
    if settings.folder is None:
        return sources
    refuse_address(settings.folder)
    return replace(sources, folder=Path(settings.folder))


def named(entries: Sequence[str], kind: str) -> dict[str, str]:
    """Name -> path of entries PATH or NAME=PATH. Raises SpecError where two have one name."""
    paths: dict[str, str] = {}
    for entry in entries:
        match = None if Path(entry).exists() else _NAMED.fullmatch(entry)
        name, path = (match[1], match[2]) if match else (default_name(entry), entry)
        if name in paths:
            raise SpecError(f"two of the kind {kind} are named {name!r}", expected="different names",
                            remedy=f"name them: --{kind.split()[-1]} NAME=PATH")  # fmt: skip
        paths[name] = path
    return paths


def default_name(path: str) -> str:
    """The name of a file or address without one: its stem, or the ``gallery`` of an address. Raises DataError for no address."""
    if _ADDRESS.match(path):
        parts = split_address(path)
        name = (parse_qs(parts.query).get("gallery") or [Path(parts.path).stem])[0]
    else:
        name = Path(path).stem
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-._")[:64]
    return name if _NAME.fullmatch(name) else DEFAULT_NAME


def _with_run(sources: Sources, run: Path) -> Sources:
    """The sources, with what a run's folder (or one file) holds besides them."""
    if run.is_file():
        return _with_files(sources, [run])
    if not run.is_dir():
        raise RunError(f"there is no folder {run}", expected="the folder of a run, or a model, gallery or inspector")
    sources = replace(sources, folder=run / SERVICE_FOLDER)
    if (run / _DEMO_REFERENCES).is_dir():
        return _with_demo(sources, run)
    if recorded_action(run) is None and not any(path.is_file() for path in run.iterdir()):
        run = run_in_folder(run)
    if recorded_action(run) in (None, "gallery_build", "inspect_fit", "verify"):
        files = [path for path in sorted(run.iterdir()) if path.is_file()]
    else:
        files = [model_in_folder(run)]
    found_sources = _with_files(sources, files)
    if found_sources.is_empty:
        raise RunError(f"{run} holds nothing that can be served",
                       expected=f"a gallery, an inspector or a model ({', '.join(SUFFIXES)})")  # fmt: skip
    if not found_sources.galleries and found_sources.model is not None:
        return replace(found_sources, references=_training_references(run))
    return found_sources


def _with_demo(sources: Sources, run: Path) -> Sources:
    """A demo's exported network, or its checkpoint, and the brands that its training did not see."""
    for folder in (run / "export", run / "train"):
        if folder.is_dir() and sources.model is None:
            sources = replace(sources, model=str(model_in_folder(folder)))
    if sources.model is None:
        raise RunError(f"the demo in {run} has no model", remedy="run unalike demo --overwrite")
    return sources if sources.galleries else replace(sources, references=run / _DEMO_REFERENCES)


def _with_files(sources: Sources, files: Sequence[Path]) -> Sources:
    by_suffix: dict[str, list[Path]] = {}
    for file in files:
        by_suffix.setdefault(file.suffix, []).append(file)
    galleries = sources.galleries or {default_name(str(path)): str(path) for path in by_suffix.get(".gallery", [])}
    inspectors = sources.inspectors or {default_name(str(path)): str(path) for path in by_suffix.get(".inspector", [])}
    model = sources.model
    # An exported network before a checkpoint: it needs no torch.
    for suffix in (*EXPORTED, *(name for name in SUFFIXES if name not in EXPORTED)):
        if model is None and suffix in by_suffix and not galleries:
            if len(by_suffix[suffix]) > 1:
                raise RunError(f"{files[0].parent} holds {len(by_suffix[suffix])} models", expected="one",
                               remedy="name it with --model FILE")  # fmt: skip
            model = str(by_suffix[suffix][0])
    return replace(sources, model=model, galleries=galleries, inspectors=inspectors)


def _training_references(run: Path) -> Path | None:
    """The reference images of a run's spec, else those that it was trained on, where they are class folders."""
    from unalike.spec.reading import read_file

    try:
        dataset = (read_file(run / EXPERIMENT_FILE) or {}).get("dataset") or {}
    except SpecError:
        return None
    reference = (dataset.get("val_dataset") or {}).get("reference") or dataset.get("train_dataset")
    return Path(reference) if isinstance(reference, str) and Path(reference).is_dir() else None
