"""Weights out of the state of a training run, of Lightning or of finseek: whole, or the matrices of an adapter."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finseek.checkpoint.dequantize import new_config
from finseek.checkpoint.fp8 import BY_HEADER, TARGETS
from finseek.checkpoint.layouts import from_layout
from finseek.checkpoint.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, PREFIX
from finseek.checkpoint.names import weights_of
from finseek.checkpoint.options import StreamOptions
from finseek.checkpoint.shards import CONFIG, INDEX, read_json
from finseek.checkpoint.stream.destination import check_space, copy_others, refuse_used
from finseek.checkpoint.stream.job import Conversion, open_shard
from finseek.checkpoint.stream.plan import Out, index_of, plan_shards
from finseek.core.artifacts import atomic_folder, write_json
from finseek.core.errors import InputError
from finseek.model import DeepSeekConfig

if TYPE_CHECKING:
    from torch import Tensor

LORA = re.compile(r"\.lora_([AB])\.(?:\w+\.)?weight$")  # with PEFT's name of the adapter in memory, without on the disk


def read_state(file: Path) -> dict[str, Tensor]:
    """The weights in a training state, mapped into memory.

    Raises:
        InputError: there are none.
    """
    import pickle

    import torch

    try:
        held = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise InputError(f"{file}: no training state that can be read safely ({str(error).splitlines()[0]})") from None
    for key in ("state_dict", "module", "model"):
        held = held[key] if isinstance(held, Mapping) and isinstance(held.get(key), Mapping) else held
    if not isinstance(held, Mapping) or not held or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise InputError(
            f"{file}: no state_dict, module or model in it; it is no training state of Lightning or finseek"
        )
    # Lightning puts the attribute's name before the module's own: `model.model.layers…`, `model.lm_head…`.
    wrapped = all(name.startswith("model.") for name in held)
    return {name.removeprefix("model.") if wrapped else name: value for name, value in held.items()}


def holds_adapter(state: Mapping[str, Tensor]) -> bool:
    """Whether a state holds LoRA matrices."""
    return any(LORA.search(name) for name in state)


def write_state(state: Mapping[str, Tensor], dst: Path, base: Path, mtp: bool, stream: StreamOptions) -> Conversion:
    """Write the weights of a state, under finseek's names, as a Hugging Face folder; all else comes from the base.

    Raises:
        InputError: names or shapes do not fit the base's config, or the destination does not do.
    """
    import torch

    headers = {getattr(torch, target.torch): target.header for target in TARGETS.values()}
    config = DeepSeekConfig.from_json(base)
    tensors = dict(from_layout(state, config, "finseek"))
    if not mtp:
        trunk = {weight.name for weight in weights_of(config, mtp=False)}
        tensors = {name: value for name, value in tensors.items() if name in trunk}
    odd = [f"{name} ({value.dtype})" for name, value in tensors.items() if value.dtype not in headers]
    if odd:
        raise InputError(f"{odd[0]} of the training state is none of {', '.join(TARGETS)}")
    outs = [Out(name, headers[value.dtype], tuple(value.shape)) for name, value in tensors.items()]
    plans = plan_shards(((out,) for out in outs), stream.shard_bytes)
    refuse_used(dst)
    check_space(dst, sum(plan.length for plan in plans))
    with atomic_folder(dst) as partial:
        for plan in plans:
            shard = open_shard(partial, plan, direct=False)
            for name, begin in plan.begins.items():
                shard.write(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy(), begin)
            shard.finish()
        copy_others(base, partial)
        if (index := index_of(plans)) is not None:
            write_json(partial / INDEX, index)
        target = BY_HEADER[headers[tensors["model.embed_tokens.weight"].dtype]]
        write_json(partial / CONFIG, new_config(read_json(base / CONFIG), target, mtp_dropped=not mtp))
    return Conversion(dst, len(tensors), sum(out.nbytes for out in outs), len(plans), 0, 0)


def adapter_of_state(file: Path, state: Mapping[str, Tensor], folder: Path) -> None:
    """Write PEFT's two files from the LoRA matrices in a training state.

    Raises:
        InputError: rank and alpha are not to be had.
    """
    from safetensors.torch import save_file

    config = file.parent / ADAPTER_CONFIG
    if not config.is_file():
        raise InputError(
            f"{file}: holds LoRA matrices, but not their rank and alpha; put the {ADAPTER_CONFIG} of the training "
            "beside it, or export the adapter folder that the training wrote"
        )
    matrices = {LORA.sub(r".lora_\1.weight", name): value for name, value in state.items() if LORA.search(name)}
    named = {PREFIX + name.rpartition(PREFIX)[2]: value.contiguous() for name, value in matrices.items()}
    save_file(named, folder / ADAPTER_WEIGHTS)
    shutil.copyfile(config, folder / ADAPTER_CONFIG)
