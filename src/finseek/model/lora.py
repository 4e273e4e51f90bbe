"""LoRA (arXiv 2106.09685) through PEFT, on this model and on those of transformers alike; routed experts included."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from finseek.core.errors import ConfigError, MissingPart
from finseek.model.deepseek import DeepSeekV3
from finseek.model.experts import STACKED
from finseek.model.imports import quiet_imports
from finseek.model.lora_targets import Targets, choose_targets

if TYPE_CHECKING:
    from peft import PeftModel


def targets_of(model: nn.Module, wanted: str | Sequence[str] = "attention", dropout: float = 0.0) -> Targets:
    """What of a model a preset or a list of names adapts.

    Raises:
        ConfigError: see :func:`finseek.model.lora_targets.choose_targets`.
    """
    linear = [name for name, module in model.named_modules() if _is_linear(module)]
    routed = any(name.endswith(STACKED[0]) for name, _ in model.named_parameters())
    return choose_targets(wanted, model.config.model_type, linear, routed=routed, dropout=dropout)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def add_lora(
    model: nn.Module,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    bias: str = "none",
    target_modules: str | Sequence[str] = "attention",
    seed: int = 0,
    *,
    rslora: bool = False,
) -> PeftModel:
    """Freeze a model and put adapters W + alpha/rank · B A beside the targets; A is drawn from `seed`, B is 0.

    Args:
        model: a `DeepSeekV3` or a causal model of transformers; changed in place.
        rank: of A and B.
        alpha: scale.
        dropout: before A; routed experts have none, whatever it is.
        bias: `none`, `all` or `lora_only`, as PEFT has it.
        target_modules: a preset of :mod:`finseek.model.lora_targets`, or last parts of module names, and `experts`.
        seed: of A.
        rslora: scale by alpha/sqrt(rank) (arXiv 2312.03732).

    Returns:
        PEFT's model: called like the model; `.save_pretrained` writes an adapter that fits the model here and
        transformers', `.merge_and_unload()` gives the adapted model.

    Raises:
        ConfigError: a target that matches nothing, with near misses.
        MissingPart: PEFT is absent.
    """
    try:
        with quiet_imports():
            from peft import LoraConfig, get_peft_model
            from peft.tuners.lora import ParamWrapper
    except ImportError as absent:
        raise MissingPart("peft", "train", "LoRA") from absent
    targets = targets_of(model, target_modules, dropout)
    if targets.parameters and getattr(model, "is_loaded_in_4bit", False):
        quantized = [name for name in targets.parameters if name not in STACKED]
        if quantized:
            raise ConfigError(
                f"lora.target_modules: {', '.join(quantized)} cannot be adapted in 4-bit where there are routed experts"
                " (PEFT takes them for these): give attention or attention+experts, or set train.load_in_4bit to false"
            )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,  # PEFT refuses any with parameters; that of the modules is set below
        bias=bias,
        target_modules=list(targets.modules),
        target_parameters=list(targets.parameters) or None,
        use_rslora=rslora,
        task_type=None if isinstance(model, DeepSeekV3) else "CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out")  # of GPT-2's Conv1D; PEFT sets it right itself
        adapted = get_peft_model(model, config)
    config.task_type = "CAUSAL_LM"  # else what is saved names our class, where transformers' model is wanted
    if dropout:
        for name, module in adapted.named_modules():
            if name.endswith(".lora_dropout"):
                owner = adapted.get_submodule(name.rpartition(".")[0])
                if not isinstance(owner, ParamWrapper):
                    module["default"] = nn.Dropout(dropout)
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
