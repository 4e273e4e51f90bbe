"""The shape of a DeepSeek model, under the names of its Hugging Face `config.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from finseek.core.errors import ConfigError

PRESETS = files("finseek.model") / "presets"

# Keys whose other values would change the numbers in a way that this model does not implement.
ONLY_VALUES: dict[str, tuple[Any, ...]] = {
    "attention_dropout": (0, 0.0, None),
    "hidden_act": ("silu", None),
    "mlp_bias": (False, None),
    "moe_layer_freq": (1, None),
    "pretraining_tp": (1, None),
    "rope_interleave": (True, None),
}
# `config.json` says it in another way, or it follows from other keys.
DERIVED = {
    "model_type",
    "architectures",
    "head_dim",
    "qk_head_dim",
    "num_key_value_heads",
    "rope_parameters",
    "ep_size",
    "hidden_act",
    "torch_dtype",
    "dtype",
}
MODEL_TYPES = {"sigmoid": ("deepseek_v3", "DeepseekV3ForCausalLM"), "softmax": ("deepseek_v2", "DeepseekV2ForCausalLM")}
TOPK_METHODS = {"sigmoid": ("noaux_tc",), "softmax": ("greedy", "group_limited_greedy")}
# The least that a whole number, and what bounds another number, may be.
LEAST = {
    "vocab_size": 1, "hidden_size": 1, "intermediate_size": 1, "moe_intermediate_size": 1, "num_hidden_layers": 1,
    "num_attention_heads": 1, "n_shared_experts": 0, "n_routed_experts": 0, "kv_lora_rank": 1, "qk_rope_head_dim": 2,
    "v_head_dim": 1, "qk_nope_head_dim": 1, "first_k_dense_replace": 0, "num_nextn_predict_layers": 0,
    "max_position_embeddings": 1,
}  # fmt: skip
POSITIVE = ("rms_norm_eps", "rope_theta", "routed_scaling_factor")
NOT_NEGATIVE = ("aux_loss_alpha", "mtp_loss_weight", "initializer_range")
SWITCHES = ("norm_topk_prob", "attention_bias", "tie_word_embeddings")


@dataclass(frozen=True)
class YarnScaling:
    """YaRN (arXiv 2309.00071): a context of `original_max_position_embeddings` stretched `factor` times.

    `mscale` and `mscale_all_dim` are DeepSeek's: the square of the second scales the softmax, their ratio the rotation.
    """

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 1.0
    type: str = "yarn"


@dataclass(frozen=True)
class DeepSeekConfig:
    """Every number that defines a model; the defaults are DeepSeek-V3's (arXiv 2412.19437, section 4.2).

    Raises:
        ConfigError: a combination that no model can have.
    """

    vocab_size: int = 129280
    hidden_size: int = 7168
    intermediate_size: int = 18432
    moe_intermediate_size: int = 2048
    num_hidden_layers: int = 61
    num_attention_heads: int = 128
    n_shared_experts: int = 1
    n_routed_experts: int = 256
    routed_scaling_factor: float = 2.5
    kv_lora_rank: int = 512
    q_lora_rank: int | None = 1536
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    qk_nope_head_dim: int = 128
    n_group: int = 8
    topk_group: int = 4
    num_experts_per_tok: int = 8
    first_k_dense_replace: int = 3
    norm_topk_prob: bool = True
    scoring_func: str = "sigmoid"
    topk_method: str = "noaux_tc"
    aux_loss_alpha: float = 0.0
    num_nextn_predict_layers: int = 0
    mtp_loss_weight: float = 0.3
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: YarnScaling | None = None
    max_position_embeddings: int = 4096
    attention_bias: bool = False
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 1
    pad_token_id: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)  # other keys of config.json, kept as they are

    def __post_init__(self) -> None:
        if self.rope_scaling is not None and not isinstance(self.rope_scaling, YarnScaling):
            _rule(
                isinstance(self.rope_scaling, Mapping), "rope_scaling", self.rope_scaling, "must be a mapping or null"
            )
            object.__setattr__(self, "rope_scaling", _yarn(self.rope_scaling))
        _check_numbers(self)
        _rule(self.qk_rope_head_dim % 2 == 0, "qk_rope_head_dim", self.qk_rope_head_dim, "must be even (rotary pairs)")
        _rule(self.scoring_func in TOPK_METHODS, "scoring_func", self.scoring_func, f"must be one of {[*TOPK_METHODS]}")
        methods = TOPK_METHODS[self.scoring_func]
        _rule(self.topk_method in methods, "topk_method", self.topk_method, f"must be one of {methods} for this router")
        if self.is_moe:
            experts, groups, chosen = self.n_routed_experts, self.n_group, self.num_experts_per_tok
            _rule(groups > 0 and experts % groups == 0, "n_group", groups, f"must divide n_routed_experts {experts}")
            _rule(1 <= self.topk_group <= groups, "topk_group", self.topk_group, f"must be in 1..n_group ({groups})")
            reach = experts // groups * self.topk_group
            _rule(1 <= chosen <= reach, "num_experts_per_tok", chosen, f"must be in 1..{reach}, the experts in reach")

    @property
    def is_moe(self) -> bool:
        """Whether any layer has routed experts."""
        return self.n_routed_experts > 0 and (
            self.first_k_dense_replace < self.num_hidden_layers or self.num_nextn_predict_layers > 0
        )

    @property
    def qk_head_dim(self) -> int:
        """Width of a query and a key of one head: the part without and the part with rotation."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def model_type(self) -> str:
        """Name of the architecture in a Hugging Face config."""
        return MODEL_TYPES[self.scoring_func][0]

    def is_moe_layer(self, layer: int) -> bool:
        """Whether layer `layer` (MTP layers continue the count) mixes experts."""
        return self.n_routed_experts > 0 and layer >= self.first_k_dense_replace

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> DeepSeekConfig:
        """Read a Hugging Face config of DeepSeek-V2(-Lite), V3, V3.1, R1, Moonlight or of this model.

        Raises:
            ConfigError: the model type or a value is not implemented.
        """
        raw = dict(raw)
        types = [name for name, _ in MODEL_TYPES.values()]
        model_type = raw.get("model_type", types[0])
        _rule(model_type in types, "model_type", model_type, f"must be one of {types}")
        for key, allowed in ONLY_VALUES.items():
            _rule(raw.get(key) in allowed, key, raw.get(key), f"must be {allowed[0]!r}: no other value is implemented")
        heads, kv_heads = raw.get("num_attention_heads"), raw.get("num_key_value_heads")
        _rule(kv_heads in (None, heads), "num_key_value_heads", kv_heads, f"must equal num_attention_heads {heads}")
        rope = dict(raw.get("rope_parameters") or {})  # where transformers 5 keeps both rotary keys
        raw["rope_theta"] = rope.pop("rope_theta", raw.get("rope_theta", 10000.0))
        raw["rope_scaling"] = raw.get("rope_scaling") or rope or None
        raw.setdefault("num_nextn_predict_layers", raw.pop("num_mtp_layers", 0))
        if model_type == "deepseek_v2":  # the keys that its config leaves to its own code
            raw = {"scoring_func": "softmax", "topk_method": "greedy", **raw}
        known = {f.name for f in fields(cls)} - {"extra"}
        taken = {key: value for key, value in raw.items() if key in known and value is not None}
        taken |= {key: raw[key] for key in ("q_lora_rank", "eos_token_id", "bos_token_id") if key in raw}
        for key in ("n_shared_experts", "n_routed_experts"):  # null says none
            taken.setdefault(key, 0 if key in raw else getattr(cls, key))
        extra = {key: value for key, value in raw.items() if key not in known | DERIVED}
        return cls(**taken, extra=extra)

    @classmethod
    def from_json(cls, path: str | Path) -> DeepSeekConfig:
        """Read a `config.json`, or the one in a checkpoint folder."""
        path = Path(path)
        path = path / "config.json" if path.is_dir() else path
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; a checkpoint folder holds a config.json")
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as broken:
            raise ConfigError(f"{path}: is not JSON ({broken})") from broken
        if not isinstance(raw, dict):
            raise ConfigError(f"{path}: holds a {type(raw).__name__}; a model's config is a mapping of names to values")
        return cls.from_dict(raw)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> DeepSeekConfig:
        """A named config (`presets/NAME.json`) with some values replaced."""
        names = sorted(entry.name.removesuffix(".json") for entry in PRESETS.iterdir() if entry.name.endswith(".json"))
        _rule(name in names, "preset", name, f"must be one of {', '.join(names)}")
        config = cls.from_dict(json.loads((PRESETS / f"{name}.json").read_text(encoding="utf-8")))
        return config.with_values(**overrides)

    def with_values(self, **overrides: Any) -> DeepSeekConfig:
        """The same with some values replaced."""
        unknown = sorted(overrides.keys() - {f.name for f in fields(self)})
        _rule(not unknown, "model overrides", unknown, "are no fields of the config")
        return replace(self, **overrides)

    def to_json_dict(self) -> dict[str, Any]:
        """The `config.json` that transformers and DeepSeek's own code read."""
        own = asdict(self)
        extra = own.pop("extra")
        if self.scoring_func == "softmax":
            extra = {"moe_layer_freq": 1, **extra}
        model_type, architecture = MODEL_TYPES[self.scoring_func]
        written = {
            "architectures": [architecture],
            "model_type": model_type,
            **extra,
            **own,
            "num_key_value_heads": self.num_attention_heads,
            "hidden_act": "silu",
        }
        return dict(sorted(written.items()))


