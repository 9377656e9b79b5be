"""Names of a gallery's collections in Milvus: what stands in them is the state of the gallery that is changed atomically.

Milvus has neither transactions nor a conditional write, but it renames a collection only where the former name exists, one
renaming after the other: a compare-and-swap on a name. The name of an empty collection, the register, holds which commit is
the present one and who changes the gallery.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache

import psutil

MOST_NAME = 120  # characters of a gallery's name in those of collections; Milvus takes 255 in all
_UNSAFE = re.compile("[^A-Za-z0-9]")
_REGISTER = re.compile(r"r_([0-9a-z]+)_(\d+)_(\d+)_(\d+)_([FH])([0-9a-z]*)$")
_VECTORS, _LOG = re.compile(r"v_([0-9a-z]+)_(\d+)$"), re.compile(r"g_([0-9a-z]+)$")


def prefix_of(gallery: str) -> str:
    """What the names of all collections of a gallery begin with; no other gallery's do."""
    safe = _UNSAFE.sub(lambda match: "__" if match[0] == "_" else f"_x{ord(match[0]):x}_", gallery)
    if len(safe) > MOST_NAME:
        safe = f"_y{hashlib.sha256(gallery.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}_"
    return f"unalike_{safe}_0"


def new_uid() -> str:
    """A number for a gallery, another one where it is replaced."""
    return secrets.token_hex(6)


@dataclass(frozen=True)
class Register:
    """What the name of a register says.

    Attributes:
        prefix: of the gallery.
        uid: number of the gallery; another one where it was replaced.
        commit: number of the attempt that made the present state; 0 while the gallery is made for the first time.
        attempt: number of the last attempt that may have left traces, from ``commit`` on.
        epoch: how often a gallery was taken from somebody who changed it; the name of the vectors' collection ends with it.
        is_held: whether somebody changes the gallery.
        mark: who, and how often that was said again; anything else where nobody does.
    """

    prefix: str
    uid: str
    commit: int
    attempt: int
    epoch: int
    is_held: bool
    mark: str

    @property
    def name(self) -> str:
        """The name of the collection."""
        flag = "H" if self.is_held else "F"
        return f"{self.prefix}r_{self.uid}_{self.commit}_{self.attempt}_{self.epoch}_{flag}{self.mark}"

    @property
    def owner(self) -> str:
        """Who changes the gallery."""
        return self.mark.partition("x")[0]

    def taken(self) -> Register:
        """The next attempt, of this process."""
        return replace(self, attempt=self.attempt + 1, is_held=True, mark=_own_mark())

    def taken_over(self) -> Register:
        """As ``taken``, from somebody who no longer answers: what they still write goes to a name that does not exist."""
        return replace(self.taken(), epoch=self.epoch + 1)

    def renewed(self) -> Register:
        """The same, said again."""
        return replace(self, mark=f"{self.owner}x{secrets.token_hex(3)}")

    def freed(self, commit: int, attempt: int) -> Register:
        """Nobody changes it; a name that never was."""
        return replace(self, commit=commit, attempt=attempt, is_held=False, mark=secrets.token_hex(5))

    def is_abandoned(self) -> bool:
        """Whether the process that changes it ran on this machine and has ended; False where that is not known."""
        parts = self.owner.split("q")
        if not self.is_held or len(parts) != 4 or not _machine() or parts[0] != _machine():
            return False
        try:
            return _start(int(parts[1], 16)) != int(parts[2], 16)
        except psutil.NoSuchProcess:
            return True
        except (ValueError, psutil.Error):
            return False


# Letters that separate, and are no hexadecimal digits: ``q`` the parts of a mark, ``x`` what is said again.
def _own_mark() -> str:
    return f"{_machine() or '0'}q{os.getpid():x}q{_start(os.getpid()):x}q{secrets.token_hex(5)}"


def _start(process: int) -> int:
    return int(psutil.Process(process).create_time() * 100)


@lru_cache(maxsize=1)
def _machine() -> str:
    """A digest of this machine since it was started, and of the group of processes that see one another; empty where not known."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            facts = file.read() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.sha256(facts.encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Listing:
    """The collections of a gallery at one moment.

    Attributes:
        registers: of the gallery, and of those who make it just now.
        vectors: names of the collections of vectors, by the number of the gallery.
        logs: names of the collections of states and classes, likewise.
    """

    registers: tuple[Register, ...] = ()
    vectors: dict[str, str] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Iterable[str], gallery: str) -> Listing:
        """The collections of a gallery among all of a database."""
        registers, vectors, logs = [], {}, {}
        prefix = prefix_of(gallery)
        for name in names:
            if not name.startswith(prefix):
                continue
            rest = name[len(prefix) :]
            if match := _REGISTER.match(rest):
                uid, commit, attempt, epoch, flag, mark = match.groups()
                registers.append(Register(prefix, uid, int(commit), int(attempt), int(epoch), flag == "H", mark))
            elif match := _VECTORS.match(rest):
                vectors[match[1]] = name
            elif match := _LOG.match(rest):
                logs[match[1]] = name
        return cls(tuple(registers), vectors, logs)

    @property
    def register(self) -> Register | None:
        """The register of the gallery; None where there is none that is complete."""
        complete = [register for register in self.registers if register.commit]
        return complete[0] if complete else None


def vectors_name(prefix: str, uid: str, epoch: int) -> str:
    """Name of the collection of vectors."""
    return f"{prefix}v_{uid}_{epoch}"


def log_name(prefix: str, uid: str) -> str:
    """Name of the collection of states and classes."""
    return f"{prefix}g_{uid}"


def gallery_names(names: Iterable[str]) -> list[str]:
    """Names of the galleries whose registers are among these collections, where they can be read off them."""
    galleries = []
    for name in names:
        match = re.match(r"unalike_(.*)_0r_", name)
        if match and not match[1].startswith("_y"):
            galleries.append(re.sub("__|_x([0-9a-f]+)_", lambda m: chr(int(m[1], 16)) if m[1] else "_", match[1]))
    return galleries
