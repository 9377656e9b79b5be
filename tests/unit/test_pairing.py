"""Every module has a test file of its own, or stands in a table with the test files that exercise it."""

from __future__ import annotations

from pathlib import Path

import unalike

SOURCE = Path(unalike.__file__).parent
UNIT = Path(__file__).parent
TESTS = UNIT.parent
# Tests of the package as a whole, or of a package's front, instead of one module.
WHOLE_PACKAGE = {
    "test_layers",
    "test_benchmark_suite",
    "test_benchmark_logistic_heads",
    "test_benchmark_open_set_scores",
    "test_benchmark_more_time",
    "test_benchmark_drawn_sets",
    "test_benchmark_suite_recognition",
    "test_benchmark_gpu",
    "test_docs",
    "test_repository",
    "test_start_up",
    "test_variable_names",
    "test_contributing",
    "test_deployment",
    "test_pairing",
    "test_remedies",
    "cli/test_cli",
    "spec/test_leaves",
}

INT8, TENSORRT = "unit/deploy/quantization/test_int8.py", "unit/deploy/test_tensorrt_build.py"
ACTIONS, SEARCHING, UNLABELED = "flow/test_actions.py", "flow/test_searching.py", "flow/test_unlabeled.py"
AUTOMATIC, WORKSPACE, FIELDS = "flow/test_automatic.py", "unit/jobs/test_workspace.py", "contract/test_tao_fields.py"
CLI, OPTIONS, SPECS = "unit/cli/test_cli.py", "unit/cli/test_section_options.py", "unit/spec/test_load.py"
SECTIONS, LOOP, SKILL = "unit/spec/test_actions.py", "unit/training/test_loop.py", "unit/actions/test_skill.py"

