"""Slow, obvious versions of what the package computes fast; tests compare the two."""

from __future__ import annotations

import math


def cosine(a, b) -> float:
    """Plain double precision; 0 when either vector is zero."""
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    lengths = math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(x) ** 2 for x in b))
    return dot / lengths if lengths else 0.0


def ranked(query, references, skip: int | None = None) -> list[int]:
    """Reference numbers by descending cosine, the lower number first when equal, without ``skip``."""
    scores = [round(cosine(query, reference), 12) for reference in references]
    return sorted((i for i in range(len(references)) if i != skip), key=lambda i: (-scores[i], i))


def ranking_metrics(queries, labels, references, reference_labels, *, ks=(1, 5, 10), same=False) -> list[dict]:
    """For every query its metrics by definition (None when its class has no other reference)."""
    counts = [sum(1 for r in reference_labels if r == label) - int(same) for label in labels]
    depth = max(counts)
    results = []
    for number, (query, label, count) in enumerate(zip(queries, labels, counts, strict=True)):
        order = ranked(query, references, number if same else None)
        row = {"nearest": order[0], "predicted": reference_labels[order[0]], "relevant": count}
        if count == 0:
            results.append({**row, "open_set": True})
            continue
        right = [reference_labels[i] == label for i in order]
        row |= {"open_set": False, "precision_at_1": float(right[0]), "r_precision": sum(right[:count]) / count}
        row["average_precision_at_r"] = sum(sum(right[:r]) / r for r in range(1, count + 1) if right[r - 1]) / count
        row["average_precision"] = sum(sum(right[:r]) / r for r in range(1, depth + 1) if right[r - 1]) / count
        first = right.index(True) + 1
        row["reciprocal_rank"] = 1 / first if first <= depth else 0.0
        row |= {f"recall_at_{k}": float(first <= k) for k in ks}
        results.append(row)
    return results