def _check_numbers(config: DeepSeekConfig) -> None:
    for name, least in LEAST.items():
        value = getattr(config, name)
        _rule(type(value) is int and value >= least, name, value, f"must be a whole number of at least {least}")
    rank = config.q_lora_rank
    _rule(rank is None or (type(rank) is int and rank > 0), "q_lora_rank", rank, "must be positive, or null for none")
    for name in (*POSITIVE, *NOT_NEGATIVE):
        value = getattr(config, name)
        is_number = type(value) in (int, float) and math.isfinite(value)
        positive = name in POSITIVE
        bound = "must be a number above 0" if positive else "must be a number of at least 0"
        _rule(is_number and (value > 0 if positive else value >= 0), name, value, bound)
    for name in SWITCHES:
        _rule(isinstance(getattr(config, name), bool), name, getattr(config, name), "must be true or false")


def _yarn(raw: Mapping[str, Any]) -> YarnScaling | None:
    kind = raw.get("type", raw.get("rope_type", "default"))
    if kind == "default":
        return None
    _rule(kind == "yarn", "rope_scaling.type", kind, "must be 'yarn' or 'default'")
    known = {f.name for f in fields(YarnScaling)} - {"type"}
    unknown = sorted(raw.keys() - known - {"type", "rope_type"})
    _rule(not unknown, "rope_scaling", unknown, f"has keys that are not implemented; known are {sorted(known)}")
    for key in ("factor", "original_max_position_embeddings"):
        value: Any = raw.get(key)
        _rule(type(value) in (int, float) and value > 0, f"rope_scaling.{key}", value, "must be a number above 0")
    # Absent mscales mean the plain YaRN temperature on the rotation and none on the softmax.
    return YarnScaling(**{"mscale": 0.0, "mscale_all_dim": 0.0, **{k: raw[k] for k in known & raw.keys()}})


def _rule(holds: bool, key: str, value: Any, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{key}: {value!r} {rule}")
