"""Inference: name the nearest references of each input image."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.actions.model_from_spec import (
    embed_two_sets,
    explicit_batch_size,
    find_model_source,
    fit_decoding,
    load_models,
)
from unalike.actions.result import Result
from unalike.actions.results_folder import run_action
from unalike.actions.spec_resolution import Overrides, Spec
from unalike.data.from_spec import load_from_spec
from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.errors import (
    DataError,
    SpecError,
)
from unalike.runs.filenames import (
    NOTICES_FILE,
    RESULT_CSV,
    RESULT_STEM,
    TRT_RESULT_CSV,
    TRT_RESULT_JSONL,
    TRT_RESULT_STEM,
)
from unalike.sanitize import csv_cell
from unalike.source_names import source_name
from unalike.storage.atomic import atomic_write

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment


def input_images(experiment: Experiment, notices: Notices) -> ImageSet:
    """The images of ``inference.input_path``. Raises SpecError and DataError."""
    section = experiment.inference
    if not section.input_path:
        raise SpecError("inference.input_path is not set", expected="an image, a folder or an archive")
    kind, path = section.inference_input_type, Path(str(section.input_path))
    if kind == "image" and path.is_dir():
        raise DataError(f"inference.input_path: {path} is a folder", expected="one image file",
                        remedy="set inference.inference_input_type=image_folder")  # fmt: skip
    # Labels are not used, so all images below the folder are used, at any depth.
    images = load_from_spec(experiment, section.input_path, notices, labeled=False)
    if len(images) == 0:
        raise DataError(f"inference.input_path: {path} holds no images")
    return images


def run_inference(experiment: Experiment, run: Run) -> tuple[Path, Mapping[str, Any]]:
    """Write ``result.csv`` as TAO does and ``result.jsonl`` with neighbors, one line an input image."""
    from unalike.numerics.nearest_neighbors import top_k
    from unalike.numerics.normalization import unit_vectors

    section, notices = experiment.inference, Notices()
    source = find_model_source(section, "inference")
    query = input_images(experiment, notices)
    validation = experiment.dataset.val_dataset
    if validation is None or not validation.reference:
        raise SpecError("dataset.val_dataset.reference is not set", expected="the labeled images to compare with")
    reference = load_from_spec(experiment, validation.reference, notices)
    models = load_models(experiment, section, "inference", source, len({*reference.paths, *query.paths}))
    models = fit_decoding(models, reference, query, experiment)
    reference, reference_vectors, query, query_vectors = embed_two_sets(
        models, reference, query, experiment, explicit_batch_size(experiment, "inference"), notices
    )
    notices.say()
    notices.write(run.dir / NOTICES_FILE)
    k = min(section.topk, len(reference))
    scores_QK, index_QK = top_k(unit_vectors(query_vectors), unit_vectors(reference_vectors), k)
    _write_results(
        run.dir, query, reference, scores_QK, index_QK, TRT_RESULT_STEM if section.trt_engine else RESULT_STEM
    )
    run.own(run.dir / TRT_RESULT_CSV, run.dir / TRT_RESULT_JSONL)
    if section.explain:
        from unalike.actions.explain import explain_matches

        explain_matches(run.dir / "explain", models[0], query, reference, index_QK[:, 0])
    run.record(device=[model.engine.describe() for model in models], data=query.fingerprint())
    path = run.dir / (TRT_RESULT_CSV if section.trt_engine else RESULT_CSV)
    return path, {"images": len(query), "references": len(reference), "topk": k}


def _write_results(
    folder: Path,
    query: ImageSet,
    reference: ImageSet,
    scores_QK: np.ndarray,
    index_QK: np.ndarray,
    stem: str = RESULT_STEM,
) -> None:
    # Names that are not UTF-8 keep their bytes in the table; JSON stays valid UTF-8 and gives them back as escapes.
    # squared L2 distance of unit vectors: |a - b|^2 = 2 - 2 a.b
    distance_QK = np.maximum(2.0 - 2.0 * scores_QK.astype(np.float64), 0.0)
    names = reference.label_names()
    with (
        atomic_write(folder / f"{stem}.csv") as table_file,
        atomic_write(folder / f"{stem}.jsonl") as lines_file,
        table_file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as table,
        lines_file.open("w", encoding="utf-8", errors="backslashreplace") as lines,
    ):
        writer = csv.writer(table)
        for path, indices, distances, scores in zip(query.paths, index_QK, distance_QK, scores_QK, strict=True):
            labels = [names[i] for i in indices]
            writer.writerow([csv_cell(source_name(path)), labels, [float(d) for d in distances]])
            neighbors = [
                {"label": name, "distance": round(float(d), 6), "score": round(float(s), 6), "reference": source_name(reference.paths[i])}
                for name, d, s, i in zip(labels, distances, scores, indices, strict=True)
            ]  # fmt: skip
            lines.write(
                json.dumps({"path": source_name(path), "label": labels[0], "neighbours": neighbors}, ensure_ascii=False)
                + "\n"
            )


def infer(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Name the nearest references of each input image; ``path`` is ``result.csv``."""
    return run_action(
        "inference", run_inference, spec, overrides, data, resume=resume, overwrite=overwrite, message="inferred"
    )
