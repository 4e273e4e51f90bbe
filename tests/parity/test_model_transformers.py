"""DeepSeek-V3 against `transformers` on random configs: logits, every gradient, greedy tokens, files both ways."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.model.state_dict import disk_tensors

TOLERANCE = 1e-5
YARN = {"type": "yarn", "original_max_position_embeddings": 16, "beta_fast": 32.0, "beta_slow": 1.0}


def random_config(seed: int) -> DeepSeekConfig:
    """A config whose traits cycle with the seed, so that twelve seeds cover every one and its absence."""
    rng = random.Random(seed)
    groups = rng.choice([1, 2, 4]) if seed % 3 else 4
    scale = {**YARN, "factor": rng.choice([2.0, 4.0, 40.0]), "mscale": 1.0, "mscale_all_dim": rng.choice([1.0, 0.5])}
    return DeepSeekConfig.preset(
        "tiny",
        vocab_size=97,
        hidden_size=rng.choice([24, 32, 48]),
        intermediate_size=rng.choice([40, 64]),
        moe_intermediate_size=rng.choice([12, 16, 24]),
        num_hidden_layers=3,
        num_attention_heads=rng.choice([2, 3, 4]),
        n_routed_experts=8,
        num_experts_per_tok=rng.choice([2, 3]),
        n_group=groups,
        topk_group=max(1, groups // 2) if groups < 4 else 2,
        n_shared_experts=seed % 3,
        q_lora_rank=None if seed % 2 else rng.choice([8, 20]),
        kv_lora_rank=rng.choice([8, 16]),
        qk_nope_head_dim=rng.choice([8, 12]),
        qk_rope_head_dim=rng.choice([4, 8]),
        v_head_dim=rng.choice([8, 16]),
        first_k_dense_replace=rng.choice([0, 1]),
        routed_scaling_factor=rng.choice([1.0, 2.5]),
        norm_topk_prob=seed % 4 != 1,
        rope_scaling=scale if (seed // 2) % 2 else None,
        attention_bias=seed % 5 == 2,
        tie_word_embeddings=seed % 6 == 5,
        initializer_range=0.15,
        aux_loss_alpha=0.0,
        max_position_embeddings=64,
        pad_token_id=None,
        eos_token_id=None,
    )


def hugging_face(folder: Path, **kwargs: Any) -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **kwargs)


def pair(config: DeepSeekConfig, folder: Path, seed: int) -> tuple[DeepSeekV3, Any]:
    model = DeepSeekV3(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for router in model.routers().values():
        if router.topk_method == "noaux_tc":
            router.e_score_correction_bias.normal_(0, 0.2, generator=generator)
    model.save_pretrained(folder)
    return model, hugging_face(folder)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-12))


@pytest.mark.parametrize("seed", range(12))
def test_logits_gradients_and_greedy_tokens_are_equal(seed: int, tmp_path: Path) -> None:
    config = random_config(seed)
    model, theirs = pair(config, tmp_path, seed)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, config.vocab_size, (3, 21), generator=generator)
    attention_mask = torch.ones_like(ids)
    if seed % 2:
        attention_mask[0, :6] = 0
        attention_mask[2, :11] = 0
    predicted_from_padding = torch.nn.functional.pad(attention_mask, (1, 0))[:, :-1] == 0
    labels = ids.masked_fill(predicted_from_padding, -100)
    model.train()
    theirs.train()
    ours_out = model(ids, attention_mask, labels)
    theirs_out = theirs(ids, attention_mask=attention_mask, labels=labels)
    real = attention_mask[..., None]
    assert relative(ours_out.logits.detach() * real, theirs_out.logits.detach() * real) < TOLERANCE
    assert float(ours_out.loss.detach()) == pytest.approx(float(theirs_out.loss.detach()), rel=TOLERANCE)

    ours_out.loss.backward()
    theirs_out.loss.backward()
    expected = dict(theirs.named_parameters())
    ours_grad = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert {n for n, p in expected.items() if p.numel()} == ours_grad.keys()
    for name, gradient in ours_grad.items():
        assert gradient is not None, name
        assert relative(gradient, expected[name].grad) < TOLERANCE, name

    model.eval()
    theirs.eval()
    new = model.generate(ids, attention_mask, max_new_tokens=12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        greedy = theirs.generate(
            ids, attention_mask=attention_mask, max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=None
        )
    assert torch.equal(new, greedy)


@pytest.mark.parametrize(
    "overrides",
    [{}, {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.7}],
    ids=["greedy", "group_limited_greedy"],
)
def test_the_softmax_router_of_deepseek_v2(overrides: dict[str, Any], tmp_path: Path) -> None:
    config = DeepSeekConfig.preset(
        "deepseek-v2-lite", vocab_size=89, hidden_size=32, intermediate_size=48, moe_intermediate_size=16,
        num_hidden_layers=3, num_attention_heads=2, n_routed_experts=8, num_experts_per_tok=3, kv_lora_rank=16,
        qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8, initializer_range=0.15, aux_loss_alpha=0.0,
        bos_token_id=0, eos_token_id=1, **overrides,
    )  # fmt: skip
    model, theirs = pair(config, tmp_path, 1)
    assert type(theirs).__name__ == "DeepseekV2ForCausalLM"
    ids = torch.randint(3, 89, (2, 19), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert relative(model.eval()(ids).logits, theirs.eval()(ids).logits) < TOLERANCE


def test_their_file_loads_here_and_saves_again_bit_for_bit(tmp_path: Path) -> None:
    model, theirs = pair(random_config(4), tmp_path / "ours", 4)
    theirs.save_pretrained(tmp_path / "theirs")
    again = DeepSeekV3.from_pretrained(tmp_path / "theirs")
    ours, returned = dict(disk_tensors(model)), dict(disk_tensors(again))
    assert ours.keys() == returned.keys()
    assert all(torch.equal(ours[name], returned[name]) for name in ours)


def test_a_checkpoint_with_mtp_loads_in_transformers(tmp_path: Path) -> None:
    from dataclasses import replace

    model, theirs = pair(replace(random_config(8), num_nextn_predict_layers=1), tmp_path, 8)
    ids = torch.randint(3, 97, (2, 10), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert relative(model.eval()(ids).logits, theirs.eval()(ids).logits) < TOLERANCE


def test_mtp_equals_their_speculator(tmp_path: Path) -> None:
    """`transformers` reads MTP modules for drafting only; on the same weights both give the same logits."""
    from dataclasses import replace

    from transformers.modeling_layers import MtpModel

    from finseek.model.context import context_of

    # Theirs always mix experts in the module, and number positions from the token ahead: rotation is relative.
    model, theirs = pair(replace(random_config(8), num_nextn_predict_layers=1), tmp_path, 8)
    module = MtpModel(theirs, 1).eval()
    renamed = {"shared_head.norm": "post_norm", "enorm": "enorm", "hnorm": "hnorm", "eh_proj": "eh_proj"}
    state = {}
    for name, tensor in model.eval().model.layers[3].state_dict().items():
        owner = next((theirs_name for ours, theirs_name in renamed.items() if name.startswith(ours)), None)
        state[f"layers.0.{owner}.weight" if owner else f"layers.0.mtp_block.{name}"] = tensor
    left = module.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert all(key.startswith(("embed_tokens", "shared_head", "rotary")) for key in left.missing_keys)

    ids = torch.randint(3, 97, (2, 14), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        h, _ = model.model(ids, context_of(ids))
        (block,) = model.mtp_blocks()
        ours, _ = block(h[:, :-1], model.model.embed_tokens(ids[:, 1:]), context_of(ids).ahead(1))
        positions = torch.arange(1, 14)[None].expand(2, -1)
        _, logits, _ = module(ids[:, 1:], h[:, :-1], None, positions, None)
    assert relative(model.lm_head(ours[:, -1:]).detach(), logits) < TOLERANCE
