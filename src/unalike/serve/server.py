"""The server: one process, or several that share a socket; TLS; SIGTERM stops taking requests and finishes those taken."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from unalike import progress
from unalike.errors import RunError, SpecError, UnalikeError
from unalike.serve.certificates import lan_address, qr_code, tls_files
from unalike.serve.connections import BoundedConnection
from unalike.serve.logs import configure_logs, log_error
from unalike.serve.resources import ResourceLoader, build_new_gallery
from unalike.serve.security import is_loopback
from unalike.serve.sources import find_sources
from unalike.serve.start_up import LoadedService, StartUp
from unalike.serve.thread_budget import limit_libraries, thread_budget
from unalike.spec.serve import Serve

if TYPE_CHECKING:
    from unalike.serve.batching import BatchReport
    from unalike.serve.service import Service

BACKLOG = 2048
DRAIN_MARGIN_S = 5.0
# A process that does not answer for so long is started again; loading on a busy machine may hold it up for a while.
HEALTH_S = 60


def run_service(settings: Serve) -> None:
    """Answer until SIGTERM or Ctrl-C; then finish the requests that were taken and return.

    Raises:
        SpecError: the options do not fit together, or nothing is named that can be served.
        RunError: the address cannot be listened on.
        UnalikeError: what is served cannot be loaded.
    """
    sources = find_sources(settings)
    check_exposure(settings, sources.folder)
    files = tls_files(settings, sources.folder)
    build_new_gallery(settings, sources)
    listener = open_socket(settings.host, settings.port)
    try:
        _serve(settings, listener, files)
    finally:
        listener.close()


def check_exposure(settings: Serve, folder: Path) -> None:
    """Refuse an address that other machines reach where no API key exists. Raises SpecError."""
    if is_loopback(settings.host):
        return
    from unalike.serve.store import open_store

    with open_store(settings.store, folder, settings.images) as store:
        if any(key.revoked is None for key in store.keys.list()):
            return
    place = shlex.join(["--store", str(settings.store)] if settings.store else ["--folder", str(folder)])
    raise SpecError(f"serve.host: {settings.host} is reached by other machines, and there is no API key", expected="a key",
                    remedy=f"unalike serve keys add NAME --role admin {place}, or listen on 127.0.0.1")  # fmt: skip


def _serve(settings: Serve, listener: socket.socket, files: tuple[Path, Path] | None) -> None:
    address = address_of(listener, is_secure=files is not None)
    say_plain_http(settings, files)
    if settings.workers == 1:
        _serve_alone(settings, listener, files, address)
        gc.freeze()  # or the end of the process walks through all that torch imported: 1.5 s of processor time
        return
    from unalike.serve.metrics import FOLDER_VARIABLE
    from unalike.serve.store import open_store

    open_store(settings.store, find_sources(settings).folder, settings.images).close()  # its tables are made once, here
    folder = tempfile.mkdtemp(prefix="unalike-metrics-")
    os.environ[FOLDER_VARIABLE] = folder
    try:
        announce(address)
        factory = partial(make_worker_app, settings, progress.verbosity())
        Multiprocess(_config(settings, factory, files), [listener]).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve_alone(
    settings: Serve, listener: socket.socket, files: tuple[Path, Path] | None, address: str
) -> None:  # fmt: skip
    """Answer in this process. Raises what loading raised."""
    errors: list[Exception] = []

    def end(error: Exception) -> None:
        errors.append(error)
        server.should_exit = True

    server = DrainingServer(_config(settings, make_app(settings, partial(announce, address), end), files))
    server.run(sockets=[listener])
    if errors:
        raise errors[0]
    if not server.started:
        raise RunError("the service did not start", remedy="see the messages above")


def make_app(settings: Serve, on_ready: Callable[[], None], on_failure: Callable[[Exception], None]) -> StartUp:
    """The application, which loads what is served when its server starts."""
    limit_libraries(thread_budget(settings))
    configure_logs(settings.logs, verbosity=progress.verbosity())
    return StartUp(partial(load_service, settings), on_ready, on_failure, waits=settings.workers > 1)


def load_service(settings: Serve) -> LoadedService:
    """Load what is served, and what answers first. Raises UnalikeError."""
    service: Service | None = None

    def report(network: str, batch: BatchReport) -> None:
        assert service is not None  # no batch runs before
        service.report(network, batch)

    with _no_collection(), ThreadPoolExecutor(1) as pool:
        # Networks are loaded and warmed up without Python's lock: meanwhile the database's library and the first endpoints are
        # imported, a third of a start.
        endpoints = pool.submit(importlib.import_module, "unalike.serve.front")
        sources = find_sources(settings)
        resources = ResourceLoader(settings, sources, report).load()
        front_module = endpoints.result()
        from unalike.serve.service import Service

        service = Service(settings, resources, sources)
        front = front_module.Front(service)
        # What is loaded stays: no collection needs to look at it. With torch one took 0.34 s, in which nothing was answered
        # (own measurement, two cores, 2026-11-29).
        gc.freeze()

    def load_rest() -> Callable[[], None]:
        with _no_collection():
            from unalike.serve.app import make_fastapi_app

            app = make_fastapi_app(service)
            gc.freeze()
        return partial(front.set_app, app)

    return LoadedService(service, front, load_rest)


@contextlib.contextmanager
def _no_collection() -> Generator[None, None, None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def make_worker_app(settings: Serve, verbosity: int) -> StartUp:
    """As ``make_app``, in a process of several; an error is one line there too, and ends the others."""
    progress.set_verbosity(verbosity)
    _keep_descriptors()

    def end(error: Exception) -> None:
        if isinstance(error, UnalikeError):
            print(f"error: {error}", file=sys.stderr, flush=True)
        else:
            log_error("the service cannot be loaded", error)
        os._exit(STARTUP_FAILURE)

    return make_app(settings, lambda: None, end)


def _keep_descriptors() -> None:
    """Give no descriptor of this process to those that it starts: a task that outlives a killed worker would keep the port."""
    for name in os.listdir("/dev/fd") if os.path.isdir("/dev/fd") else ():
        with contextlib.suppress(OSError):  # that of the list itself is closed
            if int(name) > 2:
                os.set_inheritable(int(name), False)


def _config(settings: Serve, app: Any, files: tuple[Path, Path] | None) -> uvicorn.Config:
    certificate, key = files or (None, None)
    return uvicorn.Config(
        app, factory=settings.workers > 1, host=settings.host, port=settings.port, workers=settings.workers, lifespan="on",
        log_config=None, access_log=False, server_header=False, backlog=BACKLOG, proxy_headers=False,
        timeout_graceful_shutdown=int(settings.deadline + DRAIN_MARGIN_S), http=BoundedConnection, ws="none",
        ssl_certfile=certificate, ssl_keyfile=key, timeout_worker_healthcheck=HEALTH_S,
    )  # fmt: skip


class DrainingServer(uvicorn.Server):
    """A server that ends with exit code 0 after a signal, when what was taken is answered."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Let SIGTERM and Ctrl-C stop the server; they are not raised again afterwards."""
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


