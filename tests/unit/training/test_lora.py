"""LoRA: merged weights give the same vectors, the rest of the trunk stays, and a resumed run goes on bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.support.tiny import TinyEmbedder, spec
from tests.unit.training.test_loop import make_loop
from unalike.errors import Interrupted, SpecError
from unalike.model.backbones import build_trunk
from unalike.model.checkpoint import read_checkpoint
from unalike.model.embedder import Embedder
from unalike.spec.train import Lora
from unalike.training.checkpoints import newest_checkpoint
from unalike.training.freezing import Freezer
from unalike.training.loop import TrainingLoop
from unalike.training.lora import (
    add_lora,
    has_lora,
    merge_lora,
    merged_copy,
    merged_state,
    state_before_training,
    unmerged_part,
    unmerged_state,
)

LORA = SimpleNamespace(rank=3, alpha=6.0, layers="attention")


def transformer(seed: int = 0) -> Embedder:
    torch.manual_seed(seed)
    return Embedder(build_trunk("test_vit", pretrained="false", input_size=(16, 16)), 8, "linear")


def with_updates(layers: str = "attention") -> Embedder:
    """A transformer whose updates are not 0."""
    embedder = transformer()
    add_lora(embedder.trunk, SimpleNamespace(rank=3, alpha=6.0, layers=layers))
    for name, parameter in embedder.named_parameters():
        if "parametrizations" in name and not name.endswith("original"):
            nn.init.normal_(parameter, std=0.2)
    return embedder.eval()


@pytest.mark.parametrize("layers", ["attention", "all"])
def test_merged_weights_give_the_same_vectors(layers: str) -> None:
    embedder, images = with_updates(layers), torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        expected, plain = embedder(images), transformer().eval()(images)
    assert not torch.allclose(expected, plain, atol=1e-3)
    merged = merged_copy(embedder)
    assert merged is not embedder and has_lora(embedder) and not has_lora(merged)
    with torch.no_grad():
        torch.testing.assert_close(merged(images), expected, atol=1e-5, rtol=0)
        assert torch.equal(embedder(images), expected), "the original is as it was"
    other = transformer(seed=1).eval()
    other.load_state_dict(merged_state(embedder.state_dict()))  # the names are those of the plain network
    with torch.no_grad():
        torch.testing.assert_close(other(images), expected, atol=1e-5, rtol=0)
    assert merged_copy(other) is other


def test_states_are_taken_apart_and_put_together_exactly() -> None:
    state = with_updates().state_dict()
    merged, part = merged_state(state), unmerged_part(state)
    again = unmerged_state(merged, part)
    assert again.keys() == state.keys() and all(torch.equal(again[name], state[name]) for name in state)
    plain = transformer().state_dict()
    assert merged_state(plain) == plain and unmerged_part(plain) == {} and unmerged_state(plain, {}) == plain
    weight = "trunk.net.blocks.0.attn.qkv.weight"
    prefix = weight.replace(".weight", ".parametrizations.weight.")
    update = state[f"{prefix}0.up_OK"] @ state[f"{prefix}0.down_KI"]
    torch.testing.assert_close(merged[weight], plain[weight] + 2 * update)  # alpha 6, rank 3


def test_only_updates_of_the_chosen_layers_learn(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {}
    for layers in ("attention", "all"):
        embedder = transformer()
        counts[layers] = add_lora(embedder.trunk, SimpleNamespace(rank=2, alpha=2.0, layers=layers))
        Freezer(embedder, spec(train__lora=LORA))
        learning = {name for name, parameter in embedder.trunk.named_parameters() if parameter.requires_grad}
        assert len(learning) == 2 * counts[layers] and all(name.endswith(("up_OK", "down_KI")) for name in learning)
        assert all(parameter.requires_grad for parameter in embedder.head.parameters())
    blocks = len(transformer().trunk.net.blocks)
    assert counts == {"attention": 2 * blocks, "all": 4 * blocks}
    assert add_lora(transformer().trunk, Lora(rank=0, alpha=2.0)) == 0
    assert (
        "settings that are not used: train.lora.alpha, train.lora.layers (train.lora.rank is 0)"
        in capsys.readouterr().err
    )
    assert add_lora(transformer().trunk, Lora()) == 0 and not capsys.readouterr().err
    with pytest.raises(SpecError, match=r"no layers of kind 'attention'.*transformer"):
        add_lora(build_trunk("test_efficientnet", pretrained="false", input_size=(32, 32)), LORA)
    with pytest.raises(SpecError, match="the whole trunk is frozen"):
        Freezer(TinyEmbedder(), spec(train__lora=LORA, train__train_trunk=False))


def lora_loop(folder: Path, seed: int = 0, *, ema: bool, **options: object) -> TrainingLoop:
    settled = spec(train__num_epochs=3, train__lora=LORA, train__ema=SimpleNamespace(enabled=ema, decay=0.9))
    embedder = transformer(seed)
    add_lora(embedder.trunk, settled.train.lora)
    return make_loop(folder, settled, embedder=embedder, **options)


@pytest.mark.parametrize("ema", [False, True])
def test_a_resumed_run_equals_a_straight_one_and_saves_plain_weights(tmp_path: Path, ema: bool) -> None:
    (tmp_path / "straight").mkdir()
    (tmp_path / "broken").mkdir()
    straight = lora_loop(tmp_path / "straight", ema=ema)
    straight.run()
    calls = iter(range(100))
    broken = lora_loop(tmp_path / "broken", ema=ema, stop=lambda: 15 if next(calls) + 1 >= 5 else 0)
    with pytest.raises(Interrupted):
        broken.run()
    resumed = lora_loop(tmp_path / "broken", seed=9, ema=ema)
    resumed.load_checkpoint(read_checkpoint(newest_checkpoint(tmp_path / "broken")))
    resumed.run()
    states = [loop.embedder.state_dict() for loop in (straight, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    saved = read_checkpoint(newest_checkpoint(tmp_path / "straight"))["model"]
    before = transformer().state_dict()
    assert saved.keys() == before.keys() and all(torch.equal(saved[k], v) for k, v in straight.weights().items())
    changed = {name for name in before if name.startswith("trunk") and not torch.equal(saved[name], before[name])}
    assert changed == {name for name in before if "attn" in name and name.endswith(("qkv.weight", "proj.weight"))}
    for name in changed:
        assert torch.linalg.matrix_rank(saved[name] - before[name], rtol=1e-3) <= LORA.rank
    merge_lora(straight.embedder)
    straight.embedder.load_state_dict(saved)


def test_a_checkpoint_of_another_program_is_where_updates_begin() -> None:
    plain, embedder = transformer(seed=3).state_dict(), transformer()
    add_lora(embedder.trunk, LORA)
    own = copy.deepcopy(unmerged_part(embedder.state_dict()))
    embedder.load_state_dict(state_before_training(embedder, plain))
    assert all(torch.equal(tensor, plain[name]) for name, tensor in merged_state(embedder.state_dict()).items())
    updates = unmerged_part(embedder.state_dict())
    assert all(torch.equal(updates[name], own[name]) for name in own if not name.endswith("original"))
