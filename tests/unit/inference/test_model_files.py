from typing import get_args

from unalike.inference.model_files import CHECKPOINTS, EXPORTED, FILE_RUNTIMES, NETWORK_RUNTIMES, SUFFIXES
from unalike.spec.retrieval import Runtime


def test_a_spec_names_the_runtimes_of_the_tables():
    runtimes = {name for names in FILE_RUNTIMES.values() for name in names}
    assert set(get_args(Runtime)) == {"auto"} | runtimes
    assert set(NETWORK_RUNTIMES) == runtimes - {"tensorrt"}


def test_every_suffix_is_of_a_checkpoint_or_of_an_exported_file():
    assert SUFFIXES == (".onnx", ".xml", ".engine", ".plan", ".pth", ".ckpt")
    assert {*EXPORTED, *CHECKPOINTS} == set(SUFFIXES) and not {*EXPORTED} & {*CHECKPOINTS}
    assert all("torch" in FILE_RUNTIMES[suffix] for suffix in CHECKPOINTS)
