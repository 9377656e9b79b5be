"""No remedy names a setting that the command at hand refuses."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

import unalike
from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.errors import DataError, UnalikeError
from unalike.inspection.normal_images import list_images
from unalike.spec import load_spec
from unalike.spec.fields import fields_of

SOURCE = Path(unalike.__file__).parent
SETTING = re.compile(r"\b((?:dataset|model|train)\.[a-z_]+[a-z_.]*)")
# Packages whose code runs only in commands that take every setting of a spec.
WITH_SPEC = ("training/", "spec/", "jobs/", "actions/", "deploy/", "model/", "cli/", "data/batches/")
# Modules that every command uses -> why a setting may stand there.
GUARDED = {
    "data/from_spec.py": "reads the section dataset",
    "data/splits.py": "divides the images of a training",
    "data/split_folders.py": "says so of a training alone",
    "data/manifests.py": "names the setting where the caller has one (test_a_table_without_the_right_columns)",
    "inference/embedding.py": "names the setting where the caller has one (adjustable)",
    "metrics/retrieval.py": "evaluate, training and quantize rank by classes of dataset.*",
    "runs/failures.py": "says 'in a training'",
    "data/pixel_conversion.py": "says 'a training takes it'",
    "data/decode.py": "the limit of pixels is a setting of the commands with a spec",
}


def remedies(path: Path) -> Iterator[str]:
    """Settings that the arguments ``remedy`` and ``expected`` of calls in a module name, and what functions ``*_remedy`` return."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts: list[ast.AST] = []
        if isinstance(node, ast.keyword) and node.arg in ("remedy", "expected"):
            parts = [node.value]
        elif isinstance(node, ast.FunctionDef) and "remedy" in node.name:
            parts = [child for child in ast.walk(node) if isinstance(child, ast.Return)]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "say":
            parts = list(node.args)
        for part in parts:
            for text in ast.walk(part):
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    yield from SETTING.findall(text.value)


def test_modules_of_every_command_name_no_setting_of_a_spec() -> None:
    names = {path.relative_to(SOURCE).as_posix(): set(remedies(path)) for path in SOURCE.rglob("*.py")}
    settings = set(fields_of("train"))
    naming = {
        name for name, texts in names.items()
        if any(any(field.startswith(text.rstrip(".")) for field in settings) for text in texts) and not name.startswith(WITH_SPEC)
    }  # fmt: skip
    assert naming <= set(GUARDED), f"a remedy may name a setting that the command refuses: {naming - set(GUARDED)}"


def table(folder: Path, header: str) -> Path:
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "t.csv").write_text(f"{header}\na.png,k\n")
    return folder / "t.csv"


READERS: dict[str, Callable[[Path], object]] = {
    "gallery_build": lambda path: load_images(path, notices=Notices()),
    "embed": lambda path: load_images(path, labeled=True, notices=Notices()),
    "inspect_fit": list_images,
}


@pytest.mark.parametrize("action", READERS)
@pytest.mark.parametrize("header", ["file,label", "image_path,label", "paths,label", "foo,label"])
def test_a_table_without_the_right_columns(tmp_path: Path, action: str, header: str) -> None:
    with pytest.raises(DataError) as caught:
        READERS[action](table(tmp_path, header))
    for setting in SETTING.findall(str(caught.value)):
        load_spec(action, None, [f"{setting}=x"])
    assert "rename the column" in caught.value.remedy and caught.value.remedy.endswith("to 'path'")
    if header != "foo,label":
        assert f"'{header.partition(',')[0]}'" in caught.value.remedy


def test_the_refusal_of_a_setting_is_what_this_guards_against() -> None:
    with pytest.raises(UnalikeError):
        load_spec("gallery_build", None, ["dataset.manifest_columns.path=file"])
    load_spec("train", None, ["dataset.manifest_columns.path=file"])


def test_a_training_is_told_its_setting(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset\.manifest_columns\.path=image_path"):
        load_images(table(tmp_path, "image_path,label"), columns={"path": "path", "label": "label"})


# What stands in the command lines of messages: numbers, ids, words of the program, and what is quoted before.
PLAIN_VALUES = {
    "action", "command", "command_of(action)", "count", "dataset", "images", "job.id", "key", "model_id", "name", "option", "other", "parent.id",
    "upgrade_command()", "row['download_bytes']", "_join(root, parts_of_split[0])", "job.parent_job_id", "' '.join(missing)", "row['name']", "first", "second", "root", "PRETRAINED", "place", "files", "text",
}  # fmt: skip
COMMAND = re.compile(r"\bunalike [a-z][a-z-]*( |$)")


def test_paths_in_the_command_lines_of_messages_are_quoted() -> None:
    """A path with a blank would be two arguments of the line that a message tells people to run."""
    bare = set()
    for path in sorted(Path(unalike.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ""
            for value in node.values if isinstance(node, ast.JoinedStr) else ():
                if isinstance(value, ast.Constant):
                    text += str(value.value)
                    continue
                assert isinstance(value, ast.FormattedValue)
                expression = ast.unparse(value.value)
                if (
                    COMMAND.search(text.rpartition(";")[2])
                    and "shlex" not in expression
                    and expression not in PLAIN_VALUES
                ):
                    bare.add(f"{path.name}:{node.lineno}: {expression}")
                text += "_"
    assert not bare
