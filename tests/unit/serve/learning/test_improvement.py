"""``unalike improve``: candidate, verdict, promotion in one call; a bad candidate is refused; the options that exclude each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.learning import NAME, Scene, make_scene, network_bytes
from tests.support.program import unalike as in_process
from unalike.actions.result import Result
from unalike.errors import SpecError
from unalike.serve.learning import candidate as candidate_module
from unalike.serve.learning.improvement import improve
from unalike.serve.learning.promotion import PromotionRefused
from unalike.spec.improve import Improve


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Training and export are replaced by a made-up network of a kind."""
    chosen = {"kind": "color"}

    def export(checkpoint: Path, manifest: Path, folder: Path) -> Path:
        file = folder / "made-up.onnx"
        file.write_bytes(network_bytes(chosen["kind"]))
        return file

    monkeypatch.setattr(
        "unalike.actions.train.train", lambda spec, settings, *, data: Result(data.parent, data.parent / "b.pth", {})
    )
    monkeypatch.setattr(candidate_module, "_export", export)
    return chosen


def taught_scene(folder: Path, kind: str) -> Scene:
    scene = make_scene(folder, kind=kind)
    for shade in range(60):
        scene.correct(shade % 4, shade)
    return scene


def settings(scene: Scene, **values: object) -> Improve:
    return Improve(folder=str(scene.store.folder), runtime="onnxruntime", share=0.6, **values)  # type: ignore[arg-type]


def test_a_good_candidate_is_promoted_and_taken_back(tmp_path: Path, kind: dict[str, str]) -> None:
    scene = taught_scene(tmp_path, "gray")
    answer = improve(settings(scene), actor="me")
    assert answer["comparison"]["result"]["verdict"]["decision"] == "promote"
    assert answer["promotion"]["model"] == answer["model"]["id"]
    assert scene.load().model_identity.network == answer["model"]["network"]
    back = improve(settings(scene, roll_back=True), actor="me")
    assert back["promotion"]["former"] == answer["model"]["file"]
    assert scene.load().model_identity.file == str(tmp_path / "service.onnx")


def test_a_bad_candidate_is_refused_and_stays_in_the_store(tmp_path: Path, kind: dict[str, str]) -> None:
    scene = taught_scene(tmp_path, "color")
    kind["kind"] = "gray"
    with pytest.raises(PromotionRefused, match="worse"):
        improve(settings(scene), actor="me")
    (candidate,) = scene.store.learning.models(NAME)
    assert scene.store.learning.promotions(NAME) == []
    again = improve(settings(scene, candidate=candidate.id, promote=False), actor="me")
    assert again["promotion"] is None and again["comparison"]["result"]["verdict"]["decision"] == "worse"
    answer = improve(settings(scene, candidate=candidate.id, override=True, reason="a drill"), actor="me")
    assert answer["promotion"]["details"]["override"] is True


def test_the_command_refuses_with_one_line_and_prints_json(tmp_path: Path, kind: dict[str, str]) -> None:
    scene = taught_scene(tmp_path, "color")
    kind["kind"] = "gray"
    words = ["improve", "--folder", str(scene.store.folder), "--gallery", NAME, "--runtime", "onnxruntime"]
    refused = in_process(*words)
    assert refused.returncode != 0 and "error: not promoted: the candidate is worse" in refused.stderr
    (candidate,) = scene.store.learning.models(NAME)
    shown = in_process(*words, "--candidate", candidate.id, "--no-promote", "--json")
    assert shown.returncode == 0 and json.loads(shown.stdout)["model"]["id"] == candidate.id
    promoted = in_process(*words, "--candidate", candidate.id, "--override", "--reason", "a drill")
    assert promoted.returncode == 0 and f"the gallery {NAME} is served with" in promoted.stdout


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"roll_back": True, "candidate": "x"}, "roll_back with data or a candidate"),
        ({"candidate": "x", "data": "photos"}, "candidate with data"),
        ({"with_service": False}, "no data"),
        ({"override": True}, "override without a reason"),
        ({"gallery": "none"}, "no gallery 'none'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    scene = make_scene(tmp_path)
    with pytest.raises(SpecError, match=message):
        improve(settings(scene, **values), actor="me")


def test_without_a_service_it_says_what_to_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="no store of a service in runs/serve or runs/demo/serve"):
        improve(Improve(), actor="me")
