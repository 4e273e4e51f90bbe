"""DeepSeek-V3 against a float64 reference in loops over tokens, and mutations that each must break the agreement."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

import finseek.model.attention as attention
import finseek.model.deepseek as deepseek
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.model.router import Router

TOLERANCE = 1e-10
YARN = {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "mscale": 1.0, "mscale_all_dim": 0.7,
        "beta_fast": 4.0, "beta_slow": 1.0}  # fmt: skip


def make(q_lora_rank: int | None = 6, **overrides: object) -> DeepSeekV3:
    values: dict[str, object] = {
        "vocab_size": 31, "hidden_size": 12, "intermediate_size": 10, "moe_intermediate_size": 5,
        "num_hidden_layers": 3, "num_attention_heads": 3, "n_routed_experts": 8, "num_experts_per_tok": 3,
        "n_group": 4, "topk_group": 2, "kv_lora_rank": 7, "q_lora_rank": q_lora_rank, "qk_nope_head_dim": 5,
        "qk_rope_head_dim": 4, "v_head_dim": 3,
        "first_k_dense_replace": 1, "routed_scaling_factor": 2.5, "initializer_range": 0.5, "rope_scaling": YARN,
        "n_shared_experts": 2,
    }  # fmt: skip
    model = DeepSeekV3(DeepSeekConfig.preset("tiny", **(values | overrides)), seed=3).double().eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for router in model.routers().values():
            router.e_score_correction_bias.copy_(torch.randn(8, generator=generator, dtype=torch.float64) * 0.3)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def norm(x: np.ndarray, gain: np.ndarray, eps: float) -> np.ndarray:
    return x / math.sqrt(sum(x * x) / len(x) + eps) * gain


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def yarn_angles(c: DeepSeekConfig, position: int) -> tuple[list[float], float]:
    """Angle of each pair and length of the phasor, straight from the YaRN paper."""
    r, s = c.qk_rope_head_dim, c.rope_scaling
    assert s is not None

    def turning(times: float) -> float:
        return r * math.log(s.original_max_position_embeddings / (times * 2 * math.pi)) / (2 * math.log(c.rope_theta))

    low, high = max(math.floor(turning(s.beta_fast)), 0), min(math.ceil(turning(s.beta_slow)), r - 1)
    angles = []
    for i in range(r // 2):
        wavelength_part = 1 / c.rope_theta ** (2 * i / r)
        ramp = min(max((i - low) / (high - low if high > low else 0.001), 0), 1)
        angles.append(position * (wavelength_part / s.factor * ramp + wavelength_part * (1 - ramp)))
    m = lambda scale: 0.1 * scale * math.log(s.factor) + 1  # noqa: E731
    return angles, m(s.mscale) / m(s.mscale_all_dim)


def turn(x: np.ndarray, c: DeepSeekConfig, position: int) -> np.ndarray:
    angles, length = yarn_angles(c, position)
    out = x.copy()
    for i, a in enumerate(angles):
        out[2 * i] = length * (x[2 * i] * math.cos(a) - x[2 * i + 1] * math.sin(a))
        out[2 * i + 1] = length * (x[2 * i] * math.sin(a) + x[2 * i + 1] * math.cos(a))
    return out


def mix(w: Callable[[str], np.ndarray], x: np.ndarray, c: DeepSeekConfig) -> np.ndarray:
    """The mixture of one token x (D,)."""
    s = 1 / (1 + np.exp(-(w("gate.weight") @ x)))
    choice = s + w("gate.e_score_correction_bias")
    size = c.n_routed_experts // c.n_group
    group_score = [sum(sorted(choice[g * size : (g + 1) * size])[-2:]) for g in range(c.n_group)]
    groups = sorted(range(c.n_group), key=lambda g: -group_score[g])[: c.topk_group]
    allowed = [e for e in range(c.n_routed_experts) if e // size in groups]
    chosen = sorted(allowed, key=lambda e: -choice[e])[: c.num_experts_per_tok]
    y = np.zeros_like(x)
    for e in chosen:
        gate, up = np.split(w("experts.gate_up_proj")[e], 2)
        y += s[e] / sum(s[chosen]) * c.routed_scaling_factor * (w("experts.down_proj")[e] @ (silu(gate @ x) * (up @ x)))
    shared = w("shared_experts.down_proj.weight") @ (
        silu(w("shared_experts.gate_proj.weight") @ x) * (w("shared_experts.up_proj.weight") @ x)
    )
    return y + shared


def reference(model: DeepSeekV3, ids: list[int]) -> np.ndarray:
    """Logits (T, V), one token and one head at a time."""
    c = model.config
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    n, r, v, R, H = c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim, c.kv_lora_rank, c.num_attention_heads
    s = c.rope_scaling
    assert s is not None
    scale = (0.1 * s.mscale_all_dim * math.log(s.factor) + 1) ** 2 / math.sqrt(n + r)
    hs = [weights["model.embed_tokens.weight"][i].copy() for i in ids]
    for layer in range(c.num_hidden_layers):
        w = lambda name, at=f"model.layers.{layer}.": weights[at + name]  # noqa: E731
        q, k, values = [], [], []
        for t, h in enumerate(hs):
            x = norm(h, w("input_layernorm.weight"), c.rms_norm_eps)
            if c.q_lora_rank is None:
                query = w("self_attn.q_proj.weight") @ x
            else:
                low = norm(w("self_attn.q_a_proj.weight") @ x, w("self_attn.q_a_layernorm.weight"), 1e-6)
                query = w("self_attn.q_b_proj.weight") @ low
            latent = w("self_attn.kv_a_proj_with_mqa.weight") @ x
            key_rope = turn(latent[R:], c, t)
            up = w("self_attn.kv_b_proj.weight") @ norm(latent[:R], w("self_attn.kv_a_layernorm.weight"), 1e-6)
            heads = [query[i * (n + r) : (i + 1) * (n + r)] for i in range(H)]
            q.append([np.concatenate([one[:n], turn(one[n:], c, t)]) for one in heads])
            per_head = [up[i * (n + v) : (i + 1) * (n + v)] for i in range(H)]
            k.append([np.concatenate([one[:n], key_rope]) for one in per_head])
            values.append([one[n:] for one in per_head])
        for t in range(len(ids)):
            out = []
            for i in range(H):
                scores = np.array([scale * (q[t][i] @ k[u][i]) for u in range(t + 1)])
                p = np.exp(scores - scores.max())
                out.append(sum(p[u] / p.sum() * values[u][i] for u in range(t + 1)))
            h = hs[t] + w("self_attn.o_proj.weight") @ np.concatenate(out)
            x = norm(h, w("post_attention_layernorm.weight"), c.rms_norm_eps)
            if layer < c.first_k_dense_replace:
                gate, up = w("mlp.gate_proj.weight") @ x, w("mlp.up_proj.weight") @ x
                hs[t] = h + w("mlp.down_proj.weight") @ (silu(gate) * up)
            else:
                hs[t] = h + mix(lambda name, w=w: w("mlp." + name), x, c)
    return np.array([weights["lm_head.weight"] @ norm(h, weights["model.norm.weight"], c.rms_norm_eps) for h in hs])


IDS = [3, 17, 3, 30, 8, 21, 0, 9, 11]


def difference(model: DeepSeekV3) -> float:
    with torch.no_grad():
        ours = model(torch.tensor([IDS])).logits[0].numpy()
    expected = reference(model, IDS)
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("q_lora_rank", [None, 6])
def test_equals_the_reference_in_float64(q_lora_rank: int | None) -> None:
    assert difference(make(q_lora_rank)) < TOLERANCE


def test_loss_is_the_mean_negative_log_probability_of_the_next_token() -> None:
    model = make()
    logits = reference(model, IDS)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -np.mean([log_p[t, IDS[t + 1]] for t in range(len(IDS) - 1)])
    ids = torch.tensor([IDS])
    assert float(model(ids, labels=ids).loss.detach()) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("ahead", [0, 2])
def test_labels_shifted_by_one_break_the_agreement(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right = deepseek.next_token_loss
    ids, model = torch.tensor([IDS]), make()
    expected = float(model(ids, labels=ids).loss.detach())
    monkeypatch.setattr(deepseek, "next_token_loss", lambda h, head, targets, _, z: right(h, head, targets, ahead, z))
    assert abs(float(model(ids, labels=ids).loss.detach()) - expected) > 1e-2


def zero_bias(self: Router, scores: torch.Tensor, choose: Callable[..., torch.Tensor] = Router.choose) -> torch.Tensor:
    kept, self.e_score_correction_bias = self.e_score_correction_bias, torch.zeros_like(self.e_score_correction_bias)
    chosen = choose(self, scores)
    self.e_score_correction_bias = kept
    return chosen


def no_group_limit(self: Router, scores: torch.Tensor) -> torch.Tensor:
    return (scores + self.e_score_correction_bias).topk(self.K, dim=-1).indices


def swapped_halves(x: torch.Tensor, phasor: torch.Tensor) -> torch.Tensor:
    """Pairs (x_i, x_{i + r/2}) as in Llama, where DeepSeek's are (x_2i, x_{2i+1})."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * phasor.real - b * phasor.imag, a * phasor.imag + b * phasor.real], dim=-1)


@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        (Router, "choose", zero_bias),
        (Router, "choose", no_group_limit),
        (attention, "rotate", swapped_halves),
        (attention, "softmax_scale", lambda config: config.qk_head_dim**-0.5),
    ],
    ids=["bias zeroed", "group limit off", "rotary halves swapped", "scale without mscale"],
)
def test_a_mutation_breaks_the_agreement(
    owner: object, name: str, mutant: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, mutant)
    assert difference(make()) > 1e-3
