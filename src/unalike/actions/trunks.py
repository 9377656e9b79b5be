"""Trunks and their pretrained weights: list them with facts, download weights, carry them to machines without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.errors import ModelError, UnalikeError, WeightsError
from unalike.inference.engine_selection import create_engine
from unalike.inference.runtime_benchmark import IMAGES, REPEATS, measure_rates
from unalike.progress import progress, say
from unalike.storage.digests import file_sha256
from unalike.storage.downloads import hub_is_forbidden

# Counting and measuring build the network: some seconds a trunk.
MAX_COUNTED, MAX_MEASURED = 20, 20


def list_trunks(word: str = "", *, measure: bool = False) -> list[dict[str, Any]]:
    """Return the trunks whose names contain a word, with facts; those whose weights are here where there is no word.

    Args:
        word: a part of a name; with a dot, of the name of weights.
        measure: measure the images per second of each, with random weights, on this machine.

    Returns:
        One mapping a trunk. ``parameters`` and ``multiply_adds`` are None where more than 20 match, or where the network cannot
        be built; ``reason`` then states why.

    Raises:
        ModelError: no name contains the word, or more than 20 do and ``measure`` is set.
    """
    from unalike.model.trunk_catalog import describe_trunk, trunk_names

    names = trunk_names(word)
    if measure and len(names) > MAX_MEASURED:
        raise ModelError(f"{len(names)} trunks match {word!r}", expected=f"at most {MAX_MEASURED} to measure",
                         remedy="name one exactly")  # fmt: skip
    if len(names) > MAX_COUNTED:
        say(f"{len(names)} trunks match: parameters and multiply-adds are counted for at most {MAX_COUNTED}")
        return [_facts(describe_trunk(name)) | {"parameters": None, "multiply_adds": None} for name in names]
    rows = []
    with progress("counting", len(names), "trunks") as advance:
        for name in names:
            entry = describe_trunk(name)
            rows.append(_facts(entry) | _cost(entry) | ({"speed": _measure(entry)} if measure else {}))
            advance()
    return rows


def fetch_trunks(names: Sequence[str]) -> list[dict[str, Any]]:
    """Download the weights of trunks into the hub's cache, unless they are here.

    Args:
        names: as in ``model.backbone``.

    Returns:
        Name, source, path, bytes, SHA-256 and whether it was downloaded now, of each.

    Raises:
        WeightsError: a trunk has no weights that can be downloaded, or the download fails or arrives damaged.
        ModelError: a name is not known.
    """
    from unalike.model.backbones import weights_config
    from unalike.model.pretrained import fetch_weights
    from unalike.model.trunk_catalog import describe_trunk

    rows = []
    for name in names:
        entry = describe_trunk(name)
        is_new = entry.path is None
        if is_new and entry.origin != "hub":
            raise WeightsError(f"{name} has no weights that can be downloaded",
                               expected=f"a file, at {entry.source}" if entry.source else "a file of your own",
                               remedy="name it in model.pretrained_trunk_path")  # fmt: skip
        if is_new and (reason := hub_is_forbidden()):
            raise WeightsError(f"{name} is not here, and {reason}", remedy="fetch it on a machine with a network, then "
                               "unalike trunks pack and unpack")  # fmt: skip
        path = entry.path or fetch_weights(entry.source, str(weights_config(name)[1].get("hf_hub_filename") or ""))
        rows.append({
            "name": name, "source": f"{entry.origin} {entry.source}", "license": entry.license, "path": str(path),
            "bytes": path.stat().st_size, "sha256": file_sha256(path), "downloaded": is_new,
        })  # fmt: skip
    return rows


def pack_trunks(names: Sequence[str], path: str | Path) -> dict[str, Any]:
    """Write the weights of trunks, which are on this machine, into one file for machines without a network.

    Args:
        names: as in ``model.backbone``.
        path: the archive to write.

    Returns:
        ``path``, ``bytes`` and the ``trunks`` in it.

    Raises:
        WeightsError: the weights of a trunk are not here.
        ModelError: a name is not known.
    """
    from unalike.model.trunk_archive import write_archive
    from unalike.model.trunk_catalog import describe_trunk

    entries = [describe_trunk(name) for name in dict.fromkeys(names)]
    missing = [entry.name for entry in entries if entry.path is None]
    if missing:
        raise WeightsError(
            f"no weights here of {', '.join(missing)}", remedy=f"unalike trunks fetch {' '.join(missing)}"
        )
    write_archive(entries, Path(path))
    return {"path": str(path), "bytes": Path(path).stat().st_size, "trunks": [entry.name for entry in entries]}


def unpack_trunks(path: str | Path) -> list[dict[str, Any]]:
    """Put the weights of an archive of ``pack_trunks`` where training looks for them.

    Args:
        path: the archive.

    Returns:
        Name, path and bytes of each.

    Raises:
        WeightsError: the file is no such archive, is damaged, or cannot be unpacked here.
    """
    from unalike.model.trunk_archive import unpack_archive

    return unpack_archive(Path(path))


def _facts(entry: Any) -> dict[str, Any]:
    return {
        "name": entry.name, "weights": entry.weights or None, "input_size": list(entry.input_size),
        "license": entry.license or None, "origin": entry.origin, "source": entry.source or None,
        "path": None if entry.path is None else str(entry.path), "bytes": entry.size, "download_bytes": entry.download,
    }  # fmt: skip


def _cost(entry: Any) -> dict[str, Any]:
    """Parameters and multiply-adds; None, and the reason, of a network that cannot be built."""
    from unalike.model.trunk_catalog import count_cost

    try:
        cost = count_cost(entry)
    except UnalikeError as error:
        return {"parameters": None, "multiply_adds": None, "reason": str(error)}
    return {"parameters": cost.parameters, "multiply_adds": cost.multiply_adds}


def _measure(entry: Any) -> dict[str, Any] | None:
    """Images per second of a trunk with random weights in the engine that would be chosen here; None where none runs it."""
    from unalike.model.backbones import build_trunk
    from unalike.model.frozen_trunk import FrozenTrunk

    try:
        network = FrozenTrunk(build_trunk(entry.name, pretrained="false", input_size=entry.input_size))
        preprocessing = Preprocessing(View.whole_image(*entry.input_size), entry.mean, entry.std)
        engine = create_engine(network, preprocessing, quiet=True)
    except UnalikeError as error:
        say(f"{entry.name} is not measured: {error}")
        return None
    rate = measure_rates({entry.name: engine})[entry.name]
    return {"images_per_second": rate, "images": IMAGES, "repeats": REPEATS, "engine": engine.describe()}
