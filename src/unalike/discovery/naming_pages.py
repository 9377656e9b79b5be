"""Contact sheets of groups that are to be named: HTML pages with the pictures of each group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unalike.discovery.naming import Naming
from unalike.report.html import Report, ReportImage
from unalike.report.sentences import count_of

# Thumbnails take some 4 kB each: a page stays below some 4 MB.
GROUPS_A_PAGE, IMAGES_A_GROUP, IMAGES_OF_MIXED = 100, 8, 600


def write_group_pages(out: Path, naming: Naming, files: Sequence[Path]) -> list[Path]:
    """Write the pages ``groups-1.html``, ...: of each group its most typical images, in the order of the questions.

    Args:
        out: Folder of the pages.
        naming: The groups.
        files: The file of each image.

    Returns:
        The pages; one without groups where there are none.
    """
    names = list(naming.members)
    parts = [names[start : start + GROUPS_A_PAGE] for start in range(0, len(names), GROUPS_A_PAGE)] or [[]]
    pages = []
    for number, part in enumerate(parts, 1):
        report = Report("Groups to name", f"Page {number} of {len(parts)}: the most typical images of each group.")
        rows = []
        for group in part:
            members = naming.members[group]
            pictures = [
                ReportImage(files[row], Path(naming.images[row]).name)
                for row in members[:IMAGES_A_GROUP]
                if files[row].is_file()
            ]
            caption = f"{group}, {count_of(len(members), 'image')}"
            if pictures:
                rows.append((ReportImage(pictures[0].image, caption), pictures[1:]))
        report.gallery("Groups", rows, columns=("group", "others"))
        pages.append(report.write(out / f"groups-{number}.html"))
    return pages


def write_group_page(out: Path, naming: Naming, files: Sequence[Path], group: str) -> Path:
    """Write a page with the images of one group, ``mixed-<number>.html``, by the group's place in the order.

    Args:
        out: Folder of the page.
        naming: The groups.
        files: The file of each image.
        group: Name of the group.
    """
    members = naming.members[group]
    number = list(naming.members).index(group) + 1
    report = Report(f"Mixed group: {group}", f"{count_of(len(members), 'image')}; each is named by its file.")
    pictures = [
        ReportImage(files[row], Path(naming.images[row]).name)
        for row in members[:IMAGES_OF_MIXED]
        if files[row].is_file()
    ]
    report.gallery("Images", [(pictures[0], pictures[1:])] if pictures else [], columns=("most typical", "others"))
    return report.write(out / f"mixed-{number:03d}.html")
