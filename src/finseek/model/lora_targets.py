"""Which weights of each architecture LoRA adapts: the presets as data, and the choice that a config makes of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from finseek.core.errors import ConfigError
from finseek.model.experts import STACKED

PRESETS = ("attention", "attention+experts", "all")
EXPERTS = "experts"  # the stacked weights of the routed experts, which are parameters and no modules
# Where an architecture has routed experts, PEFT (0.21) takes these names for parts of their stacks, also when it loads
# an adapter; so the linear maps that bear them are named as parameters.
TAKEN_FOR_EXPERTS = ("gate_proj", "up_proj", "down_proj")
UNTOUCHED = ("lm_head", "gate", "router", "shared_expert_gate")  # heads and routers: never adapted


@dataclass(frozen=True)
class Architecture:
    """The linear maps of a decoder layer, by the last parts of their names.

    Attributes:
        attention: every projection of the attention; of variants with other names those that a model has are taken.
        mlp: of dense layers and of shared experts.
        routed: whether there are routed experts, stacked as ``mlp.experts.gate_up_proj`` and ``mlp.experts.down_proj``.
    """

    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    routed: bool = False


MLA = ("q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
GATED = ("gate_proj", "up_proj", "down_proj")

# By `model_type` of config.json.
ARCHITECTURES: dict[str, Architecture] = {
    "deepseek_v3": Architecture(MLA, GATED, routed=True),
    "deepseek_v2": Architecture(MLA, GATED, routed=True),
    "llama": Architecture(QKVO, GATED),
    "mistral": Architecture(QKVO, GATED),
    "ministral3": Architecture(QKVO, GATED),
    "qwen2": Architecture(QKVO, GATED),
    "qwen3": Architecture(QKVO, GATED),
    "gemma": Architecture(QKVO, GATED),
    "gemma2": Architecture(QKVO, GATED),
    "gemma3_text": Architecture(QKVO, GATED),
    "olmo2": Architecture(QKVO, GATED),
    "granite": Architecture(QKVO, GATED),
    "smollm3": Architecture(QKVO, GATED),
    "cohere2": Architecture(QKVO, GATED),
    "phi3": Architecture(("qkv_proj", "o_proj"), ("gate_up_proj", "down_proj")),
    "phi": Architecture(("q_proj", "k_proj", "v_proj", "dense"), ("fc1", "fc2")),
    "gpt2": Architecture(("attn.c_attn", "attn.c_proj"), ("mlp.c_fc", "mlp.c_proj")),
    "gpt_neox": Architecture(("query_key_value", "attention.dense"), ("dense_h_to_4h", "dense_4h_to_h")),
    "mixtral": Architecture(QKVO, (), routed=True),
    "qwen2_moe": Architecture(QKVO, GATED, routed=True),
    "qwen3_moe": Architecture(QKVO, GATED, routed=True),
    "olmoe": Architecture(QKVO, (), routed=True),
    "glm4_moe": Architecture(QKVO, GATED, routed=True),
    "gpt_oss": Architecture(QKVO, (), routed=True),
}


@dataclass(frozen=True)
class Targets:
    """What of one model is adapted.

    Attributes:
        names: last parts of the names of linear maps, and ``experts``.
        modules: of these, what PEFT is told as modules.
        parameters: and what it is told as parameters; these have no dropout.
        notices: what the user should know.
    """

    names: tuple[str, ...]
    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    notices: tuple[str, ...] = ()


def choose_targets(
    wanted: str | Sequence[str], model_type: str, linear: Collection[str], *, routed: bool, dropout: float = 0.0
) -> Targets:
    """The targets of a preset, or the named ones.

    Args:
        wanted: one of ``PRESETS``, or last parts of names of linear maps, and ``experts``.
        model_type: of the Hugging Face config.
        linear: full names of the model's linear maps.
        routed: whether the model has routed experts.
        dropout: that is asked for.

    Raises:
        ConfigError: a preset of an unknown architecture, a name that matches nothing, or nothing at all.
    """
    linear = {name for name in linear if name.rpartition(".")[2] not in UNTOUCHED}
    known = sorted({name.rpartition(".")[2] for name in linear}) + ([EXPERTS] if routed else [])
    names = _preset(wanted, model_type, linear, routed, known) if isinstance(wanted, str) else tuple(wanted)
    missing = [name for name in names if not (routed if name == EXPERTS else _matches(name, linear))]
    if missing:
        raise ConfigError(_refusal(missing, model_type, linear, known))
    if not names:
        raise ConfigError(f"lora.target_modules: empty; name some of {', '.join(known)}")
    stacked = STACKED if EXPERTS in names else ()
    as_parameters = tuple(name for name in names if routed and name.rpartition(".")[2] in TAKEN_FOR_EXPERTS)
    notices: tuple[str, ...] = ()
    if dropout and (stacked or as_parameters):
        named = [*(["routed experts"] if stacked else []), *([", ".join(as_parameters)] if as_parameters else [])]
        what = " and of ".join(named)
        notices = (f"lora.dropout {dropout:g} is 0 on the weights of {what}; it holds on the other targets",)
    return Targets(
        names,
        tuple(name for name in names if name != EXPERTS and name not in as_parameters),
        (*stacked, *(f"{name}.weight" for name in as_parameters)),
        notices,
    )


def _matches(name: str, linear: Collection[str]) -> bool:
    return any(full == name or full.endswith(f".{name}") for full in linear)


def _preset(
    preset: str, model_type: str, linear: Collection[str], routed: bool, known: Sequence[str]
) -> tuple[str, ...]:
    if preset not in PRESETS:
        raise ConfigError(
            f"lora.target_modules {preset!r} is no preset: give {', '.join(PRESETS)}, or a list of names such as"
            f" [{', '.join(known)}]"
        )
    if model_type not in ARCHITECTURES:
        raise ConfigError(
            f"lora.target_modules {preset!r}: no presets are known for model_type {model_type}; name some of"
            f" {', '.join(known)}"
        )
    architecture = ARCHITECTURES[model_type]
    if preset == "attention+experts" and not routed:
        raise ConfigError(f"lora.target_modules {preset!r}: this {model_type} model has no routed experts: give all")
    wanted = architecture.attention + (architecture.mlp if preset == "all" else ())
    experts = (EXPERTS,) if routed and preset != "attention" else ()
    return tuple(name for name in wanted if _matches(name, linear)) + experts


def _refusal(missing: Sequence[str], model_type: str, linear: Collection[str], known: Sequence[str]) -> str:
    verb = "match" if len(missing) > 1 else "matches"
    what = ", ".join(map(repr, missing))
    if model_type in ARCHITECTURES and set(missing) & set(QKVO):
        own = [name for name in ARCHITECTURES[model_type].attention if _matches(name, linear)]
        return (
            f"lora.target_modules: {what} {verb} nothing in a {model_type} model, whose attention has"
            f" {', '.join(own)}: name these, or give the preset attention"
        )
    near = [close for name in missing for close in get_close_matches(name, known, n=3, cutoff=0.5)] or known
    return (
        f"lora.target_modules: {what} {verb} nothing in this model; near: {', '.join(dict.fromkeys(near))}"
        f" (all: {', '.join(known)})"
    )
