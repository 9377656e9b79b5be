"""Remote file systems through fsspec: listing, reading, and one-line errors for their failures.

Credentials come from the usual places of each store (environment, its own configuration files, fsspec's configuration);
this module reads, keeps and shows none.
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
from urllib.parse import SplitResult, unquote, urlsplit

from unalike.errors import DataError, UnalikeError, closest, missing_extra
from unalike.sanitize import HIDDEN, redact
from unalike.storage.downloads import VARIABLE as DOWNLOAD_VARIABLE
from unalike.storage.downloads import network_is_forbidden
from unalike.storage.outside_files import reader_errors

# Scheme of a URI -> the package that reads it.
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
_IPV6_HOST = re.compile(r"\[[^\]/]*\]")
_MD5 = re.compile(r"[0-9a-f]{32}")
# Fields of a listing that change with a file's content, the best first.
_TAG_FIELDS = ("ETag", "etag", "blob_id", "md5Hash", "content_md5", "LastModified", "Last-Modified", "last_modified",
          "updated", "mtime", "created")  # fmt: skip
# Class of an exception -> kind of failure; the deepest known class in the chain of causes counts.
_FAILURE_KINDS = {
    **dict.fromkeys(("FileNotFoundError", "EntryNotFoundError", "RepositoryNotFoundError", "NoSuchBucket"), "missing"),
    **dict.fromkeys(("PermissionError", "ClientAuthenticationError", "GatedRepoError", "LoginError"), "denied"),
    **dict.fromkeys(
        ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "CredentialRetrievalError",
         "TokenRetrievalError", "ProfileNotFound", "UnauthorizedSSOTokenError"), "no credentials",
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
    """A file differs from its listing: it changed meanwhile, or arrived damaged."""


@dataclass(frozen=True)
class RemoteFile:
    """One remote file as its store lists it.

    Attributes:
        store: The store that holds it.
        path: Its path in that store.
        size: Bytes, or None where the store does not say.
        tag: Changes when the content does; empty where the store cannot tell.
        digest: Algorithm and hex digest of the content, where the store knows them.
    """

    store: RemoteStore
    path: str
    size: int | None
    tag: str
    digest: tuple[str, str] | None = None


def uri_of(source: str | Path) -> str:
    """The source as a URI, or an empty string when it is a path on this machine."""
    match = _URI.match(str(source))
    if not match or (not match[2] and match[1].lower() not in SCHEMES) or match[1].lower() == "file":
        return ""
    return f"{match[1].lower()}://{str(source)[match.end() :]}"


def split_address(uri: str) -> SplitResult:
    """Split a URI into its parts. Raises DataError for one that has none, such as ``https://[::1``."""
    with reader_errors(f"{redact(uri)}: no address", expected="scheme://host/path"):
        return urlsplit(uri)


def failure_kind(error: BaseException) -> str:
    """The kind of a failure: missing, denied, no credentials, unreachable, broken, or an empty string when unknown."""
    kind, link_ids = "", set()
    link: BaseException | None = error
    while link is not None and id(link) not in link_ids:
        link_ids.add(id(link))
        status = getattr(link, "status", None)
        by_status = {401: "denied", 403: "denied", 404: "missing", 410: "missing"}.get(status) if status else None
        if by_status is None and isinstance(status, int) and status >= 500:
            by_status = "broken"
        classes = (cls.__name__ for cls in type(link).__mro__)
        kind = by_status or next((_FAILURE_KINDS[name] for name in classes if name in _FAILURE_KINDS), "") or kind
        link = link.__cause__ or link.__context__
    return kind


