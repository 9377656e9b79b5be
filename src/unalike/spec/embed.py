"""Section ``embed``: writing the vectors of images to a file."""

from __future__ import annotations

from typing import Literal

from unalike.spec.declare import IMAGES, MODEL, EnginePrecision, Runtime, Section, Text, field


class Embed(Section):
    source: Text = field(None, "Images: a folder, an archive, a manifest or one image.", mandatory=True, takes=IMAGES)
    output: Text = field(
        None,
        "File to write, .npz or .parquet; or a folder or address (s3://...) of Parquet shards, for sets that do not fit into "
        "memory. Unset, vectors.npz in the results folder.",
    )
    results_dir: Text = field(
        None, "Results folder; unset, `embed` below the top results_dir, or none: the output file alone."
    )
    model: Text = field(
        None,
        "Network: a .pth, .onnx, .xml or .engine; unset, a pretrained trunk without further training.",
        takes=MODEL,
    )
    labeled: bool = field(False, "Folders are classes: write the class of each image too.")
    runtime: Runtime = field("auto", "Runtime of the network.")
    precision: EnginePrecision = field("auto", "Number format of the network.")
    shard_size: int = field(10_000, "Images a shard; of tar files, each is a shard.", ge=1, le=1_000_000)
    cluster: Literal["local", "ray"] = field("local", "Who embeds shards: this machine, or a Ray cluster.")
    address: Text = field(
        None,
        "Address of the Ray cluster; unset starts one on this machine. All its machines must see source, network and output.",
    )
    workers: int | None = field(
        None, "Workers of the Ray cluster; unset means one a GPU, or one a machine without GPUs.", ge=1, le=10_000
    )
