"""Checkpoints with the layout of TAO's ml_recog: keys, Lightning's fields, and configurations pickled by OmegaConf.

TAO's own files cannot be had without its registry. The layout is that of its published source (tao_pytorch_backend, ml_recog)
and of OmegaConf 2.3: a container keeps ``_content``, a value ``_val``.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import torch

from unalike.model.embedder import Embedder

_HEAD = {"linear.": "last_linear.", "norm.": "embedding_fc.0."}


def tao_state(embedder: Embedder) -> dict[str, torch.Tensor]:
    """The tensors of an embedder under TAO's names; its linear head stands twice, as in TAO's files."""
    state = {f"model.trunk.{key}": value for key, value in embedder.trunk.net.state_dict().items()}
    residual = embedder.head_kind == "residual"
    for key, value in embedder.head.state_dict().items():
        if key.startswith("adaptors."):
            _, number, layer, name = key.split(".")
            feature = "classifier_feat" + ("" if number == "0" else str(int(number) + 1))
            state[f"model.embedder.{feature}.{0 if layer == 'down' else 2}.{name}"] = value
        elif residual:
            state[f"model.embedder.embedding_fc.{1 if key.startswith('linear.') else 0}.{key.rpartition('.')[2]}"] = (
                value
            )
        else:
            state[f"model.embedder.net.0.{key.rpartition('.')[2]}"] = value
            state[f"model.embedder.last_linear.{key.rpartition('.')[2]}"] = value
    return state


def write_tao_checkpoint(
    path: Path, embedder: Embedder, spec: dict[str, Any] | None = None, *, omegaconf: bool = False, epoch: int = 3
) -> Path:
    """Write a Lightning file as TAO does; ``spec`` goes into ``hyper_parameters``, with ``omegaconf`` as its objects."""
    content: dict[str, Any] = {
        "epoch": epoch,
        "global_step": 40,
        "pytorch-lightning_version": "2.3.0",
        "state_dict": tao_state(embedder),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}],
        "lr_schedulers": [],
    }
    if spec is None:
        torch.save(content, path)
        return path
    with OmegaConfStandin() as make:
        content["hparams_name"] = "experiment_spec"
        content["hyper_parameters"] = make(spec) if omegaconf else spec
        torch.save(content, path)
    return path


class OmegaConfStandin:
    """Modules that pickle as OmegaConf's objects do, gone again after the block, so that reading finds no such package."""

    NAMES = ("omegaconf", "omegaconf.dictconfig", "omegaconf.listconfig", "omegaconf.nodes", "omegaconf.base")

    def __enter__(self) -> Any:
        self.before = {name: sys.modules.get(name) for name in self.NAMES}
        modules = {name: types.ModuleType(name) for name in self.NAMES}
        sys.modules.update(modules)
        kinds = {}
        for module, name in (("dictconfig", "DictConfig"), ("listconfig", "ListConfig"), ("nodes", "AnyNode"),
                             ("base", "ContainerMetadata")):  # fmt: skip
            kind = type(name, (), {"__module__": f"omegaconf.{module}", "__qualname__": name})
            setattr(modules[f"omegaconf.{module}"], name, kind)
            kinds[name] = kind

        def make(value: Any, parent: Any = None) -> Any:
            name = "DictConfig" if isinstance(value, dict) else "ListConfig" if isinstance(value, list) else "AnyNode"
            node = kinds[name]()
            node.__dict__.update(_metadata=kinds["ContainerMetadata"](), _parent=parent, _flags_cache=None)
            if name == "AnyNode":
                node.__dict__["_val"] = value
            elif name == "DictConfig":
                node.__dict__["_content"] = {key: make(item, node) for key, item in value.items()}
            else:
                node.__dict__["_content"] = [make(item, node) for item in value]
            return node

        return make

    def __exit__(self, *_: object) -> None:
        for name, module in self.before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
