"""The page Train as the server renders it: what a role may do, candidates with their verdicts, tasks with curves, hostile names as text."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

from tests.support.learning import NAME, Scene, make_scene, serving
from tests.support.serving import run
from unalike.serve.learning.candidate import RUN_FOLDER, compare_candidate
from unalike.serve.model_files import task_folder
from unalike.serve.store import TaskRecord
from unalike.serve.store.learning import TRAIN
from unalike.serve.store.records import FAILED

MARKUP = "<img src=x onerror=alert(1)>\"'&"
BIDI = "photo\u202egnp.exe"


def add_failed(scene: Scene, kind: str, options: dict[str, object], error: str) -> TaskRecord:
    """A task that failed."""
    task = scene.store.tasks.add(kind, NAME, options, actor="chief")
    running = scene.store.tasks.claim((kind,))
    assert running is not None and scene.store.tasks.finish(running, FAILED, error=error)
    return task


def add_training(scene: Scene, folder: Path, name: str = MARKUP) -> TaskRecord:
    """A training with a curve, a log and a report."""
    task = add_failed(scene, TRAIN, {"minutes": 2.0, "name": name}, MARKUP)
    run_folder = task_folder(scene.store.folder, task.id) / RUN_FOLDER
    run_folder.mkdir(parents=True)
    lines = [{"step": step, "kpi": {"train_loss": 1 / step}} for step in (1, 2, 3)]
    (run_folder / "status.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run_folder / "report.html").write_text("<h1>Report</h1>")
    (run_folder.parent / "log.txt").write_text(f"a line with {MARKUP} and {BIDI}\n")
    return task


def test_candidates_are_shown_with_verdict_and_pictures(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, kind="gray")
    for shade in range(24):
        scene.correct(shade % 4, shade, label=f"color {shade % 4}")
    good, bad = scene.add_candidate("color"), scene.add_candidate("gray")

    async def scenario() -> None:
        async with serving(scene) as it:
            text = (await it.client.get("/train")).text
            assert (
                text.count('data-act="compare"') == 2 - 1
                and "in service" in text
                and text.count("there is nothing to promote") == 1
            )  # the gray one is the network in service
            assert 'data-act="promote"' not in text and 'data-act="roll-back"' not in text
            compare_candidate(scene.place, good.id)
            text = (await it.client.get("/train/state")).text
            assert (
                f'id="candidate-{good.id}-promote"' in text
                and "the candidate is not worse" in text
                and "<html" not in text
            )
            assert "now right" in text and "/v1/decisions/" in text and "image?side=128" in text
            assert f'id="candidate-{bad.id}-override"' not in text
            assert (await it.client.get("/train", params={"gallery": "none"})).status_code == 404

    run(scenario())


def test_a_verdict_that_refuses_offers_an_override(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, kind="color")
    for shade in range(8):
        scene.correct(shade % 4, shade)
    bad = scene.add_candidate("gray")
    compare_candidate(scene.place, bad.id)

    async def scenario() -> None:
        async with serving(scene) as it:
            text = (await it.client.get("/train")).text
            assert (
                f'id="candidate-{bad.id}-override"' in text
                and 'data-act="promote"' not in text
                and "the candidate is worse" in text
            )

    run(scenario())


def test_tasks_are_shown_with_curve_log_and_report(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    task = add_training(scene, tmp_path)
    for kind in ("compare", "promote", "rollback"):
        add_failed(scene, kind, {"model": "x"}, "why")

    async def scenario() -> None:
        async with serving(scene) as it:
            text = (await it.client.get("/train")).text
            assert "<polyline" in text and f"/v1/trainings/{task.id}/report" in text and 'data-busy="no"' in text
            assert "<img src=x" not in text and "&lt;img src=x" in text and "\u202e" not in text
            assert "style=" not in text and "<script>" not in text

    run(scenario())


def test_a_running_task_says_how_far_it_is(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    tasks = scene.store.tasks
    tasks.add(TRAIN, NAME, {"minutes": 10.0}, actor="chief")
    task = tasks.claim((TRAIN,))  # by another process
    assert task is not None and tasks.report(task, f"fine-tuning {MARKUP}", 1200, 4000)

    async def scenario() -> None:
        async with serving(scene) as it:
            text = (await it.client.get("/train/state")).text
            assert "1,200 of 4,000 · 0:0" in text and "of about 10 minutes" in text
            assert 'max="4000" value="1200"' in text and "<img src=x" not in text
            assert tasks.report(task, "loading", 0, 0)
            text = (await it.client.get("/train/state")).text
            assert "loading · 0:0" in text and "max=" not in text.partition("<progress")[2].partition(">")[0]

    run(scenario())


def test_roles_hide_what_one_may_not_do(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    scene.add_candidate("color")
    add_training(scene, tmp_path)

    async def scenario() -> None:
        async with serving(scene) as it:
            keys = {
                role: {"x-api-key": it.service.store.keys.add(role, role)[1]} for role in ("view", "operate", "admin")
            }
            it.service.access.refresh()
            for role in ("view", "operate"):
                text = (await it.client.get("/train", headers=keys[role])).text
                assert "training-form" not in text and "data-act" not in text and "log-" not in text and "color" in text
                assert (await it.client.get("/train/checks", headers=keys[role])).status_code == 403
            text = (await it.client.get("/train", headers=keys["admin"])).text
            assert 'id="training-form"' in text and 'data-act="compare"' in text

    run(scenario())


def test_checks_say_what_is_in_the_data(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    folder = tmp_path / "old" / MARKUP.replace("/", "")
    folder.mkdir(parents=True)
    (folder / "broken.png").write_bytes(b"\x89PNG broken")
    (folder / "b.png").write_bytes(b"\x89PNG broken too")

    async def scenario() -> None:
        async with serving(scene, train_folders=[f"old={tmp_path / 'old'}"]) as it:
            text = (await it.client.get("/train/checks", params={"folder": "old"})).text
            assert "12 images of 4 classes" in text and "2 unreadable images" in text and "12 from references" in text
            assert "<img src=x" not in text
            assert (await it.client.get("/train/checks", params={"folder": "/etc"})).status_code == 422

    run(scenario())


def test_no_id_of_the_page_can_be_that_of_a_candidate_or_a_task() -> None:
    folder = files("unalike.serve") / "templates"
    fixed = {name: re.findall(r'(?<![-\w])id="([^"]*)"', (folder / name).read_text("utf-8")) for name in (
        "train.html.j2", "layout.html.j2", "fragments/shadow.html.j2", "fragments/train_checks.html.j2", "fragments/train_state.html.j2",
    )}  # fmt: skip
    ids = [identifier for found in fixed.values() for identifier in found]
    made = [identifier for identifier in ids if "{{" in identifier]
    assert len(ids) == len(set(ids)) and len(made) >= 9
    assert all(
        re.fullmatch(r"(candidate|task)-\{\{ (candidate|task)\.id \}\}-[a-z]+", identifier) for identifier in made
    ), made
    assert not [
        identifier for identifier in ids if identifier not in made and identifier.startswith(("candidate-", "task-"))
    ]
