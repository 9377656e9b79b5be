"""The commands trunks, trunks fetch, trunks pack and trunks unpack: pretrained networks and their weights."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from unalike.cli.output import print_line, show_result
from unalike.cli.shared_options import AsJson, GroupWithDefault, Quiet, Verbose, set_verbosity

LIST = "list"
_MEGABYTE = 1e6
_OWN_FILE = "name a file of your own in model.pretrained_trunk_path"


class TrunksGroup(GroupWithDefault):
    """``trunks`` with anything but one of its commands is ``trunks list``; --help shows all of them."""

    default_command = LIST

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with ``list`` before them where they name no command and do not ask for help."""
        if args and args[0] in ctx.help_option_names:
            return TyperGroup.parse_args(self, ctx, args)
        return super().parse_args(ctx, args)


trunks_app = typer.Typer(
    cls=TrunksGroup, rich_markup_mode=None,
    help="List trunks (pretrained networks) with facts, and download or carry their weights. unalike trunks [WORD] lists.",
)  # fmt: skip
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Trunks, as in model.backbone.")]


@trunks_app.command(LIST, short_help="List trunks with facts: unalike trunks [WORD].")
def list_(
    word: Annotated[
        str | None,
        typer.Argument(metavar="[WORD]", help="A part of a name; unset, the trunks whose weights are on this machine."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure images per second here, with random weights.")
    ] = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """List trunks: parameters, multiply-adds, input size, license and origin of the weights, and what is on this machine.

    Examples: unalike trunks   |   unalike trunks convnext --json   |   unalike trunks resnet50 --measure
    """
    set_verbosity(verbose, quiet)
    from unalike.actions.trunks import list_trunks

    rows = list_trunks(word or "", measure=measure)
    if as_json:
        show_result({"trunks": rows}, as_json)
        return
    for row in rows:
        for line in _lines(row):
            print_line(line)
    if not word:
        print_line(
            f"trunks with weights here: {len(rows)}; unalike trunks WORD lists others, such as unalike trunks convnext"
        )


@trunks_app.command(short_help="Download the weights of trunks.")
def fetch(names: Names, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False) -> None:
    """Download weights from the Hugging Face hub into its cache, checked; an interrupted download is continued.

    Example: unalike trunks fetch convnext_tiny
    """
    set_verbosity(verbose, quiet)
    from unalike.actions.trunks import fetch_trunks

    rows = fetch_trunks(names)
    if as_json:
        show_result({"trunks": rows}, as_json)
        return
    for row in rows:
        state = "downloaded" if row["downloaded"] else "was here"
        print_line(f"{row['name']}: {state}, {_megabytes(row['bytes'])} at {row['path']}")


@trunks_app.command(short_help="Write the weights of trunks into one file.")
def pack(
    names: Names,
    output: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="Archive to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write weights that are on this machine, with their facts and SHA-256, into one file for a machine without a network.

    Example: unalike trunks pack convnext_tiny resnet_50 -o trunks.zip
    """
    set_verbosity(verbose, quiet)
    from unalike.actions.trunks import pack_trunks
    from unalike.storage.overwrite import refuse_existing

    if not overwrite:
        refuse_existing(output)
    result = pack_trunks(names, output)
    if as_json:
        show_result(result, as_json)
        return
    print_line(f"{result['path']}: {_megabytes(result['bytes'])}, {', '.join(result['trunks'])}")


@trunks_app.command(short_help="Put the weights of such a file where training looks.")
def unpack(
    archive: Annotated[str, typer.Argument(metavar="FILE", help="A file of unalike trunks pack.")],
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Put packed weights where training looks for them, after comparing each with its SHA-256.

    Example: unalike trunks unpack trunks.zip
    """
    set_verbosity(verbose, quiet)
    from unalike.actions.trunks import unpack_trunks

    rows = unpack_trunks(archive)
    if as_json:
        show_result({"trunks": rows}, as_json)
        return
    for row in rows:
        print_line(f"{row['name']}: {_megabytes(row['bytes'])} at {row['path']}")


def _lines(row: Mapping[str, Any]) -> list[str]:
    """What the list prints of a trunk."""
    height, width = row["input_size"]
    cost = f"input {height} x {width}"
    if row["parameters"] is not None:
        cost = f"{row['parameters'] / 1e6:.1f} M parameters, {row['multiply_adds'] / 1e9:.2f} G multiply-adds at {height} x {width}"
    weights = f"{row['origin']} {row['source']}, license {row['license']}"
    if row["origin"] == "own file":
        weights = f"none published: {_OWN_FILE}"
    elif row["origin"] == "address" and row["path"] is None:
        weights += f"; they are not downloaded: {_OWN_FILE}"
    here = f"not here: unalike trunks fetch {row['name']} downloads them (bytes: {row['download_bytes']})"
    if row["path"] is not None:
        here = f"here: {_megabytes(row['bytes'])}, {row['path']}"
    lines = [row["name"] + (f" ({row['weights']})" if row["weights"] not in (None, row["name"]) else ""), f"    {cost}",
             f"    weights: {weights}"]  # fmt: skip
    if row["origin"] == "hub" or row["path"] is not None:
        lines.append(f"    {here}")
    if "reason" in row:
        lines.append(f"    not counted: {row['reason']}")
    if speed := row.get("speed"):
        engine = f"{speed['engine']['runtime']} {speed['engine']['precision']} on {speed['engine']['device']}"
        lines.append(f"    {speed['images_per_second']:.1f} images/s here in {engine}, random weights "
                     f"(n = {speed['images']} images, best of {speed['repeats']} repeats)")  # fmt: skip
    return lines


def _megabytes(size: int) -> str:
    return f"{size / _MEGABYTE:.1f} MB"
