"""The rule by which automatic training chooses among its candidates, and why each of the others lost.

R@1 decides, the share of images that get the right name: candidates within one standard error of the highest count as equal
(the one-standard-error rule: L. Breiman et al., Classification and Regression Trees, 1984, section 3.4.3), and among these
MAP@R decides. The standard error is that of the paired difference over images.

Held-out images hardly tell at which size of the images a fine-tuned network is better. R@1 was higher at the next larger size on each
of four development sets, on none by more than chance (docs/experiments/automatic-training.md, 2026-12-01): where it counts as
equal, it is preferred to the size of fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence

from unalike.progress import say
from unalike.report.sentences import whole_bounds
from unalike.training.automatic.final_choice import FINE_TUNED, INTERPOLATED, Candidate
from unalike.training.automatic.holdout_result import (
    EXPECTED_IMAGES,
    KIND_NAMES,
    HoldoutResult,
    describe_counts,
)

RULE = "highest R@1; candidates within one standard error of it count as equal, and the highest MAP@R among these is delivered; a fine-tuned network at the next larger size of images, if that counts as equal"


def select_best(candidates: Sequence[Candidate], goal: str) -> Candidate:
    """Return the candidate to deliver; final weights only if significantly better than interpolated ones.

    On photographs of other origin the interpolated network was better each time (docs/experiments/new-classes.md), while the
    held-out images are few and similar to the training images. Of equal candidates the user's own network is chosen, then
    the earlier one.

    Args:
        candidates: at least one; all were evaluated on the same queries.
        goal: a key of ``holdout.GOALS``.
    """
    eligible = [c for c in candidates if not _is_unproven(c, candidates, goal)]
    highest = _highest_at_1(eligible, goal)
    equal = [c for c in eligible if _equals(c, highest, goal)]
    best = max(equal, key=lambda c: (c.result.mean("MAP@R", goal), c.given is not None))
    return next((c for c in equal if c.is_larger), best) if best.name == INTERPOLATED else best


def _highest_at_1(candidates: Sequence[Candidate], goal: str) -> Candidate:
    return max(candidates, key=lambda c: c.result.mean("R@1", goal))


def _equals(candidate: Candidate, highest: Candidate, goal: str) -> bool:
    """Whether R@1 is within one standard error of that of the highest."""
    difference, error = candidate.result.difference(highest.result, "R@1", goal)
    return difference + error >= 0


def _is_unproven(candidate: Candidate, candidates: Sequence[Candidate], goal: str) -> bool:
    """Whether it has the final weights of fine-tuning, and these are not significantly better than interpolated ones."""
    interpolated = next((c for c in candidates if c.name == INTERPOLATED), None)
    return (
        candidate.name == FINE_TUNED
        and interpolated is not None
        and not candidate.result.significantly_better(interpolated.result, goal)
    )


def explain_choice(candidates: Sequence[Candidate], best: Candidate, goal: str) -> dict[str, str]:
    """Say of each candidate why it was chosen or why it lost.

    Args:
        candidates: all of them.
        best: the result of ``select_best``.
        goal: a key of ``holdout.GOALS``.

    Returns:
        A sentence by name of the candidate.
    """
    eligible = [c for c in candidates if not _is_unproven(c, candidates, goal)]
    highest = _highest_at_1(eligible, goal)
    best_at_r = max((c for c in eligible if _equals(c, highest, goal)), key=lambda c: c.result.mean("MAP@R", goal))
    reasons = {}
    for c in candidates:
        change, error = c.result.difference(best.result, "R@1", goal)
        if c is best:
            reasons[c.name] = _explain_best(c, highest, best_at_r)
        elif c not in eligible:
            reasons[c.name] = (
                "not clearly better than the interpolated weights, which hold better on images of other origin"
            )
        elif not _equals(c, highest, goal):
            reasons[c.name] = f"R@1 lower by {-change:.3f} (standard error {error:.3f})" if c is not highest else ""
        else:
            lower = best_at_r.result.mean("MAP@R", goal) - c.result.mean("MAP@R", goal)
            reasons[c.name] = f"R@1 equal within one standard error ({change:+.3f}), " + (
                "and the next larger size is preferred" if c is best_at_r else f"MAP@R lower by {lower:.3f}")  # fmt: skip
    return reasons


def _explain_best(best: Candidate, highest: Candidate, best_at_r: Candidate) -> str:
    """Why a candidate is delivered.

    Args:
        best: the delivered one.
        highest: that of the highest R@1.
        best_at_r: that of the highest MAP@R among those that count as equal.
    """
    if best_at_r.name == INTERPOLATED and best.is_larger:
        return "equal to the size of fine-tuning within one standard error of R@1; on four other sets R@1 was higher at a larger size"
    if best is highest:
        return "highest R@1"
    return f"R@1 within one standard error of the highest ({highest.name}), and the highest MAP@R of those that are"


def log_choice(candidates: Sequence[Candidate], best: Candidate, goal: str) -> None:
    """Print what was measured, a line per candidate with the reason, and what is expected on new images.

    Args:
        candidates: all of them; the first one is the frozen trunk.
        best: the chosen one.
        goal: a key of ``holdout.GOALS``.
    """
    counts = best.result.counts()
    say(
        "measured on held-out images: " + "; ".join(f"{KIND_NAMES[k]}: {describe_counts(n)}" for k, n in counts.items())
    )
    reasons = explain_choice(candidates, best, goal)
    for c in candidates:
        text = "; ".join(f"{KIND_NAMES[kind]}: " + ", ".join(f"{name} {value}" for name, value in metrics.items())
                         for kind, metrics in c.result.metrics().items())  # fmt: skip
        say(f"{'-> ' if c is best else '   '}{c.name}: {text}")
        say(f"      {'delivered' if c is best else 'not delivered'}: {reasons[c.name]}")
    if best is candidates[0]:
        say("no candidate is better than the frozen trunk, so it is delivered unchanged")
    if text := describe_expected(best.result):
        say(text)


def describe_expected(result: HoldoutResult) -> str:
    """Say which R@1 to expect on new images of known classes; empty where that was not measured.

    Args:
        result: results of the delivered candidate.
    """
    kinds, interval = result.counts(), result.expected().get("R@1")
    if "known" not in kinds:
        return ""
    images, classes = kinds["known"]["images"], kinds["known"]["classes"]
    if interval is None:
        return f"expected R@1 on {EXPECTED_IMAGES} new images of these classes: too few to say ({images} images of {classes} classes)"
    low, high = (bound / EXPECTED_IMAGES for bound in whole_bounds(interval, EXPECTED_IMAGES))
    text = f"expected R@1 on {EXPECTED_IMAGES} new images of these classes: {low:.2f} to {high:.2f}"
    if "same" in kinds:
        text += "; low where they are taken elsewhere or on another day, high where they are taken like those here"
    return text


def metrics_of(best: Candidate, baseline: Candidate) -> dict[str, float]:
    """Return the metrics of the best candidate by name, with those of the frozen trunk.

    Args:
        best: the best candidate.
        baseline: the frozen trunk.
    """
    metrics, frozen = {}, baseline.result.metrics()
    for kind, row in best.result.metrics().items():
        for name, value in row.items():
            metrics[f"{KIND_NAMES[kind]} {name}"] = value.value
            metrics[f"{KIND_NAMES[kind]} {name} frozen"] = frozen[kind][name].value
    return metrics
