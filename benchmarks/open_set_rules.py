"""Scoring rules that `open_set_scores.py` compares: how sure an answer is, from cosines to the references of a gallery.

A rule gives every query its best class and a score; nothing but the gallery's own references (and, for the rules of a cohort
of training images, vectors that training could keep) takes part. Terms: Auckenthaler, Carey and Lloyd-Thomas, "Score normalization for
text-independent speaker verification systems" (2000) for Z- and T-norm; Matejka et al., "Analysis of score normalization in multilingual
speaker recognition" (2017) for adaptive S-norm.

Shape letters: R references, Q queries, C classes of the gallery, M cohort vectors, D dimensions, F figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

NONE = -np.inf  # the cosine to a class that a query is not compared with


@dataclass(frozen=True)
class ClassCosines:
    """Cosines of queries to each class of a gallery; NONE where a query is not compared with the class.

    Attributes:
        best_QC: To the nearest reference.
        two_QC, three_QC: Mean of those to the two and three nearest references, of fewer where the class has fewer.
        mean_QC: To the normalized mean of the references.
        cohort_QM: To the cohort, sorted, the highest first; without columns where there is none.
    """

    best_QC: np.ndarray
    two_QC: np.ndarray
    three_QC: np.ndarray
    mean_QC: np.ndarray
    cohort_QM: np.ndarray

    def without(self, code_Q: np.ndarray) -> ClassCosines:
        """The same with each query not compared with one class."""
        arrays = [getattr(self, name).copy() for name in ("best_QC", "two_QC", "three_QC", "mean_QC")]
        for array in arrays:
            array[np.arange(len(array)), code_Q] = NONE
        return ClassCosines(*arrays, self.cohort_QM)


@dataclass(frozen=True)
class EnrolledClasses:
    """A gallery's references, and what its own images tell of its classes.

    Attributes:
        vectors_RD, code_R, series_R: The references, of unit length, with class and series.
        cohort_MD: Vectors of a cohort.
        foreign: References compared with the other classes.
        again: References compared with all classes, their own without their series (or, where it is the only one, the image).
        has_other_R: Whether there is such another reference of the own class.
    """

    vectors_RD: np.ndarray
    code_R: np.ndarray
    cohort_MD: np.ndarray
    foreign: ClassCosines
    again: ClassCosines
    has_other_R: np.ndarray


def enroll(vectors_RD: np.ndarray, code_R: np.ndarray, series_R: np.ndarray, cohort_MD: np.ndarray) -> EnrolledClasses:
    """Enroll references (codes 0 to C - 1, all of them there) and compare them with each other."""
    excluded_RR = np.eye(len(code_R), dtype=bool)
    same_RR = (code_R[:, None] == code_R) & (series_R[:, None] == series_R)
    has_series_R = ((code_R[:, None] == code_R) & ~same_RR).any(axis=1)
    excluded_RR |= same_RR & has_series_R[:, None]
    has_other_R = ((code_R[:, None] == code_R) & ~excluded_RR).any(axis=1)
    again = compare(vectors_RD, vectors_RD, code_R, cohort_MD, excluded_RR)
    return EnrolledClasses(vectors_RD, code_R, cohort_MD, again.without(code_R), again, has_other_R)


def compare(
    query_QD: np.ndarray,
    vectors_RD: np.ndarray,
    code_R: np.ndarray,
    cohort_MD: np.ndarray,
    excluded_QR: np.ndarray | None = None,
) -> ClassCosines:
    """Compare queries with every class; ``excluded_QR`` says which references a query is not compared with."""
    classes = int(code_R.max()) + 1
    cosine_QR = query_QD @ vectors_RD.T
    if excluded_QR is not None:
        cosine_QR[excluded_QR] = NONE
    best_QC, two_QC, three_QC, mean_QC = (np.full((len(query_QD), classes), NONE) for _ in range(4))
    for code in range(classes):
        own_R = code_R == code
        near_QK = -np.sort(-cosine_QR[:, own_R], axis=1)[:, :3].astype(float)
        has_Q = np.isfinite(near_QK[:, 0])
        best_QC[:, code] = near_QK[:, 0]
        for most, array in ((2, two_QC), (3, three_QC)):
            part_QK = near_QK[has_Q, :most]
            counts_Q = np.isfinite(part_QK).sum(axis=1)
            array[has_Q, code] = np.where(np.isfinite(part_QK), part_QK, 0).sum(axis=1) / counts_Q
        weight_QR = np.ones((len(query_QD), int(own_R.sum())), np.float32)
        if excluded_QR is not None:
            weight_QR = 1.0 - excluded_QR[:, own_R].astype(np.float32)
        sum_QD = weight_QR @ vectors_RD[own_R]
        length_Q = np.linalg.norm(sum_QD, axis=1)
        mean_QC[has_Q, code] = np.einsum("qd,qd->q", sum_QD, query_QD)[has_Q] / length_Q[has_Q]
    cohort_QM = (
        -np.sort(-(query_QD @ cohort_MD.T), axis=1).astype(float) if len(cohort_MD) else np.zeros((len(query_QD), 0))
    )
    return ClassCosines(best_QC, two_QC, three_QC, mean_QC, cohort_QM)


# ---- parts of scores ----

Rule = Callable[[ClassCosines, EnrolledClasses], tuple[np.ndarray, np.ndarray]]


def best_class(cosine_QC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score and code of the best class."""
    code_Q = cosine_QC.argmax(axis=1)
    return cosine_QC[np.arange(len(code_Q)), code_Q], code_Q


