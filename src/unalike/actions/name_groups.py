"""Name the groups that discover made: questions on the terminal or answers of a table, and the labels that follow from them.

Every answer is on the disk before the next question is asked. The folder of discover is only read; the folder of the names is
new, or one that is continued at the user's request.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unalike.actions.result import Result
from unalike.data.tables import read_table
from unalike.discovery.naming import SAME, Naming, Question
from unalike.discovery.naming_pages import write_group_page, write_group_pages
from unalike.errors import DataError, RunError
from unalike.progress import say
from unalike.runs.filenames import (
    ANSWERS_FILE,
    GROUPS_FILE,
    LABELS_FILE,
    LEFT_FILE,
    NAMING_FILE,
    UNSORTED_FILE,
    VECTORS_FILE,
)
from unalike.runs.record import read_json
from unalike.storage.atomic import write_text
from unalike.storage.csv_file import write_csv
from unalike.storage.digests import text_sha256
from unalike.storage.file_lock import file_lock
from unalike.storage.overwrite import refuse_existing

FORMAT_VERSION = 1
SHOWN = 5  # paths of a group that are shown with its question
HELP = (
    "type the name of the class; what else can be typed:",
    "  =GROUP   the same class as that group, such as =group-004",
    "  /mixed   it shows several classes: single images are asked for",
    "  /skip    leave it without a label; so does an empty line",
    "  /done    ask for no more images of this mixed group",
    "  /undo    take the last answer back",
    "  /quit    stop here; --resume goes on",
)
QUIT, UNDO, DONE, HELP_WORDS = "/quit", "/undo", "/done", ("/help", "?")
show = partial(say, level=0)  # questions are shown with --quiet too
# Returns the next line that the user typed, or None at the end of the input. Its argument is the prompt.
Ask = Callable[[str], str | None]


class _Folder(NamedTuple):
    """What discover left, by image: where it lies, and where it came from."""

    naming: Naming
    files: list[Path]
    sources: list[str]


def name_groups(
    folder: str | Path, out: str | Path, *, ask: Ask | None = None, answers: str | Path | None = None, images: int = 0,
    resume: bool = False,
) -> Result:  # fmt: skip
    """Name the groups of a folder that discover wrote.

    Args:
        folder: The results folder of discover; it is not changed.
        out: New folder for the answers and the labels; with ``resume`` that of an earlier call.
        ask: Asks the user; None asks nothing.
        answers: A CSV file with the columns ``subject`` (a group, or an image by its path in ``groups.csv``) and ``answer``;
            with it nothing is asked.
        images: How many single images are asked for after the groups, those that tell most about the ones without label.
        resume: Go on with the answers in ``out``.

    Returns:
        The result; ``path`` is the manifest of labels.

    Raises:
        DataError: The folder holds no groups of discover, or an answer is none.
        RunError: ``out`` holds something, or is a naming of other groups.
    """
    folder, out = Path(folder), Path(out)
    content = _read_folder(folder)
    pairs = _read_answers(Path(answers), content.naming) if answers is not None else []
    _open_out(out, folder, content.naming, resume=resume)
    with file_lock(out / NAMING_FILE):
        if resume and (out / ANSWERS_FILE).exists():
            for subject, answer in _read_answers(out / ANSWERS_FILE, content.naming):
                content.naming.give(subject, answer)
        try:
            for subject, answer in pairs:
                content.naming.give(subject, answer)
            if ask is not None and answers is None:
                pages = write_group_pages(out, content.naming, content.files)
                say(f"the groups in pictures: {pages[0]}" + (f" and {len(pages) - 1} more" if len(pages) > 1 else ""))
                _Session(content, out, ask, images).run()
        finally:  # after Ctrl-C too
            figures = _write(out, content)
    say(f"{figures['labeled']} of {figures['images']} images have a label, of {figures['classes']} classes; "
        f"{figures['left']} are left: {out / LEFT_FILE}")  # fmt: skip
    return Result(out, out / LABELS_FILE, figures)


# ---- reading ----


def _read_folder(folder: Path) -> _Folder:
    """Read tables and vectors of a results folder of discover."""
    if not (folder / GROUPS_FILE).is_file():
        raise DataError(f"{folder}: no {GROUPS_FILE}", expected="the folder that unalike discover wrote",
                        remedy="run unalike discover IMAGES first")  # fmt: skip
    grouped = read_table(folder / GROUPS_FILE, ("path", "label", "confidence", "source")).columns
    alone = read_table(folder / UNSORTED_FILE, ("path", "source")).columns if (folder / UNSORTED_FILE).is_file() else {}
    for name in ("path", "label", "confidence", "source"):
        if name not in grouped:
            raise DataError(
                f"{folder / GROUPS_FILE}: no column {name}", expected="the table that unalike discover wrote"
            )
    images = [*grouped["path"], *alone.get("path", [])]
    if len(set(images)) < len(images):
        raise DataError(f"{folder / GROUPS_FILE}: a path stands there twice", expected="each image once")
    groups = [*grouped["label"], *[""] * len(alone.get("path", []))]
    sources = [*grouped["source"], *alone.get("source", [])]
    rank_N = np.argsort(np.argsort([-_number(text) for text in grouped["confidence"]], kind="stable"), kind="stable")
    order_N = np.concatenate([rank_N, np.arange(len(rank_N), len(images))])
    files = [_existing(folder / image, Path(source)) for image, source in zip(images, sources, strict=True)]
    return _Folder(Naming(images, groups, _read_vectors(folder, images), order_N), files, sources)


def _read_vectors(folder: Path, images: Sequence[str]) -> np.ndarray:
    """The whitened vectors of these images, float32 (N, D)."""
    remedy = "group the images again, into another folder: unalike discover IMAGES -o DIR"
    try:
        with np.load(folder / VECTORS_FILE) as content:
            names, vectors_ND = content["images"].tolist(), content["vectors"].astype(np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{folder / VECTORS_FILE}: cannot be read", expected="the vectors that unalike discover wrote", remedy=remedy) \
            from error  # fmt: skip
    row_of = {name: row for row, name in enumerate(names)}
    unknown = [image for image in images if image not in row_of]
    if unknown:
        raise DataError(f"{folder / GROUPS_FILE}: {len(unknown)} images that discover did not group, such as {unknown[0]}",
                        expected="the paths that discover wrote", remedy=remedy)  # fmt: skip
    rows_N = np.array([row_of[image] for image in images], np.int64)
    ordered_ND: np.ndarray = vectors_ND[rows_N]
    return ordered_ND


def _read_answers(path: Path, naming: Naming) -> list[tuple[str, str]]:
    """The answers of a table, each checked by itself; nothing is given yet."""
    columns = read_table(path, ("subject", "answer")).columns
    for name in ("subject", "answer"):
        if name not in columns:
            raise DataError(f"{path}: no column {name}", expected="a table with the columns subject and answer")
    pairs = list(zip(columns["subject"], columns["answer"], strict=True))
    trial = Naming(naming.images, naming.groups, naming.vectors_ND, naming.order_N)
    for number, (subject, answer) in enumerate(pairs, 1):
        try:
            trial.give(subject, answer)
        except DataError as error:
            raise DataError(f"{path}, row {number}: {error}") from error
    return pairs


def _open_out(out: Path, folder: Path, naming: Naming, *, resume: bool) -> None:
    """Make the folder of the names, or check that it holds names of the same groups."""
    if out.resolve() == folder.resolve() or folder.resolve() in out.resolve().parents:
        raise RunError(
            f"{out} lies within {folder}",
            expected="a folder beside that of discover",
            remedy="name another with -o DIR",
        )
    digest = text_sha256(json.dumps([list(naming.images), list(naming.groups)]))
    record = read_json(out / NAMING_FILE)
    if not record:
        refuse_existing(out, folder=True)
        out.mkdir(parents=True, exist_ok=True)
        content = {"format_version": FORMAT_VERSION, "folder": str(folder.resolve()), "groups": digest}
        write_text(out / NAMING_FILE, json.dumps(content, indent=2) + "\n")
    elif not resume:
        refuse_existing(out, folder=True, alternative="go on with its answers with --resume")
    elif record.get("groups") != digest:
        raise RunError(f"{out} holds names of other groups than those of {folder}", expected="the folder of the same groups",
                       remedy="name another with -o DIR")  # fmt: skip


def _existing(*paths: Path) -> Path:
    """The first of these files that exists: users move the images of a group."""
    return next((path for path in paths if path.is_file()), paths[-1])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


# ---- asking ----


class _Session:
    """Asks until all is answered, the input ends, or the user stops."""

    def __init__(self, content: _Folder, out: Path, ask: Ask, images: int) -> None:
        self.naming, self.files, self.out, self.ask = content.naming, content.files, out, ask
        self.images_left = images
        self.passed: set[str] = set()  # skipped, or done with, in this session
        self.is_single = False  # whether the question is about an image that is asked for by itself

    def run(self) -> None:
        """Ask question after question."""
        show(HELP[0])
        for line in HELP[1:]:
            show(line)
        while (question := self._next()) is not None:
            if not self._answer(question):
                return
            write_answers(self.out, self.naming)

    def _next(self) -> Question | None:
        question = self.naming.next_group(self.passed)
        self.is_single = question is None
        if question is None and self.images_left > 0:
            question = self.naming.next_image()
        return question

    def _answer(self, question: Question) -> bool:
        """Ask one question until it is answered; False where the user stops."""
        self._show(question)
        while True:
            line = self.ask(f"{question.subject}> ")
            word = "" if line is None else line.strip()
            if line is None or word == QUIT:
                return False
            if word in HELP_WORDS:
                for text in HELP:
                    show(text)
            elif word == UNDO:
                self._undo()
                return True
            elif word == DONE:
                if self.is_single:
                    return False
                self.passed.add(self._group_of(question))
                return True
            elif self._give(question, word):
                return True

    def _give(self, question: Question, word: str) -> bool:
        try:
            self.naming.give(question.subject, word)
        except DataError as error:
            show(f"{error}")
            return False
        answer = self.naming.answers[question.subject]
        if question.is_group and answer == "/skip":
            self.passed.add(question.subject)
        elif answer == "/mixed":
            self._show_all(question)
        elif self.is_single:
            self.images_left -= 1
        return True

    def _undo(self) -> None:
        subject = self.naming.undo()
        self.passed.discard(subject)
        show(f"taken back: {subject}" if subject else "there is no answer to take back")

    def _group_of(self, question: Question) -> str:
        return question.subject if question.is_group else self.naming.groups[question.rows[0]]

    def _show(self, question: Question) -> None:
        naming = self.naming
        if not question.is_group:
            show(str(self.files[question.rows[0]]))
            return
        number = list(naming.members).index(question.subject) + 1
        show(
            f"{question.subject} ({number} of {len(naming.members)}): {len(question.rows)} images, the most typical first"
        )
        for row in question.rows[:SHOWN]:
            show(f"  {self.files[row]}")
        near = naming.suggestion(question.subject)
        if near:
            show(f"  most like {near}, {naming.class_of(near)} ({SAME}{near})")

    def _show_all(self, question: Question) -> None:
        page = write_group_page(self.out, self.naming, self.files, question.subject)
        show(f"all its images: {page}")


# ---- writing ----


def write_answers(out: Path, naming: Naming) -> None:
    """Write all answers, atomically; the table can be given to another call."""
    write_csv(out / ANSWERS_FILE, naming.answers.items(), ("subject", "answer"))


def _write(out: Path, content: _Folder) -> dict[str, int]:
    """Write answers, the manifest of labels and what is left; returns the counts."""
    naming = content.naming
    write_answers(out, naming)
    labels = naming.labels()
    paths = [source if Path(source).is_file() or not file.is_file() else str(file.absolute())
             for source, file in zip(content.sources, content.files, strict=True)]  # fmt: skip
    labeled = [
        (paths[row], label.name, label.basis, naming.groups[row])
        for row, label in enumerate(labels)
        if label is not None
    ]
    left = [(paths[row], naming.groups[row], naming.reason(row)) for row, label in enumerate(labels) if label is None]
    write_csv(out / LABELS_FILE, labeled, ("path", "label", "basis", "from_group"))
    write_csv(out / LEFT_FILE, left, ("path", "from_group", "reason"))
    return {
        "images": len(labels), "labeled": len(labeled), "predicted": sum(row[2] == "predicted" for row in labeled),
        "left": len(left), "classes": len({row[1] for row in labeled}), "answers": len(naming.answers),
    }  # fmt: skip
