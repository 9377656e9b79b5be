"""What a service did lately, for people: counts, scores against those of the references, times, and alarms by stated rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from unalike.metrics.intervals import wilson_interval
from unalike.recognition.decision import AMBIGUOUS, LABEL, UNKNOWN
from unalike.recognition.score_baseline import ScoreBaseline
from unalike.serve.metrics import Metrics
from unalike.serve.store import Store
from unalike.serve.store.records import utc_now
from unalike.serve.store.statistics import BINS

# Range -> (its length, width of a bucket in seconds).
RANGES = {"hour": (timedelta(hours=1), 300), "day": (timedelta(days=1), 3600), "week": (timedelta(days=7), 6 * 3600)}
DECISIONS = (LABEL, AMBIGUOUS, UNKNOWN)
QUANTILES = (0.5, 0.95, 0.99)
# Alarms: unknown images among the latest ones, labels with scores that few references have, and answers that failed.
LATEST, UNKNOWN_SHARE, MIN_DECISIONS = 200, 0.2, 30
DRIFT_QUANTILE, DRIFT_SHARE, MIN_REFERENCES = 0.1, 0.3, 20
ERROR_SHARE, MIN_REQUESTS = 0.01, 100


@dataclass(frozen=True)
class Share:
    """A share of a number of cases, with its 95 % interval (Wilson); bounds are None without cases."""

    count: int
    total: int
    share: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, count: int, total: int) -> Share:
        """The share of ``count`` among ``total``."""
        if not total:
            return cls(0, 0, None, None, None)
        interval = wilson_interval(count, total)
        return cls(count, total, interval.value, interval.low, interval.high)

    def __str__(self) -> str:
        if self.share is None or self.low is None or self.high is None:
            return "none yet"
        return f"{self.share:.1%} ({self.low:.1%} to {self.high:.1%}) of {self.total}"


@dataclass(frozen=True)
class Alarm:
    """A rule, and whether it is broken.

    Attributes:
        name: what it is about.
        is_on: whether the rule is broken.
        rule: when it is, in words.
        text: what was seen.
        is_measured: whether there is enough to say whether the rule is broken.
    """

    name: str
    is_on: bool
    rule: str
    text: str
    is_measured: bool = True


def read_statistics(
    store: Store, metrics: Metrics, gallery: str, span: str, baseline: ScoreBaseline | None, *, model: str | None = None,
    workers: int = 1, only: bool = False, now: datetime | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What a gallery did in a range of time, as plain data.

    Args:
        store: the decisions.
        metrics: times and answers of this process, or of all that share them.
        gallery: its name.
        span: one of ``RANGES``.
        baseline: scores of its references; None while they are measured.
        model: key of the network that the baseline is of: scores of decisions by others are left out.
        workers: number of processes of the service.
        only: whether nothing about other resources is told.
        now: the present time.
    """
    until = now or utc_now()
    length, bucket_s = RANGES[span]
    since = until - length
    rows = store.statistics.count_by_time(since, until, bucket_s, resource=gallery if only else None)
    latest = store.statistics.latest(gallery, until - RANGES["week"][0], LATEST)
    unknown = Share.of(latest.get(UNKNOWN, 0), sum(latest.values()))
    scores, drift = _read_scores(store, gallery, since, until, baseline, model)
    statuses = metrics.status_counts()
    errors = Share.of(sum(count for status, count in statuses.items() if status >= 500), sum(statuses.values()))
    own = [row for row in rows if row[1:3] == ("identify", gallery)]
    return {
        "gallery": gallery, "range": span, "since": _iso(since), "until": _iso(until), "bucket_s": bucket_s,
        "decisions": _by_bucket(own, since, until, bucket_s), "totals": _totals(own),
        "others": [
            {"kind": kind, "resource": resource, "decision": decision, "count": count}
            for (kind, resource, decision), count in sorted(_sum_others(rows, gallery).items())
        ],
        "feedback": store.statistics.count_verdicts(gallery, since, until), "unknown": asdict(unknown), "scores": scores,
        "latency": _latency(metrics, workers), "requests": {str(status): count for status, count in sorted(statuses.items())},
        "alarms": [asdict(alarm) for alarm in _alarms(unknown, drift, errors)],
    }  # fmt: skip


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _by_bucket(
    rows: list[tuple[datetime, str, str, str, int]], since: datetime, until: datetime, bucket_s: int
) -> list[dict[str, Any]]:
    """Counts of each bucket, those without decisions too."""
    counts: dict[float, Counter[str]] = {}
    for moment, _, _, decision, count in rows:
        counts.setdefault(moment.timestamp(), Counter())[decision] += count
    first, last = (int(moment.timestamp() // bucket_s) for moment in (since, until))
    return [
        {"time": _iso(datetime.fromtimestamp(number * bucket_s, since.tzinfo))}
        | {name: counts.get(number * bucket_s, Counter())[name] for name in DECISIONS}
        for number in range(first, last + 1)
    ]  # fmt: skip


def _totals(rows: list[tuple[datetime, str, str, str, int]]) -> dict[str, int]:
    totals = Counter[str]()
    for _, _, _, decision, count in rows:
        totals[decision] += count
    return {name: totals[name] for name in DECISIONS}


def _sum_others(rows: list[tuple[datetime, str, str, str, int]], gallery: str) -> Counter[tuple[str, str, str]]:
    """Decisions of everything but the gallery."""
    totals = Counter[tuple[str, str, str]]()
    for _, kind, resource, decision, count in rows:
        if (kind, resource) != ("identify", gallery):
            totals[kind, resource, decision] += count
    return totals


def _read_scores(
    store: Store, gallery: str, since: datetime, until: datetime, baseline: ScoreBaseline | None, model: str | None
) -> tuple[dict[str, Any], tuple[Share, float | None]]:
    """Histograms of the scores of labels and of references, and the share of labels whose scores few references have."""
    edges = np.linspace(-1, 1, BINS + 1)
    labels = store.statistics.score_histogram(gallery, LABEL, since, until, model=model)
    reference_scores = np.empty(0) if baseline is None else baseline.known
    bound = float(np.quantile(reference_scores, DRIFT_QUANTILE)) if len(reference_scores) >= MIN_REFERENCES else None
    below = Share.of(*store.statistics.count_below(gallery, LABEL, since, until, bound, model=model)) if bound is not None else Share.of(0, 0)  # fmt: skip
    return {
        "edges": [round(float(edge), 3) for edge in edges], "labels": labels, "labels_n": sum(labels),
        "references": np.histogram(np.clip(reference_scores, -1, 1), edges)[0].tolist(), "references_n": len(reference_scores),
        "is_measured": baseline is not None, "bound": bound, "below": asdict(below),
    }, (below, bound)  # fmt: skip


def _latency(metrics: Metrics, workers: int) -> dict[str, Any]:
    """Times of each stage since the start, in milliseconds."""
    stages = {}
    for stage, times in metrics.stage_times().items():
        quantiles = {f"p{share * 100:g}_ms": times.quantile(share) for share in QUANTILES}
        stages[stage] = {"count": times.count, "mean_ms": _ms(times.mean_s)} | {name: _ms(value) for name, value in quantiles.items()}  # fmt: skip
    return {"processes": workers if metrics.is_shared else 1, "of_processes": workers, "stages": stages}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 2)


def _alarms(unknown: Share, drift: tuple[Share, float | None], errors: Share) -> list[Alarm]:
    below, bound = drift
    return [
        Alarm(
            "unknown images", unknown.total >= MIN_DECISIONS and (unknown.low or 0.0) > UNKNOWN_SHARE,
            f"more than {UNKNOWN_SHARE:.0%} of the last {LATEST} decisions of a week are unknown, by more than chance (95 % interval); it takes at least "
            f"{MIN_DECISIONS} decisions to say so",
            str(unknown), unknown.total >= MIN_DECISIONS,
        ),
        Alarm(
            "score drift", below.total >= MIN_DECISIONS and (below.low or 0.0) > DRIFT_SHARE,
            f"more than {DRIFT_SHARE:.0%} of the labels score lower than {1 - DRIFT_QUANTILE:.0%} of the references do, by more than chance (95 % "
            f"interval); it takes at least {MIN_DECISIONS} labels and {MIN_REFERENCES} references to say so",
            "there are too few references with another one of their class to compare with" if bound is None else f"below {bound:.3f}: {below}",
            bound is not None and below.total >= MIN_DECISIONS,
        ),
        Alarm(
            "errors", errors.total >= MIN_REQUESTS and (errors.low or 0.0) > ERROR_SHARE,
            f"more than {ERROR_SHARE:.0%} of the requests since the start failed (status 500 and above), by more than chance (95 % interval); it takes at "
            f"least {MIN_REQUESTS} requests to say so",
            str(errors), errors.total >= MIN_REQUESTS,
        ),
    ]  # fmt: skip


def rates(document: Mapping[str, Any], decision: str) -> list[tuple[float, float]]:
    """The points of a line: hours from the end of the range (0 and below), and decisions an hour."""
    until = datetime.fromisoformat(document["until"])
    return [
        ((datetime.fromisoformat(entry["time"]) - until).total_seconds() / 3600, entry[decision] * 3600 / document["bucket_s"])
        for entry in document["decisions"]
    ]  # fmt: skip
