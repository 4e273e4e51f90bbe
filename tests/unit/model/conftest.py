"""Small models whose router biases are not zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from finseek.model import DeepSeekConfig, DeepSeekV3

YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 1.0, "mscale_all_dim": 0.8}


@pytest.fixture
def make_model() -> Callable[..., DeepSeekV3]:
    """Build a small model; keyword arguments replace config values."""

    def make(seed: int = 0, **overrides: Any) -> DeepSeekV3:
        values = {
            "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16,
            "num_hidden_layers": 3, "num_attention_heads": 4, "n_routed_experts": 8, "n_group": 4, "topk_group": 2,
            "kv_lora_rank": 16, "q_lora_rank": 12, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 12,
            "initializer_range": 0.2, "routed_scaling_factor": 1.5, "rope_scaling": YARN, "eos_token_id": None,
            "pad_token_id": 0,
        }  # fmt: skip
        model = DeepSeekV3(DeepSeekConfig.preset("tiny", **(values | overrides)), seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for router in model.routers().values():
            if router.topk_method == "noaux_tc":
                router.e_score_correction_bias.normal_(0, 0.2, generator=generator)
        return model.eval()

    return make


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(3, 61, (3, 23), generator=torch.Generator().manual_seed(7))
