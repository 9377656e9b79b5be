import multiprocessing
import os
import threading
import time

import pytest

from unalike.errors import DataError
from unalike.storage.atomic import write_text
from unalike.storage.file_lock import file_lock


def count_up(path, times):
    for _ in range(times):
        with file_lock(path):
            number = int(path.read_text()) if path.exists() else 0
            write_text(path, str(number + 1))


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("linked", [True, False])
def test_no_change_of_threads_or_processes_is_lost_and_nothing_is_left_behind(tmp_path, exists, linked):
    path, name = tmp_path / "count", tmp_path / "count"
    if exists:
        path.write_text("0")
    if linked:
        name = tmp_path / "link"
        name.symlink_to("count")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=count_up, args=(place, 15)) for place in (path, name)]
    workers += [threading.Thread(target=count_up, args=(place, 15)) for place in (path, name)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert path.read_text() == "60"
    assert sorted(os.listdir(tmp_path)) == (["count", "link"] if linked else ["count"])


def test_waiting_ends_and_a_killed_holder_holds_nothing(tmp_path, capsys):
    path = tmp_path / "g"
    path.write_text("")
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def hold():
        with file_lock(path):
            ready.set()
            time.sleep(60)

    holder = context.Process(target=hold)
    holder.start()
    ready.wait()
    with pytest.raises(DataError, match="is being changed by another process"), file_lock(path, timeout_s=0.1):
        pass
    holder.kill()
    with file_lock(path, timeout_s=5):
        pass
    holder.join()


def test_a_lock_is_released_although_a_forked_child_lives_on(tmp_path):
    path = tmp_path / "g"
    path.write_text("")
    context = multiprocessing.get_context("fork")
    with file_lock(path):
        child = context.Process(target=time.sleep, args=(60,))
        child.start()
    with file_lock(path, timeout_s=2):
        pass
    child.kill()
    child.join()


def test_a_folder_that_cannot_be_locked_stops_nobody(tmp_path):
    with file_lock(tmp_path / "no folder" / "g"):
        pass


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_one_line(tmp_path, name):
    with pytest.raises(DataError, match="expected the path of a file"), file_lock(f"{tmp_path}/{name}"):
        pass
