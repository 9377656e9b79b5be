"""Every name of TensorRT's Python interface that we use, with its parameters, for TensorRT 10 and 11.

TensorRT cannot be installed where this is tested: a stand-in (``tensorrt_standin``) checks each call against both.

10: the package ``tensorrt-stubs`` (generated from the bindings). ``contract/test_tensorrt_stubs.py`` installs it, compares
every row, and runs mypy over our calls.
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
PROFILE_11 = "tensorrt/11.4.0/_static/python-api/infer/Core/OptimizationProfile.html"
PARSER_11 = "tensorrt/11.4.1/_static/c-api/_nv_onnx_parser_8h_source.html"
NOT_REMOVED = "not among the removed"
STUBS_10 = "10.13.0.35.1"


class Signature(NamedTuple):
    """``parameters``: names in order, those with a default in brackets; None is an attribute that is only read."""

    parameters: tuple[str, ...] | None
    seen: str
    gives: str = ""


USED_11: dict[str, Signature] = {
    "Logger.__init__": Signature(("[min_severity]",), PATTERNS_11),
    "Builder.__init__": Signature(("logger",), BUILDER_11),
    "Builder.create_network": Signature(("[flags]",), BUILDER_11, "INetworkDefinition"),
    "Builder.create_builder_config": Signature((), BUILDER_11, "IBuilderConfig"),
    "Builder.create_optimization_profile": Signature((), BUILDER_11, "IOptimizationProfile"),
    "Builder.build_serialized_network": Signature(("network", "config"), PATTERNS_11),
    "OnnxParser.__init__": Signature(("network", "logger"), PATTERNS_11),
    "OnnxParser.parse": Signature(("model", "[path]"), PATTERNS_11),
    "OnnxParser.num_errors": Signature(None, PARSER_11),
    "OnnxParser.get_error": Signature(("index",), PARSER_11),
    "INetworkDefinition.get_input": Signature(("index",), NOT_REMOVED, "ITensor"),
    "ITensor.name": Signature(None, NOT_REMOVED),
    "ITensor.shape": Signature(None, NOT_REMOVED),
    "IOptimizationProfile.set_shape": Signature(("input", "min", "opt", "max"), PROFILE_11),
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
# The parameters alone, word for word as the stubs of 10 have them.
USED_10: dict[str, tuple[str, ...] | None] = {
    "Logger.__init__": ("[min_severity]",),
    "Builder.__init__": ("logger",),
    "Builder.create_network": ("[flags]",),
    "Builder.create_builder_config": (),
    "Builder.create_optimization_profile": (),
    "Builder.build_serialized_network": ("network", "config"),
    "OnnxParser.__init__": ("network", "logger"),
    "OnnxParser.parse": ("model", "[path]"),
    "OnnxParser.num_errors": None,
    "OnnxParser.get_error": ("index",),
    "INetworkDefinition.get_input": ("index",),
    "ITensor.name": None,
    "ITensor.shape": None,
    "IOptimizationProfile.set_shape": ("input", "min", "opt", "max"),
    "IBuilderConfig.set_memory_pool_limit": ("pool", "pool_size"),
    "IBuilderConfig.clear_flag": ("flag",),
    "IBuilderConfig.add_optimization_profile": ("profile",),
    "IBuilderConfig.create_timing_cache": ("serialized_timing_cache",),
    "IBuilderConfig.set_timing_cache": ("cache", "ignore_mismatch"),
    "IBuilderConfig.get_timing_cache": (),
    "ITimingCache.serialize": (),
    "Runtime.__init__": ("logger",),
    "Runtime.deserialize_cuda_engine": ("serialized_engine",),
    "ICudaEngine.num_io_tensors": None,
    "ICudaEngine.get_tensor_name": ("index",),
    "ICudaEngine.get_tensor_mode": ("name",),
    "ICudaEngine.get_tensor_shape": ("name",),
    "ICudaEngine.get_tensor_dtype": ("name",),
    "ICudaEngine.get_tensor_profile_shape": ("name", "profile_index"),
    "ICudaEngine.create_execution_context": ("[strategy]",),
    "IExecutionContext.set_input_shape": ("name", "shape"),
    "IExecutionContext.set_tensor_address": ("name", "memory"),
    "IExecutionContext.execute_async_v3": ("stream_handle",),
    "Dims.__init__": ("shape",),
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
