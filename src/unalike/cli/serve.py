"""The command serve, and the commands on a service's store."""

import gc
import os
from typing import Any

import typer

from unalike.cli.section_options import Option, section_command
from unalike.cli.serve_store import add_store_commands
from unalike.cli.shared_options import GroupWithDefault
from unalike.spec.serve import ENVIRONMENT_PREFIX, Serve

START = "start"


class ServeGroup(GroupWithDefault):
    """``serve`` with anything but one of its commands is ``serve start``."""

    default_command = START

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with ``start`` before them where they name no command."""
        # Before anything imports numpy. The threads of OpenBLAS wait by spinning and take the cores from the network: 27 ms of
        # processor time an image with them, 18 without (own measurement, two cores, 2026-11-29). A search is one small product.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        return super().parse_args(ctx, args)


serve = typer.Typer(cls=ServeGroup, rich_markup_mode=None, help="Answer over HTTP.")


@serve.command(START, short_help="Start the service; the word start may be left out.")
@section_command(
    "serve",
    arguments={"run": "RUN_DIR"},
    options={
        "model": Option(("-m", "--model"), "FILE"),
        "galleries": Option(("-g", "--gallery"), "[NAME=]FILE", repeatable=True),
        "inspectors": Option(("--inspector",), "[NAME=]FILE", repeatable=True),
        "assets": Option(("--assets",), "[NAME=]PATH", repeatable=True),
        "folder": Option((), "DIR"),
        "store": Option((), "URL"),
        "images": Option((), "URL"),
        "train_folders": Option(("--train-folder",), "[NAME=]PATH", repeatable=True),
        "train_spec": Option((), "FILE"),
        "url_hosts": Option(("--url-host",), "HOST", repeatable=True),
        "tls_cert": Option((), "FILE"),
        "tls_key": Option((), "FILE"),
    },
    section=Serve,
    environment=ENVIRONMENT_PREFIX,
)
def start(settings: Serve) -> None:
    """Answer over HTTP: identify, embed, inspect, verify, compare; enroll and correct references. Needs the extra serve.

    Examples: unalike serve   |   unalike serve runs/demo   |   unalike serve -g shop=shop.gallery --inspector part.inspector
    Every option is also a variable: UNALIKE_SERVE_PORT=8080. Other commands: unalike serve keys, backup, restore, purge.
    """
    gc.disable()  # a tenth of the time of the imports, in which little is garbage
    try:
        from unalike.serve.server import run_service
    except ModuleNotFoundError as error:
        if str(error.name).startswith("unalike"):
            raise
        from unalike.errors import missing_extra

        raise missing_extra(str(error.name), "serve", "unalike serve") from error
    finally:
        gc.enable()
    run_service(settings)


add_store_commands(serve)
