import ast
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

try:
    import resource
except ImportError:  # Windows
    resource = None

import unalike
from unalike.storage.atomic import atomic_write, copy_file, create_text, link_file, write_bytes, write_text

SOURCE = Path(unalike.__file__).parent
# Writing under a final name without ``data.whole``, and why nobody can see half of it.
SPARED = {
    "storage.atomic": "the one way itself",
    "inference.shards.shard_file write_table": "rows of a shard, under a temporary name", "data.archives": "unpacked in a folder that is renamed when it is whole",
    "storage.fetch": "downloads that go on where they broke off, checked and renamed; names on record line by line",
    "storage.filesystems": "the same downloads",
    "storage.cache": "a size of a few digits in the file that holds the entry's lock; unreadable, the bytes are counted",
    "runs.upload": "an empty mark",
    "actions.discover": "in a folder that is renamed when it is whole",
    "runs.run": "status.json, a line at a time",
    "training.hyperparameter_search.results": "trials, a line at a time",
    "training.hyperparameter_search.workers": "a trial's log", "runs.processes": "a job's log", "jobs.supervisor": "a job's log",
    "cli.__init__": "a traceback under a temporary name", "deploy.quantization.activation_ranges": "in a temporary folder",
    "actions.benchmark": "in a temporary folder", "training.ray_training write_text": "in a temporary folder", "actions.demo_images": "made-up pictures in a folder of their own",
    "serve.store.backup": "in a folder that is renamed when it is whole; a copy that is read once",
    "serve.child_process": "a setting of the kernel", "serve.inspector_fits": "in a temporary folder",
    "serve.learning.candidate": "in the folder of one training, which nobody goes on with when it is killed",
    "actions.embed write_table": "handed a hidden name", "engines.checksum open": "handed a hidden name",
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


def leave_half(path, then="os.kill(os.getpid(), 9)"):
    """A process that is killed while it writes ``path``."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom unalike.storage.atomic import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as partial:\n    partial.write_bytes(b'half')\n"
        f"    print(partial.name, flush=True)\n    {then}"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_half_files_of_killed_writers_are_removed_and_those_of_living_ones_stay(tmp_path):
    path = tmp_path / "a[1].pth"
    with leave_half(path) as killed:
        name = killed.stdout.readline().strip()
    assert killed.returncode == -9 and os.listdir(tmp_path) == [name]
    stranger = tmp_path / ".a[1].partial-0123456789abcdef01234567.pth"  # of another machine, or of an earlier boot
    stranger.write_bytes(b"half")
    with leave_half(path, "sys.stdin.read()") as living:
        kept = living.stdout.readline().strip()
        write_bytes(path, b"whole")
        assert sorted(os.listdir(tmp_path)) == sorted([kept, stranger.name, "a[1].pth"])
        living.kill()
    os.utime(stranger, (1, 1))
    write_bytes(path, b"whole")
    assert os.listdir(tmp_path) == ["a[1].pth"]


def test_the_second_of_two_files_has_the_name_of_the_first_and_a_lock_of_its_own(tmp_path):
    """Libraries make the name of the weights of that of the graph; whoever writes beside them must not remove them."""
    with atomic_write(tmp_path / "m.xml") as graph, atomic_write(tmp_path / "m.bin", beside=graph) as weights:
        assert weights == graph.with_suffix(".bin")
        write_text(tmp_path / "other", "removes half files that nobody writes")
        assert weights.exists() and graph.exists()
        weights.write_bytes(b"weights")
        graph.write_bytes(b"graph")
    assert sorted(os.listdir(tmp_path)) == ["m.bin", "m.xml", "other"]
    assert (tmp_path / "m.bin").read_bytes() == b"weights" and (tmp_path / "m.xml").read_bytes() == b"graph"


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    path, faults = tmp_path / "a.bin", []
    contents = [bytes([letter]) * 30_000 for letter in b"abcd"]

    def write(content):
        for _ in range(20):
            try:
                write_bytes(path, content)
                if path.read_bytes() not in contents:
                    faults.append("torn")
            except OSError as error:
                faults.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and os.listdir(tmp_path) == ["a.bin"]


def test_mode_owner_and_links_of_the_target_stay(tmp_path):
    folder = tmp_path / "versions"
    folder.mkdir()
    target, link = folder / "v12", tmp_path / "current"
    write_bytes(target, b"old")
    target.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(target, 12345, 23456)
    link.symlink_to("versions/v12")
    write_bytes(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new" and stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.geteuid() != 0 or (target.stat().st_uid, target.stat().st_gid) == (12345, 23456)
    with atomic_write(target) as partial:
        assert not partial.stat().st_mode & 0o007  # nobody else reads it while it is written
        partial.write_bytes(b"newer")
    copy_file(target, link)
    assert not link.is_symlink() and link.read_bytes() == b"newer"
    mask = os.umask(0o027)
    try:
        write_bytes(tmp_path / "fresh", b"")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o640


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs a second user")
def test_another_users_link_in_a_shared_folder_is_no_way_out(tmp_path):
    tmp_path.chmod(0o1777)
    trap, secret = tmp_path / "results.json", tmp_path / "secret"
    secret.write_text("mine")
    trap.symlink_to(secret)
    os.lchown(trap, 12345, 12345)
    with pytest.raises(PermissionError, match="another user's symbolic link"):
        write_text(trap, "lost")
    assert secret.read_text() == "mine"


def test_devices_are_written_in_place(tmp_path):
    write_text(Path("/dev/null"), "text")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_links_change_in_one_step(tmp_path):
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(name.encode())
        link_file(tmp_path / "latest.pth", tmp_path / name)
        assert os.readlink(tmp_path / "latest.pth") == name
    assert sorted(os.listdir(tmp_path)) == ["a.pth", "b.pth", "latest.pth"]


@pytest.mark.skipif(resource is None, reason="needs limits of a process")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_bytes(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]


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
            # of files, the method is no context; of an ``OutputFolder`` it is, and works as ``atomic_write`` does
            inside = inside or any(
                getattr(call.func, "id", "") == "atomic_write" or getattr(call.func, "attr", "") == "write"
                for call in called
            )
        if isinstance(node, ast.Call) and not inside:
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            on_path = isinstance(function, ast.Attribute)
            modes = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            opened = name == "open" and any(isinstance(mode, str) and mode[:1] in "wax" for mode in modes if mode)
            if (
                opened
                or (on_path and name in WRITERS)
                or (on_path and name == "save" and getattr(function.value, "id", "") == "torch")
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
