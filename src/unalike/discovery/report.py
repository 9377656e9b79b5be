"""The HTML report of discovered groups: typical and doubtful images, similar groups, near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unalike.discovery.clustering import ImageGroups
from unalike.report.html import Report, ReportImage
from unalike.report.sentences import count_of
from unalike.runs.filenames import GROUPS_FILE, UNSORTED_FILE

# Thumbnails take some 4 kB each: a page stays below some 12 MB whatever the number of images. The tables hold the rest.
MAX_GROUPS, MAX_TYPICAL, MAX_DOUBTFUL = 200, 6, 2
MAX_PAIRS, MAX_IMAGES = 40, 60
INSTRUCTIONS = (
    "Every folder is one group. Rename it to what it shows; move a file to the folder where it belongs; move all files of "
    "one folder into another to merge the two. Files beside the folders are in no group. Then train on the "
    "folder: a folder is a class."
)


def write_report(
    path: Path, paths: Sequence[Path], groups: ImageGroups, figures: Mapping[str, Any], names: Sequence[str],
    failures: Sequence[tuple[str, str]],
) -> Path:  # fmt: skip
    """Write one self-contained HTML file.

    Args:
        path: The file to write.
        paths: The images.
        groups: Their groups.
        figures: Counts and means, for the cards at the top.
        names: The name of each image on the page.
        failures: (path, reason) of images that could not be read.

    Returns:
        ``path``.
    """
    page = _Sections(paths, groups, names)
    report = Report("Groups of similar images", "Found by similarity alone; no labels were used.")
    report.sentence(_describe_counts(figures)).sentence(INSTRUCTIONS)
    report.gallery(
        "Groups", page.groups(), note=page.groups_note(), columns=("typical image", "others"), score="confidence"
    )
    report.figures(_cards(figures))
    report.gallery("Perhaps the same", page.similar_groups(), note="The most similar pairs of groups, with the mean "
                   "cosine between them: if both show the same, move the files of one into the other.", columns=("group", "perhaps the same"))  # fmt: skip
    report.gallery("Doubtful", page.doubtful(), note="The images with the lowest confidence, beside the typical image "
                   "of their own group and of the nearest other one.", columns=("doubtful image", "its group", "nearest other group"),
                   score="confidence")  # fmt: skip
    report.gallery("In no group", page.ungrouped(), note=_note("These are similar to no other image; beside each, the typical "
                   "image of the nearest group.", int((groups.group_N < 0).sum()), UNSORTED_FILE), columns=("image", "nearest group"), score="confidence")  # fmt: skip
    report.gallery("Near-duplicates", page.duplicates(), note=_note("Images that are nearly identical to another, which is "
                   "on the right.", int((groups.duplicate_of_N >= 0).sum()), GROUPS_FILE), columns=("image", "the one it repeats"), score="confidence")  # fmt: skip
    if groups.agreement_curve:
        lines = {"agreement": [(float(count), value) for count, value in groups.agreement_curve]}
        report.curves("Number of groups", {"agreement of two halves of the features (1: equal)": lines}, x_name="number of groups", folded=True,
                      note="Groups are merged until the groups of one half of the features no longer agree with those of "
                      f"the other half (adjusted Rand index, 1: equal). Chosen: agreement {groups.agreement:.3f}.")  # fmt: skip
    report.table("All groups", page.table(), note="Confidence: the mean silhouette of a group's images, from 0 (another "
                 "group is as near) to 1 (nothing else is near). It ranks what to review first; it is no probability.")  # fmt: skip
    if failures:
        report.table("Unreadable", [{"file": Path(name).name, "reason": reason} for name, reason in failures])
    return report.write(path)


def _cards(figures: Mapping[str, Any]) -> list[tuple[str, Any]]:
    titles = {"images": "images", "groups": "groups", "in_no_group": "in no group", "near_duplicates": "near-duplicates",
             "unreadable": "unreadable", "mean_confidence": "mean confidence", "agreement": "agreement of halves"}  # fmt: skip
    return [(name, figures[key]) for key, name in titles.items()]


def _describe_counts(figures: Mapping[str, Any]) -> str:
    """Say how many groups were found."""
    groups, alone = figures["groups"], figures["in_no_group"]
    return (f"{count_of(figures['images'], 'image')} fall into {count_of(groups, 'group')} of similar ones; "
            f"{count_of(alone, 'image')} {'is' if alone == 1 else 'are'} in no group.")  # fmt: skip


def _note(note: str, count: int, table: str) -> str:
    return note if count <= MAX_IMAGES else f"{note} {MAX_IMAGES} of {count} are shown; {table} lists all."


class _Sections:
    """The content of each section of the page."""

    def __init__(self, paths: Sequence[Path], groups: ImageGroups, names: Sequence[str]) -> None:
        self.paths, self.image_groups, self.names = paths, groups, names
        self.size_G, self.confidence_G = groups.sizes(), groups.group_confidence()

    def _captioned(self, image: int, *, group: bool = False) -> ReportImage:
        """An image with its confidence, or with the name and size of its group."""
        text = self.names[image]
        number = int(self.image_groups.group_N[image])
        if group:
            return ReportImage(
                self.paths[image],
                f"{self.image_groups.group_name(number)}, {self.size_G[number]} images",
                self.confidence_G[number],
            )
        return ReportImage(
            self.paths[image], text, float(self.image_groups.confidence_N[image]) if number >= 0 else None
        )

    def groups_note(self) -> str:
        """Note of the section of all groups."""
        text = "The typical image of each group, others that are similar to it, and at the end the least certain ones, with confidences."
        if self.image_groups.count > MAX_GROUPS:
            text += f" The {MAX_GROUPS} largest of {self.image_groups.count} groups are shown."
        return text

    def groups(self) -> list[tuple[ReportImage, list[ReportImage]]]:
        """A row for each group: its medoid, then other images by falling confidence."""
        rows = []
        order_N = np.argsort(self.image_groups.group_N, kind="stable")
        first_G = np.searchsorted(self.image_groups.group_N[order_N], np.arange(self.image_groups.count + 1))
        for group in range(min(self.image_groups.count, MAX_GROUPS)):
            members = order_N[first_G[group] : first_G[group + 1]]
            typical = int(self.image_groups.medoid_G[group])
            others = members[members != typical]
            others = others[np.argsort(-self.image_groups.confidence_N[others], kind="stable")].tolist()
            if len(others) > MAX_TYPICAL + MAX_DOUBTFUL:
                others = others[:MAX_TYPICAL] + others[-MAX_DOUBTFUL:]
            rows.append((self._captioned(typical, group=True), [self._captioned(i) for i in others]))
        return rows

    def similar_groups(self) -> list[tuple[ReportImage, list[ReportImage]]]:
        """The most similar pairs of groups, by their medoids."""
        nearest_group_G, cosine_G = self.image_groups.nearest_group_G, self.image_groups.nearest_cosine_G
        pairs = sorted({(min(a, b), max(a, b)) for a, b in enumerate(nearest_group_G.tolist()) if b >= 0},
                       key=lambda p: (-max(cosine_G[p[0]] if nearest_group_G[p[0]] == p[1] else -2.0,
                                           cosine_G[p[1]] if nearest_group_G[p[1]] == p[0] else -2.0), p))  # fmt: skip
        rows = []
        for a, b in pairs[:MAX_PAIRS]:
            cosine = float(cosine_G[a] if nearest_group_G[a] == b else cosine_G[b])
            left, right = (self._captioned(int(self.image_groups.medoid_G[g]), group=True) for g in (a, b))
            rows.append((ReportImage(left.image, left.caption), [ReportImage(right.image, right.caption, cosine)]))
        return rows

    def doubtful(self) -> list[tuple[ReportImage, list[ReportImage]]]:
        """The images with the lowest confidence, with the medoids of their own and the nearest other group."""
        rows = np.flatnonzero((self.image_groups.group_N >= 0) & (self.image_groups.next_group_N >= 0))
        rows = rows[np.argsort(self.image_groups.confidence_N[rows], kind="stable")][: MAX_IMAGES // 2]
        return [(self._captioned(i), [self._typical(self.image_groups.group_N[i]), self._typical(self.image_groups.next_group_N[i])])
                for i in rows.tolist()]  # fmt: skip

    def _typical(self, group: int) -> ReportImage:
        """The medoid of a group."""
        return self._captioned(int(self.image_groups.medoid_G[group]), group=True)

    def ungrouped(self) -> list[tuple[ReportImage, list[ReportImage]]]:
        """The images of no group, with the medoid of the nearest group."""
        rows = np.flatnonzero(self.image_groups.group_N < 0)[:MAX_IMAGES]
        return [(self._captioned(i), [self._typical(self.image_groups.next_group_N[i])] if self.image_groups.next_group_N[i] >= 0 else [])
                for i in rows.tolist()]  # fmt: skip

    def duplicates(self) -> list[tuple[ReportImage, list[ReportImage]]]:
        """Near-duplicates, with the image that they repeat."""
        rows = np.flatnonzero(self.image_groups.duplicate_of_N >= 0)[:MAX_IMAGES]
        return [
            (self._captioned(i), [self._captioned(int(self.image_groups.duplicate_of_N[i]))]) for i in rows.tolist()
        ]

    def table(self) -> list[dict[str, Any]]:
        """A row for each group."""
        return [
            {"group": self.image_groups.group_name(g), "images": int(self.size_G[g]), "confidence": float(self.confidence_G[g]),
             "most alike": self.image_groups.group_name(int(self.image_groups.nearest_group_G[g])) if self.image_groups.nearest_group_G[g] >= 0 else None,
             "cosine to it": float(self.image_groups.nearest_cosine_G[g]) if self.image_groups.nearest_group_G[g] >= 0 else None}
            for g in range(self.image_groups.count)
        ]  # fmt: skip