class RemoteStore:
    """A remote file system, and the path in it that a URI names.

    Attributes:
        uri: The URI.
        redacted: The URI without what gives access, for link_ids.
        scheme: Its scheme, such as ``s3``.
        package: The package that reads it.
        fs: The fsspec file system.
        path: The URI's path in that file system.

    Raises:
        DataError: The URI cannot be read by any known store.
        MissingExtra: The package that reads it is not installed.
    """

    def __init__(self, uri: str) -> None:
        self.uri, self.redacted = uri, redact(uri)
        self.scheme = uri.partition("://")[0]
        if self.scheme not in SCHEMES:
            raise DataError(f"{self.redacted}: unknown kind of address", expected=", ".join(f"{s}://" for s in SCHEMES),
                            remedy=closest(self.scheme, SCHEMES))  # fmt: skip
        if HIDDEN in uri:
            raise DataError(f"{uri}: its credentials were taken out when it was written down",
                            remedy="give the complete address again")  # fmt: skip
        split_address(uri)
        if network_is_forbidden() and self.scheme != "memory":
            raise DataError(f"{self.redacted}: --offline, or {DOWNLOAD_VARIABLE}=never, forbids the network",
                            remedy="name a local copy, or allow the network")  # fmt: skip
        if "::" in _IPV6_HOST.sub("", uri):
            raise DataError(f"{self.redacted}: '::' in an address", expected="one address, not a chain of them")
        self.package = SCHEMES[self.scheme]
        try:
            import fsspec

            kind = fsspec.get_filesystem_class(self.scheme)
        except ImportError as error:
            raise missing_extra(self.package, "remote", f"reading {self.redacted}") from error
        with self.explain_errors():
            self.fs: Any = _file_system(kind, self.scheme, kind._get_kwargs_from_urls(uri) | _options(self.scheme))
            self.path: str = kind._strip_protocol(uri)

    @property
    def parallel_requests(self) -> int:
        """Number of requests that may run at once."""
        return 16 if self.fs.async_impl or self.scheme in ("hf", "memory") else 1

    def file(self, path: str | None = None, info: dict[str, Any] | None = None) -> RemoteFile:
        """Describe one file, by default the URI's own; asks the store unless ``info`` (fsspec's) is given."""
        path = self.path if path is None else path
        info = self.fs.info(path) if info is None else info
        size = info.get("size")
        tag = next((str(info[key]) for key in _TAG_FIELDS if info.get(key)), "")
        if isinstance(info.get("lfs"), dict):
            tag = str(info["lfs"].get("sha256") or tag)
        return RemoteFile(self, path, None if size is None else int(size), tag, _digest(self.package, info))

    def listing(self) -> dict[str, RemoteFile] | RemoteFile:
        """The file that the URI names, or all files below the folder, by their names in it. Raises DataError."""
        with self.explain_errors():
            info = self.fs.info(self.path)
            if info["type"] != "directory":
                return self.file(info=info)
            root = self.path.rstrip("/")
            files = {}
            for path, info in self.fs.find(root, detail=True).items():
                name = path[len(root) :].lstrip("/")
                if name and not path.endswith("/") and info.get("type", "file") == "file":
                    files[name] = self.file(path, info)
        return files

    def read(self, path: str, start: int, stop: int) -> bytes:
        """Read bytes ``start`` to ``stop`` of a file. Raises ConnectionResetError when fewer arrive."""
        data: bytes = self.fs.cat_file(path, start=start, end=stop)
        if len(data) != stop - start:
            raise ConnectionResetError(f"{len(data)} bytes arrived instead of {stop - start}")
        return data

    def download(self, file: RemoteFile, path: Path, advance: Callable[[int], None]) -> None:
        """Append the rest of a web file to ``path``; all of it where the server does not support ranges."""
        import fsspec.asyn

        fsspec.asyn.sync(self.fs.loop, _download, self.fs, file, path, advance)

    def is_plain_digest(self, file: RemoteFile) -> bool:
        """Whether an S3 object's ETag is its MD5; it is not where the store encrypts the object with a customer's key."""
        if self.package != "s3fs":
            return True
        bucket, _, key = file.path.partition("/")
        head = self.fs.call_s3("head_object", Bucket=bucket, Key=key)
        return not (str(head.get("ServerSideEncryption", "")).startswith("aws:kms") or head.get("SSECustomerAlgorithm"))

    @contextlib.contextmanager
    def explain_errors(self, description: str = "") -> Iterator[None]:
        """While inside, turn what a store raises into a DataError that names the address, or ``description``."""
        try:
            yield
        except (UnalikeError, StaleListing):
            raise
        except Exception as error:  # every library of a store has exceptions of its own
            raise self.explain(error, description) from error

    def explain(self, error: BaseException, description: str = "", remedy: str = "") -> DataError:
        """The one-line error for a failure.

        Args:
            error: What the store raised.
            description: What failed; the address by default.
            remedy: What to do when the connection failed, where it is not the usual.
        """
        name, kind = description or self.redacted, failure_kind(error)
        detail = redact((" ".join(str(error).split()) or type(error).__name__)[:200])
        credentials = CREDENTIALS.get(self.package, "")
        if kind == "missing":
            return self._explain_missing(name)
        if kind == "denied":
            return DataError(f"{name}: access denied ({detail})", expected="credentials that may do this",
                             remedy=f"check {credentials}" if credentials else "")  # fmt: skip
        if kind == "no credentials":
            return DataError(f"{name}: no credentials found ({detail})", expected=credentials)
        if kind == "unreachable":
            return DataError(f"{name}: cannot be reached ({detail})", expected="a server that answers there",
                             remedy=remedy or "check the network and the store's address (AWS_ENDPOINT_URL for S3)")  # fmt: skip
        if kind == "broken":
            return DataError(f"{name}: the connection broke off ({detail})", remedy=remedy or "try again")
        return DataError(f"{name}: {type(error).__name__}: {detail}", remedy=remedy)

    def _explain_missing(self, name: str) -> DataError:
        """The error for a path that does not exist: does its bucket exist, and what similar names are beside it?"""
        path = str(getattr(self, "path", ""))
        bucket, _, key = path.partition("/")
        if self.package == "aiohttp" or not hasattr(self, "fs"):
            return DataError(f"{name}: not found on that server", remedy="check the address")
        siblings = self._names(posixpath.dirname(path.rstrip("/"))) if key else None
        if not siblings and (not key or self._names(bucket) is None):
            return DataError(f"{name}: there is no {bucket!r} there", expected="a bucket or container that exists",
                             remedy="check its name and the store's address")  # fmt: skip
        near = closest(posixpath.basename(path.rstrip("/")), siblings or ())
        return DataError(f"{name}: nothing exists under that name", expected="a file, or a folder with files",
                         remedy=near or "check the name")  # fmt: skip

    def _names(self, folder: str) -> list[str] | None:
        try:
            return [posixpath.basename(str(name).rstrip("/")) for name in self.fs.ls(folder, detail=False)]
        except Exception:  # noqa: BLE001  only to make a message better
            return None


