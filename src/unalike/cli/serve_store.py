"""The commands serve keys, serve backup, serve restore and serve purge: on the store of a service, which may be running."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unalike.cli.output import print_json, print_line
from unalike.cli.shared_options import AsJson
from unalike.errors import SpecError, missing_extra
from unalike.progress import say
from unalike.spec.serve import Serve

if TYPE_CHECKING:
    from unalike.serve.store import KeyRecord, Store

Folder = Annotated[
    str | None,
    typer.Option(
        "--folder", metavar="DIR", envvar="UNALIKE_SERVE_FOLDER",
        help="Folder of the service; by default the one that exists of runs/serve and runs/demo/serve.",
    ),
]  # fmt: skip
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        envvar="UNALIKE_SERVE_STORE",
        help="Address of a PostgreSQL database, instead of SQLite.",
    ),
]
Images = Annotated[
    str | None,
    typer.Option(
        "--images", metavar="URL", envvar="UNALIKE_SERVE_IMAGES", help="Folder or address (s3://...) of images."
    ),
]
GalleryAddresses = Annotated[
    list[str] | None,
    typer.Option(
        "-g", "--gallery", metavar="NAME=FILE", help="A gallery of the service; those that it registered are known."
    ),
]

keys = typer.Typer(rich_markup_mode=None, help="API keys of the service: add, list, revoke.")


def add_store_commands(group: typer.Typer) -> None:
    """Add keys, backup, restore and purge to the group ``serve``."""
    group.add_typer(keys, name="keys", short_help="API keys: add, list, revoke.")
    group.command(short_help="Write a backup of a service, which may be running.")(backup)
    group.command(short_help="Restore a backup into a new folder.")(restore)
    group.command(short_help="Remove an image or a class everywhere, or what is past its retention.")(purge)


@keys.command(short_help="Create a key; its secret is printed once.")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who uses it, such as till-3.")],
    role: Annotated[str, typer.Option(metavar="ROLE", help="view, operate or admin; each may do what those before it may.")] = "operate",
    gallery: Annotated[str | None, typer.Option(metavar="NAME", help="The one gallery that it is for.")] = None,
    folder: Folder = None, store: StoreUrl = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Create an API key. Its secret alone is printed on standard output; it cannot be read again.

    Example: unalike serve keys add till-3 --role operate
    """
    with _open(folder, store, create=True) as service_store:
        record, secret = service_store.keys.add(name, role, gallery, actor=actor_name())
    say(
        f"key {record.id} of {record.name}, role {record.role}; clients send the secret as a bearer token, in the header Authorization"
    )
    _print_secret(record, secret, as_json)


