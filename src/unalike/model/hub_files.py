"""Weight files of the Hugging Face hub: its cache on this disk, what the hub says of a file, and the download of one.

The layout of the cache is that of huggingface-hub (``models--OWNER--NAME/snapshots/COMMIT/FILE``), so that timm and other
programs find what is placed here.
"""

from __future__ import annotations

import http.client
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unalike.errors import WeightsError
from unalike.progress import progress, say
from unalike.storage.atomic import link_file, write_text
from unalike.storage.digests import file_sha256
from unalike.storage.file_lock import file_lock
from unalike.storage.outside_files import expand_home
from unalike.telemetry import disable_telemetry

HUB_LIMIT_S = 5.0  # of one request about a file
READ_LIMIT_S = 60.0  # without a byte of a file
ATTEMPTS, BACKOFF_S = 5, 0.5  # in a row without a byte of progress
DOWNLOAD_WAIT_S = 6 * 3600.0  # for another process that downloads the same file
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
NO_SUCH_FILE = "no such file"
DEFAULT_ENDPOINT = "https://huggingface.co"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MEGABYTE = 1_000_000
_STAGING = ".unalike"  # folder in the cache that holds unfinished downloads, which are continued


class HubUnavailable(WeightsError):
    """The hub does not answer, has no such file, or a download from it failed."""


@dataclass(frozen=True)
class HubFile:
    """What the hub says of a file.

    Attributes:
        size: bytes; None where it does not say.
        sha256: of the content, in hexadecimal digits; empty where the hub does not say.
        commit: of the repository, 40 hexadecimal digits.
    """

    size: int | None
    sha256: str
    commit: str


# ---- the cache ----


def hub_cache() -> Path:
    """The folder of the hub's cache, by ``HF_HUB_CACHE``, ``HF_HOME`` or ``XDG_CACHE_HOME``."""
    for key, below in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if os.environ.get(key):
            return expand_home(os.environ[key]) / below
    return expand_home(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface" / "hub"


def file_names(filename: str) -> tuple[str, ...]:
    """Names under which a repository may hold its weights: the one that timm states, else the two usual ones."""
    return (filename,) if filename else HUB_FILES


def find_cached(repo: str, filename: str = "") -> Path | None:
    """A repository's newest weight file in the cache, or None.

    Args:
        repo: ``owner/name``.
        filename: the file's name where timm states one.
    """
    snapshots = repository_folder(repo) / "snapshots"
    for name in file_names(filename):
        paths = [path for path in snapshots.glob(f"*/{name}") if path.is_file()]
        if paths:
            return max(paths, key=lambda path: path.stat().st_mtime)
    return None


def repository_folder(repo: str) -> Path:
    """The folder of a repository in the cache."""
    return hub_cache() / ("models--" + repo.replace("/", "--"))


def place_file(blob: Path, repo: str, commit: str, name: str) -> Path:
    """Make a file of ``blobs`` the file ``name`` of a commit, and that commit the newest.

    Args:
        blob: the content, below ``repository_folder(repo)/blobs``.
        repo: ``owner/name``.
        commit: 40 hexadecimal digits.
        name: of the file.

    Returns:
        Its path in the cache.
    """
    folder = repository_folder(repo)
    path = folder / "snapshots" / commit / name
    path.parent.mkdir(parents=True, exist_ok=True)
    link_file(path, blob)
    (folder / "refs").mkdir(exist_ok=True)
    write_text(folder / "refs" / "main", commit)
    return path


# ---- the hub ----


class _HubRedirects(urllib.request.HTTPRedirectHandler):
    """Follows renamed repositories; the address of a file's store, on another host, is an answer and not followed."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        new = urllib.request.Request(newurl, method="HEAD")
        for key, value in req.unredirected_hdrs.items():
            new.add_unredirected_header(key, value)
        return new if new.host == req.host else None


def ask_hub(repo: str, name: str) -> HubFile | str:
    """What the hub says of a file, or why there is no answer, within ``HUB_LIMIT_S`` seconds.

    Args:
        repo: ``owner/name``.
        name: of the file.
    """
    url = f"{endpoint()}/{repo}/resolve/main/{name}"
    token = _token()  # not within the limit: it imports a library
    answer: list[HubFile | str] = [f"no answer within {HUB_LIMIT_S:g} s"]

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            if token:
                request.add_unredirected_header("Authorization", f"Bearer {token}")
            with urllib.request.build_opener(_HubRedirects).open(request, timeout=HUB_LIMIT_S) as response:
                answer[0] = _hub_file(response.headers, is_content=True)
        except urllib.error.HTTPError as error:
            if 300 <= error.code < 400:
                answer[0] = _hub_file(error.headers, is_content=False)
            else:
                answer[0] = NO_SUCH_FILE if error.code == 404 else f"{error.code} {error.reason}"
        except (urllib.error.URLError, OSError, ValueError) as error:
            answer[0] = str(getattr(error, "reason", error) or error)

    thread = threading.Thread(target=ask, daemon=True)  # bounds the resolution of the name too
    thread.start()
    thread.join(HUB_LIMIT_S)
    return answer[0]


def endpoint() -> str:
    """The hub's address: ``HF_ENDPOINT``, else huggingface.co."""
    return os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT).rstrip("/")


