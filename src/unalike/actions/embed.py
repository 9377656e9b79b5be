"""Embed: write the vectors of a source of images to a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.actions.model_from_spec import load_frozen
from unalike.actions.result import Result
from unalike.actions.results_folder import open_results, output_file
from unalike.actions.spec_resolution import spec_with
from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.errors import DataError, SpecError, missing_extra
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import load_model, require_model_file
from unalike.inference.model_files import PRETRAINED
from unalike.runs.filenames import VECTORS_FILE
from unalike.sanitize import valid_unicode
from unalike.source_names import source_name
from unalike.spec import load_spec
from unalike.storage.atomic import atomic_write

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.spec.embed import Embed

SUFFIXES = (".npz", ".parquet")


def embed(
    source: str | Path, output: str | Path, *, checkpoint: str | Path = PRETRAINED, runtime: str = "auto",
    precision: str = "auto", labelled: bool = False,
) -> Result:  # fmt: skip
    """Write the vectors of every image of a source to a file, which is replaced if it exists.

    Args:
        source: Images: a folder, an archive, a manifest or one image.
        output: File to write, .npz or .parquet: paths, vectors (float32, of length 1) and, with ``labelled``, classes.
        checkpoint: Network: a .pth, .onnx, .xml or .engine; by default a pretrained trunk without further training.
        runtime: Runtime of the network; ``auto`` takes the fastest.
        precision: Number format of the network.
        labelled: Whether folders are classes, which are written too.

    Returns:
        The result; ``path`` is the file, its figures are ``images`` and ``dim``.
    """
    experiment = spec_with("embed", source=source, output=output, model=checkpoint, labeled=labelled, runtime=runtime,
                           precision=precision)  # fmt: skip
    return run_embedding(experiment, overwrite=True)


def run_embedding(experiment: Experiment, *, overwrite: bool = False) -> Result:
    """Write the vectors of the images that a spec names, completely or not at all.

    Args:
        experiment: Spec whose section ``embed`` holds the options.
        overwrite: Replace the file, or the results of a former run in the results folder.

    Raises:
        SpecError: The file cannot be written, or exists.
        DataError: There are no images.
    """
    section = experiment.embed
    with open_results("embed", experiment, overwrite=overwrite) as run:
        output = output_file(run, experiment, "embed.output", VECTORS_FILE, overwrite=overwrite, error=SpecError)
        if output.suffix not in SUFFIXES:
            raise SpecError(f"embed.output is {output}", expected=f"a name that ends in {' or '.join(SUFFIXES)}")
        figures = _write_vectors(section, output)
        if run is not None:
            run.own(output)
            run.conclude(f"written: {output}", figures)
    return Result(output.parent if run is None else run.dir, output, figures)


def _write_vectors(section: Embed, output: Path) -> dict[str, int]:
    """Embed the images and write the file; returns the number of images and the width of the vectors."""
    source = str(section.source)
    frozen = section.model in (None, PRETRAINED)
    if not frozen:
        require_model_file(str(section.model))  # before the images, which may take long to list
    notices = Notices()
    images = load_images(source, labeled=section.labeled, notices=notices)
    if len(images) == 0:
        raise DataError(f"{source} holds no images")
    if frozen:
        model = load_frozen(
            load_spec("inference"), runtime=section.runtime, precision=section.precision, images=len(images)
        )
    else:
        model = load_model(
            str(section.model), runtime=section.runtime, precision=section.precision, images=len(images), quiet=False
        )
    model = model.fitted(images.paths)
    embedded = embed_files(model.engine, list(images.paths), model.view, notices=notices, describe="embedding")
    notices.say()
    images = images.select(embedded.kept_N)
    columns = {"path": [source_name(path) for path in images.paths]}
    if section.labeled:
        columns["label"] = list(images.label_names())
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as partial:
        if output.suffix == ".npz":
            arrays: dict[str, Any] = {name: np.array(values) for name, values in columns.items()}
            np.savez_compressed(partial, vectors=embedded.vectors_ND, **arrays)
        else:
            _write_parquet(partial, columns, embedded.vectors_ND)
    return {"images": len(images), "dim": int(embedded.vectors_ND.shape[1])}


def _write_parquet(path: Path, columns: Mapping[str, list[str]], vectors_ND: np.ndarray) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet", "writing .parquet") from error
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.reshape(-1)), vectors_ND.shape[1])
    arrays = {name: pa.array(valid_unicode(values)) for name, values in columns.items()}  # Parquet's text is UTF-8
    pq.write_table(pa.table({**arrays, "vector": vectors}), path)
