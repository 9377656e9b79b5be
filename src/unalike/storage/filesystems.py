"""Where remote bytes lie: one face over fsspec's file systems, and their failures in one line each.

Credentials come from the usual places of each store (environment, its own configuration files, fsspec's configuration);
none is read, kept or shown here.
"""

from __future__ import annotations

import base64
import contextlib
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from unalike.errors import HIDDEN, DataError, UnalikeError, closest, missing_extra, redact

# Scheme -> the package that reads it.
SCHEMES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
    "http": "aiohttp", "https": "aiohttp", "hf": "huggingface-hub", "ftp": "fsspec", "memory": "fsspec",
}  # fmt: skip
CREDENTIALS = {
    "s3fs": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE and ~/.aws, and AWS_ENDPOINT_URL for a store of your own",
    "gcsfs": "GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login",
    "adlfs": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or a SAS token, or az login)",
    "huggingface-hub": "HF_TOKEN, or hf auth login",
    "aiohttp": "a signed address, or user:password in it",
}
CONNECT_SECONDS, READ_SECONDS = 10, 60
# A path of two letters or more before ":/", since one is a Windows drive; Path() folds "s3://" into "s3:/".
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(/?)(?=[^/])")
_MD5 = re.compile(r"[0-9a-f]{32}")
_DATED = ("ETag", "etag", "blob_id", "md5Hash", "content_md5", "LastModified", "Last-Modified", "last_modified",
          "updated", "mtime", "created")  # fmt: skip
# What an exception's class says, wherever in the chain of causes it stands; the deepest one that is known counts.
_KINDS = {
    **dict.fromkeys(("FileNotFoundError", "EntryNotFoundError", "RepositoryNotFoundError", "NoSuchBucket"), "missing"),
    **dict.fromkeys(("PermissionError", "ClientAuthenticationError", "GatedRepoError", "LoginError"), "denied"),
    **dict.fromkeys(
        ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "CredentialRetrievalError",
         "TokenRetrievalError", "ProfileNotFound", "UnauthorizedSSOTokenError"), "unnamed",
    ),
    **dict.fromkeys(
        ("ConnectionRefusedError", "EndpointConnectionError", "ClientConnectorError", "ClientConnectorDNSError",
         "ConnectTimeoutError", "gaierror", "ServiceRequestError", "ConnectError"), "unreachable",
    ),
    **dict.fromkeys(
        ("ConnectionResetError", "ConnectionAbortedError", "BrokenPipeError", "TimeoutError", "FSTimeoutError",
         "ReadTimeoutError", "IncompleteRead", "ClientPayloadError", "ServerDisconnectedError", "ClientOSError",
         "ConnectionClosedError", "HTTPClientError", "ResponseStreamingError", "ReadError", "ReadTimeout"), "broken",
    ),
}  # fmt: skip


class StaleListing(Exception):
    """A file is not what the listing said: it changed meanwhile, or came damaged."""


@dataclass(frozen=True)
class Item:
    """One remote file: ``tag`` changes when its content does (empty: the store cannot tell); ``digest`` is (algorithm, hex)."""

    store: Store
    path: str
    size: int | None
    tag: str
    digest: tuple[str, str] | None = None


def uri_of(source: str | Path) -> str:
    """The source as a URI, or an empty string when it is a path of this machine."""
    match = _URI.match(str(source))
    if not match or (not match[2] and match[1].lower() not in SCHEMES) or match[1].lower() == "file":
        return ""
    return f"{match[1].lower()}://{str(source)[match.end() :]}"


def kind_of(fault: BaseException) -> str:
    """What sort of failure it is: missing, denied, unnamed (no credentials), unreachable, broken, or nothing known."""
    found, seen = "", set()
    link: BaseException | None = fault
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        status = getattr(link, "status", None)
        by_status = {401: "denied", 403: "denied", 404: "missing", 410: "missing"}.get(status) if status else None
        if by_status is None and isinstance(status, int) and status >= 500:
            by_status = "broken"
        known = by_status or next((_KINDS[c.__name__] for c in type(link).__mro__ if c.__name__ in _KINDS), "")
        found = known or found
        link = link.__cause__ or link.__context__
    return found


