import csv
import re

import numpy as np
import pytest
from PIL import Image

from unalike.metrics.intervals import Interval
from unalike.metrics.prediction import prediction_interval
from unalike.metrics.retrieval import evaluate_ranking
from unalike.metrics.summary import summarize
from unalike.report.evaluation import (
    MAX_EXPLAINED,
    EmbeddedImages,
    ExplainedMatches,
    add_embedding_map,
    add_figures,
    add_retrieval,
    add_sentences,
    write_evaluation_report,
)
from unalike.report.html import Report, ReportImage
from unalike.report.sentences import MEAN_NOTE, whole_bounds
from unalike.runs.filenames import NEAR_DUPLICATES_FILE, SUSPECTED_LABELS_FILE

CLASSES = [f"<b>{n}</b> & ü" for n in range(6)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """150 pictures of noise, the most that a JPEG can need."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = []
    for i in range(150):
        paths.append(folder / f"image {i} é.png")
        Image.fromarray(rng.integers(0, 255, (130, 130, 3), dtype=np.uint8)).save(paths[-1])
    return paths


def cloud(paths, seed=0, noise=0.9):
    rng = np.random.default_rng(seed)
    labels = np.arange(len(paths)) % 6
    centres = np.random.default_rng(1).standard_normal((6, 16))
    return EmbeddedImages.from_vectors(
        centres[labels] + noise * rng.standard_normal((len(paths), 16)), labels, CLASSES, list(paths)
    )


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_page_of_an_evaluation_names_what_was_planted(pictures, tmp_path):
    reference, query = cloud(pictures[:100]), cloud(pictures[100:], seed=5)
    reference.labels_N[7] = (reference.labels_N[7] + 1) % 6  # a wrong label
    vectors = query.vectors_ND.copy()
    vectors[3] = reference.vectors_ND[20]  # a query that is a reference too
    query = EmbeddedImages.from_vectors(vectors, query.labels_N, CLASSES, query.paths)
    ranking = evaluate_ranking(query.vectors_ND, query.labels_N, reference.vectors_ND, reference.labels_N)
    summary = summarize(ranking, CLASSES, reference_labels=reference.labels_N, n=50)
    files = write_evaluation_report(tmp_path, summary, ranking, query, reference, title="Fruit <i>", subtitle="& more")
    assert [file.name for file in files] == ["report.html", SUSPECTED_LABELS_FILE, NEAR_DUPLICATES_FILE] and all(
        f.exists() for f in files
    )
    assert rows_of(tmp_path / SUSPECTED_LABELS_FILE)[0]["path"] == str(pictures[7])
    found = {(row["path"], row["other_path"]) for row in rows_of(tmp_path / NEAR_DUPLICATES_FILE)}
    assert (str(pictures[103]), str(pictures[20])) in found
    text = files[0].read_text(encoding="utf-8")
    assert len(text) < 5e6, "noise is the worst that pictures can be"
    assert "<script" not in text and "<b>1</b>" not in text and "<i>" not in text and "&lt;b&gt;1" in text
    assert not re.search(r"(src|href)=.?(http|//|/|\.)", text) and "url(" not in text
    for title in ("Misses", "Hits", "Confused classes", "Embedding map", "different classes", "one class", "Suspected",
                  "Near-duplicates", "Every class"):  # fmt: skip
        assert title in text
    wrong = int((ranking.predicted != ranking.labels).sum())
    assert f"{wrong} of 50 queries" in text


def sentences(summary):
    report = Report("t")
    add_sentences(report, summary)
    return re.findall(r'<p class="lead[^>]*>([^<]+)<', report.html())


def test_an_evaluation_begins_with_how_many_of_a_hundred_get_the_right_name(pictures):
    query, reference = cloud(pictures[60:], seed=5), cloud(pictures[:60])
    ranking = evaluate_ranking(query.vectors_ND, query.labels_N, reference.vectors_ND, reference.labels_N)
    share = round(100 * float(ranking.precision_at_1.mean()))
    first, second = sentences(summarize(ranking, CLASSES, unseen_classes=True))
    assert first.startswith(f"Of 100 further images of these 6 classes, {share} get the right name (between ")
    assert (
        second
        == "Measured with 90 images of 6 classes that training never saw; ranges are for so many new images, with 95 % confidence."
    )
    first, second = sentences(summarize(ranking, CLASSES, resample="classes", unseen_classes=True))
    hits = int(ranking.precision_at_1.sum())
    assert (
        first
        == f"Of 90 images of new things, {hits} get the right name; 6 classes are too few to say how many it will be of others."
    )
    assert second == "Measured with 90 images of 6 classes that training never saw."
    first, _ = sentences(summarize(ranking, CLASSES, n=0))
    assert first == f"Of 90 images, {hits} get the right name.", "intervals were switched off"


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_range_of_a_hundred_images_is_not_the_interval_of_the_mean_and_the_page_says_which_is_which(
    pictures, confidence
):
    query, reference = cloud(pictures[60:], seed=5, noise=2), cloud(pictures[:60], noise=2)
    ranking = evaluate_ranking(query.vectors_ND, query.labels_N, reference.vectors_ND, reference.labels_N)
    summary = summarize(ranking, CLASSES, confidence=confidence)
    mean = Interval.from_dict(summary["micro"]["precision_at_1"])
    expected = prediction_interval(mean, 100, confidence)
    low, high = re.findall(r"between (\d+) and (\d+)", sentences(summary)[0])[0]
    assert (int(low), int(high)) == whole_bounds(expected, 100)
    assert int(low) / 100 < mean.low - 0.02 and int(high) / 100 > mean.high + 0.02
    report = Report("t")
    add_figures(report, summary)
    assert f"{mean.low:.3f} to {mean.high:.3f}" in report.html() and MEAN_NOTE in report.html()
    report = Report("t")
    add_figures(report, summarize(ranking, CLASSES, n=0))
    assert MEAN_NOTE not in report.html(), "no interval, nothing to say about it"


def test_queries_of_classes_without_a_reference_are_told_apart(pictures):
    query, reference = cloud(pictures[60:], seed=5), cloud(pictures[:60])
    known = reference.select(np.flatnonzero(reference.labels_N > 0))
    ranking = evaluate_ranking(query.vectors_ND, query.labels_N, known.vectors_ND, known.labels_N)
    assert sentences(summarize(ranking, CLASSES))[1].endswith(" 15 more images show classes without a reference.")


def test_misses_show_what_was_taken_and_what_was_right(pictures):
    same = cloud(pictures[:60], noise=2.5)
    ranking = evaluate_ranking(same.vectors_ND, same.labels_N, same.vectors_ND, same.labels_N, same=True)
    shown = []
    report = Report("t")
    report.gallery = lambda title, rows, **about: shown.append((title, rows))  # type: ignore[method-assign]
    add_retrieval(report, same, same, ranking)
    misses, hits = (rows for _, rows in shown)
    assert misses and hits
    pairs = set()
    for query, (taken, right) in misses:
        assert taken.caption != query.caption == right.caption and (taken.correct, right.correct) == (False, True)
        assert right.image != query.image, "an image never answers for itself"
        assert taken.score >= right.score
        pairs.add((query.caption, taken.caption))
    wrong = ranking.predicted != ranking.labels
    every = len({(a, b) for a, b in zip(ranking.labels[wrong], ranking.predicted[wrong], strict=True)})
    assert len(pairs) == min(every, len(misses)), "each pair of classes once before it comes again"
    assert all(tile.correct and tile.caption == query.caption for query, (tile,) in hits)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 30])
def test_small_sets_make_a_page_without_a_map_or_with_a_small_one(pictures, count, tmp_path):
    shown = cloud(pictures[:count])
    report = Report("t")
    add_embedding_map(report, shown, np.ones(count, bool))
    assert report.html().count('class="missed"') == (count if count >= 3 else 0)


def test_joined_takes_an_image_of_both_sets_once(pictures):
    both = cloud(pictures[:4]).union(cloud(pictures[2:6]))
    assert both.paths == pictures[:6] and both.vectors_ND.shape == (6, 16) and len(both.labels_N) == 6


def test_large_sets_are_sampled_in_their_order(pictures):
    part, rows = cloud(pictures).sample(40)
    assert len(part) == 40 and (np.diff(rows) > 0).all() and part.paths == [pictures[i] for i in rows]


def test_a_page_shows_why_the_worst_were_missed_and_links_the_rest(pictures, tmp_path):
    query = cloud(pictures[:12])
    ranking = evaluate_ranking(query.vectors_ND, query.labels_N, query.vectors_ND, query.labels_N, same=True)
    summary = summarize(ranking, CLASSES, n=20)
    row = (ReportImage(pictures[0], "query"), [ReportImage(pictures[1], f"<tile> {i}") for i in range(5)])
    explained = ExplainedMatches([row] * 14, "Each map <exact>.", tmp_path / "misses" / "all of them.html")
    page, *_ = write_evaluation_report(
        tmp_path, summary, ranking, query, query, title="t", subtitle="s", explanations=explained
    )
    text = page.read_text(encoding="utf-8")
    part = text[text.index("Why the worst were missed") : text.index("Embedding map")]
    assert part.count('<div class="row">') == 2 * MAX_EXPLAINED and 'href="misses/all%20of%20them.html"' in part
    assert "Each map &lt;exact&gt;." in part and "<tile>" not in part
    page, *_ = write_evaluation_report(tmp_path, summary, ranking, query, query, title="t", subtitle="s")
    assert "Why the worst" not in page.read_text(encoding="utf-8")
