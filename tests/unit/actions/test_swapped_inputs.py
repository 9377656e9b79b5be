"""Inputs in each other's place are named, with the call that was meant; others are left alone."""

import pytest

from unalike.actions.swapped_inputs import refuse_swapped
from unalike.errors import SpecError


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")


@pytest.mark.parametrize(
    "action, fields, told",
    [
        ("gallery_build", {"gallery": "photos", "source": "a.gallery"}, ("photos is a folder, no gallery; expected the "
         "gallery first; unalike gallery build a.gallery photos")),
        ("identify", {"gallery": "x.JPG", "images": ["a.gallery"]}, ("x.JPG is an image, no gallery; expected the gallery "
         "first; unalike identify a.gallery x.JPG")),
        ("inspect_run", {"inspector": "photos", "images": ["a.inspector"]}, "unalike inspect run a.inspector photos"),
        ("gallery_build", {"gallery": "a.gallery", "source": "a.onnx", "model": "photos"},
         "a.onnx is a model, not images; expected the model after -m; unalike gallery build a.gallery photos -m a.onnx"),
        ("discover", {"source": "a.pth"}, "unalike discover DIR -m a.pth"),
        ("discover", {"source": "my net.pth", "model": "photos"}, "unalike discover photos -m 'my net.pth'"),
        ("identify", {"gallery": "my x.JPG", "images": ["my.gallery"]}, "unalike identify my.gallery 'my x.JPG'"),
    ],
)  # fmt: skip
def test_swapped_inputs_are_named(place, action, fields, told):
    with pytest.raises(SpecError) as error:
        refuse_swapped(action, fields)
    assert told in str(error.value) and error.value.exit_code == 2


@pytest.mark.parametrize(
    "action, fields",
    [
        ("gallery_build", {"gallery": "a.gallery", "source": "photos", "model": "run"}),
        ("gallery_build", {"gallery": "a.gallery", "source": "photos", "rate": None, "half": True}),
        ("gallery_add", {"gallery": "postgresql://h/db?gallery=x.jpg", "source": "a.zip"}),
        ("gallery_add", {"gallery": f"milvus://h/db?gallery={'x' * 5000}", "source": "a.zip"}),
        ("identify", {"gallery": "a.gallery", "images": ["x.jpg", "photos"]}),
        ("gallery_remove", {"gallery": "a.gallery", "labels": ["a.onnx"]}),
        ("embed", {"source": "x.jpg", "model": "a.onnx"}),
        ("export_maps", {"source": "a.pth"}),
    ],
)
def test_inputs_in_their_places_are_taken(place, action, fields):
    refuse_swapped(action, fields)
