"""Traced graphs in the cache: found again for an equal network alone, and never in place of another one's."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.deploy import trace_cache
from unalike.deploy.onnx_export import build_facts
from unalike.deploy.trace_cache import FOLDER, cached_trace, graph_key
from unalike.engines.metadata import NetworkFacts
from unalike.inference.engine_selection import create_engine

SIZE = (8, 8)
PREPROCESSING = Preprocessing(View(*SIZE, 1.0), (0.5,) * 3, (0.5,) * 3)


class Scaled(nn.Module):
    """A network with a constant that is no weight, a buffer, and a function."""

    dim = 4

    def __init__(self, factor: float = 2.0, function: Callable[[Any], Any] = torch.relu) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.register_buffer("shift", torch.zeros(4), persistent=False)
        self.factor, self.function, self.options = factor, function, {"sizes": [(1, 2)], "kind": {"b", "a"}}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.function(self.layers(images) * self.factor) + self.shift
        return value


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """How often a network was traced: the list grows; the cache is empty at first."""
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    calls: list[int] = []
    trace = trace_cache.trace

    def count(*values: Any, **named: Any) -> Any:
        calls.append(1)
        return trace(*values, **named)

    monkeypatch.setattr(trace_cache, "trace", count)
    return calls


def facts_of(network: nn.Module) -> NetworkFacts:
    return build_facts(network, PREPROCESSING)


def key_of(network: nn.Module) -> str:
    return graph_key(network.eval(), SIZE, facts_of(network))


def graphs(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / FOLDER).iterdir())


def test_an_equal_network_is_traced_once(traced: list[int], tmp_path: Path) -> None:
    first, second = Scaled().eval(), Scaled().eval()
    one = cached_trace(first, SIZE, facts_of(first))
    other = cached_trace(second, SIZE, facts_of(second))
    assert len(traced) == 1 and one == other and len(graphs(tmp_path)) == 1
    assert graphs(tmp_path)[0].stat().st_mode & 0o077 == 0 or graphs(tmp_path)[0].parent.stat().st_mode & 0o077 == 0


def test_an_engine_of_a_kept_graph_gives_the_same_bits(traced: list[int]) -> None:
    images_NHWC = np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), dtype=np.uint8)
    vectors = []
    for factor in (2.0, 2.0, 3.0):
        engine = create_engine(Scaled(factor), PREPROCESSING, runtime="onnxruntime", quiet=True)
        vectors.append(engine(images_NHWC))
    assert len(traced) == 2 and np.array_equal(vectors[0], vectors[1])
    assert np.allclose(vectors[2], 1.5 * vectors[0], rtol=1e-5) and not np.allclose(vectors[2], vectors[0])


def _set_weight(network: Scaled) -> None:
    network.layers[0].weight.data[0, 0, 0, 0] += 1e-6


def _set_buffer(network: Scaled) -> None:
    network.shift[0] = 1.0


def _set_statistics(network: Scaled) -> None:
    network.layers[1].running_mean[0] = 1.0


def _set_factor(network: Scaled) -> None:
    network.factor = 2.5


def _set_function(network: Scaled) -> None:
    network.function = torch.tanh


def _set_partial(network: Scaled) -> None:
    network.function = functools.partial(torch.nn.functional.leaky_relu, negative_slope=0.1)


def _set_lambda(network: Scaled) -> None:
    network.function = lambda value: value * 2


def _set_options(network: Scaled) -> None:
    network.options = {"sizes": [(1, 3)], "kind": {"b", "a"}}


def _set_epsilon(network: Scaled) -> None:
    network.layers[1].eps = 1e-3


def _set_layer(network: Scaled) -> None:
    network.layers[2] = nn.AdaptiveMaxPool2d(1)


def _set_type(network: Scaled) -> None:
    network.shift = network.shift.to(torch.bfloat16)


CHANGES = (_set_weight, _set_buffer, _set_statistics, _set_factor, _set_function, _set_partial, _set_lambda, _set_options,
           _set_epsilon, _set_layer, _set_type)  # fmt: skip


def test_whatever_changes_the_graph_changes_its_key() -> None:
    keys = {key_of(Scaled())}
    for change in CHANGES:
        network = Scaled()
        change(network)
        keys.add(key_of(network))
    network = Scaled().eval()
    keys.add(graph_key(network, (8, 9), facts_of(network)))
    keys.add(graph_key(network, SIZE, build_facts(network, PREPROCESSING, metadata={"classes": ("a",)})))
    assert len(keys) == len(CHANGES) + 3
    assert key_of(copy.deepcopy(Scaled())) == key_of(Scaled())


def _add_hook(network: Scaled) -> None:
    network.layers.register_forward_hook(lambda *_: None)


def _set_closure(network: Scaled) -> None:
    factor = network.factor
    network.function = lambda value: value * factor


def _set_file(network: Scaled) -> None:
    network.function = torch.relu
    network.source = Path("a")


@pytest.mark.parametrize("change", [_add_hook, _set_closure, _set_file])
def test_what_cannot_be_described_is_traced_anew(
    traced: list[int], tmp_path: Path, change: Callable[[Scaled], None]
) -> None:
    network = Scaled().eval()
    change(network)
    for _ in range(2):
        cached_trace(network, SIZE, facts_of(network))
    assert len(traced) == 2 and not (tmp_path / "cache" / FOLDER).exists()


def test_a_damaged_file_is_replaced(traced: list[int], tmp_path: Path) -> None:
    network = Scaled().eval()
    proto = cached_trace(network, SIZE, facts_of(network))
    (file,) = graphs(tmp_path)
    whole = file.read_bytes()
    for content in (whole[:-9], whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], b""):
        file.write_bytes(content)
        assert cached_trace(network, SIZE, facts_of(network)) == proto
        assert file.read_bytes() == whole
    assert len(traced) == 4


def test_the_graphs_that_were_used_last_are_kept(
    traced: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_cache, "MOST_GRAPHS", 2)
    networks = [Scaled(factor).eval() for factor in (1.0, 2.0, 3.0)]
    for number in (0, 1, 0, 2):
        cached_trace(networks[number], SIZE, facts_of(networks[number]))
        time.sleep(0.02)  # times of files are those of the kernel's clock, which ticks every few milliseconds
    names = {file.stem for file in graphs(tmp_path)}
    assert names == {key_of(networks[0]), key_of(networks[2])} and len(traced) == 3
    monkeypatch.setattr(trace_cache, "MOST_BYTES", graphs(tmp_path)[0].stat().st_size * 3 // 2)  # room for one
    cached_trace(networks[1], SIZE, facts_of(networks[1]))
    assert [file.stem for file in graphs(tmp_path)] == [key_of(networks[1])]


def test_a_cache_that_cannot_be_used_is_done_without(
    traced: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file")
    network = Scaled().eval()
    for _ in range(2):
        cached_trace(network, SIZE, facts_of(network))
    assert len(traced) == 2
