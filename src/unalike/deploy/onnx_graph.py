"""Read, inspect and edit ONNX graphs: metadata, layer names, and Q/DQ nodes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from unalike.engines.checksum import KEY as CHECKSUM_KEY
from unalike.engines.metadata import KEY, NetworkFacts, read_facts
from unalike.errors import ExportError, SpecError, closest, missing_extra

if TYPE_CHECKING:
    import onnx

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def read_network(content: bytes, source: str) -> onnx.ModelProto:
    """Parse an ONNX file, give each node a unique name and remove debugging texts (``strip_debug_metadata``).

    Args:
        content: bytes of the file.
        source: name of the file, for messages.

    Raises:
        ExportError: it is no ONNX file.
        MissingExtra: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "train", "work on ONNX files") from error
    try:
        proto = onnx.load_from_string(content)
    except Exception as error:  # protobuf's own exceptions have no common name across its versions
        raise ExportError(f"{source} is no ONNX file ({str(error)[:100]})") from error
    for entry in [entry for entry in proto.metadata_props if entry.key == CHECKSUM_KEY]:
        proto.metadata_props.remove(entry)  # of the file, which is not written again as it is
    names: set[str] = set()
    for number, node in enumerate(proto.graph.node):
        if not node.name or node.name in names:
            node.name = f"{node.op_type}_{number}"
        names.add(node.name)
    strip_debug_metadata(proto)
    return proto


def strip_debug_metadata(proto: onnx.ModelProto) -> None:
    """Remove the debugging texts of nodes and values in position; the metadata of the model itself stays.

    torch's exporter writes stack traces there (``pkg.torch.onnx.stack_trace``, before torch 2.5 ``doc_string``), with the
    paths of the machine that exported. Without them equal networks give equal files wherever they are written.
    """
    for part in (proto.graph, *proto.functions):
        _strip_debug_metadata(part)


def _strip_debug_metadata(part: onnx.GraphProto | onnx.FunctionProto) -> None:
    import onnx

    values = [*part.initializer, *part.input, *part.output] if isinstance(part, onnx.GraphProto) else []
    for entry in (part, *part.node, *part.value_info, *values):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    for node in part.node:
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                _strip_debug_metadata(graph)


def read_graph_facts(
    proto: onnx.ModelProto, source: str, mean: Sequence[float] | None, std: Sequence[float] | None
) -> NetworkFacts:
    """Read the metadata of a network; arguments and errors as of ``engines.metadata.read_facts``."""
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    return read_facts(metadata.get(KEY), source, mean, std)


def write_facts(proto: onnx.ModelProto, facts: NetworkFacts) -> None:
    """Write the metadata of a network in position of earlier metadata."""
    others = [(entry.key, entry.value) for entry in proto.metadata_props if entry.key != KEY]
    del proto.metadata_props[:]
    for key, value in [*others, (KEY, facts.to_json())]:
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value


def is_quantized_graph(proto: onnx.ModelProto) -> bool:
    """Whether a network contains Q/DQ nodes, written by unalike, NNCF or ModelOpt."""
    return any(node.op_type in QUANTIZERS for node in proto.graph.node)


