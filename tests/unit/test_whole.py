import os

import pytest

from unalike.data.whole import replacing, write_bytes, write_text


def test_a_file_is_replaced_whole_and_an_exception_leaves_the_old_one(tmp_path):
    path = tmp_path / "table.csv"
    write_text(path, "old ü \udce9")
    assert path.read_bytes() == "old ü ".encode() + b"\xe9"
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text("half")
        assert partial.suffix == ".csv" and partial.name.startswith(".") and path.read_bytes().startswith(b"old")
        raise ZeroDivisionError
    assert path.read_bytes().startswith(b"old") and os.listdir(tmp_path) == ["table.csv"]
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["table.csv"]


def test_nothing_written_replaces_nothing(tmp_path):
    path = tmp_path / "a"
    with replacing(path):
        pass
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_not_taken_over(tmp_path):
    path = tmp_path / "a.bin"
    with replacing(path) as partial:
        name = partial
    name.write_bytes(b"torn")
    with replacing(path) as partial:
        assert partial == name and not partial.exists()
        partial.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
