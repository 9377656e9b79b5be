"""Section ``serve``: answering over HTTP. Every field is also a variable ``UNALIKE_SERVE_<FIELD>``."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le

from unalike.spec import value_schemas
from unalike.spec.declare import (
    FILE,
    MODEL,
    Cores,
    EnginePrecision,
    Names,
    Paths,
    Runtime,
    Section,
    Text,
    field,
)

# Prefix of the environment variables; the name of the field in capitals follows.
ENVIRONMENT_PREFIX = "UNALIKE_SERVE_"


class Serve(Section):
    run: Text = field(
        None,
        "Folder of a run (demo, train, export, gallery build, inspect fit), or one that holds a model, a gallery or an "
        "inspector; unset, and without a model, gallery, inspector or assets, runs/demo.",
    )
    model: Text = field(
        None, "Network: a .onnx, .xml, .engine or .pth model, or pretrained; unset, the gallery's own.", takes=MODEL
    )
    galleries: Paths = field(
        None,
        "Galleries, each FILE or NAME=FILE, or an address postgresql://...?gallery=NAME or milvus://...?gallery=NAME; the first is the default one.",
        schema=value_schemas.PATHS,
    )
    inspectors: Paths = field(
        None, "Inspectors that inspect fit wrote, each FILE or NAME=FILE; the first is the default one.",
        schema=value_schemas.PATHS,
    )  # fmt: skip
    assets: Paths = field(
        None, "Sets of approved assets, each a saved file or a folder of assets, or NAME=PATH; the first is the default one.",
        schema=value_schemas.PATHS,
    )  # fmt: skip
    folder: Text = field(
        None,
        "Folder of the service: its store, images and a new gallery; unset, serve in the run's folder, or runs/serve.",
    )
    store: Text = field(
        None,
        "Address of the database of decisions, keys and the audit log: postgresql://...; unset, SQLite in the folder.",
    )
    images: Text = field(None, "Folder or address (s3://...) of uploaded images; unset, images in the folder.")
    keep_images: bool = field(True, "Keep the image of each decision for retention_days.")
    retention_days: float = field(30.0, "How long decisions keep their images; 0: for ever.", ge=0, units="days")
    decision_days: float = field(0.0, "How long decisions are kept; 0: for ever.", ge=0, units="days")
    host: str = field("127.0.0.1", "Address to listen on; one other than loopback needs an API key.", min_length=1)
    port: Annotated[int, Ge(0), Le(65535)] = field(8000, "Port to listen on; 0: any free one.")
    workers: int = field(1, "Processes that answer; each has its own copy of the networks.", ge=1, le=256)
    runtime: Runtime = field("auto", "Runtime of the network.")
    precision: EnginePrecision = field("auto", "Number format of the network.")
    approximate: bool = field(
        False, "Search galleries through an index (faiss, extra ann; in PostgreSQL and Milvus HNSW)."
    )
    threads: Annotated[int, Ge(1)] | None = field(
        None, "CPU cores that the networks of one process may use; unset, its share of all cores."
    )
    wait_ms: float = field(
        3.0, "While a batch runs, how long a request waits for others to share the next batch; an idle engine takes the first "
        "request at once.", ge=0, le=10_000, units="milliseconds",
    )  # fmt: skip
    queue: int = field(
        256, "Images that may wait or run at once for a network; beyond, the answer is 503.", ge=1, le=10**6
    )
    deadline: float = field(
        30.0, "Longest time of a request; beyond, the answer is 504.", gt=0, le=3600, units="seconds"
    )
    max_bytes: int = field(32 * 2**20, "Largest body of a request.", ge=1024, units="bytes")
    max_pixels: int = field(50_000_000, "Largest image.", ge=64, units="pixels")
    max_files: int = field(64, "Most images of a request.", ge=1, le=10_000)
    rate_limit: float = field(
        0.0, "Most requests a second of one key, or of one address without a key; 0: no limit.", ge=0
    )
    url_hosts: Names | None = field(
        None, "Hosts from which images may be fetched by address; unset, none.", form="a list of names, also as a,b",
        schema=value_schemas.any_of(value_schemas.NAMES, value_schemas.NULL),
    )  # fmt: skip
    train_folders: Paths = field(
        None, "Folders, archives or manifests that trainings may take images from, each PATH or NAME=PATH; unset, none.",
        schema=value_schemas.PATHS,
    )  # fmt: skip
    train_cores: Cores | None = field(
        None, "CPU cores on which candidates are trained, compared and promoted, such as 2,3; unset, all of them, at the lowest "
        "priority.", form="core numbers, also as 2,3",
        schema=value_schemas.any_of(value_schemas.CORES, value_schemas.NULL),
    )  # fmt: skip
    train_spec: Text = field(
        None,
        "Spec file of trainings, as of unalike train -e; their data, minutes and goal are chosen for each.",
        takes=FILE,
    )
    tls: Literal["off", "self-signed"] = field(
        "off", "self-signed: make a certificate, and show the address as a QR code. tls_cert and tls_key set their own."
    )
    tls_cert: Text = field(None, "File of the TLS certificate (PEM).")
    tls_key: Text = field(None, "File of the certificate's private key (PEM).")
    logs: Literal["text", "json"] = field("text", "Format of the log on standard error, one line a request.")