def others(cosine_QC: np.ndarray, code_Q: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the cosines to the ``most`` nearest classes but one (0: all of them)."""
    rest_QC = cosine_QC.copy()
    rest_QC[np.arange(len(code_Q)), code_Q] = NONE
    rest_QC = -np.sort(-rest_QC, axis=1)
    if most:
        rest_QC = rest_QC[:, :most]
    there_QC = np.isfinite(rest_QC)
    count_Q = np.maximum(there_QC.sum(axis=1), 1)
    mean_Q = np.where(there_QC, rest_QC, 0).sum(axis=1) / count_Q
    variance_Q = np.where(there_QC, (rest_QC - mean_Q[:, None]) ** 2, 0).sum(axis=1) / count_Q
    return mean_Q, np.sqrt(np.maximum(variance_Q, 1e-6))


def impostors(gallery: EnrolledClasses, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, of each class, of the highest cosines that references of other classes have to it; each of
    the other classes counts with its highest (``most`` of them, 0: all)."""
    foreign_RC, code_R = gallery.foreign.best_QC, gallery.code_R
    classes = foreign_RC.shape[1]
    highest_CC = np.array(
        [foreign_RC[code_R == code].max(axis=0) for code in range(classes)]
    )  # class of the image, class
    own_C = np.arange(classes)
    mean_C, deviation_C = others(highest_CC.T, own_C, most)
    return mean_C, deviation_C


# ---- rules ----


def nearest(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of the nearest reference: what the package answers."""
    return best_class(queries.best_QC)


def by_array(name: str) -> Rule:
    """The highest of other cosines: ``two_QC``, ``three_QC``, ``mean_QC``."""
    return lambda queries, gallery: best_class(getattr(queries, name))


def blend(name: str, weight: float) -> Rule:
    """The nearest reference's class; its cosine and that by another array of the same class, weighted."""

    def rule(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
        return best_class((1 - weight) * queries.best_QC + weight * getattr(queries, name))

    return rule


def judge(name: str, weight: float, most: int = 0, other_weight: float = 0.0) -> Rule:
    """The nearest reference's class, so that no answer changes; the score is the blend's for this class, less
    ``other_weight`` times the mean of the next classes."""

    def rule(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
        score_Q, code_Q = best_class(queries.best_QC)
        score_Q = (1 - weight) * score_Q + weight * getattr(queries, name)[np.arange(len(code_Q)), code_Q]
        if other_weight:
            score_Q = score_Q - other_weight * others(queries.best_QC, code_Q, most)[0]
        return score_Q, code_Q

    return rule


def t_norm(most: int, weight: float) -> Rule:
    """Cosine less ``weight`` times the mean of the next classes; with ``most`` 1 that is the margin to the second class."""

    def rule(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
        score_Q, code_Q = best_class(queries.best_QC)
        return score_Q - weight * others(queries.best_QC, code_Q, most)[0], code_Q

    return rule


def t_norm_scaled(most: int) -> Rule:
    """T-norm with the standard deviation."""

    def rule(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
        score_Q, code_Q = best_class(queries.best_QC)
        mean_Q, deviation_Q = others(queries.best_QC, code_Q, most)
        return (score_Q - mean_Q) / deviation_Q, code_Q

    return rule


def z_norm(most: int, weight: float) -> Rule:
    """Cosine less ``weight`` times the class's mean of impostors: a threshold of each class, shrunk to the common one."""

    def rule(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
        score_Q, code_Q = best_class(queries.best_QC)
        return score_Q - weight * impostors(gallery, most)[0][code_Q], code_Q

    return rule


def z_norm_scaled(most: int) -> Rule:
    """Z-norm with the standard deviation."""

    def rule(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
        score_Q, code_Q = best_class(queries.best_QC)
        mean_C, deviation_C = impostors(gallery, most)
        return (score_Q - mean_C[code_Q]) / deviation_C[code_Q], code_Q

    return rule


def s_norm(most: int) -> Rule:
    """Mean of T- and Z-norm with standard deviations; adaptive where only the nearest of the cohort count."""

    def rule(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
        score_Q, code_Q = t_norm_scaled(most)(queries, gallery)
        return (score_Q + z_norm_scaled(most)(queries, gallery)[0]) / 2, code_Q

    return rule


def means_norm(most: int, t_weight: float, z_weight: float) -> Rule:
    """S-norm without standard deviations."""

    def rule(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
        score_Q, code_Q = t_norm(most, t_weight)(queries, gallery)
        return score_Q - z_weight * impostors(gallery, most)[0][code_Q], code_Q

    return rule


def softmax(temperature: float) -> Rule:
    """Share of the nearest class in exp(cosine / temperature) of all."""

    def rule(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
        score_Q, code_Q = best_class(queries.best_QC)
        return -np.log(np.exp((queries.best_QC - score_Q[:, None]) / temperature).sum(axis=1)), code_Q

    return rule


def cohort(most: int, weight: float) -> Rule:
    """Cosine less ``weight`` times the mean of those to the nearest of the cohort; ``nearest`` without a cohort."""

    def rule(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
        score_Q, code_Q = best_class(queries.best_QC)
        if not queries.cohort_QM.shape[1]:
            return score_Q, code_Q
        return score_Q - weight * queries.cohort_QM[:, :most].mean(axis=1), code_Q

    return rule


def mix(name: str, share: float, most: int, weight: float) -> Rule:
    """A blend of nearest and another array, less ``weight`` times the mean of the next classes."""

    def rule(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
        cosine_QC = (1 - share) * queries.best_QC + share * getattr(queries, name)
        score_Q, code_Q = best_class(cosine_QC)
        return score_Q - weight * others(cosine_QC, code_Q, most)[0], code_Q

    return rule


# ---- fitted to the gallery's own images ----


def describe(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
    """Figures (Q, F) of the nearest class's answer, and its code."""
    score_Q, code_Q = best_class(queries.best_QC)
    rows = np.arange(len(code_Q))
    columns = [
        score_Q, queries.three_QC[rows, code_Q], queries.mean_QC[rows, code_Q], others(queries.best_QC, code_Q, 1)[0],
        others(queries.best_QC, code_Q, 10)[0], impostors(gallery, 10)[0][code_Q],
    ]  # fmt: skip
    return np.column_stack(columns), code_Q


def fit_logistic(figure_NF: np.ndarray, known_N: np.ndarray, prior_F: np.ndarray, penalty: float) -> np.ndarray:
    """Weights (F + 1) of a logistic regression, both outcomes weighted alike, drawn to a multiple of ``prior_F`` by ``penalty``."""
    from scipy.optimize import minimize

    weight_N = np.where(known_N, 0.5 / known_N.sum(), 0.5 / (~known_N).sum())
    sign_N = np.where(known_N, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scale, offset, change_F = parameters[0], parameters[1], parameters[2:]
        weight_F = scale * prior_F + change_F
        margin_N = sign_N * (figure_NF @ weight_F + offset)
        slope_N = -weight_N * sign_N / (1 + np.exp(np.clip(margin_N, -50, 50)))
        gradient_F = figure_NF.T @ slope_N
        value = float(weight_N @ np.logaddexp(0, -margin_N) + penalty * change_F @ change_F)
        return value, np.r_[prior_F @ gradient_F, slope_N.sum(), gradient_F + 2 * penalty * change_F]

    start = np.r_[1.0, 0.0, np.zeros(len(prior_F))]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return np.r_[found[0] * prior_F + found[2:], found[1]]


def fusion(penalty: float) -> Rule:
    """Logistic regression on figures of the gallery's own images, once as known and once as unknown ones."""

    def rule(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
        unknown_RF, _ = describe(gallery.foreign, gallery)
        known_RF, code_R = describe(gallery.again, gallery)
        known_RF = known_RF[gallery.has_other_R & (code_R == gallery.code_R)]
        figure_QF, code_Q = describe(queries, gallery)
        if len(known_RF) < 20:
            return figure_QF[:, 0], code_Q
        both_NF = np.vstack([unknown_RF, known_RF])
        deviation = max(float(both_NF[:, 0].std()), 1e-3)
        center_F = both_NF.mean(axis=0)
        known_N = np.arange(len(both_NF)) >= len(unknown_RF)
        prior_F = np.eye(both_NF.shape[1])[0]
        weights = fit_logistic((both_NF - center_F) / deviation, known_N, prior_F, penalty)
        return (figure_QF - center_F) / deviation @ weights[:-1], code_Q

    return rule


def own_gains(
    gallery: EnrolledClasses, weights: tuple[float, ...], fpirs: tuple[float, ...], samples: int
) -> np.ndarray:
    """Mean DIR over ``fpirs`` (1 + samples, weights) with the gallery's own images, once as known and once as unknown ones.

    The first row is that of all classes, the others of classes drawn with replacement.
    """
    known_R = gallery.has_other_R
    rng = np.random.default_rng(0)
    classes = int(gallery.code_R.max()) + 1
    weight_BC = np.vstack(
        [np.ones(classes), *(np.bincount(rng.integers(0, classes, classes), minlength=classes) for _ in range(samples))]
    )
    values = np.zeros((len(weight_BC), len(weights)))
    for column, weight in enumerate(weights):
        rule = t_norm(1, weight)
        unknown_R, _ = rule(gallery.foreign, gallery)
        known_score_R, code_R = rule(gallery.again, gallery)
        right_M = (code_R == gallery.code_R)[known_R]
        order_R = np.argsort(-unknown_R, kind="stable")
        for row, weight_C in enumerate(weight_BC):
            share_R = np.cumsum(weight_C[gallery.code_R[order_R]])
            known_weight_M = weight_C[gallery.code_R[known_R]]
            for fpir in fpirs:
                first = min(int(np.searchsorted(share_R, fpir * share_R[-1] * (1 + 1e-12), "right")), len(order_R) - 1)
                hits_M = right_M & (known_score_R[known_R] > unknown_R[order_R[first]])
                values[row, column] += hits_M @ known_weight_M / max(known_weight_M.sum(), 1) / len(fpirs)
    return values


def chosen_second(weights: tuple[float, ...], fpirs: tuple[float, ...], certain: float = 0.0) -> Rule:
    """``t_norm`` with the second class, its weight chosen for each gallery by its own images: the first of ``weights`` unless
    another's mean DIR over ``fpirs`` is higher in a share of at least ``certain`` of draws of classes."""

    def rule(queries: ClassCosines, gallery: EnrolledClasses) -> tuple[np.ndarray, np.ndarray]:
        weight = weights[0]
        if gallery.has_other_R.sum() >= 20:
            values = own_gains(gallery, weights, fpirs, 100 if certain else 0)
            best = int(values[0].argmax())
            if not certain or np.mean(values[1:, best] > values[1:, 0]) >= certain:
                weight = weights[best]
        return t_norm(1, weight)(queries, gallery)

    return rule


RULES: dict[str, Rule] = {
    "nearest": nearest,
    "two": by_array("two_QC"), "three": by_array("three_QC"), "prototype": by_array("mean_QC"),
    "half two": blend("two_QC", 0.5), "half three": blend("three_QC", 0.5), "half prototype": blend("mean_QC", 0.5),
    **{f"judge {name} {w:g}": judge(f"{name}_QC", w) for name in ("two", "three", "mean") for w in (0.5, 1.0)},
    **{f"judge {name} 0.5 + t {n or 'all'} x {a:g}": judge(f"{name}_QC", 0.5, n, a) for name in ("three", "mean") for n in (1, 10) for a in (0.25, 0.5)},
    **{f"t {n or 'all'} x {a:g}": t_norm(n, a) for n in (1, 3, 10, 0) for a in (0.25, 0.5, 1.0)},
    **{f"t scaled {n or 'all'}": t_norm_scaled(n) for n in (10, 0)},
    **{f"z {n or 'all'} x {a:g}": z_norm(n, a) for n in (1, 3, 10, 0) for a in (0.25, 0.5, 1.0)},
    **{f"z scaled {n or 'all'}": z_norm_scaled(n) for n in (10, 0)},
    **{f"s scaled {n or 'all'}": s_norm(n) for n in (10, 0)},
    **{f"s {n or 'all'} x {a:g}": means_norm(n, a, a) for n in (3, 10, 0) for a in (0.25, 0.5)},
    **{f"softmax {t:g}": softmax(t) for t in (0.05, 0.1, 0.2)},
    **{f"cohort {n} x {a:g}": cohort(n, a) for n in (1, 10) for a in (0.25, 0.5)},
    **{f"half prototype + t {n or 'all'} x {a:g}": mix("mean_QC", 0.5, n, a) for n in (1, 10) for a in (0.25, 0.5)},
    **{f"half three + t {n or 'all'} x {a:g}": mix("three_QC", 0.5, n, a) for n in (1, 10) for a in (0.25, 0.5)},
    **{f"t 1 x {a:g}": t_norm(1, a) for a in (0.125, 0.375, 0.625, 0.75)},
    **{f"chosen of {len(w)} certain {c:g}": chosen_second(w, (0.1, 0.03, 0.01), c)
       for w in ((0.25, 0.5), (0.25, 0.0, 0.5)) for c in (0.0, 0.8, 0.95)},
    **{f"fusion {p:g}": fusion(p) for p in (0.001, 0.01, 0.1)},
}  # fmt: skip
