"""What cannot be decoded is named, in order; a time limit leaves images out."""

from pathlib import Path

import pytest
from PIL import Image

from unalike.data.notices import Notices
from unalike.data.readability import find_unreadable


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{n}.jpg" for n in range(6)]
    for file in files:
        Image.effect_noise((90, 70), 60).save(file)
    files[4].write_bytes(b"")
    files[1].write_bytes(files[0].read_bytes()[:-400])
    files[2].write_text("no image")
    return files


def test_every_image_is_read_to_its_end(paths: list[Path]) -> None:
    notices = Notices()
    assert find_unreadable(paths, notices, seconds=60) == (6, 3)
    assert notices.names("unreadable") == tuple(str(paths[n]) for n in (1, 2, 4))
    assert all(detail for _, _, detail in notices)


def test_without_time_none_is_read_and_larger_ones_than_allowed_count(paths: list[Path]) -> None:
    notices = Notices()
    assert find_unreadable(paths, notices, seconds=-1) == (0, 0) and not len(notices)
    assert find_unreadable(paths, notices, seconds=60, max_pixels=100) == (6, 6)
    assert len(notices) == 6
