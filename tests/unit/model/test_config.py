"""Configs: presets, foreign files, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finseek.core.errors import ConfigError
from finseek.model import DeepSeekConfig
from finseek.model.config import PRESETS, YarnScaling
from finseek.model.flops import flops_per_token, latent_cache_bytes, parameter_counts
from finseek.model.rope import rotation_scale, softmax_scale

NAMES = sorted(entry.name.removesuffix(".json") for entry in PRESETS.iterdir() if entry.name.endswith(".json"))


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_survives_the_way_to_json_and_back(name: str) -> None:
    config = DeepSeekConfig.preset(name)
    assert DeepSeekConfig.from_dict(json.loads(json.dumps(config.to_json_dict()))) == config


@pytest.mark.parametrize("name", NAMES)
def test_counts_equal_those_of_the_meta_device(name: str) -> None:
    import torch

    from finseek.model import DeepSeekV3

    config = DeepSeekConfig.preset(name)
    with torch.device("meta"):
        model = DeepSeekV3(config)
    counts = parameter_counts(config)
    assert counts.total + counts.mtp == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("deepseek-v3", 671, 37),
        ("deepseek-v3.1", 671, 37),
        ("deepseek-r1", 671, 37),
        ("deepseek-v2-lite", 15.7, 2.5),
        ("moonlight-16b-a3b", 16.0, 2.6),
    ],
)
def test_the_published_sizes(name: str, total: float, active: float) -> None:
    counts = parameter_counts(DeepSeekConfig.preset(name))
    digits = 0 if total > 100 else 1
    assert (round(counts.total / 1e9, digits), round(counts.active / 1e9, digits)) == (total, active)


def test_flops_and_cache_of_deepseek_v3() -> None:
    config = DeepSeekConfig.preset("deepseek-v3")
    forward = 2 * 36_625_603_584 + 2 * 61 * 128 * (192 + 128) * 4097 / 2
    assert flops_per_token(config, 4096, training=False) == forward
    assert flops_per_token(config, 4096) == 3 * forward
    assert latent_cache_bytes(config, 10) == 10 * 61 * 576 * 2


def test_small_presets_have_the_promised_shape() -> None:
    tiny, base, distributed = (DeepSeekConfig.preset(name) for name in ("tiny", "base", "distributed"))
    assert (tiny.hidden_size, tiny.num_hidden_layers, tiny.n_routed_experts, tiny.num_experts_per_tok) == (128, 4, 8, 2)
    assert (base.hidden_size, base.num_hidden_layers, base.n_routed_experts, base.num_experts_per_tok) == (
        768,
        12,
        8,
        2,
    )
    shape = (distributed.hidden_size, distributed.num_hidden_layers, distributed.n_routed_experts)
    assert shape == (1024, 24, 16)
    assert parameter_counts(tiny).total < 1.2e6


def test_the_config_of_the_published_checkpoint_is_read() -> None:
    published = DeepSeekConfig.preset("deepseek-v3").to_json_dict() | {
        "ep_size": 1, "hidden_act": "silu", "moe_layer_freq": 1, "num_key_value_heads": 128, "pretraining_tp": 1,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}, "seq_aux": True,
        "attention_dropout": 0.0, "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"},
    }  # fmt: skip
    config = DeepSeekConfig.from_dict(published)
    assert config == DeepSeekConfig.preset("deepseek-v3")
    assert config.to_json_dict()["quantization_config"]["quant_method"] == "fp8"
    assert config.to_json_dict()["model_type"] == "deepseek_v3"


def test_rotary_keys_of_transformers_5_are_read() -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 50000.0, "factor": 4.0, "original_max_position_embeddings": 64}
    raw = DeepSeekConfig.preset("tiny").to_json_dict()
    del raw["rope_theta"], raw["rope_scaling"]
    config = DeepSeekConfig.from_dict(raw | {"rope_parameters": yarn})
    assert config.rope_theta == 50000.0
    assert config.rope_scaling == YarnScaling(4.0, 64, mscale=0.0, mscale_all_dim=0.0)
    assert softmax_scale(config) == config.qk_head_dim**-0.5
    assert rotation_scale(config.rope_scaling) > 1


def test_v2_is_written_as_v2() -> None:
    raw = DeepSeekConfig.preset("deepseek-v2-lite").to_json_dict()
    assert (raw["model_type"], raw["architectures"]) == ("deepseek_v2", ["DeepseekV2ForCausalLM"])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"n_group": 3}, "n_group: 3 must divide n_routed_experts 8"),
        ({"n_group": 4, "topk_group": 5}, "topk_group: 5 must be in 1..n_group (4)"),
        ({"n_group": 4, "topk_group": 1, "num_experts_per_tok": 3}, "num_experts_per_tok: 3 must be in 1..2"),
        ({"qk_rope_head_dim": 7}, "qk_rope_head_dim: 7 must be even"),
        ({"scoring_func": "relu"}, "scoring_func: 'relu' must be one of"),
        ({"topk_method": "greedy"}, "topk_method: 'greedy' must be one of ('noaux_tc',)"),
        ({"hidden": 3}, "model overrides: ['hidden'] are no fields"),
        ({"vocab_size": 0}, "vocab_size: 0 must be a whole number of at least 1"),
        ({"num_attention_heads": 2.5}, "num_attention_heads: 2.5 must be a whole number"),
        ({"num_nextn_predict_layers": -1}, "num_nextn_predict_layers: -1 must be a whole number of at least 0"),
        ({"q_lora_rank": 0}, "q_lora_rank: 0 must be positive, or null"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps: -1.0 must be a number above 0"),
        ({"routed_scaling_factor": float("nan")}, "routed_scaling_factor: nan must be a number above 0"),
        ({"aux_loss_alpha": -1.0}, "aux_loss_alpha: -1.0 must be a number of at least 0"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: 'yes' must be true or false"),
    ],
)
def test_impossible_values_are_refused(overrides: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        DeepSeekConfig.preset("tiny", **overrides)
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "llama"),
        ("hidden_act", "gelu"),
        ("attention_dropout", 0.1),
        ("rope_interleave", False),
        ("num_key_value_heads", 2),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_scaling", "yarn"),
        ("rope_scaling", {"type": "yarn", "factor": 2.0}),
        ("rope_scaling", {"type": "yarn", "factor": 0, "original_max_position_embeddings": 8}),
        ("hidden_size", "128"),
        ("rope_scaling", {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8, "finetuned": True}),
    ],
)
def test_values_that_would_change_the_numbers_are_refused(key: str, value: object) -> None:
    raw = DeepSeekConfig.preset("tiny").to_json_dict() | {key: value}
    with pytest.raises(ConfigError, match=key.split("_")[0]):
        DeepSeekConfig.from_dict(raw)


@pytest.mark.parametrize(("text", "says"), [("{bad", "is not JSON"), ("[1]", "holds a list")])
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=says):
        DeepSeekConfig.from_json(tmp_path)


def test_a_missing_file_and_an_unknown_preset_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        DeepSeekConfig.from_json(tmp_path)
    with pytest.raises(ConfigError, match="must be one of base"):
        DeepSeekConfig.preset("huge")
