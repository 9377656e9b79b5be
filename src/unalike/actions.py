"""What evaluate, inference, embed and export do: a model, an engine, images through the one view, then the result."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unalike.data.checks import Notices
from unalike.data.items import ImageSet, load_images
from unalike.data.sets import evaluation_sets, load_for
from unalike.data.view import View
from unalike.data.whole import replacing, write_text
from unalike.engines.files import embed_files
from unalike.errors import (
    DataError,
    DeviceError,
    ExportError,
    RunError,
    SpecError,
    UnalikeError,
    UnreadableImage,
    redact,
)
from unalike.progress import say
from unalike.spec import load_spec
from unalike.tasks.opening import OpenModel, open_model, present

PRETRAINED = "pretrained"


def refuse_contradictions(
    experiment: Any, source: Path, *, view: View, dim: int, trunk: str, mean: Sequence[float], std: Sequence[float]
) -> None:
    """The model is read from its file; a spec that says otherwise is an error, all of it in one report."""
    shown = view.to_dict()
    known = {
        "model.backbone": trunk,
        "model.input_height": view.height,
        "model.input_width": view.width,
        "model.feat_dim": dim,
        "dataset.pixel_mean": list(mean),
        "dataset.pixel_std": list(std),
        **{f"dataset.view.{key}": shown[key] for key in ("mode", "resize_ratio", "interpolation")},
    }
    faults = []
    for path, value in known.items():
        said: Any = experiment
        for part in path.split("."):
            said = getattr(said, part)
        if value and experiment.is_set(path) and said != value:
            faults.append(f"{path} is {said}, the model's is {value}")
    if faults:
        raise SpecError(f"the spec contradicts {source}: {'; '.join(faults)}", remedy="remove these keys")


def load_frozen(
    experiment: Any, *, runtime: str, precision: str, gpu: int = 0, images: int | None = None
) -> OpenModel:  # fmt: skip
    """The pretrained trunk of ``model.backbone`` as it came (the best one here where none is named): the baseline.

    ``images``: how many it will embed, where that is known.
    """
    from unalike.data.view import view_of
    from unalike.deploy.choose import engine_for, to_gpu
    from unalike.learn.recipe import settle_trunk, settle_trunk_facts
    from unalike.model.frozen import build_frozen

    settle_trunk(experiment)
    trunk: Any = build_frozen(experiment.model.backbone, (experiment.model.input_height, experiment.model.input_width))
    settle_trunk_facts(experiment, trunk.trunk.facts)
    to_gpu(trunk, runtime, gpu)
    view, dataset = view_of(experiment), experiment.dataset
    engine = engine_for(trunk, mean=tuple(dataset.pixel_mean), std=tuple(dataset.pixel_std), view=view, runtime=runtime,
                        precision=precision, images=images)  # fmt: skip
    return OpenModel(engine, view, (), Path(experiment.model.backbone))


def _devices(experiment: Any, section: Any, name: str) -> list[int]:
    """The GPUs of evaluate or inference, one copy of the network each; ``[0]`` stands for the CPU too."""
    if section.num_nodes > 1:
        say(f"{name}.num_nodes: {section.num_nodes}; {name} runs on this machine alone")
    if section.num_gpus == 1:
        return [section.gpu_ids[0]]
    from unalike.learn.devices import check_devices

    ids = check_devices(
        section.num_gpus, section.gpu_ids, ids_were_set=experiment.is_set(f"{name}.gpu_ids"), where=name
    )
    if section.onnx_file or section.engine or section.runtime not in ("auto", "torch", "tensorrt"):
        say(f"{name}.num_gpus: {section.num_gpus}; exported networks run on the CPU, in one copy")
        return ids[:1]
    return ids


def _named_model(section: Any, name: str) -> str:
    """What evaluate or inference shall run: a file that is there, or ``pretrained``. Cheap, so asked before the data.

    An engine needs no checkpoint beside it (TAO D34).
    """
    fields = ("checkpoint", "onnx_file", "engine", "trt_engine")
    given = {key: getattr(section, key) for key in fields if getattr(section, key)}
    if given.get("trt_engine") and "checkpoint" in given:
        # TAO's specs name both, since there a checkpoint is mandatory; the engine is what was asked for.
        say(f"{name}.trt_engine is set: {name}.checkpoint is not used")
        del given["checkpoint"]
    if not given:
        raise SpecError(f"none of {', '.join(f'{name}.{key}' for key in fields)} is set", expected="a trained model",
                        remedy=f"set {name}.checkpoint=FILE.pth, or {PRETRAINED} for the trunk as it came")  # fmt: skip
    if len(given) > 1:
        raise SpecError(f"{' and '.join(f'{name}.{key}' for key in given)} are both set", remedy="keep one")
    key, source = next(iter(given.items()))
    return PRETRAINED if (key, source) == ("checkpoint", PRETRAINED) else str(present(source))


def _load_for(experiment: Any, section: Any, name: str, source: str, images: int) -> list[OpenModel]:
    """The model that ``_named_model`` named, once for each device; ``images`` is how many there are to embed."""
    models = []
    for gpu in _devices(experiment, section, name):
        if source == PRETRAINED:
            models.append(load_frozen(experiment, runtime=section.runtime, precision=section.precision, gpu=gpu,
                                      images=images))  # fmt: skip
            continue
        model = open_model(
            source, runtime=section.runtime, precision=section.precision, gpu=gpu, images=images, quiet=False,
            threads=section.threads, streams=section.streams, device=section.device, **_told_facts(experiment),
        )  # fmt: skip
        refuse_contradictions(experiment, model.source, view=model.view, dim=model.engine.dim, trunk=model.trunk,
                              mean=model.mean, std=model.std)  # fmt: skip
        models.append(model)
    return models


def _told_facts(experiment: Any) -> dict[str, Any]:
    """Mean and std as the spec has them, for networks that carry none (TAO's engines); others keep their own."""
    dataset = experiment.dataset
    said = experiment.is_set("dataset.pixel_mean") or experiment.is_set("dataset.pixel_std")
    return {"mean": tuple(dataset.pixel_mean), "std": tuple(dataset.pixel_std)} if said else {}


def _embed(
    models: Sequence[OpenModel],
    paths: Sequence[Path],
    experiment: Any,
    batch_size: int | None,
    notices: Notices,
    what: str,
) -> Any:
    return embed_files(
        [model.engine for model in models], list(paths), models[0].view, batch_size=batch_size,
        workers=experiment.dataset.workers, max_unreadable=experiment.dataset.max_unreadable,
        max_pixels=experiment.dataset.max_pixels, notices=notices, describe=what,
    )  # fmt: skip


def _batch_size(experiment: Any, name: str) -> int | None:
    """The user's batch size; else the engine's own, since TAO's defaults of 4 and 1 starve every engine."""
    size: int = getattr(experiment, name).batch_size
    return size if experiment.is_set(f"{name}.batch_size") else None


def _two_sets(
    models: Sequence[OpenModel], reference: ImageSet, query: ImageSet, experiment: Any, batch_size: int | None,
    notices: Notices,
) -> Any:  # fmt: skip
    """Vectors of both sets, each file decoded and embedded once even when it stands in both."""
    union = list(dict.fromkeys([*reference.paths, *query.paths]))
    done = _embed(models, union, experiment, batch_size, notices, "embedding")
    row = {union[i]: n for n, i in enumerate(done.kept_N.tolist())}

    def part(images: ImageSet) -> tuple[ImageSet, np.ndarray]:
        kept = [i for i, path in enumerate(images.paths) if path in row]
        return images.select(kept), done.vectors_ND[[row[images.paths[i]] for i in kept]]

    return *part(reference), *part(query)


def run_evaluation(experiment: Any, run: Any) -> Mapping[str, float]:
    """Embed, rank, summarise, write; returns TAO's KPIs with the prefix ``test``."""
    from unalike.card import add_section
    from unalike.measure.artefacts import write_metrics
    from unalike.measure.classification import class_results
    from unalike.measure.nearest import top_k, unit
    from unalike.measure.open_set import spoken
    from unalike.measure.summary import kpi

    section, notices = experiment.evaluate, Notices()
    source = _named_model(section, "evaluate")
    reference, query = evaluation_sets(experiment, notices)
    models = _load_for(experiment, section, "evaluate", source, len({*reference.paths, *query.paths}))
    model = models[0]
    same = reference.paths == query.paths
    reference, reference_vectors, query, query_vectors = _two_sets(
        models, reference, query, experiment, _batch_size(experiment, "evaluate"), notices
    )
    notices.say()
    notices.write(run.dir / "notices.txt")
    ranking, summary, told = _measured(section, model, query, query_vectors, reference, reference_vectors, same)
    summary["model"] = {
        "name": experiment.model_name,
        "file": str(model.source),
        "engine": model.engine.describe(),
        "copies": len(models),
        "view": model.view.to_dict(),
    }
    scores_QK, index_QK = top_k(
        unit(query_vectors), unit(reference_vectors), min(section.topk, len(reference) - int(same)), exclude_self=same
    )
    if not section.report_accuracy_per_class:
        summary["per_class"] = []
    write_metrics(
        run.dir, summary, ranking, reference.classes, query_paths=query.paths, reference_paths=reference.paths,
        neighbours=(scores_QK, index_QK), reference_labels=reference.labels_N,
    )  # fmt: skip
    why = None
    if section.explain:
        from unalike.explanations import explain_misses

        why = explain_misses(run.dir / "misses", models[0], query, query_vectors, reference, reference_vectors,
                             section.explain, same=same)  # fmt: skip
    run.own(
        *_evaluation_page(run.dir, summary, ranking, query, query_vectors, reference, reference_vectors, model, why)
    )
    run.record(device=[model.engine.describe() for model in models], seed=section.seed, data=query.fingerprint())
    add_section(run.dir, "evaluation", {"data": summary["data"], "micro": summary["micro"], **told},
                source=model.source.parent / "model_card.json", stem="model_card")  # fmt: skip
    if section.trt_engine:
        results = class_results(reference.labels_N[index_QK], query.labels_N, query.classes, topk=section.topk)
        run.own(_write_json(run.dir / "results.json", results))
    figures = kpi(summary, "test")
    for line in spoken(told):
        say(line)
    return figures


def _measured(
    section: Any, model: OpenModel, query: ImageSet, query_vectors: np.ndarray, reference: ImageSet,
    reference_vectors: np.ndarray, same: bool,
) -> tuple[Any, dict[str, Any], dict[str, Any]]:  # fmt: skip
    """The ranking, the summary of it, and what of the summary is about pairs and unknown classes."""
    from unalike.measure.clusters import ami_nmi
    from unalike.measure.open_set import collect_trials, summarise_trials
    from unalike.measure.retrieval import evaluate_ranking
    from unalike.measure.summary import summarise

    compared = (query_vectors, query.labels_N, reference_vectors, reference.labels_N)
    drawn = {"n": section.bootstrap, "confidence": section.confidence, "seed": section.seed}
    ranking = evaluate_ranking(*compared, ks=tuple(sorted({*section.ks, section.topk})), same=same)
    unseen = not {query.classes[i] for i in np.unique(query.labels_N)} & set(model.classes)
    clusters = _clusters(ami_nmi, query_vectors, query.labels_N, section.seed)
    summary = summarise(
        ranking, reference.classes, clusters=clusters, reference_labels=reference.labels_N, resample=section.resample,
        unseen_classes=unseen, **drawn,
    )  # fmt: skip
    summary["data"] = {"reference": reference.source, "query": query.source, "same": same,
                       "query_classes_unseen_in_training": unseen}  # fmt: skip
    told = summarise_trials(collect_trials(*compared, same=same, seed=section.seed), **drawn)
    return ranking, summary | told, told


def _evaluation_page(
    folder: Path, summary: Mapping[str, Any], ranking: Any, query: ImageSet, query_vectors: np.ndarray,
    reference: ImageSet, reference_vectors: np.ndarray, model: OpenModel, why: Any,
) -> list[Path]:  # fmt: skip
    from unalike.measure.insight_page import Shown, write_evaluation_page

    asks = (
        f"{len(query):,} queries" if ranking.same else f"{len(query):,} queries against {len(reference):,} references"
    )
    return write_evaluation_page(
        folder, summary, ranking,
        Shown(query_vectors, query.labels_N, query.classes, query.paths),
        Shown(reference_vectors, reference.labels_N, reference.classes, reference.paths),
        title=f"Evaluation of {model.source.name}",
        subtitle=f"{asks} of {len(np.unique(query.labels_N)):,} classes; {redact(query.source)}",
        reasons=why,
    )  # fmt: skip


def _clusters(ami_nmi: Any, vectors: np.ndarray, labels: np.ndarray, seed: int) -> Any:
    try:
        return ami_nmi(vectors, labels, seed=seed)
    except UnalikeError as error:  # scikit-learn is not part of the deployed recogniser
        say(f"AMI and NMI are left out: {error}")
        return None


def input_images(experiment: Any, notices: Notices) -> ImageSet:
    """The images of ``inference.input_path``. Raises SpecError and DataError."""
    section = experiment.inference
    if not section.input_path:
        raise SpecError("inference.input_path is not set", expected="an image, a folder or an archive")
    kind, path = section.inference_input_type, Path(str(section.input_path))
    if kind == "image" and path.is_dir():
        raise DataError(f"inference.input_path: {path} is a folder", expected="one image file",
                        remedy="set inference.inference_input_type=image_folder")  # fmt: skip
    # Labels are not used, so every image below the folder counts, wherever it lies.
    images = load_for(experiment, section.input_path, notices, labelled=False)
    if len(images) == 0:
        raise DataError(f"inference.input_path: {path} holds no images")
    return images


def run_inference(experiment: Any, run: Any) -> Mapping[str, Any]:
    """Write ``result.csv`` as TAO does and ``result.jsonl`` with neighbours, one line an input image."""
    from unalike.measure.nearest import top_k, unit

    section, notices = experiment.inference, Notices()
    source = _named_model(section, "inference")
    query = input_images(experiment, notices)
    named = experiment.dataset.val_dataset
    if named is None or not named.reference:
        raise SpecError("dataset.val_dataset.reference is not set", expected="the labelled images to compare with")
    reference = load_for(experiment, named.reference, notices)
    models = _load_for(experiment, section, "inference", source, len({*reference.paths, *query.paths}))
    reference, reference_vectors, query, query_vectors = _two_sets(
        models, reference, query, experiment, _batch_size(experiment, "inference"), notices
    )
    notices.say()
    notices.write(run.dir / "notices.txt")
    k = min(section.topk, len(reference))
    scores_QK, index_QK = top_k(unit(query_vectors), unit(reference_vectors), k)
    _write_results(run.dir, query, reference, scores_QK, index_QK, "trt_result" if section.trt_engine else "result")
    run.own(run.dir / "trt_result.csv", run.dir / "trt_result.jsonl")
    if section.explain:
        from unalike.explanations import explain_matches

        explain_matches(run.dir / "explain", models[0], query, reference, index_QK[:, 0])
    run.record(device=[model.engine.describe() for model in models], data=query.fingerprint())
    return {"images": len(query), "references": len(reference), "topk": k}


def _write_results(
    folder: Path,
    query: ImageSet,
    reference: ImageSet,
    scores_QK: np.ndarray,
    index_QK: np.ndarray,
    stem: str = "result",
) -> None:
    # Names that are not UTF-8 keep their bytes in the table; JSON stays valid UTF-8 and gives them back as escapes.
    # squared L2 distance of unit vectors: |a - b|^2 = 2 - 2 a.b
    distance_QK = np.maximum(2.0 - 2.0 * scores_QK.astype(np.float64), 0.0)
    names = reference.names()
    with (
        replacing(folder / f"{stem}.csv") as table_file,
        replacing(folder / f"{stem}.jsonl") as lines_file,
        table_file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as table,
        lines_file.open("w", encoding="utf-8", errors="backslashreplace") as lines,
    ):
        writer = csv.writer(table)
        for path, indices, distances, scores in zip(query.paths, index_QK, distance_QK, scores_QK, strict=True):
            labels = [names[i] for i in indices]
            writer.writerow([str(path), labels, [float(d) for d in distances]])
            neighbours = [
                {"label": name, "distance": round(float(d), 6), "score": round(float(s), 6), "reference": str(reference.paths[i])}
                for name, d, s, i in zip(labels, distances, scores, indices, strict=True)
            ]  # fmt: skip
            lines.write(
                json.dumps({"path": str(path), "label": labels[0], "neighbours": neighbours}, ensure_ascii=False) + "\n"
            )


def _write_json(path: Path, content: Mapping[str, Any]) -> Path:
    from unalike.run import json_text

    write_text(path, json_text(content, indent=1) + "\n")
    return path


def run_embedding(
    source: str | Path, output: Path, checkpoint: str | Path, *, runtime: str, precision: str, labelled: bool
) -> Mapping[str, Any]:  # fmt: skip
    """Vectors of every image of a source, with paths (and labels) beside them; written whole or not at all."""
    frozen = str(checkpoint) == PRETRAINED
    if not frozen:
        present(checkpoint)  # asked before the data, which may be long to list
    notices = Notices()
    images = load_images(source, labelled=labelled, notices=notices)
    if len(images) == 0:
        raise DataError(f"{source} holds no images")
    if frozen:
        model = load_frozen(load_spec("embed"), runtime=runtime, precision=precision, images=len(images))
    else:
        model = open_model(checkpoint, runtime=runtime, precision=precision, images=len(images), quiet=False)
    done = embed_files(model.engine, list(images.paths), model.view, notices=notices, describe="embedding")
    notices.say()
    images = images.select(done.kept_N)
    columns: dict[str, Any] = {"path": [str(p) for p in images.paths]}
    if labelled:
        columns["label"] = list(images.names())
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as partial:
        if output.suffix == ".npz":
            arrays: dict[str, Any] = {k: np.array(v) for k, v in columns.items()}
            np.savez_compressed(partial, vectors=done.vectors_ND, **arrays)
        else:
            _write_parquet(partial, columns, done.vectors_ND)
    return {"images": len(images), "dim": int(done.vectors_ND.shape[1])}


def _write_parquet(path: Path, columns: Mapping[str, Any], vectors_ND: np.ndarray) -> None:
    from unalike.errors import missing_extra

    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet", "writing .parquet") from error
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.reshape(-1)), vectors_ND.shape[1])
    pq.write_table(pa.table({**{k: pa.array(v) for k, v in columns.items()}, "vector": vectors}), path)


