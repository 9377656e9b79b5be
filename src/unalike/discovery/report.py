"""The page that shows discovered groups: each with its typical and its doubtful images, what may be one, what is alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unalike.discovery.clustering import Grouping
from unalike.report.html import Report, Tile
from unalike.runs.filenames import GROUPS_FILE, UNSORTED_FILE

# Pictures cost some 4 kB each: a page stays below some 12 MB whatever the heap holds. The tables hold the rest.
GROUPS_SHOWN, TYPICAL_SHOWN, DOUBTFUL_SHOWN = 200, 6, 2
PAIRS_SHOWN, IMAGES_SHOWN = 40, 60
HOW = (
    "Every folder is one group: rename it to what it shows, move a file to the folder where it belongs, move all files of "
    "one folder into another to make the two one. Files that lie beside the folders are in no group. Then train on the "
    "folder: a folder is a class."
)


def write_report(
    path: Path, paths: Sequence[Path], found: Grouping, figures: Mapping[str, Any], names: Sequence[str],
    failures: Sequence[tuple[str, str]],
) -> Path:  # fmt: skip
    """One self-contained HTML file about the images ``paths`` (shown as ``names``); ``failures``: unreadable (path, why)."""
    page = _Page(paths, found, names)
    report = Report("Groups of like images", "Found by likeness alone; no label was used.")
    report.figures(_cards(figures), note=HOW)
    report.gallery("Groups", page.groups(), note=page.groups_note())
    report.gallery("Perhaps one", page.perhaps_one(), note="Pairs of groups that are most alike, the likest first, with the "
                   "mean cosine between them: if both show the same, move the files of one into the other.")  # fmt: skip
    report.gallery("Doubtful", page.doubtful(), note="Images with the least confidence, beside the typical image of their "
                   "own group and of the one that is next.")  # fmt: skip
    report.gallery("In no group", page.alone(), note=_more("These are like no other image; beside each, the typical image "
                   "of the nearest group.", int((found.group_N < 0).sum()), UNSORTED_FILE))  # fmt: skip
    report.gallery("Near-duplicates", page.copies(), note=_more("Pictures that are nearly the same as another, which stands "
                   "to the right.", int((found.copy_of_N >= 0).sum()), GROUPS_FILE))  # fmt: skip
    if found.curve:
        lines = {"agreement": [(float(count), value) for count, value in found.curve]}
        report.curves("How many groups", {"agreement of two halves of the features": lines}, x_name="groups",
                      note="Groups are merged until what one half of the features groups is no longer what the other half "
                      f"does (adjusted Rand index, 1: all the same). Chosen: agreement {found.agreement:.3f}.")  # fmt: skip
    report.table("All groups", page.table(), note="Confidence: the mean silhouette of a group's images, from 0 (another "
                 "group is as near) to 1 (nothing else is near). It ranks what to look at, it is no probability.")  # fmt: skip
    if failures:
        report.table("Unreadable", [{"file": Path(name).name, "why": why} for name, why in failures])
    return report.write(path)


def _cards(figures: Mapping[str, Any]) -> list[tuple[str, Any]]:
    shown = {"images": "images", "groups": "groups", "in_no_group": "in no group", "near_duplicates": "near-duplicates",
             "unreadable": "unreadable", "mean_confidence": "mean confidence", "agreement": "agreement of halves"}  # fmt: skip
    return [(name, figures[key]) for key, name in shown.items()]


def _more(note: str, count: int, table: str) -> str:
    return note if count <= IMAGES_SHOWN else f"{note} {IMAGES_SHOWN} of {count} are shown; {table} names all."


class _Page:
    """What stands in each section."""

    def __init__(self, paths: Sequence[Path], found: Grouping, names: Sequence[str]) -> None:
        self.paths, self.found, self.names = paths, found, names
        self.sizes, self.confidence_G = found.sizes(), found.confidence_of_groups()

    def name(self, group: int) -> str:
        digits = max(3, len(str(self.found.count)))
        return f"group-{group + 1:0{digits}d}"

    def _tile(self, image: int, *, group: bool = False) -> Tile:
        text = self.names[image]
        number = int(self.found.group_N[image])
        if group:
            return Tile(
                self.paths[image], f"{self.name(number)}, {self.sizes[number]} images", self.confidence_G[number]
            )
        return Tile(self.paths[image], text, float(self.found.confidence_N[image]) if number >= 0 else None)

    def groups_note(self) -> str:
        text = "The typical image of each group, others that are like it, and at the end the least sure ones, with confidences."
        if self.found.count > GROUPS_SHOWN:
            text += f" The {GROUPS_SHOWN} largest of {self.found.count} groups are shown."
        return text

    def groups(self) -> list[tuple[Tile, list[Tile]]]:
        rows = []
        order_N = np.argsort(self.found.group_N, kind="stable")
        first_G = np.searchsorted(self.found.group_N[order_N], np.arange(self.found.count + 1))
        for group in range(min(self.found.count, GROUPS_SHOWN)):
            members = order_N[first_G[group] : first_G[group + 1]]
            typical = int(self.found.typical_G[group])
            rest = members[members != typical]
            rest = rest[np.argsort(-self.found.confidence_N[rest], kind="stable")].tolist()
            if len(rest) > TYPICAL_SHOWN + DOUBTFUL_SHOWN:
                rest = rest[:TYPICAL_SHOWN] + rest[-DOUBTFUL_SHOWN:]
            rows.append((self._tile(typical, group=True), [self._tile(i) for i in rest]))
        return rows

    def perhaps_one(self) -> list[tuple[Tile, list[Tile]]]:
        near_G, cosine_G = self.found.near_G, self.found.near_cosine_G
        pairs = sorted({(min(a, b), max(a, b)) for a, b in enumerate(near_G.tolist()) if b >= 0},
                       key=lambda p: (-max(cosine_G[p[0]] if near_G[p[0]] == p[1] else -2.0,
                                           cosine_G[p[1]] if near_G[p[1]] == p[0] else -2.0), p))  # fmt: skip
        rows = []
        for a, b in pairs[:PAIRS_SHOWN]:
            cosine = float(cosine_G[a] if near_G[a] == b else cosine_G[b])
            left, right = (self._tile(int(self.found.typical_G[g]), group=True) for g in (a, b))
            rows.append((Tile(left.image, left.label), [Tile(right.image, right.label, cosine)]))
        return rows

    def doubtful(self) -> list[tuple[Tile, list[Tile]]]:
        rows = np.flatnonzero((self.found.group_N >= 0) & (self.found.next_N >= 0))
        rows = rows[np.argsort(self.found.confidence_N[rows], kind="stable")][: IMAGES_SHOWN // 2]
        return [(self._tile(i), [self._typical(self.found.group_N[i]), self._typical(self.found.next_N[i])])
                for i in rows.tolist()]  # fmt: skip

    def _typical(self, group: int) -> Tile:
        return self._tile(int(self.found.typical_G[group]), group=True)

    def alone(self) -> list[tuple[Tile, list[Tile]]]:
        rows = np.flatnonzero(self.found.group_N < 0)[:IMAGES_SHOWN]
        return [(self._tile(i), [self._typical(self.found.next_N[i])] if self.found.next_N[i] >= 0 else [])
                for i in rows.tolist()]  # fmt: skip

    def copies(self) -> list[tuple[Tile, list[Tile]]]:
        rows = np.flatnonzero(self.found.copy_of_N >= 0)[:IMAGES_SHOWN]
        return [(self._tile(i), [self._tile(int(self.found.copy_of_N[i]))]) for i in rows.tolist()]

    def table(self) -> list[dict[str, Any]]:
        return [
            {"group": self.name(g), "images": int(self.sizes[g]), "confidence": float(self.confidence_G[g]),
             "most alike": self.name(int(self.found.near_G[g])) if self.found.near_G[g] >= 0 else None,
             "cosine to it": float(self.found.near_cosine_G[g]) if self.found.near_G[g] >= 0 else None}
            for g in range(self.found.count)
        ]  # fmt: skip