_file_systems: dict[tuple[Any, ...], Any] = {}
# Beginnings of the names of environment variables that may change how a store is reached.
_SETTINGS = ("AWS_", "GOOGLE_", "AZURE_", "HF_", "FSSPEC_", "HTTP", "HOME")


def _file_system(kind: Any, scheme: str, options: dict[str, Any]) -> Any:
    """The file system for these options; a new one once a setting in the environment has changed.

    Creating one for S3 reads megabytes of descriptions, some tenths of a second; fsspec's own cache would keep
    credentials that failed.
    """
    settings = hash(tuple(sorted(pair for pair in os.environ.items() if pair[0].upper().startswith(_SETTINGS))))
    key = scheme, repr(sorted(options.items())), settings, os.getpid()
    if key not in _file_systems:
        _file_systems[key] = kind(use_listings_cache=False, skip_instance_cache=True, **options)
    return _file_systems[key]


def _options(scheme: str) -> dict[str, Any]:
    """Timeouts and retries, where the user's configuration of fsspec does not set them."""
    from fsspec.config import conf

    if scheme in ("s3", "s3a") and "config_kwargs" not in conf.get(scheme, {}):
        timeouts = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
        return {"config_kwargs": timeouts | {"retries": {"max_attempts": 2}}}
    if scheme in ("http", "https") and "client_kwargs" not in conf.get(scheme, {}):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    return {}


def _digest(package: str, info: dict[str, Any]) -> tuple[str, str] | None:
    """The checksum of the content that the store keeps, where it keeps one."""
    if isinstance(info.get("lfs"), dict) and info["lfs"].get("sha256"):
        return "sha256", str(info["lfs"]["sha256"])
    plain = str(info.get("ETag", "")).strip('"')
    if package == "s3fs" and _MD5.fullmatch(plain):  # of an upload in several parts it is none
        return "md5", plain
    md5 = info.get("md5Hash") or info.get("Content-MD5")
    if isinstance(md5, str):
        with contextlib.suppress(ValueError):
            return "md5", base64.b64decode(md5, validate=True).hex()
    return None


async def _download(fs: Any, file: RemoteFile, path: Path, advance: Callable[[int], None]) -> None:
    session = await fs.set_session()
    offset = path.stat().st_size if path.exists() else 0
    headers = {"Accept-Encoding": "identity", **(fs.kwargs.get("headers") or {})}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    rest = {key: value for key, value in fs.kwargs.items() if key != "headers"}
    async with session.get(fs.encode_url(file.path), headers=headers, **rest) as response:
        if response.status == 416:  # nothing is left to fetch
            return
        response.raise_for_status()
        if offset and response.status != 206:
            advance(-offset)
            offset = 0
        with path.open("ab" if offset else "wb") as out:
            async for chunk in response.content.iter_chunked(1 << 20):
                out.write(chunk)
                advance(len(chunk))


def file_name(path: str, scheme: str) -> str:
    """The last part of a store's path, as a file name of this machine."""
    if scheme in ("http", "https"):
        path = unquote(split_address(path).path)
    return safe_parts(posixpath.basename(path.rstrip("/")) or "index", path)[-1]


def safe_parts(name: str, description: str) -> list[str]:
    """Split a remote name at its slashes. Raises DataError for one that would be written outside its folder."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts) or ":" in parts[0][:2]:
        raise DataError(f"{redact(description)}: the name {name!r} would be written outside its folder",
                        expected="plain names", remedy="rename it in the store")  # fmt: skip
    return parts


# What systems and tools leave in folders, never data. Compared in lower case.
_SYSTEM_FILES = frozenset(
    ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found")
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is skipped silently: hidden, or left by a system."""
    return name.startswith(".") or name.lower() in _SYSTEM_FILES
