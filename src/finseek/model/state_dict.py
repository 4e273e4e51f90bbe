"""Weights on disk: Hugging Face's names and layout, with and without shards.

In memory the names are those of the files but for two: the experts of a layer are stacked, and an MTP layer owns no
embedding and head of its own. `parts` is the whole map, and serves both ways.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from finseek.core.artifacts import atomic_file, write_json
from finseek.core.errors import InputError
from finseek.model.config import DeepSeekConfig

if TYPE_CHECKING:
    from finseek.model.deepseek import DeepSeekV3

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BIAS = ".e_score_correction_bias"
COPIES = {"embed_tokens.weight": "model.embed_tokens.weight", "shared_head.head.weight": "lm_head.weight"}


def parts(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The tensors on disk, by name, that tensor `name` in memory is made of: views of it."""
    layer, _, stacked = name.partition(".experts.")
    if stacked == "gate_up_proj":
        for e, gate_up in enumerate(tensor.unbind()):
            gate, up = gate_up.chunk(2)
            yield f"{layer}.experts.{e}.gate_proj.weight", gate
            yield f"{layer}.experts.{e}.up_proj.weight", up
    elif stacked == "down_proj":
        for e, down in enumerate(tensor.unbind()):
            yield f"{layer}.experts.{e}.down_proj.weight", down
    else:
        yield name, tensor


def mtp_copies(config: DeepSeekConfig) -> dict[str, str]:
    """Names under which each MTP layer stores the trunk's embedding and head again, to the trunk's own names."""
    first = config.num_hidden_layers
    tied = {"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {}
    return {
        f"model.layers.{layer}.{suffix}": tied.get(source, source)
        for layer in range(first, first + config.num_nextn_predict_layers)
        for suffix, source in COPIES.items()
    }


def own_tensors(model: DeepSeekV3) -> dict[str, Tensor]:
    """The state dict without the alias that tied embeddings make."""
    alias = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    return {name: tensor for name, tensor in model.state_dict().items() if name not in alias}


class Shards:
    """Tensors of a checkpoint folder, by name, read one at a time."""

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        index = folder / INDEX
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError) as broken:
                raise InputError(f"{index}: is no index of shards (a JSON mapping with weight_map)") from broken
        else:
            names = [SINGLE]
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise InputError(f"{folder}: {missing[0]} is missing ({len(missing)} of {len(names)} weight files)")
        opened = []
        for name in names:
            try:
                opened.append(safe_open(folder / name, framework="pt"))
            except SafetensorError as broken:
                raise InputError(f"{folder / name}: is no whole safetensors file ({broken}); copy it again") from broken
        self.file_of = {key: file for file in opened for key in file.keys()}

    def __getitem__(self, name: str) -> Tensor:
        return self.file_of[name].get_tensor(name)


@torch.no_grad()
def load_weights(model: DeepSeekV3, folder: Path, dtype: torch.dtype | None) -> None:
    """Fill a model made on the meta device; every tensor on both sides is accounted for.

    Raises:
        InputError: missing, superfluous, misshapen or quantised weights.
    """
    shards, own = Shards(folder), own_tensors(model)
    wanted = {part for name, tensor in own.items() for part, _ in parts(name, tensor)}
    check_names(model.config, folder, wanted, shards.file_of.keys())
    stored = shards["model.embed_tokens.weight"].dtype
    filled = {
        name: _read(shards, folder, name, tensor, torch.float32 if name.endswith(BIAS) else dtype or stored)
        for name, tensor in own.items()
    }
    check_copies(model.config, folder, shards, filled)
    tied = model.config.tie_word_embeddings
    if tied:
        filled["lm_head.weight"] = filled["model.embed_tokens.weight"]
    for name, buffer in list(model.named_buffers()):
        if name not in filled:  # statistics, which no checkpoint holds
            owner, _, leaf = name.rpartition(".")
            model.get_submodule(owner)._buffers[leaf] = torch.zeros(buffer.shape, dtype=buffer.dtype)
    model.load_state_dict(filled, assign=True)
    if tied:
        model.lm_head.weight = model.model.embed_tokens.weight