def run_export(experiment: Any, run: Any) -> tuple[Path, Mapping[str, Any]]:
    """Write ONNX beside its proof; the path and the parity's figures."""
    from unalike.deploy.onnx_export import export_onnx
    from unalike.deploy.parity import IMAGES
    from unalike.model.checkpoint import load_embedder
    from unalike.spec import settle

    section = experiment.export
    embedder, meta = load_embedder(section.checkpoint)
    facts = meta["facts"]
    view = View.from_dict(facts["view"])
    refuse_contradictions(experiment, Path(section.checkpoint), view=view, dim=embedder.dim, trunk=facts["trunk"],
                          mean=facts["mean"], std=facts["std"])  # fmt: skip
    path = Path(section.onnx_file) if section.onnx_file else run.dir / f"{Path(section.checkpoint).stem}.onnx"
    if path.exists():
        raise RunError(
            f"export.onnx_file: {path} exists", expected="a new file", remedy="choose another name or delete it"
        )
    count = max(section.parity_images, IMAGES)
    embedder.to(export_device(experiment))
    exported = export_onnx(
        embedder, path, view=view, mean=tuple(facts["mean"]), std=tuple(facts["std"]),
        images_NHWC=_parity_images(experiment, meta, view, count), preprocessing=section.preprocessing,
        unit_length=section.unit_length, batch_size=section.batch_size,
        opset=section.opset_version if experiment.is_set("export.opset_version") else None,
        metadata={"classes": list(meta["classes"]), "trunk": facts["trunk"], "licence": facts["licence"],
                  "name": experiment.model_name or facts.get("name")},
    )  # fmt: skip
    settle(experiment, "export.opset_version", exported.opset, "the exporter's own")
    run.write_experiment(experiment)
    say(f"{path}: opset {exported.opset}, input {exported.facts.preprocessing}, dim {exported.facts.dim}")
    if section.verbose:
        say(f"graph: {exported.graph}")
    figures = {"opset": exported.opset, **exported.parity.to_dict()}
    run.own(path)
    run.record(parity=figures, onnx=str(path))
    return path, figures


