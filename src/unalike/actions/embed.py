"""Embed: write the vectors of images to an .npz or .parquet file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unalike.actions.model_from_spec import load_frozen
from unalike.actions.result import Result
from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.errors import (
    DataError,
    SpecError,
    missing_extra,
)
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import load_model, require_model_file
from unalike.inference.model_files import PRETRAINED
from unalike.spec import load_spec
from unalike.storage.atomic import atomic_write


def run_embedding(
    source: str | Path, output: Path, checkpoint: str | Path, *, runtime: str, precision: str, labelled: bool
) -> Mapping[str, Any]:  # fmt: skip
    """Write the vectors of images with their paths, and their labels if ``labelled``, atomically; returns counts."""
    frozen = str(checkpoint) == PRETRAINED
    if not frozen:
        require_model_file(checkpoint)  # before the images, which may take long to list
    notices = Notices()
    images = load_images(source, labeled=labelled, notices=notices)
    if len(images) == 0:
        raise DataError(f"{source} holds no images")
    if frozen:
        model = load_frozen(load_spec("embed"), runtime=runtime, precision=precision, images=len(images))
    else:
        model = load_model(checkpoint, runtime=runtime, precision=precision, images=len(images), quiet=False)
    embedded = embed_files(model.engine, list(images.paths), model.view, notices=notices, describe="embedding")
    notices.say()
    images = images.select(embedded.kept_N)
    columns: dict[str, Any] = {"path": [str(p) for p in images.paths]}
    if labelled:
        columns["label"] = list(images.label_names())
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as partial:
        if output.suffix == ".npz":
            arrays: dict[str, Any] = {k: np.array(v) for k, v in columns.items()}
            np.savez_compressed(partial, vectors=embedded.vectors_ND, **arrays)
        else:
            _write_parquet(partial, columns, embedded.vectors_ND)
    return {"images": len(images), "dim": int(embedded.vectors_ND.shape[1])}


def _write_parquet(path: Path, columns: Mapping[str, Any], vectors_ND: np.ndarray) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet", "writing .parquet") from error
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.reshape(-1)), vectors_ND.shape[1])
    pq.write_table(pa.table({**{k: pa.array(v) for k, v in columns.items()}, "vector": vectors}), path)


def embed(
    source: str | Path, output: str | Path, *, checkpoint: str | Path = PRETRAINED, runtime: str = "auto",
    precision: str = "auto", labelled: bool = False,
) -> Result:  # fmt: skip
    """Write the vectors of images to a file.

    Args:
        source: The images: a folder, an archive or a manifest.
        output: The file, .npz or .parquet, with paths, vectors and labels.
        checkpoint: The model, or ``pretrained`` for a pretrained trunk without training.
        runtime, precision: Of the engine.
        labelled: Read the class of each image from the folders or the manifest, and write it.
    """
    output = Path(output)
    if output.suffix not in (".npz", ".parquet"):
        raise SpecError(f"-o {output}", expected="a name that ends in .npz or .parquet")
    figures = run_embedding(source, output, checkpoint, runtime=runtime, precision=precision, labelled=labelled)
    return Result(output.parent, output, figures)
