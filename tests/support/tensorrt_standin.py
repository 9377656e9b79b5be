"""A stand-in for TensorRT 10 and 11, and for a GPU's memory: every call is checked, and engines really compute.

A name that is not in the tables, or that TensorRT 11 removed, is an AttributeError, as there; arguments must bind to the
recorded parameters. Networks must be strongly typed. The plan holds the ONNX file, which ONNX Runtime runs.
"""

from __future__ import annotations

import inspect
import json
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import onnx

from tests.support import tensorrt_signatures as tables


class Flag(int):
    name: str = ""


def _enum(name: str, members: tuple[str, ...], major: int) -> type:
    held = {}
    for number, member in enumerate(members):
        if major >= 11 and f"{name}.{member}" in tables.REMOVED_11:
            continue
        held[member] = Flag(number)
        held[member].name = member
    return type(name, (), held)


class Called(AssertionError):
    """A call that the tables do not allow."""


class Checked:
    """An object of the interface: methods are looked up in the table, bound, noted, then done by ``_do_<name>``."""

    kind = ""

    def __init__(self, module: Any, *arguments: Any) -> None:
        self._module, self._state = module, {}
        self.setup(*arguments)

    def setup(self, *arguments: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        full = f"{self.kind}.{name}"
        signature = tables.USED_11.get(full)
        known = signature is not None and full in tables.USED_10
        if signature is None or not known or (self._module.major >= 11 and full in tables.REMOVED_11):
            raise AttributeError(f"TensorRT {self._module.__version__} has no {full}, or the tables do not know it")
        action = getattr(type(self), f"_do_{name}")
        if signature.parameters is None:
            return action(self)
        return lambda *arguments, **named: action(self, *_bound(full, self._module, arguments, named))


def _bound(full: str, module: Any, arguments: tuple, named: dict) -> list[Any]:
    """The arguments in order, if both versions' tables allow the call."""
    for table, rows in (("10", tables.USED_10[full]), ("11", tables.USED_11[full].parameters)):
        parameters = [
            inspect.Parameter(name.strip("[]"), inspect.Parameter.POSITIONAL_OR_KEYWORD,
                              default=None if name.startswith("[") else inspect.Parameter.empty)
            for name in rows or ()
        ]  # fmt: skip
        try:
            bound = inspect.Signature(parameters).bind(*arguments, **named)
        except TypeError as error:
            raise Called(f"TensorRT {table}: {full}: {error}") from error
    module.calls.append((full, arguments))
    bound.apply_defaults()
    return list(bound.arguments.values())


class Dims:
    def __init__(self, shape: Any) -> None:
        self.held = [int(side) for side in shape]

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, place: int) -> int:
        return self.held[place]


class Memory:
    """CUDA memory as numpy arrays; a download before ``wait`` is an error."""

    blocks: ClassVar[dict[int, bytearray]] = {}
    devices = 1

    def __init__(self, device: int = 0) -> None:
        from unalike.errors import DeviceError

        if device >= self.devices:
            raise DeviceError(f"GPU {device} of {self.devices}")
        self.device, self.stream = device, 77

    def use(self) -> None: ...

    def allocate(self, count: int) -> int:
        address = 1000 * (len(Memory.blocks) + 1)
        Memory.blocks[address] = bytearray(count)
        return address

    def free(self, address: int) -> None:
        del Memory.blocks[address]

    def upload(self, address: int, values: np.ndarray) -> None:
        assert values.flags.c_contiguous and values.nbytes <= len(Memory.blocks[address])
        Memory.blocks[address][: values.nbytes] = values.tobytes()

    def download(self, values: np.ndarray, address: int) -> None:
        assert values.flags.c_contiguous
        values[...] = np.frombuffer(Memory.blocks[address], values.dtype, values.size).reshape(values.shape)

    def wait(self) -> None: ...

    def close(self) -> None: ...


