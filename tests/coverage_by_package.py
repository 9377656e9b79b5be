"""Print branch coverage of each package and exit with 1 where one is below the limit.

    python tests/coverage_by_package.py coverage.json

Lines and branches that need a GPU, a cluster scheduler or a remote service are listed by function in
``coverage_exclusions.txt`` and left out.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

LIMIT = 0.85
EXCLUSIONS = Path(__file__).with_name("coverage_exclusions.txt")


def package_of(path: str) -> str:
    """``src/unalike/training/heads/head_search.py`` -> ``training/heads``."""
    parts = Path(path).parts
    return "/".join(parts[parts.index("unalike") + 1 : -1]) or "unalike"


def excluded() -> set[tuple[str, str]]:
    """Pairs of module (below the package) and function; ``*`` stands for the whole module."""
    lines = EXCLUSIONS.read_text(encoding="utf-8").splitlines()
    entries = [line.split("#")[0].split() for line in lines if line.split("#")[0].strip()]
    return {(module, name) for module, name in entries}


def counts(summary: dict[str, Any]) -> tuple[int, int]:
    """Covered and all lines plus branches."""
    return (
        summary["covered_lines"] + summary["covered_branches"],
        summary["num_statements"] + summary["num_branches"],
    )


def coverage_by_package(report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Package -> covered and all lines plus branches, without what is excluded."""
    left_out, totals = excluded(), defaultdict(lambda: [0, 0])
    for path, facts in report["files"].items():
        module = "/".join(Path(path).parts[Path(path).parts.index("unalike") + 1 :])
        if (module, "*") in left_out:
            continue
        covered, everything = counts(facts["summary"])
        for name, function in facts["functions"].items():
            if (module, name) in left_out:
                less_covered, less = counts(function["summary"])
                covered, everything = covered - less_covered, everything - less
        totals[package_of(path)][0] += covered
        totals[package_of(path)][1] += everything
    return {package: (covered, everything) for package, (covered, everything) in totals.items()}


def main() -> int:
    """Print the table; 1 where a package is below the limit."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    below = []
    for package, (covered, everything) in sorted(coverage_by_package(report).items()):
        share = covered / everything if everything else 1.0
        print(f"{package:<24} {share:6.1%} of {everything:,} lines and branches")
        if share < LIMIT:
            below.append(package)
    if below:
        print(f"below {LIMIT:.0%}: {', '.join(below)}")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
