"""``unalike improve`` with a real training: refused while corrections are too few, promoted when there are more, taken back."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.learning import NAME, Scene, hue_picture, make_scene
from tests.support.program import process

# The shortest training: small images of the smallest trunk.
SPEC = """
model: {backbone: tf_efficientnet_lite0, input_height: 64, input_width: 64}
dataset: {workers: 1}
train: {batch_size: 8, num_epochs: 1, seed: 3}
"""


def improve(scene: Scene, *words: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, while no other one has the store open."""
    scene.store.close()
    start = ("improve", "--folder", scene.store.folder, "--gallery", NAME, "--runtime", "onnxruntime", "--threads", 1)
    done: subprocess.CompletedProcess[str] = process(*start, *words, timeout=1800)
    return done


def network_of(scene: Scene) -> str:
    with scene.place.opened() as gallery:
        return str(gallery.model_identity.network)


@pytest.mark.slow
def test_a_candidate_is_refused_while_images_are_missing_then_promoted_and_taken_back(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, kind="gray", calibrated=True)
    for shade in range(4):
        scene.correct(shade, shade)
    for number in range(4):
        folder = tmp_path / "old" / f"color {number}"
        folder.mkdir(parents=True)
        for shade in range(6):
            (folder / f"{shade}.png").write_bytes(hue_picture(number, 500 + shade))
    (tmp_path / "training.yaml").write_text(SPEC)
    former = network_of(scene)

    refused = improve(
        scene, tmp_path / "old", "--minutes", 0.2, "--goal", "known-classes", "--share", 0.6, "--name", "first",
        "--training-spec", tmp_path / "training.yaml",
    )  # fmt: skip
    assert refused.returncode != 0, refused.stderr[-3000:]
    error = refused.stderr.strip().splitlines()[-1]
    assert error.startswith("error: not promoted: too few images to say"), refused.stderr[-3000:]
    missing = re.search(r"about (\d+) more are missing", error)
    assert missing is not None and int(missing[1]) > 0
    (candidate,) = scene.store.learning.models(NAME)
    comparison = scene.store.learning.comparison(candidate.id)
    assert candidate.name == "first" and comparison is not None
    assert comparison.result["verdict"]["decision"] == "too few" and 0 < comparison.result["images"] <= 4
    facts = candidate.facts
    assert facts["images"] + facts["withheld"] == 12 + 4 + 24 and facts["withheld"] == comparison.result["images"]
    assert network_of(scene) == former and scene.store.learning.promotions(NAME) == []
    assert f"unalike improve --candidate {candidate.id}" in refused.stderr

    for shade in range(4, 4 + max(40, int(missing[1]))):
        scene.correct(shade % 4, shade)
    promoted = improve(scene, "--candidate", candidate.id, "--json")
    assert promoted.returncode == 0, promoted.stderr[-3000:]
    answer = json.loads(promoted.stdout)
    result = answer["comparison"]["result"]
    assert result["verdict"]["decision"] == "promote" and result["after"] > result["before"] and result["images"] >= 40
    assert answer["promotion"]["model"] == answer["model"]["id"] == candidate.id
    assert network_of(scene) == candidate.network != former
    with scene.place.opened() as gallery:
        assert len(gallery) == 12 and gallery.calibration is not None

    back = improve(scene, "--roll-back")
    assert back.returncode == 0 and network_of(scene) == former, back.stderr[-3000:]
    entries = [
        (entry.action, entry.outcome) for entry in scene.store.audit.find().items if entry.action.startswith("model.")
    ]
    assert entries == [("model.rollback", "done"), ("model.promote", "done"), ("model.promote", "failed")]
    (failed,) = [entry for entry in scene.store.audit.find().items if entry.outcome == "failed"]
    assert "too few images" in failed.error and failed.details["model"] == candidate.id and failed.actor
