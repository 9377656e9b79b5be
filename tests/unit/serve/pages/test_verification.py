"""The page Verify as the server renders it: by batch, by decision; hostile names as text; without a set of assets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.serving import picture, run, running
from unalike.data.decode import decode
from unalike.serve.pages.batch import new_batch
from unalike.serve.pages.verification import HEADLINES
from unalike.serve.resources import AssetsResource
from unalike.verification.regions import AlteredRegion
from unalike.verification.result import ABSENT, ALTERED, ANSWERS, SAME, VerificationResult

MARKUP = "<img src=x onerror=alert(1)>\"'&"


class Verifier:
    """Knows one asset, which is red; what is dark of it is altered."""

    approved = SimpleNamespace(assets=[MARKUP], names=[MARKUP])
    thresholds = None

    def verify(self, image: bytes, claimed: str | None) -> VerificationResult:
        red = int(decode(image)[0, 0, 0])
        answer = SAME if red > 200 else ALTERED if red > 100 else ABSENT
        regions = (AlteredRegion((2, 3, 10, 12), 0.5),) if answer == ALTERED else ()
        outline = () if answer == ABSENT else ((1.0, 1.0), (20.5, 1.0), (20.0, 20.0), (1.0, 20.0))
        return VerificationResult(answer, MARKUP, red / 255, 0.75, 0.8, {"parts": 2.0} if regions else {}, regions, outline,
                                  size=(24, 24))  # fmt: skip


async def verify(it: Any, color: Any, batch: str = "") -> str:
    it.service.resources.assets["brand"] = AssetsResource("brand", "brand.set", Verifier())
    headers = {"x-request-id": batch} if batch else {}
    part = {"image": (f"{MARKUP}\u202e.png", picture(color), "image/png")}
    return str((await it.client.post("/v1/verify", files=part, headers=headers)).json()["verdicts"][0]["id"])


def test_every_answer_has_a_headline() -> None:
    assert set(HEADLINES) == set(ANSWERS)


def test_the_page_shows_the_answers_of_its_batch_or_the_latest(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            batch = new_batch()
            own, other = await verify(it, (150, 0, 0), batch), await verify(it, "red")
            text = (await it.client.get("/verify")).text
            assert own in text and other in text and text.index(other) < text.index(own)
            assert "Altered" in text and "parts differ" in text and "<rect" in text and "<polygon" in text
            text = (await it.client.get("/verify", params={"assets": "brand", "batch": batch})).text
            assert own in text and other not in text and f'data-batch="{batch}"' in text
            part = (await it.client.get("/verify/answer", params={"assets": "brand", "id": own})).text
            assert part.count("<article") == 1 and "1 region differs." in part and "Approved:" in part
            assert "20.5,1.0" in part and "asset-picture?asset=%3Cimg" in part
            absent = (await it.client.get("/verify", params={"decision": await verify(it, "blue")})).text
            assert "Not in the set" in absent and "Nearest:" in absent and "<rect" not in absent
            for path in ("/verify/answer?id=none", "/verify?assets=other", "/verify?decision=none"):
                assert (await it.client.get(path)).status_code == 404
            assert (await it.client.get("/verify?surprise=1")).status_code == 422

    run(scenario())


def test_names_of_files_and_assets_are_text(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, keep_images=False) as it:
            await verify(it, (150, 0, 0))
            text = (await it.client.get("/verify")).text
            assert "<img src=x" not in text and text.count("&lt;img src=x") >= 4 and "\u202e" not in text
            assert "The picture was not kept." in text
            it.service.resources.assets["brand"].verifier.approved = SimpleNamespace(assets=[], names=[])
            assert "no longer in the set" in (await it.client.get("/verify")).text

    run(scenario())


def test_without_a_set_the_page_says_how_to_get_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            page = await it.client.get("/verify")
            assert page.status_code == 200 and "unalike serve --assets FOLDER" in page.text
            secret = it.service.store.keys.add("till", "operate", "colors")[1]
            it.service.access.refresh()
            assert (await it.client.get("/verify", headers={"Authorization": f"Bearer {secret}"})).status_code == 403

    run(scenario())