@keys.command("list", short_help="List all keys.")
def list_keys(folder: Folder = None, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """List all keys, the oldest first, without their secrets."""
    with _open(folder, store) as service_store:
        records = service_store.keys.list()
    if as_json:
        print_json({"keys": [record.to_dict() for record in records]})
        return
    for record in records:
        state = f"revoked {record.revoked:%Y-%m-%d %H:%M}" if record.revoked else _use(record)
        print_line(
            f"{record.id}  {record.role:<8}  {record.name}{f' ({record.gallery})' if record.gallery else ''}: {state}"
        )


@keys.command(short_help="Revoke a key.")
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its id or its name.")],
    folder: Folder = None, store: StoreUrl = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Revoke a key for ever; running services refuse it within a second."""
    with _open(folder, store) as service_store:
        record = service_store.keys.revoke(key, actor=actor_name())
    if as_json:
        print_json(record.to_dict())
    else:
        print_line(f"revoked {record.id} of {record.name}")


def backup(
    target: Annotated[str, typer.Argument(metavar="DIR", help="A folder that does not exist, or is empty.")],
    gallery: GalleryAddresses = None,
    without_images: Annotated[bool, typer.Option("--without-images", help="Leave the images out.")] = False,
    folder: Folder = None, store: StoreUrl = None, images: Images = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Write a backup: the database, the galleries and the images, each as it is at one moment. The service may be running."""
    from unalike.serve.store.backup import backup as run

    with _open(folder, store, images) as service_store:
        addresses = service_store.galleries.list() | _named_addresses(gallery)
        report = run(service_store, target, addresses, with_images=not without_images)
    _print_counts(report.to_dict(), as_json, f"{report.folder}: {report.rows.get('decisions', 0)} decisions, "
                  f"{report.images} images, {len(report.galleries)} galleries")  # fmt: skip


def restore(
    source: Annotated[str, typer.Argument(metavar="BACKUP", help="The folder of a backup.")],
    folder: Folder = None, store: StoreUrl = None, images: Images = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Restore a backup into a folder that holds no store yet, or into an empty database with --store."""
    require_store()
    from unalike.serve.store.backup import restore as run
    from unalike.serve.store.store import FOLDERS

    report = run(source, folder or FOLDERS[0], store, images)
    files = "".join(f" -g {shlex.quote(f'{name}={path}')}" for name, path in report.galleries.items())
    _print_counts(report.to_dict(), as_json, f"{report.folder}: {report.rows.get('decisions', 0)} decisions, "
                  f"{report.images} images; start it with: unalike serve --folder {shlex.quote(str(report.folder))}{files}")  # fmt: skip


def purge(
    image: Annotated[str | None, typer.Option(metavar="SHA256", help="Content hash of an image to remove everywhere.")] = None,
    label: Annotated[str | None, typer.Option("--class", metavar="NAME", help="A class to remove everywhere.")] = None,
    of: Annotated[str | None, typer.Option(metavar="GALLERY", help="The gallery of that class, where there are several.")] = None,
    expired: Annotated[bool, typer.Option("--expired", help="What is past its retention.")] = False,
    image_days: Annotated[float | None, typer.Option(min=0, help="With --expired: days that decisions keep their images; 0: for ever. Unset, what was changed on the page Settings, else 30.")] = None,
    decision_days: Annotated[float | None, typer.Option(min=0, help="With --expired: days that decisions are kept; 0: for ever. Unset, what was changed on the page Settings, else 0.")] = None,
    forget: Annotated[str | None, typer.Option(metavar="NAME", help="Before: forget a registered gallery that is gone for good.")] = None,
    gallery: GalleryAddresses = None,
    folder: Folder = None, store: StoreUrl = None, images: Images = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Remove one image or one class from galleries, images, thumbnails and decisions; the audit log keeps that it was done.

    Examples: unalike serve purge --image 3f2a...   |   unalike serve purge --class "Old Brand"   |   unalike serve purge --expired
    """
    if sum((image is not None, label is not None, expired)) != 1:
        raise SpecError("serve purge", expected="one of --image, --class and --expired")
    with _open(folder, store, images) as service_store:
        from unalike.serve.runtime_settings import retention_days
        from unalike.serve.store import purge as module
        from unalike.serve.store.references import open_galleries

        if forget is not None:
            service_store.galleries.forget(forget)
        with open_galleries(service_store.galleries.list() | _named_addresses(gallery)) as galleries:
            if image is not None:
                report = module.purge_image(service_store, image, galleries, actor=actor_name())
            elif label is not None:
                name = _one_gallery(of, galleries)
                report = module.purge_class(service_store, name, label, galleries, actor=actor_name())
            else:
                if not galleries:  # pictures of their references would be removed
                    raise SpecError("--expired, and no gallery is registered", expected="the galleries of the service",
                                    remedy="name them with --gallery NAME=FILE")  # fmt: skip
                images_kept, decisions_kept = retention_days(Serve(), service_store.service_settings.read())
                retention = module.Retention.of_days(
                    images_kept if image_days is None else image_days,
                    decisions_kept if decision_days is None else decision_days,
                )
                report = module.purge_expired(service_store, retention, galleries.values())
    _print_counts(report.to_dict(), as_json, f"removed {report.images} images, {report.references} references, "
                  f"{report.decisions} decisions")  # fmt: skip


def require_store() -> None:
    """Raise MissingExtra where the packages of the store are not installed."""
    try:
        import alembic  # noqa: F401
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise missing_extra(str(error.name), "serve", "unalike serve") from error


def _open(folder: str | None, url: str | None, images: str | None = None, *, create: bool = False) -> "Store":
    """The store of a service, as ``find_store``."""
    require_store()
    from unalike.serve.store import find_store

    return find_store(folder, url, images, create=create)


def actor_name() -> str:
    """Who is at the command line, for the audit log."""
    import getpass

    try:
        return f"command line, {getpass.getuser()}"
    except (OSError, KeyError):  # a container without an entry for this user
        return "command line"


def _named_addresses(arguments: list[str] | None) -> dict[str, str]:
    addresses = {}
    for argument in arguments or ():
        name, equals, address = argument.partition("=")
        if not equals or not name or not address:
            raise SpecError(f"--gallery {argument}", expected="NAME=FILE, with the name that the service gives it")
        addresses[name] = address
    return addresses


def _one_gallery(name: str | None, galleries: Mapping[str, Any]) -> str:
    if name is not None:
        return name
    if len(galleries) != 1:
        raise SpecError(f"--class, and {len(galleries)} galleries: {', '.join(galleries) or 'none is registered'}",
                        remedy="name the gallery with --of NAME, and its file with --gallery NAME=FILE")  # fmt: skip
    return next(iter(galleries))


def _use(record: "KeyRecord") -> str:
    return f"last used {record.last_used:%Y-%m-%d %H:%M}" if record.last_used else "not used yet"


def _print_secret(record: "KeyRecord", secret: str, as_json: bool) -> None:
    """The one place where a secret is shown; everything else that prints would hide it."""
    import json

    print(json.dumps(record.to_dict() | {"secret": secret}) if as_json else secret)


def _print_counts(values: dict[str, Any], as_json: bool, line: str) -> None:
    if as_json:
        print_json(values)
    else:
        print_line(line)
