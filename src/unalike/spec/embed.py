"""Section ``embed``: writing the vectors of images to a file."""

from __future__ import annotations

from unalike.spec.declare import IMAGES, MODEL, EnginePrecision, Runtime, Section, Text, field


class Embed(Section):
    source: Text = field(None, "Images: a folder, an archive, a manifest or one image.", mandatory=True, takes=IMAGES)
    output: Text = field(None, "File to write, .npz or .parquet; unset, vectors.npz in the results folder.")
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
