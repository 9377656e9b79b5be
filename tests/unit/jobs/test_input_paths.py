"""A job whose inputs are not there is refused; what another job writes, or a store holds, is left to the job."""

import pytest

from unalike.errors import DataError
from unalike.jobs.database import Job
from unalike.jobs.input_paths import refuse_missing_inputs


@pytest.fixture
def place(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    return tmp_path


def refuse(place, action, **overrides):
    job = Job("x", action, cwd=str(place), overrides=overrides)
    refuse_missing_inputs(job, place / "workspace")


@pytest.mark.parametrize(
    "action, overrides",
    [
        ("train", {"dataset.train_dataset": "photo"}),
        ("evaluate", {"dataset.val_dataset.reference": "photos", "dataset.val_dataset.query": "photo"}),
        ("inference", {"inference.input_path": "photo"}),
        ("quantize", {"quantize.calibration.cal_image_dir": ["photos", "photo"]}),
        ("inspect_fit", {"inspect_fit.good": "photo"}),
        ("identify", {"identify.images": ["photos/a.jpg", "photo"]}),
        ("gallery_build", {"gallery_build.source": "photo", "gallery_build.model": "pretrained"}),
    ],
)
def test_an_input_that_does_not_exist_is_refused_with_a_close_name(place, action, overrides):
    with pytest.raises(DataError, match=r"photo: no such file or folder; expected .*; did you mean 'photos'"):
        refuse(place, action, **overrides)


@pytest.mark.parametrize(
    "source", ["photos", "s3://bucket/photos", "old.tar!photos", "workspace/1/discover", "file:///elsewhere"]
)
def test_what_exists_or_cannot_be_known_yet_is_taken(place, source):
    refuse(place, "train", **{"dataset.train_dataset": source})


def test_inputs_of_the_users_spec_count_too(place):
    job = Job("x", "train", cwd=str(place), spec={"dataset": {"train_dataset": "away"}})
    with pytest.raises(DataError, match="dataset.train_dataset: away: no such .*relative paths begin at"):
        refuse_missing_inputs(job, place / "workspace")


def test_a_pattern_of_tar_files_exists_where_all_of_them_do(place):
    for number in range(3):
        (place / f"part-{number}.tar").touch()
    refuse(place, "train", **{"dataset.train_dataset": "part-{0..2}.tar"})
    with pytest.raises(DataError, match="no such file or folder"):
        refuse(place, "train", **{"dataset.train_dataset": "part-{0..3}.tar"})
