"""The queue of a review: what is asked, in which order, after a restart too, and without holding anybody up."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np

from tests.support.reviewing import MIXED, PURPLE, RED, YELLOW, answer, identify, ids_of, of_kind, review, set_threshold
from tests.support.serving import StandInEngine, picture, run, running


def test_unknown_images_are_grouped_and_doubtful_ones_are_listed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            answers = await identify(it, *YELLOW, *PURPLE, MIXED, RED)
            assert [entry["decision"] for entry in answers] == ["unknown"] * 5 + ["ambiguous", "label"]
            document = await review(it)
            groups = of_kind(document, "new class")
            ids = [entry["id"] for entry in answers]
            assert [sorted(ids_of(group)) for group in groups] == [sorted(ids[:3]), sorted(ids[3:5])]
            (doubtful,) = of_kind(document, "doubtful")
            assert ids_of(doubtful) == [ids[5]] and doubtful["suggestion"] in ("red", "blue")
            assert document["counts"] == {"new class": 2, "doubtful": 1, "wrong label": 0, "duplicate": 0, "drifted": 0}
            assert document["open"] == 3 and document["done"] == 0
            assert document["progress"] == {"looked": 3, "references": 3, "embedded": 6, "images": 6, "complete": True}
            assert doubtful["decisions"][0]["image"] == f"/v1/decisions/{ids[5]}/image"
            assert [entry["kind"] for entry in (await review(it, "?kind=doubtful"))["entries"]] == ["doubtful"]
            assert len((await review(it, "?limit=1"))["entries"]) == 1
            for query in ("?kind=x", "?limit=0", "?other=1"):
                assert (await it.client.get(f"/v1/review{query}")).status_code == 422

    run(scenario())


def test_of_many_pictures_of_one_thing_one_is_asked_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            same = await identify(it, *[(125, 35, 120 + shade) for shade in range(4)])
            other = await identify(it, (35, 125, 120))  # between green and blue, with a larger margin
            entries = of_kind(await review(it), "doubtful")
            assert [ids_of(entry)[0] for entry in entries].index(other[0]["id"]) == 1
            assert {ids_of(entry)[0] for entry in entries} == {entry["id"] for entry in (*same, *other)}

    run(scenario())


def test_pictures_are_embedded_again_after_a_restart(tmp_path: Path) -> None:
    async def first() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            await identify(it, *YELLOW)

    async def second() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            assert len(it.service.vectors) == 0
            early = (await it.client.get("/v1/review")).json()
            assert early["progress"]["embedded"] == 0 and not early["progress"]["complete"]
            (group,) = of_kind(await review(it), "new class")
            assert len(group["decisions"]) == 3 and len(it.service.vectors) == 3
            calls = len(it.engine.calls)
            await review(it)
            assert len(it.engine.calls) == calls, "none is embedded twice"

    run(first())
    run(second())


def test_a_picture_that_is_gone_or_damaged_holds_nothing_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            answers = await identify(it, *YELLOW)
            it.service.vectors.__init__()  # as after a restart
            shas = [it.service.store.decisions.get(entry["id"]).image for entry in answers]
            it.service.store.images.delete(shas[0])
            path = Path(it.service.store.images.address) / shas[1][:2] / shas[1]
            path.write_bytes(b"damaged")
            document = await review(it)
            assert document["progress"]["images"] == document["progress"]["embedded"] == 1
            assert not of_kind(document, "new class")

    run(scenario())


def test_references_with_a_wrong_label_and_near_duplicates_are_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            rng = np.random.default_rng(0)
            centers = np.eye(3)
            with it.service.resources.gallery().gallery.change() as gallery:
                gallery.remove(labels=["red", "green", "blue"])
                vectors = np.concatenate([center + 0.1 * rng.normal(size=(8, 3)) for center in centers])
                vectors[7] = centers[1] + 0.1 * rng.normal(size=3)
                ids = gallery.enrol(vectors, [f"c{row // 8}" for row in range(24)], [f"{row}.png" for row in range(24)])
                (copy,) = gallery.enrol(vectors[20:21], ["c2"])
            it.service.resources.gallery().refresh()
            document = await review(it)
            (doubt,) = of_kind(document, "wrong label")
            assert [doubt["references"][0]["id"], doubt["suggestion"]] == [ids[7], "c1"]
            assert doubt["references"][1]["label"] == "c1" and doubt["score"] > 0
            (pair,) = of_kind(document, "duplicate")
            assert [entry["id"] for entry in pair["references"]] == [ids[20], copy] and pair["score"] > 0.9999
            # What is gone meanwhile is asked no more, although the walk is over.
            await it.client.delete(f"/v1/references/{copy}")
            await it.client.delete(f"/v1/references/{ids[7]}")
            document = await review(it)
            assert not of_kind(document, "duplicate") and not of_kind(document, "wrong label")

    run(scenario())


def test_a_picture_unlike_everything_is_told_from_a_new_class(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            angles = np.linspace(0, 1, 25)
            with it.service.resources.gallery().gallery.change() as gallery:
                gallery.remove(labels=["red", "green", "blue"])
                gallery.enrol(np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1), [f"c{n}" for n in range(25)])
            it.service.resources.gallery().refresh()
            set_threshold(it, 0.9, 0.0)
            (answers) = await identify(it, (40, 40, 250), *[(255, 255, 220 + 9 * n) for n in range(2)])
            assert {entry["decision"] for entry in answers} == {"unknown"}
            document = await review(it)
            (drifted,) = of_kind(document, "drifted")
            assert ids_of(drifted) == [answers[0]["id"]]
            assert [sorted(ids_of(one)) for one in of_kind(document, "new class")] == [
                sorted(entry["id"] for entry in answers[1:])
            ]

    run(scenario())


def test_what_was_answered_is_asked_no_more_after_a_restart(tmp_path: Path) -> None:
    async def first() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            await identify(it, *YELLOW, MIXED)
            document = await review(it)
            for entry in document["entries"]:
                await answer(it, kind=entry["kind"], action="dismissed", decisions=ids_of(entry))

    async def second() -> None:
        async with running(tmp_path) as it:
            document = await review(it)
            assert document["entries"] == [] and document["done"] == 2 and document["open"] == 0

    run(first())
    run(second())


def test_a_large_gallery_is_looked_at_beside_requests(tmp_path: Path) -> None:
    """While 20,000 references are looked at, a request is answered, and the service stops at once."""

    async def scenario() -> None:
        async with running(tmp_path, StandInEngine()) as it:
            with it.service.resources.gallery().gallery.change() as gallery:
                gallery.enrol(
                    np.random.default_rng(0).normal(size=(20_000, 3)), [f"c{n % 2000}" for n in range(20_000)]
                )
            it.service.resources.gallery().refresh()
            document = (await it.client.get("/v1/review")).json()
            assert not document["progress"]["complete"]
            while (await it.client.get("/v1/review")).json()["progress"]["looked"] == 0:
                await asyncio.sleep(0.01)
            await identify(it, RED)
            document = (await it.client.get("/v1/review")).json()
            assert 0 < document["progress"]["looked"] < document["progress"]["references"] == 20_003
            start = time.monotonic()
        assert time.monotonic() - start < 10

    run(scenario())


def test_pictures_that_are_not_kept_are_listed_by_their_scores(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, keep_images=False) as it:
            set_threshold(it)
            await identify(it, *YELLOW, MIXED)
            document = await review(it)
            assert not of_kind(document, "new class") and len(of_kind(document, "doubtful")) == 1
            assert of_kind(document, "doubtful")[0]["decisions"][0]["image"] is None
            assert picture("red") and document["progress"]["images"] == 0

    run(scenario())
