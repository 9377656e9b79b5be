"""The process of a job, with TensorRT's stand-in where this machine has no GPU; never imported, run as a program."""

import sys
from importlib.machinery import ModuleSpec

import unalike.deploy.tensorrt_build
import unalike.engines.tensorrt_engine
from tests.support import tensorrt_standin as standin
from unalike.cli import child_process

if __name__ == "__main__":
    tensorrt = sys.modules["tensorrt"] = standin.module("10.13.0.35")
    tensorrt.__spec__ = ModuleSpec("tensorrt", None)  # others look whether it is installed
    unalike.deploy.tensorrt_build.CudaMemory = standin.Memory
    unalike.engines.tensorrt_engine.CudaMemory = standin.Memory
    child_process.main()
