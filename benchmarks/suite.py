"""Data sets of the benchmarks, each with a fixed development and report split.

    python benchmarks/suite.py --data DIR [--only NAME,...] [--cache DIR] [--check]

DIR holds a folder a source, as downloaded; a source that is not there is named and left out:

    grocery/       Grocery Store Dataset (Klasson et al., 2019; MIT), github.com/marcusklasson/GroceryStoreDataset, its folder
                   dataset: train.txt, val.txt, classes.csv, train/, val/; iconic/CLASS_Iconic.jpg are its iconic images
    coins/         euro coins (github.com/kaa/coins-dataset; MIT): train/CLASS/train_PHOTOGRAPH_COIN.jpg
    magnetic-tile/ magnetic tiles (Huang et al., 2018; free for research), github.com/abin24/Magnetic-tile-defect-datasets.:
                   MT_DEFECT/CONDITION_num_NUMBER.jpg, the mask beside it as .png
    deeppcb/       DeepPCB (Tang et al., 2019; MIT), github.com/tangsanli5201/DeepPCB, its folder PCBData: groupG/G/*_temp.jpg,
                   *_test.jpg, groupG/G_not/*.txt
    cookies/       sample of github.com/aws-samples/amazon-lookout-for-vision (CC BY-SA 4.0): fit/, test/good/, test/broken/,
                   masks/broken/
    screws/        crops of screws (github.com/aaronzink/tensorflow-visual-inspection; Apache-2.0): fit/, test/good/, test/hole/,
                   spare/hole/, PHOTOGRAPH_CROP.jpg
    screens/       test/fixtures of github.com/mapbox/pixelmatch (ISC): Na.png, Nb.png, Ndiff.png
    icons/         packages of Iconify, PREFIX/icons.json and PREFIX/package.json; prefixes and versions stand in `drawn_sets.py`.
                   From npm: `npm pack @iconify-json/noto@1.2.9`, its folder package unpacked as icons/noto. Licenses: info.json of
                   each (MIT, ISC, Apache-2.0, CC0, CC BY 4.0; OpenMoji and EmojiOne v1 CC BY-SA 4.0)

Brand marks and drawings are rendered into the cache (extra ``demo``). Settings are chosen on development splits alone; a choice is
confirmed once on the report splits. Each set says by which rule it is split (``rule``). No split separates images of one series (the
same shelf, coins, tile or minute): whole series are drawn, in the order of SHA-256 of seed and name, so that the split is
the same in every version of every library. The numbers of images and the digests of names and labels are in suite.json,
and ``--check`` compares them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import data_sources as sources
import drawn_sets as drawn
from data_sets import DataSet

from unalike.data.imageset import ImageSet
from unalike.errors import DataError, MissingExtra

DIGESTS = Path(__file__).with_name("suite.json")


@dataclass(frozen=True)
class Source:
    """Where a set comes from.

    Attributes:
        folder: Folder below DATA; None where a package holds the drawings.
        load: Loads the set from the folder, where there is one, and the cache, where ``is_rendered``.
        is_rendered: Whether the images lie in the cache.
    """

    folder: str | None
    load: Callable[..., DataSet]
    is_rendered: bool = False


SOURCES = {
    "grocery-by-scene": Source("grocery", sources.load_grocery_by_scene),
    "grocery-by-class": Source("grocery", sources.load_grocery_by_class),
    "grocery-by-picture": Source("grocery", sources.load_grocery_by_picture),
    "coins": Source("coins", sources.load_coins),
    "tile-patches": Source("magnetic-tile", sources.load_tile_patches),
    "tile-defects": Source("magnetic-tile", sources.load_tile_defects),
    "board-defects": Source("deeppcb", sources.load_board_defects),
    "marks": Source(None, sources.load_marks, is_rendered=True),
    "emoji-by-maker": Source("icons", drawn.load_emoji_by_maker, is_rendered=True),
    "emoji-by-class": Source("icons", drawn.load_emoji_by_class, is_rendered=True),
    "icons": Source("icons", drawn.load_icons, is_rendered=True),
    "flags": Source("icons", drawn.load_flags, is_rendered=True),
    "cookies": Source("cookies", sources.load_cookies),
    "screws": Source("screws", sources.load_screws),
    "tiles": Source("magnetic-tile", sources.load_tiles),
    "boards": Source("deeppcb", sources.load_boards),
    "screens": Source("screens", sources.load_screens),
}
NAMES = tuple(SOURCES)


def load_suite(data: Path, cache: Path, names: Sequence[str] = NAMES) -> tuple[dict[str, DataSet], dict[str, str]]:
    """Load the sets.

    Args:
        data: Folder of the sources.
        cache: Folder for rendered images.
        names: Sets to load.

    Returns:
        The sets by name; the reason by name of those that are left out.

    Raises:
        DataError: A name that is no set.
    """
    sets, missing = {}, {}
    for name in names:
        if name not in SOURCES:
            raise DataError(f"no set {name!r}", expected=", ".join(NAMES))
        source = SOURCES[name]
        if source.folder is not None and not (data / source.folder).is_dir():
            missing[name] = f"no folder {data / source.folder}"
            continue
        folders = ([] if source.folder is None else [data / source.folder]) + ([cache] if source.is_rendered else [])
        try:
            sets[name] = source.load(*folders)
        except MissingExtra as error:
            missing[name] = str(error)
    return sets, missing


def compute_digest(images: ImageSet, root: Path) -> str:
    """SHA-256 of the sorted names, relative to the root, with their labels."""
    names = (path.relative_to(root).as_posix() for path in images.paths)
    lines = sorted(f"{name}\t{label}\n" for name, label in zip(names, images.label_names(), strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def summarize(data_set: DataSet, root: Path) -> dict[str, list[object]]:
    """Number of images and digest of every part."""
    return {name: [len(images), compute_digest(images, root)] for name, images in data_set.parts().items()}


def main() -> None:
    """Print sizes and digests; with ``--check`` compare them with the pinned ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the sources")
    parser.add_argument("--cache", type=Path, default=Path("runs/suite"), help="folder for rendered images")
    parser.add_argument("--only", default=",".join(NAMES), help="names of sets, comma-separated")
    parser.add_argument(
        "--check", action="store_true", help="compare with suite.json; exit code 1 where a split differs"
    )
    parser.add_argument("--pin", action="store_true", help="write the digests of the sets that are there to suite.json")
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    sets, missing = load_suite(options.data, options.cache, [name for name in options.only.split(",") if name])
    pinned = json.loads(DIGESTS.read_text(encoding="utf-8")) if DIGESTS.exists() else {}
    differing = []
    for name, data_set in sets.items():
        print(f"{name}: {data_set.rule}")
        summary = summarize(data_set, options.cache if SOURCES[name].is_rendered else options.data)
        for part, images in data_set.parts().items():
            groups = len(set(images.groups or ()))
            same = summary[part] == pinned.get(name, {}).get(part)
            note = "" if same or not options.check else "  differs from suite.json"
            print(f"  {part:22} {len(images):5} images {len(images.classes):4} classes {groups:4} groups  "
                  f"{str(summary[part][1])[:16]}{note}")  # fmt: skip
        if options.pin:
            pinned[name] = summary
        elif summary != pinned.get(name):
            differing.append(name)
    for name, reason in missing.items():
        print(f"{name}: left out, {reason}")
    if options.pin:
        DIGESTS.write_text(json.dumps(pinned, indent=1) + "\n", encoding="utf-8")
    elif options.check:
        print(f"differ from suite.json: {', '.join(differing)}" if differing else f"{len(sets)} sets as in suite.json")
        raise SystemExit(bool(differing))


if __name__ == "__main__":
    main()
