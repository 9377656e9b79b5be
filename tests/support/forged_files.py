"""Forged block files (galleries, approved sets, inspectors): values of other types in a header whose checksums are right."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PREAMBLE = struct.Struct("<8sIIQQ")
WRONG: tuple[Any, ...] = (
    None, -1, 0, 1, 2**31, 2**63, 10**30, 1.5, "x", "", "nan", [], [1], [-1], [[]], {}, {"a": 1}, True,
)  # fmt: skip


def header_of(saved: Path) -> dict[str, Any]:
    """The header of a block file."""
    content = saved.read_bytes()
    _, _, _, offset, length = PREAMBLE.unpack(content[:32])
    return dict(json.loads(content[offset : offset + length]))


def forge(saved: Path, path: Path, change: Callable[[Any], Any]) -> None:
    """Change the header and compute its checksum anew."""
    content = saved.read_bytes()
    magic, version, zero, offset, length = PREAMBLE.unpack(content[:32])
    header = json.loads(content[offset : offset + length])
    changed = change(header)
    encoded = json.dumps(header if changed is None else changed).encode()
    preamble = PREAMBLE.pack(magic, version, zero, offset, len(encoded))
    path.write_bytes(preamble + hashlib.sha256(preamble + encoded).digest() + content[64:offset] + encoded)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values of a header; of a list, those of its first entry."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key in value:
            found += places(value[key], (*path, key))
    elif isinstance(value, list) and value and len(path) < 4:
        found += places(value[0], (*path, 0))
    return found


def forgeries(saved: Path, path: Path, share: float, *, seed: int = 0) -> Iterator[str]:
    """Write ``path`` anew with each value of the header of ``saved`` replaced or gone, and say what was changed.

    Args:
        saved: A file that the product wrote.
        path: The forged file.
        share: Share of the forgeries that are made, drawn by ``seed``.
    """
    rng = random.Random(seed)
    for place in places(header_of(saved)):
        for wrong in (*WRONG, "gone"):
            if rng.random() > share:
                continue

            def change(header: dict[str, Any], place: tuple[Any, ...] = place, wrong: Any = wrong) -> None:
                inner = header
                for key in place[:-1]:
                    inner = inner[key]
                if wrong == "gone" and isinstance(inner, dict):
                    del inner[place[-1]]
                else:
                    inner[place[-1]] = copy.deepcopy(wrong)

            forge(saved, path, change)
            yield f"{'.'.join(map(str, place))} = {wrong!r}"
