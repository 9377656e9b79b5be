"""Build a TensorRT engine from an ONNX file, with TensorRT 10 or 11.

Networks are strongly typed: the ONNX file determines the precision (typed layers, Q/DQ pairs), no builder flag does, and
there is no calibrator. TensorRT 11 has no other mode; TensorRT 10 gets a flag. Every call here is listed with its source in
``tests/support/tensorrt_signatures.py``. Not run on a GPU so far.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike import progress
from unalike.engines.cuda_memory import CudaMemory
from unalike.engines.metadata import NetworkFacts
from unalike.engines.tensorrt_engine import ENGINE_CHECKSUM, facts_file, import_tensorrt, major_version, sides
from unalike.errors import ExportError
from unalike.storage.atomic import write_bytes
from unalike.storage.digests import content_sha256

if TYPE_CHECKING:
    import tensorrt


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build.

    Attributes:
        min_batch, opt_batch, max_batch: batch sizes that the engine takes and the one that it is tuned for; of a network
            with a fixed batch all three are that.
        workspace_mb: scratch memory in MB; 0 for TensorRT's own limit.
        timing_cache: file of kernel timings, read and written.
        gpu: number of the GPU.
        verbose: print what the builder does.
    """

    min_batch: int = 1
    opt_batch: int = 1
    max_batch: int = 1
    workspace_mb: int = 1024
    timing_cache: Path | None = None
    gpu: int = 0
    verbose: bool = False


def build_engine(content: bytes, path: Path, facts: NetworkFacts, options: BuildOptions) -> dict[str, Any]:
    """Build an engine from an ONNX network.

    Args:
        content: bytes of the ONNX file.
        path: the engine file to write; its metadata goes into ``facts_file(path)``.
        facts: the metadata.
        options: of the build.

    Returns:
        TensorRT's version, the size in bytes, and the three batch sizes.

    Raises:
        MissingExtra: TensorRT is not installed.
        DeviceError: there is no such GPU.
        ExportError: TensorRT cannot read the file or build the engine.
    """
    version = major_version(import_tensorrt())
    memory = CudaMemory(options.gpu)  # selects the GPU for this thread: TensorRT builds for it
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.VERBOSE if options.verbose else trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # TensorRT 11 ignores the flag and will drop it: there every network is strongly typed.
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if version == 10 else 0
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ExportError(f"TensorRT cannot read the ONNX file ({errors[:300]})", remedy="export it with a lower opset")
    config = builder.create_builder_config()
    if options.workspace_mb:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    # On by default: it rounds float32 products to 10 bits. FP32 here means float32.
    config.clear_flag(trt.BuilderFlag.TF32)
    _add_profile(builder, network, config, options)
    if options.timing_cache is not None:
        _load_timing_cache(config, options.timing_cache)
    progress.say(f"building {path.name}: this takes minutes")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError("TensorRT could not build the engine", remedy="its messages are above; more with "
                          "gen_trt_engine.verbose=true")  # fmt: skip
    if options.timing_cache is not None:
        _write(options.timing_cache, bytes(config.get_timing_cache().serialize()))
    content_of_plan = bytes(plan)
    facts = replace(facts, extra={**facts.extra, ENGINE_CHECKSUM: content_sha256(content_of_plan)})
    _write(facts_file(path), facts.to_json().encode())
    _write(path, content_of_plan)
    memory.close()
    return {"tensorrt": trt.__version__, "bytes": len(content_of_plan), "min_batch": options.min_batch,
            "opt_batch": options.opt_batch, "max_batch": options.max_batch}  # fmt: skip


def _add_profile(
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    options: BuildOptions,
) -> None:
    """Set the batch sizes of a network with a free batch; a fixed one needs no profile."""
    import tensorrt as trt

    entry = network.get_input(0)
    shape = sides(entry.shape)
    if shape[0] != -1:
        return
    profile = builder.create_optimization_profile()
    smallest, best, largest = (
        trt.Dims([batch, *shape[1:]]) for batch in (options.min_batch, options.opt_batch, options.max_batch)
    )
    profile.set_shape(entry.name, smallest, best, largest)
    config.add_optimization_profile(profile)


def _load_timing_cache(config: tensorrt.IBuilderConfig, path: Path) -> None:
    content = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(content)
    if not config.set_timing_cache(cache, False):
        progress.say(f"{path} was written on another GPU or by another version: timings are measured again")
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
