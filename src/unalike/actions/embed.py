"""Embed: write the vectors of a source of images to a file, or to a folder of shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.actions.embed_shards import embed_shards, is_shard_folder
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
from unalike.runs.ray_cluster import refuse_cluster_options
from unalike.sanitize import redact, valid_unicode
from unalike.source_names import source_name
from unalike.spec import load_spec
from unalike.storage.atomic import atomic_write
from unalike.storage.filesystems import uri_of

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.spec.embed import Embed

SUFFIXES = (".npz", ".parquet")


def embed(
    source: str | Path, output: str | Path, *, checkpoint: str | Path = PRETRAINED, runtime: str = "auto",
    precision: str = "auto", labelled: bool = False, shard_size: int = 10_000, cluster: str = "local",
    address: str | None = None, workers: int | None = None, resume: bool = False,
) -> Result:  # fmt: skip
    """Write the vectors of every image of a source to a file, or to a folder of Parquet shards, which are replaced.

    Args:
        source: Images: a folder, an archive, a manifest or one image; for shards also a prefix of a store, or tar files.
        output: File to write, .npz or .parquet: paths, vectors (float32, as the network gives them: compare
            them by cosine) and, with ``labelled``, classes; or a
            folder or address of shards.
        checkpoint: Network: a .pth, .onnx, .xml or .engine; by default a pretrained trunk without further training.
        runtime: Runtime of the network; ``auto`` takes the fastest.
        precision: Number format of the network.
        labelled: Whether folders are classes, which are written too.
        shard_size: Images a shard; of tar files, each is a shard.
        cluster: Who embeds shards: ``local`` or ``ray``.
        address: Address of the Ray cluster; None starts one on this machine.
        workers: Workers of the Ray cluster; None: one a GPU, or one a machine without GPUs.
        resume: Go on with an interrupted run; its shards are kept.

    Returns:
        The result; ``path`` is the file or folder, its figures are ``images`` and ``dim``; of shards see ``embed_shards``.
    """
    experiment = spec_with("embed", source=source, output=output, model=checkpoint, labeled=labelled, runtime=runtime,
                           precision=precision, shard_size=shard_size, cluster=cluster, address=address,
                           workers=workers)  # fmt: skip
    return run_embedding(experiment, overwrite=not resume, resume=resume)


def run_embedding(experiment: Experiment, *, overwrite: bool = False, resume: bool = False) -> Result:
    """Write the vectors of the images that a spec names: to a file, completely or not at all, or to a folder of shards.

    Args:
        experiment: Spec whose section ``embed`` holds the options.
        overwrite: Replace the file or shards, or the results of a former run in the results folder.
        resume: Go on with the shards of an interrupted run.

    Raises:
        SpecError: The file cannot be written, or exists; or options of shards for a file.
        DataError: There are no images.
        RunError: The folder holds other files, or shards of another source, network or settings.
    """
    section = experiment.embed
    if section.output is not None and is_shard_folder(section.output):
        if resume and overwrite:
            raise SpecError("--resume and --overwrite together", remedy="choose one")
        refuse_cluster_options(experiment, "embed")
        with open_results("embed", experiment, overwrite=overwrite or resume) as run:
            figures = embed_shards(section, overwrite=overwrite, resume=resume)
            if run is not None:
                run.conclude(f"written: {redact(section.output)}", figures)
        path = None if uri_of(section.output) else Path(section.output)
        return Result((path or Path()) if run is None else run.dir, path, figures)
    refuse_shard_options(experiment, resume=resume)
    with open_results("embed", experiment, overwrite=overwrite) as run:
        output = output_file(run, experiment, "embed.output", VECTORS_FILE, overwrite=overwrite, error=SpecError)
        if output.suffix not in SUFFIXES:
            raise SpecError(f"embed.output is {output}",
                            expected=f"a name that ends in {' or '.join(SUFFIXES)}, or a folder for shards")  # fmt: skip
        figures = _write_vectors(section, output)
        if run is not None:
            run.own(output)
            run.conclude(f"written: {output}", figures)
    return Result(output.parent if run is None else run.dir, output, figures)


def refuse_shard_options(experiment: Experiment, *, resume: bool = False) -> None:
    """Raise SpecError for options of shards where one file is written.

    Args:
        experiment: Spec whose section ``embed`` holds the options.
        resume: Whether ``--resume`` was given.
    """
    section = experiment.embed
    options = [f"embed.{name}" for name in ("shard_size", "cluster", "address", "workers")
               if getattr(section, name) != type(section).model_fields[name].default]  # fmt: skip
    options += ["--resume"] * resume
    if options:
        raise SpecError(f"{options[0]} with the output {section.output or VECTORS_FILE}",
                        expected="a folder of shards as output", remedy="give a folder: -o vectors/")  # fmt: skip


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
