"""Section ``evaluate``: what is measured and how surely."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge

from unalike.spec.declare import Text, field
from unalike.spec.retrieval import Retrieval


class Evaluate(Retrieval):
    report_accuracy_per_class: bool = field(True, "Write accuracy class by class too.")
    ks: list[Annotated[int, Ge(1)]] = field(
        [1, 5, 10], "Recall is reported among this many nearest.", min_length=1, ours=True, automl_enabled=False
    )
    bootstrap: int = field(
        1000,
        "0 leaves the intervals out; other values act alike, since nothing is resampled.",
        ge=0,
        le=1_000_000,
        ours=True,
    )
    confidence: float = field(0.95, "Confidence of the intervals.", gt=0, lt=1, ours=True)
    resample: Literal["auto", "queries", "classes"] = field(
        "auto",
        "What intervals are about: classes (further classes like these), queries (further images of these classes), or "
        "auto: classes where there are 10 or more, else queries.",
        ours=True,
    )
    seed: int = field(0, "Seed of the resampling and of k-means.", ge=0, le=2**32 - 1, ours=True)
    explain: int = field(
        0, "So many of the worst misses are explained: pictures, JSON and one HTML file.", ge=0, le=10_000, ours=True
    )
    cluster: Literal["local", "ray"] = field(
        "local", "Who ranks the references for the queries: this machine, or a Ray cluster.", ours=True
    )
    address: Text = field(
        None, "Address of the Ray cluster; unset starts one on this machine. It gets the vectors from here.", ours=True
    )
    workers: int | None = field(
        None, "Tasks of the Ray cluster at a time, of one core each; unset means as many as it has cores.", ge=1, le=10_000,
        ours=True,
    )  # fmt: skip