# Module without a test file of its own -> the test files that exercise it.
COVERED_BY: dict[str, tuple[str, ...]] = {
    # Start of the program and the public names: every flow test runs the first, and tests that call `unalike.train` use the second.
    "__main__": (CLI, "unit/test_start_up.py"),
    "api": ("contract/test_tao_user.py",),
    "errors": ("unit/test_sanitize.py", SPECS),
    "progress": (CLI, "contract/test_tao_user.py"),
    "recognition.backends.measured_index": ("unit/recognition/backends/test_hnsw_index.py", "unit/recognition/backends/test_milvus_index.py"),
    "recognition.augmented_views": ("unit/recognition/test_operating_point.py",),
    "recognition.training_trials": ("unit/recognition/test_operating_point.py",),
    "recognition.report": ("unit/actions/test_gallery.py",),
    "training.history": (LOOP, "unit/training/test_report.py"),
    "runs.record": ("unit/runs/test_run.py",),
    "runs.vector_folder": ("unit/inference/shards/test_vector_set.py",),
    "runs.written_model": (CLI, WORKSPACE),
    # Commands: arguments and calls only. Their tests run the command line.
    **dict.fromkeys(("cli.commands", "cli.positionals", "cli.next_steps", "cli.shared_options", "cli.output", "cli.specs"), (CLI,)),
    **dict.fromkeys(("cli.benchmark", "cli.compare", "cli.discover", "cli.distill", "cli.embed", "cli.inspect", "cli.verify"), (OPTIONS,)),
    "cli.gallery": ("unit/actions/test_gallery.py", OPTIONS),
    "cli.identify": ("unit/actions/test_gallery.py",),
    "cli.deploy": (INT8, "unit/inference/test_feature_map_model.py"),
    "cli.model_commands": (ACTIONS,),
    "cli.skill": (SKILL,),
    "cli.trunks": ("unit/actions/test_trunks.py", "flow/test_trunks.py"),
    "cli.jobs": (WORKSPACE, "flow/test_workflow.py"),
    "cli.child_process": (WORKSPACE, "flow/test_job_kills.py", SEARCHING),
    "cli.automl": (SEARCHING,),
    "client.answers": ("unit/client/test_calls.py", "unit/client/test_sync.py"),
    "cli.serve": (OPTIONS, "flow/test_serving.py"),
    "cli.improve": (OPTIONS, "unit/serve/learning/test_improvement.py"),
    "spec.improve": (OPTIONS, SECTIONS),
    **dict.fromkeys(("serve.answers", "serve.documents"), ("unit/serve/test_app.py", "unit/serve/routes/test_recognition.py")),
    "serve.changes": ("unit/serve/routes/test_references.py", "unit/serve/routes/test_classes.py"),
    "serve.server": ("flow/test_serving.py",),
    "spec.serve": (OPTIONS, "flow/test_serving.py"),
    # Actions join features with files; tests of whole runs check what they write.
    **dict.fromkeys(("actions.embed", "actions.evaluate", "actions.export", "actions.inference"), (ACTIONS,)),
    **dict.fromkeys(("actions.check", "actions.check_findings"), (CLI, "contract/test_tao_user.py")),
    "actions.convert": ("unit/model/test_tao_checkpoint.py",),
    "actions.demo": ("flow/test_demo.py",),
    **dict.fromkeys(("actions.engines", "actions.quantize"), (INT8,)),
    **dict.fromkeys(("actions.distill", "training.distillation.pipeline"), ("flow/test_distilling.py",)),
    "actions.explain": ("unit/explanation/test_explainer.py",),
    "actions.model_from_spec": (ACTIONS,),
    "actions.spec_resolution": ("unit/actions/test_inspect.py", SECTIONS),
    "actions.result": ("unit/actions/test_benchmark.py", ACTIONS),
    "actions.results_folder": ("unit/actions/test_compare.py", "unit/actions/test_discover.py"),
    "actions.spec_template": (SKILL, CLI),
    "actions.verify": (OPTIONS, "flow/test_verifying.py"),
    # Migrations are run, never imported.
    **dict.fromkeys(
        ("serve.store.migrations.env", *(f"serve.store.migrations.versions.{name}" for name in ("v0001_first_tables", "v0002_galleries", "v0003_sessions", "v0004_work", "v0005_learning", "v0006_reviews_and_settings", "v0007_tasks", "v0008_shadows", "v0009_file_names"))), ("unit/serve/store/test_migration.py",)
    ),
    # Readers of folders and tables are reached through image sets.
    "data.folders": ("unit/data/test_imageset.py",),
    # Quantization is one pipeline: its parts are tested on the same quantized networks.
    **dict.fromkeys(
        (
            "deploy.engine_build", "deploy.conversion_inputs", "deploy.cpu_compile",
            *(f"deploy.quantization.{name}" for name in ("bias_correction", "pipeline", "sensitivity")),
        ),
        (INT8,),
    ),
    **dict.fromkeys(
        [f"deploy.quantization.{name}" for name in ("accuracy_table", "activation_ranges", "half_precision", "mixed_precision")],
        (INT8, "unit/engines/test_openvino_precision.py"),
    ),
    "deploy.feature_map_export": ("unit/inference/test_feature_map_model.py",),
    "deploy.onnx_graph": (INT8, TENSORRT),
    **dict.fromkeys(("deploy.opset_downgrade", "deploy.parity"), ("unit/deploy/test_onnx_export.py",)),
    "discovery.naming_pages": ("unit/actions/test_name_groups.py",),
    "discovery.report": ("unit/actions/test_discover.py",),
    # Engines share one conformance test of their interface.
    **dict.fromkeys(
        ("engines.onnx_engine", "engines.torch_engine", "engines.metadata"),
        ("unit/engines/test_protocol.py",),
    ),
    "engines.normalization": (INT8,),
    **dict.fromkeys(("engines.cuda_memory", "engines.tensorrt_engine"), (TENSORRT,)),  # with a stand-in: no GPU
    "explanation.class_activation": ("unit/explanation/test_explainer.py",),
    "explanation.pictures": ("unit/explanation/test_evidence.py",),
    # Parts of fitting an inspector, tested by what it decides.
    **dict.fromkeys(
        ("inspection.cross_validation", "inspection.few_shot", "inspection.result"), ("unit/inspection/test_inspector.py",)
    ),
    "inspection.report": ("unit/actions/test_inspect.py", "flow/test_inspecting.py"),
    # The workspace is the interface of all jobs; its tests go through database, queue and schedulers.
    **dict.fromkeys(
        [
            f"jobs.{name}"
            for name in (
                "command", "database", "gpu_queue", "job_spec", "kubernetes", "outputs", "parent_fields", "reconcile",
                "schedulers",
            )
        ],
        (WORKSPACE,),
    ),
    "jobs.attempt": ("unit/jobs/test_supervisor.py", WORKSPACE),
    "jobs.runner": (WORKSPACE, "flow/test_job_kills.py"),
    "jobs.search_trials": ("flow/test_workflow.py",),
    "jobs.tao_layout": ("flow/test_workflow.py", SKILL),
    "numerics.covariance": ("unit/training/heads/test_discriminant.py",),
    "metrics.labels": ("unit/metrics/test_retrieval.py",),
    "metrics.open_set": ("unit/metrics/test_roc.py",),
    **dict.fromkeys(("model.dinov2", "model.timm_import"), ("unit/model/test_backbones.py",)),
    **dict.fromkeys(("model.feature_maps", "model.frozen_trunk"), ("unit/inference/test_feature_map_model.py",)),
    "recognition.decision": ("unit/recognition/test_gallery_calibration.py",),
    "recognition.snapshot": ("unit/recognition/test_gallery.py",),
    "recognition.backends.protocol": ("unit/recognition/backends/test_conformance.py",),
    **dict.fromkeys(
        ("recognition.backends.postgres_change", "recognition.backends.postgres_view"),
        ("unit/recognition/backends/test_pgvector.py",),
    ),
    **dict.fromkeys(
        [f"recognition.backends.{name}" for name in ("milvus_view", "milvus_publication")],
        ("unit/recognition/backends/test_milvus.py",),
    ),
    "recognition.backends.database_gallery": ("unit/recognition/backends/test_pgvector.py", "unit/recognition/backends/test_milvus.py"),
    "recognition.backends.neighbor_rows": ("unit/recognition/backends/test_pgvector.py", "unit/recognition/backends/test_milvus.py"),
    **dict.fromkeys(
        [f"runs.{name}" for name in ("environment", "failures", "folder", "lock")], ("unit/runs/test_run.py",)
    ),
    # Sections of the spec are declarations: one test holds TAO's fields and bounds, one the sections of our own actions.
    **dict.fromkeys(
        [
            f"spec.{name}"
            for name in (
                "automl", "dataset", "evaluate", "export", "gen_trt_engine", "inference", "model", "optim", "retrieval",
                "train", "wandb", "mlflow",
            )
        ],
        (FIELDS, SPECS),
    ),
    **dict.fromkeys([f"spec.{name}" for name in ("benchmark", "compare", "demo", "discover", "distill", "embed", "export_maps", "gallery", "ignored_regions", "inspect", "verify")], (SECTIONS,)),
    **dict.fromkeys(("spec.gen_engine", "spec.quantize"), (SKILL, INT8)),
    **dict.fromkeys([f"spec.{name}" for name in ("conditions", "experiment", "faults", "overrides", "reading", "shorthand")], (SPECS,)),
    "spec.declare": (SECTIONS, SPECS),
    **dict.fromkeys(("spec.fields", "spec.nodes"), (SECTIONS, FIELDS)),
    "spec.ranges": ("contract/test_automl_faults.py", FIELDS),
    "spec.value_schemas": ("unit/spec/test_schema.py",),
    "spec.tao": ("contract/test_tao_specs.py",),
    "spec.template": (SKILL,),
    "model.weight_files": ("unit/model/test_weights.py",),
    "storage.filesystems": ("unit/storage/test_fetch.py",),
    # Training without labels, and what automatic training delivers, need a training that really runs.
    **dict.fromkeys(
        [f"training.automatic.{name}" for name in ("group_holdout", "group_tuning", "unlabeled")], (UNLABELED,)
    ),
    "training.devices": (LOOP,),
    "training.setup": (ACTIONS,),
    "training.trainer": (LOOP, ACTIONS),
    "training.ema": ("unit/training/test_freezing.py",),
    "training.head_fitting": ("flow/test_fitted.py",),
    "training.model_card_content": (ACTIONS,),
    "training.recipe": ("contract/test_tao_user.py",),
    "training.hyperparameter_search.results": ("unit/training/hyperparameter_search/test_search.py",),
}  # fmt: skip
# Reached by whole runs alone: actions.demo, actions.embed, actions.evaluate, actions.export, actions.inference,
# actions.model_from_spec, cli.automl, cli.model_commands, jobs.search_trials,
# training.automatic.group_holdout, .group_tuning and .unlabeled, training.head_fitting, training.model_card_content,
# training.setup.