def _token() -> str:
    disable_telemetry()
    try:
        from huggingface_hub import get_token
    except ImportError:
        return ""
    return get_token() or ""


def _hub_file(headers: Any, *, is_content: bool) -> HubFile:
    """Size and SHA-256 by the headers of an answer; of a redirection those of the file that it leads to."""
    size = headers.get("X-Linked-Size") or (headers.get("Content-Length") if is_content else None) or ""
    tag = str(headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
    commit = str(headers.get("X-Repo-Commit") or "")
    return HubFile(int(size) if size.isdigit() else None, tag if SHA256.fullmatch(tag) else "", commit)


def download(repo: str, name: str, file: HubFile) -> Path:
    """Download a file into the cache: it is there whole and checked, or not at all. An interrupted one is continued.

    Args:
        repo: ``owner/name``.
        name: of the file.
        file: what the hub says of it.

    Returns:
        Its path in the cache.

    Raises:
        HubUnavailable: it cannot be downloaded; what arrived is kept apart, and the next download continues there.
        WeightsError: its size or SHA-256 is not what the hub states, or it cannot be written.
    """
    staging = hub_cache() / _STAGING
    stem = f"models--{repo.replace('/', '--')}--{file.sha256 or file.commit}"
    if not COMMIT.fullmatch(file.commit):
        raise HubUnavailable(f"the hub states the commit {file.commit!r} of {repo}, and not 40 hexadecimal digits")
    with _writing(repo, name):
        staging.mkdir(parents=True, exist_ok=True)
        lock, part = staging / f"{stem}.lock", staging / f"{stem}.part"
        lock.touch()
        with file_lock(lock, timeout_s=DOWNLOAD_WAIT_S):
            if (path := find_cached(repo, name)) is not None and _has_content(path, file):
                return path  # another process was first
            _transfer(repo, name, file, part)
            blob = repository_folder(repo) / "blobs" / _checked_sha256(part, repo, name, file)
            blob.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, blob)
            path = place_file(blob, repo, file.commit, name)
        lock.unlink(missing_ok=True)
        return path


@contextmanager
def _writing(repo: str, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsError(f"{repo}: {name} cannot be written into {hub_cache()} ({error.strerror or error})",
                           remedy="free some space, or set HF_HOME to another folder") from error  # fmt: skip


def _has_content(path: Path, file: HubFile) -> bool:
    return not file.sha256 or file_sha256(path) == file.sha256


def _transfer(repo: str, name: str, file: HubFile, part: Path) -> None:
    """Append to ``part`` the bytes that it lacks; a connection that breaks off is opened again. Raises HubUnavailable."""
    say(f"fetching {name} of {repo} from {endpoint()}: {(file.size or 0) / MEGABYTE:.1f} MB")
    url, failures = f"{endpoint()}/{repo}/resolve/{file.commit}/{name}", 0
    with progress(f"fetching {repo}", (file.size or 0) // MEGABYTE, "MB") as advance:
        while True:
            before = _length(part)
            try:
                total = _append(url, part, advance)
                if _length(part) >= (file.size or total):
                    return
                why = "the connection broke off"
            except urllib.error.HTTPError as error:
                raise HubUnavailable(f"fetching {name} of {repo} failed: {error.code} {error.reason}") from error
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
                why = str(getattr(error, "reason", error) or type(error).__name__)
            failures = 1 if _length(part) > before else failures + 1
            if failures >= ATTEMPTS:
                raise HubUnavailable(f"fetching {name} of {repo} failed: {why}; {_length(part) / MEGABYTE:.1f} MB are kept, "
                                     "and the next time continues there")  # fmt: skip
            time.sleep(BACKOFF_S * 2 ** (failures - 1))


def _append(url: str, part: Path, advance: Callable[..., None]) -> int:
    """Request a file from the length of ``part`` on, and append what arrives; returns the length that the whole has."""
    offset = _length(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    if token := _token():
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=READ_LIMIT_S) as response:
        offset = offset if response.status == 206 else 0  # else the whole file comes
        total = offset + int(response.headers.get("Content-Length") or 0)
        with part.open("ab" if offset else "wb") as out:
            advance(offset // MEGABYTE)
            while chunk := response.read(MEGABYTE):
                out.write(chunk)
                advance(len(chunk) // MEGABYTE)
    return total


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _checked_sha256(part: Path, repo: str, name: str, file: HubFile) -> str:
    """The SHA-256 of a download; where it or the size is not as the hub states, remove the file and raise WeightsError."""
    size, sha256 = part.stat().st_size, file_sha256(part)
    faults = []
    if file.size is not None and size != file.size:
        faults.append(f"{size} bytes, the hub states {file.size}")
    if file.sha256 and sha256 != file.sha256:
        faults.append(f"SHA-256 {sha256}, the hub states {file.sha256}")
    if faults:
        part.unlink()
        raise WeightsError(f"{name} of {repo} arrived damaged and was removed: {'; '.join(faults)}",
                           remedy="fetch it again; where it happens again, the hub or a proxy changes it")  # fmt: skip
    return sha256