# ---- the address ----


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket. Raises RunError where the address is taken or does not exist."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise RunError(f"cannot listen on {host} port {port}: {error.strerror or error}",
                       remedy="choose another --port (0: any free one) or --host") from error  # fmt: skip
    return listener


def address_of(listener: socket.socket, *, is_secure: bool) -> str:
    """The address to open; of one that listens everywhere, that in the network."""
    host, port = listener.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = lan_address() or socket.gethostname()
    host = f"[{host}]" if ":" in host else host
    return f"http{'s' if is_secure else ''}://{host}:{port}"


def say_plain_http(settings: Serve, files: tuple[Path, Path] | None) -> None:
    """Warn where keys would cross a network unencrypted."""
    if files is None and not is_loopback(settings.host):
        progress.warn(
            "keys and images are sent unencrypted: use --tls-cert and --tls-key, --tls self-signed, or a proxy with TLS"
        )


def announce(address: str) -> None:
    """Print the address on standard output; with TLS on a terminal also as a QR code."""
    print(address, flush=True)
    option = " -k" if address.startswith("https") else ""
    progress.say(f"serving on {address}: curl{option} -F image=@photo.jpg {address}/v1/identify")
    if address.startswith("https") and sys.stderr.isatty():
        print(qr_code(address), file=sys.stderr, flush=True)
