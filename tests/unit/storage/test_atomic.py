import ast
import os
import threading
from pathlib import Path

import pytest

import unalike
from unalike.storage import atomic as whole
from unalike.storage.atomic import atomic_write, copy_file, create_text, write_bytes, write_text

SOURCE = Path(unalike.__file__).parent
# Writing under a final name without ``data.whole``, and why nobody can see half of it.
SPARED = {
    "storage.atomic": "the one way itself",
    "data.archives": "unpacked in a folder that is renamed when it is whole",
    "storage.fetch": "downloads that go on where they broke off, checked and renamed; names on record line by line",
    "storage.filesystems": "the same downloads",
    "storage.cache": "a size of a few digits in the file that holds the entry's lock; unreadable, the bytes are counted",
    "runs.upload": "an empty mark",
    "actions.discover": "in a folder that is renamed when it is whole",
    "runs.run": "status.json, a line at a time",
    "training.hyperparameter_search.results": "trials, a line at a time",
    "training.hyperparameter_search.workers": "a trial's log", "runs.processes": "a job's log", "jobs.supervisor": "a job's log",
    "cli.__init__": "a traceback under a temporary name", "deploy.quantization.activation_ranges": "in a temporary folder",
    "actions.benchmark": "in a temporary folder", "actions.demo_images": "made-up pictures in a folder of their own",
    "actions.embed write_table": "handed a hidden name",
}  # fmt: skip
WRITERS = {"write_text", "write_bytes", "copyfile", "copy2", "savez", "savez_compressed", "write_table", "fdopen"}


def test_a_file_is_replaced_whole_and_an_exception_leaves_the_old_one(tmp_path):
    path = tmp_path / "table.csv"
    write_text(path, "old ü \udce9")
    assert path.read_bytes() == "old ü ".encode() + b"\xe9"
    with pytest.raises(ZeroDivisionError), atomic_write(path) as partial:
        partial.write_text("half")
        assert partial.suffix == ".csv" and partial.name.startswith(".") and path.read_bytes().startswith(b"old")
        raise ZeroDivisionError
    assert path.read_bytes().startswith(b"old") and os.listdir(tmp_path) == ["table.csv"]
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["table.csv"]


def test_nothing_written_replaces_nothing(tmp_path):
    path = tmp_path / "a"
    with atomic_write(path):
        pass
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_not_taken_over(tmp_path):
    path = tmp_path / "a.bin"
    with atomic_write(path) as partial:
        name = partial
    name.write_bytes(b"torn")
    with atomic_write(path) as partial:
        assert partial == name and not partial.exists()
        partial.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"


def test_who_writes_alone_removes_what_other_killed_processes_left(tmp_path):
    path, left = tmp_path / "a[1].pth", tmp_path / ".a[1].partial-1.pth"
    others = [tmp_path / ".b.partial-1.pth", tmp_path / ".a[1].partial-1.onnx"]
    for file in (left, *others):
        file.write_bytes(b"torn")
    write_bytes(path, b"shared")
    assert left.exists()
    with atomic_write(path, single_writer=True) as partial:
        partial.write_bytes(b"alone")
    assert not left.exists() and all(file.exists() for file in others) and path.read_bytes() == b"alone"


@pytest.mark.parametrize("links", [True, False])
def test_copies_replace_and_stay_alone(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(PermissionError("no links here")))
    source, path = tmp_path / "a.pth", tmp_path / "b.pth"
    for link in (True, False):
        write_bytes(source, b"first")
        write_bytes(path, b"older")
        copy_file(source, path, link=link)
        assert (source.stat().st_ino == path.stat().st_ino) == (link and links)
        write_bytes(source, b"second")
        assert path.read_bytes() == b"first"
    assert sorted(os.listdir(tmp_path)) == ["a.pth", "b.pth"]


@pytest.mark.parametrize("links", [True, False])
def test_one_of_many_creates_a_file_and_nobody_reads_half(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(PermissionError("no links here")))
    path, text, won = tmp_path / "lock", "ü" * 1000, []
    # Threads share the process number by which hidden names differ.
    monkeypatch.setattr(whole, "_temporary_path", lambda path: path.with_name(f".{threading.get_ident()}"))

    def race():
        try:
            create_text(path, text)
            won.append(1)
        except FileExistsError:
            if links:
                assert path.read_text(encoding="utf-8") == text

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [1] and os.listdir(tmp_path) == ["lock"] and path.read_text(encoding="utf-8") == text


def writes(tree):
    """Calls that put a file under a name, and are not inside ``with atomic_write(...)``, as (line, what)."""
    found = []

    def walk(node, inside):
        if isinstance(node, (ast.With, ast.AsyncWith)):
            called = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
            inside = inside or any(getattr(call.func, "id", "") == "atomic_write" for call in called)
        if isinstance(node, ast.Call) and not inside:
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            on_path = isinstance(function, ast.Attribute)
            modes = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            opened = name == "open" and any(isinstance(mode, str) and mode[:1] in "wax" for mode in modes if mode)
            if (
                opened
                or (on_path and name in WRITERS)
                or (name == "save" and getattr(function.value, "id", "") == "torch")
            ):
                found.append((node.lineno, name))
        for child in ast.iter_child_nodes(node):
            walk(child, inside)

    walk(tree, False)
    return found


def test_files_are_written_whole_everywhere():
    faults = []
    for path in sorted(SOURCE.rglob("*.py")):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        if module not in SPARED:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            faults += [f"{module}:{line} {name}" for line, name in writes(tree) if f"{module} {name}" not in SPARED]
    assert not faults


def test_the_rule_above_can_fail():
    code = "from pathlib import Path\nPath('a').write_text('x')\nwith atomic_write(p) as q:\n    q.write_text('x')\nopen('a', 'w')\n"
    assert writes(ast.parse(code)) == [(2, "write_text"), (5, "open")]
