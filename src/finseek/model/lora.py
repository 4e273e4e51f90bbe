"""LoRA (arXiv 2106.09685) through PEFT, on the names that the Hugging Face model has; routed experts included."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

import torch
from torch import nn

from finseek.core.errors import ConfigError, MissingPart
from finseek.model.deepseek import DeepSeekV3

if TYPE_CHECKING:
    from peft import PeftModel

ATTENTION = ("q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
EXPERTS = "experts"  # the stacked weights of the routed experts, which are parameters and no modules
STACKED = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")


def adaptable(model: DeepSeekV3) -> set[str]:
    """What may be named as a target: the linear maps by the last part of their name, and `experts`."""
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return linear | ({EXPERTS} if model.routers() else set())


def add_lora(
    model: DeepSeekV3,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    bias: str = "none",
    target_modules: Sequence[str] | None = None,
    seed: int = 0,
) -> PeftModel:
    """Freeze a model and put adapters W + alpha/rank · B A beside the targets; A is drawn from `seed`, B is 0.

    Args:
        model: changed in place.
        rank: of A and B.
        alpha: scale.
        dropout: before A; the routed experts allow none.
        bias: `none`, `all` or `lora_only`, as PEFT has it.
        target_modules: last parts of module names, and `experts`; default: every projection of the attention.
        seed: of A.

    Returns:
        PEFT's model: called like the model; `.save_pretrained` writes an adapter that also fits transformers' model
        (but for gate_proj, up_proj, down_proj: PEFT takes these for its fused experts),
        `.merge_and_unload()` gives the adapted `DeepSeekV3`.

    Raises:
        ConfigError: a target that matches nothing, with near misses, or dropout on routed experts.
        MissingPart: PEFT is absent.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as absent:
        raise MissingPart("peft", "train", "LoRA") from absent
    known = adaptable(model)
    targets = [name for name in ATTENTION if name in known] if target_modules is None else list(target_modules)
    for target in targets:
        if target not in known:
            near = get_close_matches(target, sorted(known), n=3, cutoff=0.5) or sorted(known)
            raise ConfigError(
                f"lora.target_modules: {target!r} matches nothing in this model; near: {', '.join(near)} "
                f"(all: {', '.join(sorted(known))})"
            )
    if not targets:
        raise ConfigError(f"lora.target_modules: empty; name some of {', '.join(sorted(known))}")
    if EXPERTS in targets and dropout:
        raise ConfigError(f"lora.dropout: {dropout} must be 0 with the routed experts among the targets")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        bias=bias,
        target_modules=[target for target in targets if target != EXPERTS],
        target_parameters=list(STACKED) if EXPERTS in targets else None,
    )
    adapted = get_peft_model(model, config)
    draw_adapters(adapted, seed)
    return adapted


@torch.no_grad()
def draw_adapters(adapted: nn.Module, seed: int) -> None:
    """Draw every A from the seed, uniform in ±1/sqrt(its inputs), as PEFT does from the global generator."""
    for name, parameter in adapted.named_parameters():
        if ".lora_A." in name:
            generator = torch.Generator(parameter.device).manual_seed(seed)
            bound = parameter.shape[1] ** -0.5
            parameter.uniform_(-bound, bound, generator=generator)
            seed += 1
