"""The public names of the package and the modules that define them; each is imported when it is first used."""

from __future__ import annotations

PUBLIC_NAMES = {
    "AsyncClient": "unalike.client.asynchronous",
    "Client": "unalike.client.sync",
    "Comparer": "unalike.comparison.comparer",
    "Explainer": "unalike.explanation.explainer",
    "Inspector": "unalike.inspection.inspector",
    "Recogniser": "unalike.recognition.recognizer",
    "Result": "unalike.actions.result",
    "UnalikeError": "unalike.errors",
    "Verifier": "unalike.verification.verifier",
    "bench_engine": "unalike.actions.benchmark",
    "check": "unalike.actions.check",
    "convert": "unalike.actions.convert",
    "discover": "unalike.actions.discover",
    "distill": "unalike.actions.distill",
    "embed": "unalike.actions.embed",
    "evaluate": "unalike.actions.evaluate",
    "export": "unalike.actions.export",
    "export_maps": "unalike.actions.export",
    "gen_engine": "unalike.actions.engines",
    "gen_trt_engine": "unalike.actions.engines",
    "infer": "unalike.actions.inference",
    "quantize": "unalike.actions.quantize",
    "train": "unalike.actions.train",
}
