"""Read, inspect and edit ONNX graphs: metadata, layer names, and Q/DQ nodes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

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
    taken: set[str] = set()
    for number, node in enumerate(proto.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)
    strip_debug_metadata(proto)
    return proto


def strip_debug_metadata(proto: onnx.ModelProto) -> None:
    """Remove the debugging texts of nodes and values in place; the metadata of the model itself stays.

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


def read_graph_facts(proto: onnx.ModelProto, source: str, mean: Sequence[float], std: Sequence[float]) -> NetworkFacts:
    """What the network says about itself; a foreign one has the mean and std given here."""
    held = {entry.key: entry.value for entry in proto.metadata_props}
    return read_facts(held.get(KEY), source, mean, std)


def write_facts(proto: onnx.ModelProto, facts: NetworkFacts) -> None:
    """Put the facts in, in place of older ones."""
    kept = [(entry.key, entry.value) for entry in proto.metadata_props if entry.key != KEY]
    del proto.metadata_props[:]
    for key, value in [*kept, (KEY, facts.to_json())]:
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value


def is_quantized_graph(proto: onnx.ModelProto) -> bool:
    """Whether it holds Q/DQ nodes, ours, NNCF's or ModelOpt's."""
    return any(node.op_type in QUANTIZERS for node in proto.graph.node)


