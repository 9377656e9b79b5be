"""Recognition sets of drawings: emoji, icons and flags as several makers draw them; `suite.py` says where they come from.

A class is what is drawn (one emoji, one icon, one country), its images are the makers' drawings. They are SVG, in the packages
that Iconify publishes, and are rendered into the cache in a folder named for the package's version, so that other drawings have
other names and thus another digest.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_sets import Lookup, RecognitionSet, Row, image_set, known_classes, shuffle
from PIL import Image

from unalike.errors import DataError, missing_extra
from unalike.storage.atomic import atomic_write

SIDE, MARGIN = 160, 0.08  # pixels of a drawing; share of the drawing's side that is left white around it

# Versions of the packages that the digests in suite.json were computed with.
VERSIONS = {
    "ant-design": "1.2.9", "bi": "1.2.7", "carbon": "1.2.29", "cif": "1.2.7", "circle-flags": "1.2.11", "emojione": "1.2.3",
    "emojione-v1": "1.2.3", "eva": "1.2.3", "fa6-solid": "1.2.4", "flag": "1.2.12", "flagpack": "1.2.8", "fluent-emoji": "1.2.7",
    "fluent-emoji-flat": "1.2.6", "fluent-mdl2": "1.2.1", "heroicons": "1.2.3", "iconoir": "1.2.11", "ion": "1.2.7", "jam": "1.2.3",
    "lucide": "1.2.137", "material-symbols": "1.2.98", "mdi": "1.2.3", "mingcute": "1.2.8", "noto": "1.2.9", "noto-v1": "1.2.5",
    "octicon": "1.2.36", "openmoji": "1.2.29", "ph": "1.2.2", "ri": "1.2.10", "solar": "1.2.13", "tabler": "1.2.41",
    "twemoji": "1.2.5", "uil": "1.2.3",
}  # fmt: skip

EMOJI = ("noto", "noto-v1", "twemoji", "openmoji", "emojione", "emojione-v1", "fluent-emoji", "fluent-emoji-flat")
EMOJI_SHARES = {"by maker": 300, "fit": 150, "development": 75, "report": 75}  # number of emoji
MAKER_OF = {"development": ("openmoji",), "report": ("fluent-emoji-flat",)}
# Other sizes, skins and flags of one emoji are no emoji of their own here.
NO_EMOJI = re.compile(r"skin-tone|medium|^flag-")
EMOJI_REFERENCES = ("noto", "noto-v1", "twemoji")

# The name of an icon within the names of a family; where a family has several styles, one is taken.
ICON_NAMES = {
    "mdi": "(.+)", "material-symbols": "(.+)", "fa6-solid": "(.+)", "tabler": "(.+)", "lucide": "(.+)", "ph": "(.+)", "bi": "(.+)",
    "ri": "(.+)-line", "ion": "(.+)-outline", "carbon": "(.+)", "heroicons": "(.+)", "octicon": "(.+)-24", "iconoir": "(.+)",
    "mingcute": "(.+)-line", "solar": "(.+)-linear", "uil": "(.+)", "eva": "(.+)-outline", "ant-design": "(.+)-outlined",
    "jam": "(.+)", "fluent-mdl2": "(.+)",
}  # fmt: skip
ICON_REFERENCES = ("mdi", "material-symbols", "fa6-solid", "tabler")
ICON_FAMILIES = 9  # families that have an icon of this name, at least

FLAG_NAMES = {"flag": "([a-z]{2})-4x3", "circle-flags": "([a-z]{2})", "flagpack": "([a-z]{2})", "cif": "([a-z]{2})"}
FLAG_REFERENCES = ("flag",)


@dataclass(frozen=True)
class IconFamily:
    """The drawings of one package: ``drawings`` has the SVG text by name."""

    prefix: str
    version: str
    drawings: Mapping[str, str]


def read_family(folder: Path) -> IconFamily:
    """Read a package of Iconify; an alias that turns or mirrors another drawing is left out."""
    file = folder / "icons.json"
    if not file.is_file():
        raise DataError(f"no file {file}", expected="the content of a package",
                        remedy=f"npm pack @iconify-json/{folder.name}@{VERSIONS[folder.name]}, and unpack its folder package as {folder}")  # fmt: skip
    content = json.loads(file.read_text(encoding="utf-8"))
    icons = dict(content["icons"])
    for name, alias in content.get("aliases", {}).items():
        if set(alias) == {"parent"} and alias["parent"] in content["icons"]:
            icons[name] = content["icons"][alias["parent"]]
    size = {key: content.get(key, default) for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))}
    version = json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"]
    return IconFamily(folder.name, version, {name: write_svg({**size, **icon}) for name, icon in icons.items()})


def write_svg(icon: Mapping[str, float | str]) -> str:
    """An icon as SVG text, square, dark where it has no color of its own."""
    left, top, width, height = (float(icon[key]) for key in ("left", "top", "width", "height"))
    side = max(width, height) * (1 + 2 * MARGIN)
    box = f"{left + (width - side) / 2:g} {top + (height - side) / 2:g} {side:g} {side:g}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" color="#202020">{icon["body"]}</svg>'


def render(family: IconFamily, name: str, cache: Path) -> Path:
    """The drawing as PNG on white, rendered once."""
    file = cache / "drawings" / f"{family.prefix}-{family.version}" / f"{name}.png"
    if not file.exists():
        try:
            import resvg_py
        except ImportError as error:
            raise missing_extra("resvg-py", "demo", "rendering drawings") from error
        png = resvg_py.svg_to_bytes(svg_string=family.drawings[name], width=SIDE, height=SIDE, skip_system_fonts=True)
        drawing = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", drawing.size, "white"), drawing).convert("RGB")
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as temporary:
            image.save(temporary, format="PNG")
    return file


def drawing_rows(
    families: Iterable[IconFamily], names: Mapping[str, Mapping[str, str]], classes: Iterable[str], cache: Path
) -> list[Row]:
    """The drawings of these classes; those of one class are one series.

    Args:
        families: Families whose drawings are taken.
        names: Name of the drawing by family and class.
        classes: Classes.
        cache: Folder for rendered images.
    """
    classes = list(classes)
    return [(render(family, names[family.prefix][label], cache), label, label)
            for family in families for label in classes if label in names[family.prefix]]  # fmt: skip


def find_names(family: IconFamily, pattern: str) -> dict[str, str]:
    """Name of the drawing by class, for the names that the pattern matches as a whole."""
    matches = ((re.fullmatch(pattern, name), name) for name in sorted(family.drawings))
    return {match[1]: name for match, name in matches if match}


def new_drawings(
    name: str, rule: str, families: Sequence[IconFamily], names: Mapping[str, Mapping[str, str]],
    classes: Mapping[str, Sequence[str]], references: Sequence[str], cache: Path,
) -> RecognitionSet:  # fmt: skip
    """A set of new classes: makers that are in ``references`` draw the references, the others the queries."""
    own = [family for family in families if family.prefix in references]
    others = [family for family in families if family.prefix not in references]
    lookups = []
    for part in ("development", "report"):
        reference = drawing_rows(own, names, classes[part], cache)
        labels = {label for _, label, _ in reference}
        query = [row for row in drawing_rows(others, names, classes[part], cache) if row[1] in labels]
        lookups.append(Lookup(image_set(reference), image_set(query)))
    return RecognitionSet(name, rule, image_set(drawing_rows(families, names, classes["fit"], cache)), *lookups)


def split_classes(classes: Iterable[str]) -> dict[str, list[str]]:
    """Half of the classes, drawn by seed, to train on, a quarter for development, a quarter for the report."""
    order = shuffle(classes)
    half, quarter = len(order) // 2, len(order) // 4
    return {"fit": order[:half], "development": order[half : half + quarter], "report": order[half + quarter :]}


# ---- emoji ----


def emoji_classes(families: Iterable[IconFamily]) -> dict[str, list[str]]:
    """The emoji that all makers drew, by the set and part that they are for; the two sets share none."""
    common = set.intersection(*(set(family.drawings) for family in families))
    order = shuffle(name for name in common if not NO_EMOJI.search(name))
    parts, first = {}, 0
    for part, count in EMOJI_SHARES.items():
        parts[part] = order[first : first + count]
        first += count
    return parts


def load_emoji_by_maker(root: Path, cache: Path) -> RecognitionSet:
    """Emoji, known classes: the queries are drawn by a maker of whom nothing is trained on."""
    families = [read_family(root / prefix) for prefix in EMOJI]
    classes = emoji_classes(families)["by maker"]
    names = {family.prefix: {label: label for label in classes} for family in families}
    queries = set().union(*MAKER_OF.values())
    makers = {"fit": [prefix for prefix in EMOJI if prefix not in queries and prefix != "fluent-emoji"], **MAKER_OF}
    parts = {}
    for part, prefixes in makers.items():
        rows = drawing_rows([f for f in families if f.prefix in prefixes], names, classes, cache)
        parts[part] = [(path, label, f"{label} {part}") for path, label, _ in rows]
    return known_classes("emoji-by-maker", "known classes: 300 emoji, drawn by seed; development = OpenMoji, report = Fluent (flat), "
                         "fit = Noto, Twemoji, EmojiOne", parts)  # fmt: skip


def load_emoji_by_class(root: Path, cache: Path) -> RecognitionSet:
    """Emoji, new classes."""
    families = [read_family(root / prefix) for prefix in EMOJI]
    classes = emoji_classes(families)
    names = {family.prefix: {name: name for name in family.drawings} for family in families}
    rule = "new classes: 150 emoji to train on, 75 others development, 75 report; references: Noto, Twemoji; queries: the other makers"
    return new_drawings("emoji-by-class", rule, families, names, classes, EMOJI_REFERENCES, cache)


# ---- icons and flags ----


def load_icons(root: Path, cache: Path) -> RecognitionSet:
    """Icons, new classes. Families draw different things by one name now and then (``apple``), so that 100 % is out of reach."""
    families = [read_family(root / prefix) for prefix in ICON_NAMES]
    names = {family.prefix: find_names(family, ICON_NAMES[family.prefix]) for family in families}
    counts = Counter(label for own in names.values() for label in own)
    classes = split_classes(label for label, count in counts.items() if count >= ICON_FAMILIES)
    rule = (f"new classes: names in {ICON_FAMILIES} of {len(ICON_NAMES)} families or more, half to train on, a quarter development, a quarter "
            f"report; references: {', '.join(ICON_REFERENCES)}; queries: the other families")  # fmt: skip
    return new_drawings("icons", rule, families, names, classes, ICON_REFERENCES, cache)


def load_flags(root: Path, cache: Path) -> RecognitionSet:
    """Flags, new classes: one reference a country."""
    families = [read_family(root / prefix) for prefix in FLAG_NAMES]
    names = {family.prefix: find_names(family, FLAG_NAMES[family.prefix]) for family in families}
    classes = split_classes(set.intersection(*(set(own) for own in names.values())))
    rule = "new classes: countries, half to train on, a quarter development, a quarter report; references: Flag Icons; queries: the other makers"
    return new_drawings("flags", rule, families, names, classes, FLAG_REFERENCES, cache)
