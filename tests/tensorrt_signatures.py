"""Every name of TensorRT's Python interface that we use, with its parameters, for TensorRT 10 and 11.

TensorRT cannot be installed where this is tested: a stand-in (``tensorrt_standin``) checks each call against these.

10: read from the package ``tensorrt-stubs`` 10.13.0.35.1 (generated from the bindings), against which mypy was run too,
on 2026-11-24, with five of its lines that are not Python taken out.
11: ``seen`` names the page of NVIDIA's documentation in which the class was read; where a page was not to be had in full
the row stands because the list of what 11 removed does not hold it:
docs.nvidia.com/deeplearning/tensorrt/latest/api/migration/tensorrt-10x-to-11x-python-api-reference.html
"""

from __future__ import annotations

from typing import NamedTuple

BUILDER_11 = "tensorrt/11.0.0/_static/python-api/infer/Core/Builder.html"
CONFIG_11 = "tensorrt/11.4.0/_static/c-api/classnvinfer1_1_1_i_builder_config.html"
ENGINE_11 = "tensorrt/11.0.0/_static/python-api/infer/Core/Engine.html"
CONTEXT_11 = "tensorrt/11.4.0/_static/python-api/infer/Core/ExecutionContext.html"
PATTERNS_11 = "tensorrt/11.4.1/api/migration/tensorrt-10x-to-11x-python-api-patterns.html"
NOT_REMOVED = "not among the removed"


class Signature(NamedTuple):
    """``parameters``: names in order, those with a default in brackets; None is an attribute that is only read."""

    parameters: tuple[str, ...] | None
    seen: str
    gives: str = ""


# The interface is the same in both for what we call; 10 is the stubs' word for word.
USED: dict[str, Signature] = {
    "Logger.__init__": Signature(("[min_severity]",), PATTERNS_11),
    "Builder.__init__": Signature(("logger",), BUILDER_11),
    "Builder.create_network": Signature(("[flags]",), BUILDER_11, "INetworkDefinition"),
    "Builder.create_builder_config": Signature((), BUILDER_11, "IBuilderConfig"),
    "Builder.create_optimization_profile": Signature((), BUILDER_11, "IOptimizationProfile"),
    "Builder.build_serialized_network": Signature(("network", "config"), PATTERNS_11),
    "OnnxParser.__init__": Signature(("network", "logger"), PATTERNS_11),
    "OnnxParser.parse": Signature(("model", "[path]"), PATTERNS_11),
    "OnnxParser.num_errors": Signature(None, NOT_REMOVED),
    "OnnxParser.get_error": Signature(("index",), NOT_REMOVED),
    "INetworkDefinition.get_input": Signature(("index",), NOT_REMOVED, "ITensor"),
    "ITensor.name": Signature(None, NOT_REMOVED),
    "ITensor.shape": Signature(None, NOT_REMOVED),
    "IOptimizationProfile.set_shape": Signature(("input", "min", "opt", "max"), NOT_REMOVED),
    "IBuilderConfig.set_memory_pool_limit": Signature(("pool", "pool_size"), CONFIG_11),
    "IBuilderConfig.clear_flag": Signature(("flag",), CONFIG_11),
    "IBuilderConfig.add_optimization_profile": Signature(("profile",), CONFIG_11),
    "IBuilderConfig.create_timing_cache": Signature(("serialized_timing_cache",), CONFIG_11, "ITimingCache"),
    "IBuilderConfig.set_timing_cache": Signature(("cache", "ignore_mismatch"), CONFIG_11),
    "IBuilderConfig.get_timing_cache": Signature((), CONFIG_11, "ITimingCache"),
    "ITimingCache.serialize": Signature((), NOT_REMOVED),
    "Runtime.__init__": Signature(("logger",), NOT_REMOVED),
    "Runtime.deserialize_cuda_engine": Signature(("serialized_engine",), NOT_REMOVED, "ICudaEngine"),
    "ICudaEngine.num_io_tensors": Signature(None, ENGINE_11),
    "ICudaEngine.get_tensor_name": Signature(("index",), ENGINE_11),
    "ICudaEngine.get_tensor_mode": Signature(("name",), ENGINE_11),
    "ICudaEngine.get_tensor_shape": Signature(("name",), ENGINE_11),
    "ICudaEngine.get_tensor_dtype": Signature(("name",), ENGINE_11),
    "ICudaEngine.get_tensor_profile_shape": Signature(("name", "profile_index"), ENGINE_11),
    "ICudaEngine.create_execution_context": Signature(("[strategy]",), ENGINE_11, "IExecutionContext"),
    "IExecutionContext.set_input_shape": Signature(("name", "shape"), CONTEXT_11),
    "IExecutionContext.set_tensor_address": Signature(("name", "memory"), CONTEXT_11),
    "IExecutionContext.execute_async_v3": Signature(("stream_handle",), CONTEXT_11),
    "Dims.__init__": Signature(("shape",), NOT_REMOVED),
}
MEMBERS_10 = {
    "NetworkDefinitionCreationFlag": ("EXPLICIT_BATCH", "STRONGLY_TYPED"),
    "BuilderFlag": (
        "FP16",
        "BF16",
        "INT8",
        "FP8",
        "TF32",
        "OBEY_PRECISION_CONSTRAINTS",
        "PREFER_PRECISION_CONSTRAINTS",
    ),
    "MemoryPoolType": ("WORKSPACE",),
    "TensorIOMode": ("NONE", "INPUT", "OUTPUT"),
    "DataType": ("FLOAT", "HALF", "BF16", "INT8", "UINT8"),
}
# What 11 took away, of what one might reach for here (the page named at the top, read on 2026-11-24).
REMOVED_11 = frozenset({
    "BuilderFlag.FP16", "BuilderFlag.INT8", "BuilderFlag.FP8", "BuilderFlag.BF16", "BuilderFlag.INT4", "BuilderFlag.FP4",
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS", "BuilderFlag.PREFER_PRECISION_CONSTRAINTS", "BuilderFlag.DIRECT_IO",
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "IBuilderConfig.int8_calibrator",
    "IBuilderConfig.set_calibration_profile", "IBuilderConfig.get_calibration_profile",
    "IBuilderConfig.set_quantization_flag", "IBuilderConfig.get_quantization_flag", "IBuilderConfig.quantization_flags",
    "IBuilderConfig.clear_quantization_flag", "IBuilderConfig.algorithm_selector", "ICudaEngine.device_memory_size",
    "Builder.platform_has_fast_fp16", "Builder.platform_has_fast_int8", "ILayer.precision", "ILayer.set_output_type",
    "ITensor.dynamic_range", "tensorrt.IInt8Calibrator", "tensorrt.IInt8EntropyCalibrator2",
    "tensorrt.IInt8MinMaxCalibrator", "tensorrt.IInt8LegacyCalibrator", "tensorrt.IAlgorithmSelector",
})  # fmt: skip