def quantized_layers(proto: onnx.ModelProto) -> list[str]:
    """Names of the nodes that read quantized values, in the order of the graph."""
    from_dq = {name for node in proto.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return [
        node.name for node in proto.graph.node
        if node.op_type not in QUANTIZERS and any(name in from_dq for name in node.input)
    ]  # fmt: skip


def parse_layers(entries: Sequence[str], proto: onnx.ModelProto, precisions: Collection[str]) -> dict[str, str]:
    """Resolve entries such as ``head*:fp32``.

    Args:
        entries: ``layer:precision`` each; ``*`` in a layer's name matches any letters.
        proto: the float network.
        precisions: the ones that are allowed.

    Returns:
        Name of each matching node -> its precision; later entries override earlier ones.

    Raises:
        SpecError: a precision is not allowed, or no layer has such a name.
    """
    names = [node.name for node in proto.graph.node if node.op_type not in QUANTIZERS]
    layers: dict[str, str] = {}
    for entry in entries:
        pattern, colon, precision = entry.rpartition(":")
        precision = precision.strip().lower()
        if not colon or precision not in precisions:
            raise SpecError(
                f"layers_precision: {entry!r}", expected=f"layer:precision with one of {', '.join(precisions)}"
            )
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            raise SpecError(f"layers_precision: no layer {pattern!r}", expected="a layer of the ONNX file",
                            remedy=closest(pattern, names) or f"the first are {', '.join(names[:3])}")  # fmt: skip
        layers.update(dict.fromkeys(matches, precision))
    return layers


def restore_layers(
    quantized: onnx.ModelProto, original: onnx.ModelProto | None, layers: Collection[str]
) -> onnx.ModelProto:
    """Copy a quantized network with some layers unquantized: their inputs bypass the Q/DQ nodes.

    Args:
        quantized: the network.
        original: the float network, whose weights these layers get. Where it is None, integer weights are dequantized, and
            a clip that quantization made redundant (``drop_redundant_clips``) is inserted again with the bounds of Q.
        layers: names of the nodes.
    """
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(quantized)
    producers = {name: node for node in proto.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    originals = {node.name: node for node in original.graph.node} if original is not None else {}
    weights = {tensor.name: tensor for tensor in original.graph.initializer} if original is not None else {}
    for node in list(proto.graph.node):
        if node.name not in layers or node.op_type in QUANTIZERS:
            continue
        twin = originals.get(node.name)
        for position, name in enumerate(node.input):
            old = twin.input[position] if twin is not None and position < len(twin.input) else ""
            if old in weights:
                if old not in constants:
                    constants[old] = weights[old]
                    proto.graph.initializer.append(weights[old])
                elif constants[old] != weights[old]:  # a corrected bias has the original's name
                    old = _add_initializer(proto, f"{old}_original", weights[old], constants)
                node.input[position] = old
            else:
                node.input[position] = _unquantized_input(proto, name, producers, constants, clip=original is None)
    sort_nodes(proto)
    drop_unused(proto.graph)
    return proto


def _add_initializer(
    proto: onnx.ModelProto, name: str, tensor: onnx.TensorProto, constants: dict[str, onnx.TensorProto]
) -> str:
    if name not in constants:
        copy = proto.graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = name
        constants[name] = copy
    return name


def _unquantized_input(
    proto: onnx.ModelProto,
    name: str,
    producers: dict[str, onnx.NodeProto],
    constants: dict[str, onnx.TensorProto],
    *,
    clip: bool,
) -> str:
    """Name of the float tensor before the Q/DQ pair; integer constants are dequantized into a new one."""
    from onnx import numpy_helper

    dq = producers.get(name)
    if dq is None or dq.op_type != "DequantizeLinear":
        return name
    q = producers.get(dq.input[0])
    if q is not None and q.op_type == "QuantizeLinear":
        return _clip_to_range(proto, q, producers, constants) if clip else str(q.input[0])
    if dq.input[0] not in constants:
        return name
    values, scale, *zero = (numpy_helper.to_array(constants[entry]) for entry in dq.input if entry)
    axis = next((attribute.i for attribute in dq.attribute if attribute.name == "axis"), 1)
    shape = (
        [-1 if position == axis % max(values.ndim, 1) else 1 for position in range(values.ndim)] if scale.ndim else []
    )
    zero_point = zero[0].astype(np.float32).reshape(shape) if zero else np.float32(0)
    floats = ((values.astype(np.float32) - zero_point) * scale.astype(np.float32).reshape(shape)).astype(np.float32)
    return _add_initializer(proto, f"{name}_dequantized", numpy_helper.from_array(floats), constants)


def _clip_to_range(
    proto: onnx.ModelProto,
    q: onnx.NodeProto,
    producers: dict[str, onnx.NodeProto],
    constants: dict[str, onnx.TensorProto],
) -> str:
    """Name of the input of Q; clipped to the range of Q where that begins at 0 and no clip or ReLU comes before."""
    from onnx import helper, numpy_helper

    name, clipped = str(q.input[0]), f"{q.output[0]}_clipped"
    parameters = [constants.get(entry) for entry in q.input[1:3]]
    if clipped in producers or len(parameters) < 2 or None in parameters:
        return clipped if clipped in producers else name
    scale, zero = (numpy_helper.to_array(tensor) for tensor in parameters if tensor is not None)
    operator = producers[name].op_type if name in producers else "input"
    if (
        scale.size != 1
        or zero.size != 1
        or zero.item() != np.iinfo(zero.dtype).min
        or operator in ("Clip", "Relu", "input")
    ):
        return name
    high = np.float32(int(np.iinfo(zero.dtype).max) - int(zero.item())) * np.float32(scale.item())
    bounds = [_add_initializer(proto, f"{clipped}_{bound}", numpy_helper.from_array(np.array(value, np.float32)), constants)
              for bound, value in (("low", 0.0), ("high", high))]  # fmt: skip
    proto.graph.node.append(helper.make_node("Clip", [name, *bounds], [clipped], name=clipped))
    producers[clipped] = proto.graph.node[-1]
    return clipped


def sort_nodes(proto: onnx.ModelProto) -> None:
    """Sort the nodes in position, so that each comes after those whose outputs it reads."""
    producers = {name: position for position, node in enumerate(proto.graph.node) for name in node.output if name}
    done_nodes: set[int] = set()
    order: list[int] = []
    for first in range(len(proto.graph.node)):
        stack = [first]
        while stack:
            position = stack[-1]
            if position in done_nodes:
                stack.pop()
                continue
            pending = (
                {producers[name] for name in proto.graph.node[position].input if name in producers}
                - done_nodes
                - {position}
            )
            if pending:
                stack.extend(sorted(pending, reverse=True))
            else:
                done_nodes.add(position)
                order.append(position)
                stack.pop()
    nodes = [
        type(node).FromString(node.SerializeToString()) for node in (proto.graph.node[position] for position in order)
    ]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and constants whose outputs are not used, in position."""
    used_names = {entry.name for entry in graph.output}
    useful_nodes = []
    for node in reversed(graph.node):
        if any(name in used_names for name in node.output):
            useful_nodes.append(node)
            used_names.update(node.input)
    nodes = [type(node).FromString(node.SerializeToString()) for node in reversed(useful_nodes)]
    constants = [tensor for tensor in graph.initializer if tensor.name in used_names]
    constants = [type(tensor).FromString(tensor.SerializeToString()) for tensor in constants]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def drop_redundant_clips(proto: onnx.ModelProto) -> int:
    """Remove Clip and Relu nodes whose only consumer is a Q with a range inside theirs, in position; returns their number.

    Results do not change, since Q clips the same values, and ONNX Runtime can fuse the convolution with the Q after it.
    """
    from onnx import numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    outputs = {entry.name for entry in proto.graph.output}
    count = 0
    for node in proto.graph.node:
        if node.op_type not in ("Clip", "Relu") or node.output[0] in outputs:
            continue
        users = consumers.get(node.output[0], [])
        if len(users) != 1 or users[0].op_type != "QuantizeLinear" or not _clips_no_more(node, users[0], constants):
            continue
        users[0].input[0] = node.input[0]
        count += 1
    drop_unused(proto.graph)
    return count


def _clips_no_more(clip: onnx.NodeProto, quantizer: onnx.NodeProto, constants: dict[str, np.ndarray]) -> bool:
    """Whether all values that the quantizer can represent lie within the bounds of the clip."""
    scale, zero = (constants.get(name) for name in (*quantizer.input[1:3], "")[:2])
    if scale is None or scale.size != 1 or zero is None or zero.size != 1:
        return False
    limits = np.iinfo(zero.dtype)
    low, high = ((limit - int(zero.item())) * float(scale.item()) for limit in (limits.min, limits.max))
    if clip.op_type == "Relu":
        return low >= 0.0
    bounds = [float(constants[name].item()) for name in clip.input[1:3] if name in constants]
    if len(bounds) != 2:
        return False
    return bool(low >= bounds[0] and high <= bounds[1] * (1 + 1e-6))