def quantized_layers(proto: onnx.ModelProto) -> list[str]:
    """Names of the nodes that read quantized values, in the order of the graph."""
    from_dq = {name for node in proto.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return [
        node.name for node in proto.graph.node
        if node.op_type not in QUANTIZERS and any(name in from_dq for name in node.input)
    ]  # fmt: skip


def parse_layers(entries: Sequence[str], proto: onnx.ModelProto, precisions: Collection[str]) -> dict[str, str]:
    """``["head*:fp32"]`` -> {layer's name: precision} over the nodes of the graph.

    Raises SpecError for a precision that is not among ``precisions`` and for a name that no layer has.
    """
    names = [node.name for node in proto.graph.node if node.op_type not in QUANTIZERS]
    chosen: dict[str, str] = {}
    for entry in entries:
        pattern, colon, precision = entry.rpartition(":")
        precision = precision.strip().lower()
        if not colon or precision not in precisions:
            raise SpecError(
                f"layers_precision: {entry!r}", expected=f"layer:precision with one of {', '.join(precisions)}"
            )
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise SpecError(f"layers_precision: no layer {pattern!r}", expected="a layer of the ONNX file",
                            remedy=closest(pattern, names) or f"the first are {', '.join(names[:3])}")  # fmt: skip
        chosen.update(dict.fromkeys(found, precision))
    return chosen


def restore_layers(
    quantized: onnx.ModelProto, original: onnx.ModelProto | None, layers: Collection[str]
) -> onnx.ModelProto:
    """A copy in which ``layers`` compute unquantized again: their inputs bypass Q and DQ, their weights are the original's.

    Without ``original`` a weight that was stored in integers comes back as its dequantized value, and so does a clip that
    quantizing made superfluous (``drop_redundant_clips``), at the bounds at which Q cuts.
    """
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(quantized)
    makers = {name: node for node in proto.graph.node for name in node.output}
    constants = {held.name: held for held in proto.graph.initializer}
    before = {node.name: node for node in original.graph.node} if original is not None else {}
    weights = {held.name: held for held in original.graph.initializer} if original is not None else {}
    for node in list(proto.graph.node):
        if node.name not in layers or node.op_type in QUANTIZERS:
            continue
        twin = before.get(node.name)
        for place, name in enumerate(node.input):
            old = twin.input[place] if twin is not None and place < len(twin.input) else ""
            if old in weights:
                if old not in constants:
                    constants[old] = weights[old]
                    proto.graph.initializer.append(weights[old])
                elif constants[old] != weights[old]:  # a corrected bias stands under the original's name
                    old = _add(proto, f"{old}_original", weights[old], constants)
                node.input[place] = old
            else:
                node.input[place] = _bypassed(proto, name, makers, constants, cut=original is None)
    sort_nodes(proto)
    drop_unused(proto)
    return proto


def _add(proto: onnx.ModelProto, name: str, tensor: onnx.TensorProto, constants: dict[str, Any]) -> str:
    if name not in constants:
        copy = proto.graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = name
        constants[name] = copy
    return name


def _bypassed(
    proto: onnx.ModelProto, name: str, makers: dict[str, Any], constants: dict[str, Any], *, cut: bool
) -> str:
    """The float tensor that stands before Q and DQ, made from the integers where only those are stored."""
    from onnx import numpy_helper

    dq = makers.get(name)
    if dq is None or dq.op_type != "DequantizeLinear":
        return name
    q = makers.get(dq.input[0])
    if q is not None and q.op_type == "QuantizeLinear":
        return _cut(proto, q, makers, constants) if cut else str(q.input[0])
    if dq.input[0] not in constants:
        return name
    values, scale, *zero = (numpy_helper.to_array(constants[part]) for part in dq.input if part)
    axis = next((attribute.i for attribute in dq.attribute if attribute.name == "axis"), 1)
    shape = [-1 if place == axis % max(values.ndim, 1) else 1 for place in range(values.ndim)] if scale.ndim else []
    shift = zero[0].astype(np.float32).reshape(shape) if zero else np.float32(0)
    real = ((values.astype(np.float32) - shift) * scale.astype(np.float32).reshape(shape)).astype(np.float32)
    return _add(proto, f"{name}_dequantized", numpy_helper.from_array(real), constants)


def _cut(proto: onnx.ModelProto, q: onnx.NodeProto, makers: dict[str, Any], constants: dict[str, Any]) -> str:
    """What Q reads; where its range begins at 0 and no clip stands before it, clipped to that range."""
    from onnx import helper, numpy_helper

    read, clipped = str(q.input[0]), f"{q.output[0]}_clipped"
    held = [constants.get(part) for part in q.input[1:3]]
    if clipped in makers or len(held) < 2 or None in held:
        return clipped if clipped in makers else read
    scale, zero = (numpy_helper.to_array(part) for part in held if part is not None)
    before = makers[read].op_type if read in makers else "input"
    if (
        scale.size != 1
        or zero.size != 1
        or zero.item() != np.iinfo(zero.dtype).min
        or before in ("Clip", "Relu", "input")
    ):
        return read
    high = np.float32(int(np.iinfo(zero.dtype).max) - int(zero.item())) * np.float32(scale.item())
    bounds = [_add(proto, f"{clipped}_{word}", numpy_helper.from_array(np.array(value, np.float32)), constants)
              for word, value in (("low", 0.0), ("high", high))]  # fmt: skip
    proto.graph.node.append(helper.make_node("Clip", [read, *bounds], [clipped], name=clipped))
    makers[clipped] = proto.graph.node[-1]
    return clipped


def sort_nodes(proto: onnx.ModelProto) -> None:
    """Put every node behind those that it reads from."""
    makers = {name: place for place, node in enumerate(proto.graph.node) for name in node.output if name}
    done: set[int] = set()
    order: list[int] = []
    for first in range(len(proto.graph.node)):
        stack = [first]
        while stack:
            place = stack[-1]
            if place in done:
                stack.pop()
                continue
            waiting = {makers[name] for name in proto.graph.node[place].input if name in makers} - done - {place}
            if waiting:
                stack.extend(sorted(waiting, reverse=True))
            else:
                done.add(place)
                order.append(place)
                stack.pop()
    nodes = [type(node).FromString(node.SerializeToString()) for node in (proto.graph.node[place] for place in order)]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def drop_unused(proto: onnx.ModelProto) -> None:
    """Take out nodes and constants that nothing reads."""
    wanted = {entry.name for entry in proto.graph.output}
    kept = []
    for node in reversed(proto.graph.node):
        if any(name in wanted for name in node.output):
            kept.append(node)
            wanted.update(node.input)
    nodes = [type(node).FromString(node.SerializeToString()) for node in reversed(kept)]
    constants = [held for held in proto.graph.initializer if held.name in wanted]
    constants = [type(held).FromString(held.SerializeToString()) for held in constants]
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(constants)


def drop_redundant_clips(proto: onnx.ModelProto) -> int:
    """Take out Clip and Relu nodes whose only reader quantizes to a range inside theirs: it cuts off the same values.

    Exact, and what lets ONNX Runtime fuse a convolution with the Q behind it. Returns how many went.
    """
    from onnx import numpy_helper

    constants = {held.name: numpy_helper.to_array(held) for held in proto.graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {entry.name for entry in proto.graph.output}
    gone = 0
    for node in proto.graph.node:
        if node.op_type not in ("Clip", "Relu") or node.output[0] in outputs:
            continue
        users = readers.get(node.output[0], [])
        if len(users) != 1 or users[0].op_type != "QuantizeLinear" or not _covers(node, users[0], constants):
            continue
        users[0].input[0] = node.input[0]
        gone += 1
    drop_unused(proto)
    return gone


def _covers(clip: onnx.NodeProto, quantizer: onnx.NodeProto, constants: dict[str, np.ndarray]) -> bool:
    """Whether the values that the quantizer can hold lie within the clip's bounds."""
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
