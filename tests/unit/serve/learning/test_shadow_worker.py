"""The process of a shadow: one line when the candidate is ready, one for each image, and one for what cannot be done."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.learning import NAME, hue_picture, make_scene
from unalike.serve.learning.shadow_gallery import CandidateAnswer, ShadowGallery
from unalike.serve.learning.shadow_worker import ShadowOrder, serve


def conversation(order: ShadowOrder, *images: bytes, rule: str | None = None) -> list[dict[str, Any]]:
    """What the process says."""
    requests, answers = io.BytesIO(), io.BytesIO()
    for content in images:
        requests.write(json.dumps({"bytes": len(content), "rule": rule}).encode() + b"\n" + content)
    requests.seek(0)
    serve(order, requests, answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_images_are_answered_one_after_the_other(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    candidate = scene.add_candidate("color")
    folder, address = str(scene.store.folder), scene.place.address
    scene.store.close()
    order = ShadowOrder(candidate.id, folder, None, None, NAME, address, None, "onnxruntime", "auto", 1, 10**6)
    assert ShadowOrder(**json.loads(order.to_line())) == order
    pictures = [hue_picture(2, 77), b"no picture", hue_picture(1, 77)]
    ready, first, bad, second = conversation(order, *pictures, rule="vote")
    assert ready == {"ready": {"references": 12, "left_out": 0}}
    assert (first["answer"]["decision"], first["answer"]["label"]) == ("label", "color 2")
    assert second["answer"]["label"] == "color 1" and second["references"] == 12
    assert "answer" not in bad and bad["error"]


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    folder, address = str(scene.store.folder), scene.place.address
    scene.store.close()
    order = ShadowOrder("none", folder, None, None, NAME, address, None, "onnxruntime", "auto", 1, 10**6)
    (only,) = conversation(order, hue_picture(0))
    assert "no model 'none'" in only["error"]


def test_an_image_that_makes_it_fail_ends_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    scene = make_scene(tmp_path)
    candidate = scene.add_candidate("color")
    folder, address = str(scene.store.folder), scene.place.address
    scene.store.close()
    order = ShadowOrder(candidate.id, folder, None, None, NAME, address, None, "onnxruntime", "auto", 1, 10**6)
    identify = ShadowGallery.identify

    def fail(self: ShadowGallery, content: bytes, rule: str | None = None) -> CandidateAnswer:
        if content == b"bad":
            raise ZeroDivisionError("of ours")
        return identify(self, content, rule)

    monkeypatch.setattr(ShadowGallery, "identify", fail)
    _, bad, good = conversation(order, b"bad", hue_picture(1, 77), rule="vote")
    assert bad == {"error": "ZeroDivisionError: of ours", "references": 12, "left_out": 0}
    assert good["answer"]["label"] == "color 1" and "Traceback" in capfd.readouterr().err