def modules() -> set[str]:
    """Dotted names of all modules below ``unalike``; a package's ``__init__`` only exports names of its modules."""
    paths = (path for path in SOURCE.rglob("*.py") if path.name != "__init__.py")
    return {".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in paths}


def unit_test_of(module: str) -> Path:
    """Path of the test file of a module."""
    *packages, name = module.split(".")
    return UNIT.joinpath(*packages, f"test_{name}.py")


def test_every_module_has_a_test_file_or_stands_in_the_table() -> None:
    missing = [name for name in modules() if not unit_test_of(name).exists() and name not in COVERED_BY]
    assert not missing, f"without a test: {', '.join(sorted(missing))}"


def test_the_table_names_modules_without_a_test_file_of_their_own() -> None:
    assert not sorted(COVERED_BY.keys() - modules()), "no such module"
    assert not sorted(name for name in COVERED_BY if unit_test_of(name).exists()), "has a test file of its own"


def test_the_table_names_test_files_that_exist() -> None:
    files = {file for row in COVERED_BY.values() for file in row}
    assert all(COVERED_BY.values())
    assert not sorted(file for file in files if not (TESTS / file).is_file())


def test_every_unit_test_belongs_to_a_module() -> None:
    expected = {unit_test_of(name) for name in modules()} | {UNIT / f"{name}.py" for name in WHOLE_PACKAGE}
    assert not sorted(str(path.relative_to(UNIT)) for path in set(UNIT.rglob("test_*.py")) - expected)