def check_names(config: DeepSeekConfig, folder: Path, wanted: Set[str], there: Set[str]) -> None:
    """Hold the names of a folder against those of the model, both ways.

    Raises:
        InputError: weights that are missing, or without a place.
    """
    L, depths, missing = config.num_hidden_layers, config.num_nextn_predict_layers, sorted(wanted - there)
    mtp = tuple(f"model.layers.{L + depth}." for depth in range(depths))
    if missing and all(name.startswith(mtp) for name in missing):
        raise InputError(
            f"{folder}: no weights of the MTP layer ({missing[0]}), though config.json has num_nextn_predict_layers "
            f"{depths}; load with num_nextn_predict_layers=0 to go without"
        )
    if missing:
        raise InputError(f"{folder}: {len(missing)} weights of this config are missing, first {missing[0]}")
    surplus = sorted(there - wanted - mtp_copies(config).keys() - {"lm_head.weight"})
    if depths == 0:  # asked to go without: the layers behind the trunk's are MTP modules
        behind = {_layer(name) for name in there if name.endswith(".eh_proj.weight") and _layer(name) >= L}
        surplus = [name for name in surplus if _layer(name) not in behind]
    if surplus:
        raise InputError(f"{folder}: {len(surplus)} weights have no place in this config, first {surplus[0]}")


def _read(shards: Shards, folder: Path, name: str, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Tensor `name` in memory, put together from its parts on disk."""
    filled = torch.empty(like.shape, dtype=dtype, device="cpu")
    for part, view in parts(name, filled):
        value = shards[part]
        if value.dtype.itemsize == 1:
            raise InputError(f"{folder}: {part} is {value.dtype}; run `finseek checkpoint dequantize` first")
        if value.shape != view.shape:
            raise InputError(f"{folder}: {part} has shape {tuple(value.shape)}, the config says {tuple(view.shape)}")
        view.copy_(value)
    return filled


def check_copies(config: DeepSeekConfig, folder: Path, shards: Shards, filled: dict[str, Tensor]) -> None:
    """The copies of embedding and head that an MTP layer stores must be the trunk's.

    Raises:
        InputError: one differs.
    """
    for copy, source in mtp_copies(config).items():
        if copy in shards.file_of and not torch.equal(shards[copy].to(filled[source].dtype), filled[source]):
            raise InputError(
                f"{folder}: {copy} differs from {source}, which the MTP layer shares; load with "
                "num_nextn_predict_layers=0, or copy the one over the other"
            )


def disk_tensors(model: DeepSeekV3) -> Iterator[tuple[str, Tensor]]:
    """All tensors as they lie on disk, in the order of the layers: views where possible."""
    own, copies = own_tensors(model), mtp_copies(model.config)
    for name, tensor in own.items():
        tensor = tensor.float() if name.endswith(BIAS) else tensor
        yield from parts(name, tensor.detach())
    for copy, source in copies.items():
        yield copy, own[source].detach()


def save_weights(model: DeepSeekV3, folder: Path, max_shard_bytes: int) -> None:
    """Write config.json and the weights, each file whole; weight files of an earlier save are removed."""
    from safetensors.torch import save_file

    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in disk_tensors(model):
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    n = len(shards)
    files = [SINGLE] if n == 1 else [f"model-{i + 1:05d}-of-{n:05d}.safetensors" for i in range(n)]
    for file, shard in zip(files, shards, strict=True):
        with atomic_file(folder / file) as partial:
            copied = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in shard.items()}
            save_file(copied, partial, metadata={"format": "pt"})
    for old in folder.glob("model*.safetensors"):
        if old.name not in files:
            old.unlink()
    if n == 1:
        (folder / INDEX).unlink(missing_ok=True)
    else:
        weight_map = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    dtype = str(model.lm_head.weight.dtype).removeprefix("torch.")
    write_json(folder / "config.json", dict(sorted({**model.config.to_json_dict(), "torch_dtype": dtype}.items())))


def _layer(name: str) -> int:
    """Number of the layer that a weight belongs to, -1 for one of none."""
    prefix, found, rest = name.partition("model.layers.")
    return int(rest.split(".")[0]) if found and not prefix else -1
