"""Reviews over HTTP: answers are listed, given once, by whoever may teach, and stay with their gallery."""

from __future__ import annotations

from pathlib import Path

from tests.support.reviewing import MIXED, YELLOW, answer, identify, ids_of, of_kind, review, set_threshold
from tests.support.serving import run, running


def test_answers_are_listed_in_pages_with_who_gave_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            await identify(it, *YELLOW, MIXED)
            for entry in (await review(it))["entries"]:
                await answer(it, kind=entry["kind"], action="dismissed", decisions=ids_of(entry))
            page = (await it.client.get("/v1/review/answers?limit=1")).json()
            assert [one["kind"] for one in page["answers"]] == ["doubtful"] and page["next"]
            rest = (await it.client.get(f"/v1/review/answers?limit=1&after={page['next']}")).json()
            assert [one["kind"] for one in rest["answers"]] == ["new class"] and rest["next"] is None
            assert rest["answers"][0]["actor"] == "anonymous" and len(rest["answers"][0]["items"]) == 3
            assert (await it.client.get("/v1/review/answers?limit=0")).status_code == 422
            assert (await it.client.get("/v1/review/answers?after=x")).status_code == 422

    run(scenario())


def test_roles_and_galleries_are_kept_apart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, names=("colors", "others")) as it:
            set_threshold(it)
            await identify(it, *YELLOW)
            (group,) = of_kind(await review(it), "new class")
            body = {"kind": "new class", "action": "dismissed", "decisions": ids_of(group)}
            keys = {name: {"x-api-key": it.service.store.keys.add(name, role, gallery)[1]} for name, role, gallery in (
                ("view", "view", None), ("till", "operate", "others"), ("chief", "admin", None))}  # fmt: skip
            it.service.access.refresh()
            post = it.client.post
            assert (await it.client.get("/v1/review")).status_code == 401
            assert (await it.client.get("/v1/review", headers=keys["view"])).status_code == 200
            assert (await post("/v1/review/answers", json=body, headers=keys["view"])).status_code == 403
            assert (
                await post("/v1/galleries/colors/review/answers", json=body, headers=keys["till"])
            ).status_code == 403
            # Its own gallery is the default one, and has no such decisions.
            assert (await post("/v1/review/answers", json=body, headers=keys["till"])).status_code == 404
            first = await post("/v1/galleries/colors/review/answers", json=body, headers=keys["chief"])
            assert first.status_code == 201 and first.json()["actor"] == "chief"
            path = f"review/answers/{first.json()['id']}"
            for prefix, headers, status in (("", keys["view"], 403), ("galleries/others/", keys["chief"], 404), ("", keys["till"], 404),
                                            ("galleries/colors/", keys["chief"], 200), ("", keys["chief"], 404)):  # fmt: skip
                assert (await it.client.delete(f"/v1/{prefix}{path}", headers=headers)).status_code == status

    run(scenario())


def test_a_repeated_answer_is_given_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            await identify(it, *YELLOW)
            (group,) = of_kind(await review(it), "new class")
            headers = {"Idempotency-Key": "once"}
            values = {"kind": "new class", "action": "labeled", "decisions": ids_of(group), "label": "yellow"}
            first = await answer(it, headers=headers, **values)
            assert await answer(it, headers=headers, **values) == first
            assert (await answer(it, 409, **values))["type"].endswith(":answered")
            assert it.service.resources.gallery().gallery.counts()["yellow"] == 3
            undo = {"Idempotency-Key": "undo"}
            for _ in range(2):
                response = await it.client.delete(f"/v1/review/answers/{first['id']}", headers=undo)
                assert response.status_code == 200 and response.json()["id"] == first["id"]

    run(scenario())
