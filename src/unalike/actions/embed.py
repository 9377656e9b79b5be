"""Embed: write the vectors of a source of images to a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unalike.actions.model_source import load_frozen
from unalike.actions.result import Result
from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.errors import (
    DataError,
    SpecError,
    missing_extra,
)
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import PRETRAINED, load_model, require_model_file
from unalike.spec import load_spec
from unalike.storage.atomic import atomic_write


def run_embedding(
    source: str | Path, output: Path, checkpoint: str | Path, *, runtime: str, precision: str, labelled: bool
) -> Mapping[str, Any]:  # fmt: skip
    """Vectors of every image of a source, with paths (and labels) beside them; written whole or not at all."""
    frozen = str(checkpoint) == PRETRAINED
    if not frozen:
        require_model_file(checkpoint)  # asked before the data, which may be long to list
    notices = Notices()
    images = load_images(source, labeled=labelled, notices=notices)
    if len(images) == 0:
        raise DataError(f"{source} holds no images")
    if frozen:
        model = load_frozen(load_spec("embed"), runtime=runtime, precision=precision, images=len(images))
    else:
        model = load_model(checkpoint, runtime=runtime, precision=precision, images=len(images), quiet=False)
    done = embed_files(model.engine, list(images.paths), model.view, notices=notices, describe="embedding")
    notices.say()
    images = images.select(done.kept_N)
    columns: dict[str, Any] = {"path": [str(p) for p in images.paths]}
    if labelled:
        columns["label"] = list(images.label_names())
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as partial:
        if output.suffix == ".npz":
            arrays: dict[str, Any] = {k: np.array(v) for k, v in columns.items()}
            np.savez_compressed(partial, vectors=done.vectors_ND, **arrays)
        else:
            _write_parquet(partial, columns, done.vectors_ND)
    return {"images": len(images), "dim": int(done.vectors_ND.shape[1])}


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
    """Write the vectors of every image of ``source`` to ``output`` (.npz or .parquet): paths, vectors, labels."""
    output = Path(output)
    if output.suffix not in (".npz", ".parquet"):
        raise SpecError(f"-o {output}", expected="a name that ends in .npz or .parquet")
    figures = run_embedding(source, output, checkpoint, runtime=runtime, precision=precision, labelled=labelled)
    return Result(output.parent, output, figures)