class Store:
    """A file system and the part of a URI that it goes by; made from a URI. Raises DataError, MissingExtra."""

    def __init__(self, uri: str) -> None:
        self.uri, self.shown = uri, redact(uri)
        self.scheme = uri.partition("://")[0]
        if self.scheme not in SCHEMES:
            raise DataError(f"{self.shown}: no kind of address known here", expected=", ".join(f"{s}://" for s in SCHEMES),
                            remedy=closest(self.scheme, SCHEMES))  # fmt: skip
        if HIDDEN in uri:
            raise DataError(f"{uri}: its credentials were taken out when it was written down",
                            remedy="give the address again, whole")  # fmt: skip
        if "::" in uri:
            raise DataError(f"{self.shown}: '::' in an address", expected="one address, not a chain of them")
        self.package = SCHEMES[self.scheme]
        try:
            import fsspec

            kind = fsspec.get_filesystem_class(self.scheme)
        except ImportError as fault:
            raise missing_extra(self.package, "remote", f"reading {self.shown}") from fault
        with self.explaining():
            self.fs: Any = _file_system(kind, self.scheme, kind._get_kwargs_from_urls(uri) | _options(self.scheme))
            self.path: str = kind._strip_protocol(uri)

    @property
    def lanes(self) -> int:
        """How many requests may run at once."""
        return 16 if self.fs.async_impl or self.scheme in ("hf", "memory") else 1

    def item(self, path: str | None = None, info: dict[str, Any] | None = None) -> Item:
        """The facts of one file; asks the store unless ``info`` is given."""
        path = self.path if path is None else path
        info = self.fs.info(path) if info is None else info
        size = info.get("size")
        tag = next((str(info[key]) for key in _DATED if info.get(key)), "")
        if isinstance(info.get("lfs"), dict):
            tag = str(info["lfs"].get("sha256") or tag)
        return Item(self, path, None if size is None else int(size), tag, _digest(self.package, info))

    def listing(self) -> dict[str, Item] | Item:
        """The file of that name, or all files below the folder by their names in it. Raises DataError."""
        with self.explaining():
            info = self.fs.info(self.path)
            if info["type"] != "directory":
                return self.item(info=info)
            root = self.path.rstrip("/")
            found = self.fs.find(root, detail=True)
            items = {}
            for path, facts in found.items():
                name = path[len(root) :].lstrip("/")
                if name and not path.endswith("/") and facts.get("type", "file") == "file":
                    items[name] = self.item(path, facts)
        return items

    def read(self, path: str, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop`` of a file. Raises ConnectionResetError when fewer came."""
        data: bytes = self.fs.cat_file(path, start=start, end=stop)
        if len(data) != stop - start:
            raise ConnectionResetError(f"{len(data)} bytes came in place of {stop - start}")
        return data

    def stream(self, item: Item, part: Path, advance: Callable[[int], None]) -> None:
        """The rest of a web file into ``part``; from its beginning where the server cannot go on in the middle."""
        import fsspec.asyn

        fsspec.asyn.sync(self.fs.loop, _stream, self.fs, item, part, advance)

    def is_plain_digest(self, item: Item) -> bool:
        """Whether an S3 object's ETag is its MD5: not where the store encrypts it with a key of somebody's."""
        if self.package != "s3fs":
            return True
        bucket, _, key = item.path.partition("/")
        head = self.fs.call_s3("head_object", Bucket=bucket, Key=key)
        return not (str(head.get("ServerSideEncryption", "")).startswith("aws:kms") or head.get("SSECustomerAlgorithm"))

    @contextlib.contextmanager
    def explaining(self, shown: str = "") -> Iterator[None]:
        """Turn what a store raises into one DataError that names the address."""
        try:
            yield
        except (UnalikeError, StaleListing):
            raise
        except Exception as fault:  # every library of a store has exceptions of its own
            raise self.explain(fault, shown) from fault

    def explain(self, fault: BaseException, shown: str = "", remedy: str = "") -> DataError:
        """The one line of a failure."""
        shown, kind = shown or self.shown, kind_of(fault)
        detail = redact((" ".join(str(fault).split()) or type(fault).__name__)[:200])
        where = CREDENTIALS.get(self.package, "")
        if kind == "missing":
            return self._missing(shown)
        if kind == "denied":
            return DataError(f"{shown}: access denied ({detail})", expected="credentials that may do this",
                             remedy=f"check {where}" if where else "")  # fmt: skip
        if kind == "unnamed":
            return DataError(f"{shown}: no credentials found ({detail})", expected=where)
        if kind == "unreachable":
            return DataError(f"{shown}: cannot be reached ({detail})", expected="a server that answers there",
                             remedy=remedy or "check the network and the store's address (AWS_ENDPOINT_URL for S3)")  # fmt: skip
        if kind == "broken":
            return DataError(f"{shown}: the connection broke off ({detail})", remedy=remedy or "try again")
        return DataError(f"{shown}: {type(fault).__name__}: {detail}", remedy=remedy)

    def _missing(self, shown: str) -> DataError:
        """Nothing under that name: is the bucket there, and what lies beside it?"""
        path = str(getattr(self, "path", ""))
        bucket, _, key = path.partition("/")
        if self.package == "aiohttp" or not hasattr(self, "fs"):
            return DataError(f"{shown}: not found on that server", remedy="check the address")
        siblings = self._names(posixpath.dirname(path.rstrip("/"))) if key else None
        if not siblings and (not key or self._names(bucket) is None):
            return DataError(f"{shown}: there is no {bucket!r} there", expected="a bucket or container that exists",
                             remedy="check its name and the store's address")  # fmt: skip
        near = closest(posixpath.basename(path.rstrip("/")), siblings or ())
        return DataError(f"{shown}: nothing lies under that name", expected="a file, or a folder with files",
                         remedy=near or "check the name")  # fmt: skip

    def _names(self, folder: str) -> list[str] | None:
        try:
            return [posixpath.basename(str(name).rstrip("/")) for name in self.fs.ls(folder, detail=False)]
        except Exception:  # noqa: BLE001  only to make a message better
            return None


_opened: dict[tuple[Any, ...], Any] = {}
_SETTINGS = ("AWS_", "GOOGLE_", "AZURE_", "HF_", "FSSPEC_", "HTTP", "HOME")


def _file_system(kind: Any, scheme: str, options: dict[str, Any]) -> Any:
    """One file system for all that goes the same way; a new one once a setting in the environment has changed.

    Making one for S3 reads megabytes of descriptions, some tenths of a second; fsspec's own memory would keep
    credentials that failed.
    """
    settings = hash(tuple(sorted(pair for pair in os.environ.items() if pair[0].upper().startswith(_SETTINGS))))
    key = scheme, repr(sorted(options.items())), settings, os.getpid()
    if key not in _opened:
        _opened[key] = kind(use_listings_cache=False, skip_instance_cache=True, **options)
    return _opened[key]


def _options(scheme: str) -> dict[str, Any]:
    """Patience and retries, where the user's configuration of fsspec does not say otherwise."""
    from fsspec.config import conf

    if scheme in ("s3", "s3a") and "config_kwargs" not in conf.get(scheme, {}):
        patience = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
        return {"config_kwargs": patience | {"retries": {"max_attempts": 2}}}
    if scheme in ("http", "https") and "client_kwargs" not in conf.get(scheme, {}):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    return {}


def _digest(package: str, info: dict[str, Any]) -> tuple[str, str] | None:
    """A checksum that the store itself knows of the whole content."""
    if isinstance(info.get("lfs"), dict) and info["lfs"].get("sha256"):
        return "sha256", str(info["lfs"]["sha256"])
    plain = str(info.get("ETag", "")).strip('"')
    if package == "s3fs" and _MD5.fullmatch(plain):  # of an upload in several parts it is none
        return "md5", plain
    coded = info.get("md5Hash") or info.get("Content-MD5")
    if isinstance(coded, str):
        with contextlib.suppress(ValueError):
            return "md5", base64.b64decode(coded, validate=True).hex()
    return None


async def _stream(fs: Any, item: Item, part: Path, advance: Callable[[int], None]) -> None:
    session = await fs.set_session()
    done = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **(fs.kwargs.get("headers") or {})}
    if done:
        headers["Range"] = f"bytes={done}-"
    rest = {key: value for key, value in fs.kwargs.items() if key != "headers"}
    async with session.get(fs.encode_url(item.path), headers=headers, **rest) as answer:
        if answer.status == 416:  # nothing is left to fetch
            return
        answer.raise_for_status()
        if done and answer.status != 206:
            advance(-done)
            done = 0
        with part.open("ab" if done else "wb") as out:
            async for chunk in answer.content.iter_chunked(1 << 20):
                out.write(chunk)
                advance(len(chunk))


def file_name(path: str, scheme: str) -> str:
    """The last part of a store's path, as a file name of this machine."""
    if scheme in ("http", "https"):
        path = unquote(urlsplit(path).path)
    return safe_parts(posixpath.basename(path.rstrip("/")) or "index", path)[-1]


def safe_parts(name: str, shown: str) -> list[str]:
    """A remote name piece by piece. Raises DataError for one that would be written outside its folder."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts) or ":" in parts[0][:2]:
        raise DataError(f"{redact(shown)}: the name {name!r} would be written outside its folder",
                        expected="plain names", remedy="rename it in the store")  # fmt: skip
    return parts


# What systems and tools leave in folders; nobody means it as data. Compared in lower case.
_LITTER = frozenset(("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"))


def is_hidden(name: str) -> bool:
    """Files and folders passed over in silence."""
    return name.startswith(".") or name.lower() in _LITTER