def export_device(experiment: Any) -> str:
    """Where the trained network runs in the comparison: ``export.gpu_id``, or the CPU. DeviceError for a GPU not there."""
    import torch

    section = experiment.export
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if section.on_cpu or there == 0:
        if section.gpu_id and not section.on_cpu:
            say(f"export.gpu_id: {section.gpu_id}, no GPU here: running on the CPU")
        return "cpu"
    if section.gpu_id >= there:
        raise DeviceError(f"export.gpu_id is {section.gpu_id}", expected=f"one of the {there} GPUs of this machine, "
                          "counted from 0", remedy="change it or set export.on_cpu=true")  # fmt: skip
    return f"cuda:{section.gpu_id}"


def _parity_images(experiment: Any, meta: Mapping[str, Any], view: View, count: int) -> np.ndarray:
    """Real images to compare on: of the spec's data, else of the data that the checkpoint was trained on."""
    val = experiment.dataset.val_dataset
    kept = meta["spec"]["dataset"]
    sources = [val.query if val else None, val.reference if val else None, experiment.dataset.train_dataset]
    sources.append(kept.get("train_dataset"))
    for source in filter(None, sources):
        try:
            images = load_for(experiment, source, Notices(), labelled=False)
        except DataError as error:
            say(f"parity images: {error}")
            continue
        step = max(1, len(images) // count)
        views = []
        for path in images.paths[::step]:
            try:
                views.append(view(path))
            except UnreadableImage:
                continue
            if len(views) == count:
                break
        if views:
            return np.stack(views)
    raise ExportError("no images to compare the exported network on", expected="dataset.train_dataset or dataset."
                      "val_dataset.query to hold some", remedy="set dataset.train_dataset=DIR")  # fmt: skip