def module(version: str) -> Any:
    """``tensorrt`` of that version."""
    trt: Any = ModuleType("tensorrt")
    trt.__version__, trt.major, trt.calls = version, int(version.split(".")[0]), []
    for name, members in tables.MEMBERS_10.items():
        setattr(trt, name, _enum(name, members, trt.major))
    trt.Dims = Dims
    types = {trt.DataType.FLOAT: np.float32, trt.DataType.UINT8: np.uint8}
    trt.nptype = lambda kind: types[kind]

    class Logger(Checked):
        kind = "Logger"
        WARNING, VERBOSE = "warning", "verbose"

    class ITensor(Checked):
        kind = "ITensor"

        def setup(self, entry: Any) -> None:
            self._entry = entry

        def _do_name(self) -> str:
            return self._entry.name

        def _do_shape(self) -> Dims:
            return Dims([side.dim_value or -1 for side in self._entry.type.tensor_type.shape.dim])

    class INetworkDefinition(Checked):
        kind = "INetworkDefinition"

        def setup(self, flags: int) -> None:
            strong = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            if trt.major < 11 and not flags & strong:
                raise Called("create_network without STRONGLY_TYPED")
            self._content = b""

        def _do_get_input(self, index: int) -> ITensor:
            return ITensor(trt, onnx.load_from_string(self._content).graph.input[index])

    class IOptimizationProfile(Checked):
        kind = "IOptimizationProfile"

        def _do_set_shape(self, name: str, least: Dims, best: Dims, most: Dims) -> None:
            shapes = [list(part.held) for part in (least, best, most)]
            assert all(low <= mid <= high for low, mid, high in zip(*shapes, strict=True)), shapes
            self._shapes = shapes

    class ITimingCache(Checked):
        kind = "ITimingCache"

        def setup(self, content: bytes) -> None:
            self._content = content

        def _do_serialize(self) -> bytes:
            return self._content + b"+timed"

    class IBuilderConfig(Checked):
        kind = "IBuilderConfig"

        def setup(self) -> None:
            self._profile, self._cache = None, None

        def _do_set_memory_pool_limit(self, pool: Any, size: int) -> None:
            self._state["workspace"] = size

        def _do_clear_flag(self, flag: Any) -> None:
            self._state["cleared"] = flag.name

        def _do_add_optimization_profile(self, profile: Any) -> int:
            self._profile = profile
            return 0

        def _do_create_timing_cache(self, content: bytes) -> ITimingCache:
            return ITimingCache(trt, content)

        def _do_set_timing_cache(self, cache: ITimingCache, ignore: bool) -> bool:
            if cache._content.startswith(b"other GPU"):
                return False
            self._cache = cache
            return True

        def _do_get_timing_cache(self) -> ITimingCache:
            return self._cache

    class OnnxParser(Checked):
        kind = "OnnxParser"

        def setup(self, network: INetworkDefinition, logger: Logger) -> None:
            self._network = network

        def _do_parse(self, content: bytes, path: Any) -> bool:
            try:
                onnx.checker.check_model(onnx.load_from_string(content))
            except (onnx.checker.ValidationError, ValueError) as error:
                self._error = str(error)
                return False
            self._network._content = content
            return True

        def _do_num_errors(self) -> int:
            return 1

        def _do_get_error(self, index: int) -> str:
            return self._error

    class Builder(Checked):
        kind = "Builder"

        def setup(self, logger: Logger) -> None: ...

        def _do_create_network(self, flags: Any) -> INetworkDefinition:
            return INetworkDefinition(trt, flags or 0)

        def _do_create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig(trt)

        def _do_create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile(trt)

        def _do_build_serialized_network(self, network: Any, config: Any) -> bytes:
            trt.built = {"content": network._content, **config._state}
            sides = [
                d.dim_value for d in onnx.load_from_string(network._content).graph.input[0].type.tensor_type.shape.dim
            ]
            shapes = config._profile._shapes if config._profile else [sides] * 3
            assert sides[0] or config._profile, "an open batch needs a profile"
            return json.dumps(shapes).encode() + b"\0" + network._content

    class IExecutionContext(Checked):
        kind = "IExecutionContext"

        def setup(self, engine: Any) -> None:
            self._engine, self._addresses, self._shape = engine, {}, None

        def _do_set_input_shape(self, name: str, shape: Any) -> bool:
            self._shape = tuple(shape)
            return self._engine._shapes[0][0] <= shape[0] <= self._engine._shapes[2][0]

        def _do_set_tensor_address(self, name: str, address: int) -> bool:
            self._addresses[name] = address
            return True

        def _do_execute_async_v3(self, stream: int) -> bool:
            entry, leave = self._engine._session.get_inputs()[0], self._engine._session.get_outputs()[0]
            kind = np.uint8 if "uint8" in entry.type else np.float32
            held = Memory.blocks[self._addresses[entry.name]]
            pixels = np.frombuffer(held, kind, int(np.prod(self._shape))).reshape(self._shape)
            found = self._engine._session.run(None, {entry.name: pixels})[0].tobytes()
            Memory.blocks[self._addresses[leave.name]][: len(found)] = found
            return True

    class ICudaEngine(Checked):
        kind = "ICudaEngine"

        def setup(self, plan: bytes) -> None:
            from unalike.engines.onnx_engine import import_onnxruntime

            shapes, _, content = plan.partition(b"\0")
            self._shapes = json.loads(shapes)
            self._session = import_onnxruntime().InferenceSession(content, providers=["CPUExecutionProvider"])
            self._tensors = [self._session.get_inputs()[0], self._session.get_outputs()[0]]

        def _do_num_io_tensors(self) -> int:
            return 2

        def _do_get_tensor_name(self, index: int) -> str:
            return self._tensors[index].name

        def _do_get_tensor_mode(self, name: str) -> Any:
            return trt.TensorIOMode.INPUT if name == self._tensors[0].name else trt.TensorIOMode.OUTPUT

        def _do_get_tensor_shape(self, name: str) -> Dims:
            held = next(part for part in self._tensors if part.name == name)
            return Dims([side if isinstance(side, int) else -1 for side in held.shape])

        def _do_get_tensor_dtype(self, name: str) -> Any:
            held = next(part for part in self._tensors if part.name == name)
            return trt.DataType.UINT8 if "uint8" in held.type else trt.DataType.FLOAT

        def _do_get_tensor_profile_shape(self, name: str, profile: int) -> list[Dims]:
            return [Dims(shape) for shape in self._shapes]

        def _do_create_execution_context(self, strategy: Any) -> IExecutionContext:
            return IExecutionContext(trt, self)

    class Runtime(Checked):
        kind = "Runtime"

        def setup(self, logger: Logger) -> None: ...

        def _do_deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
            return ICudaEngine(trt, plan) if plan.startswith(b"[[") else None

    def made(cls: type[Checked]) -> Any:
        if cls is Logger:
            maker: Any = type("Logger", (), {"WARNING": "w", "VERBOSE": "v", "__new__": lambda _, *a: Logger(trt)})
            return maker
        return lambda *a, **n: cls(trt, *_bound(f"{cls.kind}.__init__", trt, a, n))

    for cls in (Logger, Builder, OnnxParser, Runtime):
        setattr(trt, cls.kind, made(cls))
    return trt
