"""Files that are loaded again when they change."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.serving import run, until
from unalike.errors import DataError
from unalike.serve.file_watch import RETRY_S, FileWatch, read_status


class Loader:
    """Counts how often it loads; fails while ``is_broken``."""

    def __init__(self) -> None:
        self.count, self.is_broken = 0, False

    async def __call__(self) -> None:
        self.count += 1
        if self.is_broken:
            raise DataError("damaged")


def test_a_changed_file_is_loaded_once_it_is_no_longer_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        path, load = tmp_path / "part.inspector", Loader()
        path.write_bytes(b"1")
        watch = FileWatch(str(path), read_status(str(path)), load)
        assert not await watch.look() and not await watch.look()
        path.write_bytes(b"12")
        assert not await watch.look()
        path.write_bytes(b"123")  # it is still being written
        assert not await watch.look() and load.count == 0
        assert await watch.look() and load.count == 1
        assert not await watch.look() and not await watch.look() and load.count == 1

    run(scenario())


def test_what_cannot_be_loaded_is_tried_again_after_a_change_or_a_minute(tmp_path: Path) -> None:
    async def scenario() -> None:
        path, load, now = tmp_path / "part.inspector", Loader(), [0.0]
        path.write_bytes(b"1")
        watch = FileWatch(str(path), read_status(str(path)), load, clock=lambda: now[0])
        path.unlink()
        load.is_broken = True
        assert not await watch.look()
        with pytest.raises(DataError):
            await watch.look()
        assert not await watch.look() and load.count == 1
        now[0] += RETRY_S
        with pytest.raises(DataError):
            await watch.look()
        assert not await watch.look() and load.count == 2
        load.is_broken = False
        path.write_bytes(b"12")
        assert not await watch.look() and await watch.look() and load.count == 3

    run(scenario())


def test_a_file_of_a_folder_that_is_added_changed_or_removed_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "sub").mkdir()
    states = [read_status(str(tmp_path))]
    (tmp_path / "sub" / "b.png").write_bytes(b"2")
    states.append(read_status(str(tmp_path)))
    (tmp_path / "a.png").write_bytes(b"other")
    states.append(read_status(str(tmp_path)))
    (tmp_path / "sub" / "b.png").unlink()
    states.append(read_status(str(tmp_path)))
    assert len(set(states)) == 4 and read_status(str(tmp_path / "none")) == ()


def test_it_goes_on_after_an_error_and_a_remote_address_is_never_looked_at(tmp_path: Path) -> None:
    async def scenario() -> None:
        path, load = tmp_path / "part.inspector", Loader()
        watch, reloads, errors = FileWatch(str(path), (), load), [0], []  # type: ignore[var-annotated]

        def count() -> None:
            reloads[0] += 1

        task = asyncio.create_task(watch.run(0.01, count, errors.append))
        load.is_broken = True
        path.write_bytes(b"1")
        await until(lambda: len(errors) == 1)
        load.is_broken = False
        path.write_bytes(b"12")
        await until(lambda: reloads[0] == 1)
        task.cancel()
        assert not await FileWatch("s3://bucket/assets", (), load).look()

    run(scenario())
