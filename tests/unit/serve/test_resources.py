"""Loading of what is served."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.support.networks import pictures, write_model
from tests.support.serving import StandInEngine, make_resources, run, settings_for
from unalike.errors import DataError, ModelError
from unalike.recognition.gallery import Gallery
from unalike.recognition.recognizer import Recogniser
from unalike.serve import resources as module
from unalike.serve.asset_sets import AssetOptions
from unalike.serve.problems import Problem
from unalike.serve.resources import ResourceLoader, build_new_gallery
from unalike.serve.sources import Sources
from unalike.spec.serve import Serve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    recognizer = Recogniser.load(write_model(folder), runtime="onnxruntime")
    recognizer.enrol(list(pictures(2)), ["a", "b"])
    for name in ("x", "y"):
        recognizer.gallery.save(folder / f"{name}.gallery")
    return folder


def test_galleries_of_one_network_share_its_engine_and_queue(folder: Path) -> None:
    sources = Sources(galleries={name: str(folder / f"{name}.gallery") for name in ("x", "y")})
    resources = ResourceLoader(Serve(runtime="onnxruntime", queue=17), sources).load()
    assert len(resources.networks) == 1
    assert resources.gallery("x").network is resources.gallery("y").network
    assert resources.gallery().name == "x" and resources.gallery().network.batcher.limit == 17
    with pytest.raises(Problem) as caught:
        resources.gallery("z")
    assert caught.value.status == 404 and "x, y" in caught.value.expected
    with pytest.raises(Problem):
        resources.inspector()
    resources.close()


def test_a_model_without_a_gallery_gets_an_empty_one_that_is_kept(folder: Path, tmp_path: Path) -> None:
    sources = Sources(model=str(folder / "model.onnx"), folder=tmp_path / "own")
    for expected in (0, 1):
        resources = ResourceLoader(Serve(runtime="onnxruntime"), sources).load()
        gallery = resources.gallery().gallery
        assert len(gallery) == expected
        gallery.enrol(resources.networks[next(iter(resources.networks))].engine(pictures(1)), ["c"])
        gallery.save(sources.new_gallery)
        resources.close()


def test_of_two_processes_that_make_the_new_gallery_one_is_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Sources(model=str(folder / "model.onnx"), folder=tmp_path)
    save = Gallery.save

    def save_second(gallery: Gallery, path: str, **options: bool) -> Path:
        other = Gallery.load(folder / "x.gallery")  # the other process has made it, and enrolled two images
        save(other, path)
        monkeypatch.setattr(Gallery, "save", save)
        return save(gallery, path, **options)

    monkeypatch.setattr(Gallery, "save", save_second)
    resources = ResourceLoader(Serve(runtime="onnxruntime"), sources).load()
    assert len(resources.gallery().gallery) == 2
    resources.close()


def test_a_gallery_is_built_from_references_once(folder: Path, tmp_path: Path) -> None:
    for number, pixels in enumerate(pictures(4)):
        place = tmp_path / "refs" / f"c{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")
    sources = Sources(model=str(folder / "model.onnx"), folder=tmp_path / "own", references=tmp_path / "refs")
    build_new_gallery(Serve(runtime="onnxruntime"), sources)
    assert Gallery.load(sources.new_gallery).counts() == {"c0": 2, "c1": 2}
    content = sources.new_gallery.read_bytes()
    build_new_gallery(Serve(runtime="onnxruntime"), sources)
    assert sources.new_gallery.read_bytes() == content


def test_a_gallery_of_another_network_is_refused(folder: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path, seed=1)
    sources = Sources(model=str(other), galleries={"x": str(folder / "x.gallery")})
    with pytest.raises(ModelError):
        ResourceLoader(Serve(runtime="onnxruntime"), sources).load()


def test_an_inspector_whose_file_changes_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests keep the resource that they have; what cannot be read leaves the former one in service."""

    def load(path: str, **options: object) -> bytes:
        content = Path(path).read_bytes()
        if content == b"damaged":
            raise DataError("damaged")
        return content

    monkeypatch.setattr("unalike.inspection.inspector.Inspector.load", load)
    path = tmp_path / "part.inspector"
    path.write_bytes(b"old")
    resources = ResourceLoader(Serve(), Sources(inspectors={"part": str(path)})).load()
    watch, first = resources.watches["inspector part"], resources.inspector()

    async def change(content: bytes) -> None:
        path.write_bytes(content)
        assert not await watch.look()
        await watch.look()

    run(change(b"newer"))
    assert resources.inspector("part").inspector == b"newer" and first.inspector == b"old"  # type: ignore[comparison-overlap]
    with pytest.raises(DataError):
        run(change(b"damaged"))
    assert resources.inspector().inspector == b"newer"  # type: ignore[comparison-overlap]


def test_a_set_of_assets_whose_folder_changes_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def names(options: AssetOptions) -> list[str]:
        assert options.threads == 3
        return sorted(path.name for path in Path(options.reference).iterdir())

    async def build(options: AssetOptions) -> list[str]:
        return names(options)

    monkeypatch.setattr(module, "open_asset_set", names)
    monkeypatch.setattr(module, "load_changed_asset_set", build)
    (tmp_path / "a.png").write_bytes(b"a")
    resources = ResourceLoader(Serve(threads=3), Sources(assets={"logos": str(tmp_path)})).load()
    (tmp_path / "b.png").write_bytes(b"b")
    watch = resources.watches["set of assets logos"]

    async def look_twice() -> None:
        assert not await watch.look() and await watch.look()

    run(look_twice())
    assert resources.asset_set().verifier == ["a.png", "b.png"]  # type: ignore[comparison-overlap]


def test_several_processes_share_the_cores() -> None:
    assert ResourceLoader(Serve(), Sources()).threads is None
    assert ResourceLoader(Serve(workers=1000 // 4), Sources()).threads == 1
    assert ResourceLoader(Serve(workers=2, threads=3), Sources()).threads == 3


def test_a_change_of_another_process_is_taken_over(tmp_path: Path) -> None:
    resources = make_resources(tmp_path, StandInEngine(), settings_for(tmp_path))
    resource = resources.gallery()
    assert not resource.refresh()
    with Gallery.edit(resource.address) as other:
        other.rename("red", "crimson")
    assert resource.refresh() and "crimson" in resource.gallery.classes and not resource.refresh()
    resources.close()
