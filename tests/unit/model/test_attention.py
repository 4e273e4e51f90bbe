"""Latent attention: both forms, the cache, causality, padding and packing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from finseek.model import DeepSeekV3
from finseek.model import attention as attention_module
from finseek.model import cache as cache_module
from finseek.model.blockwise import BLOCK, KEEP, BlockwiseAttention
from finseek.model.cache import Cache, advance
from finseek.model.context import Context, context_of
from finseek.model.graph import FixedStep
from finseek.model.rope import phasors

Make = Callable[..., DeepSeekV3]


def naive(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril() if mask is None else mask
    return (q @ k.mT * scale).masked_fill(~seen, float("-inf")).softmax(-1) @ v


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("keep", [KEEP, 0], ids=["weights kept", "weights made again"])
@pytest.mark.parametrize("T", [5, BLOCK, 2 * BLOCK + 3])
def test_blockwise_equals_naive_attention_and_its_gradients(
    T: int, keep: int, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finseek.model.blockwise.KEEP", keep)
    generator = torch.Generator().manual_seed(T)
    shapes = [(2, 3, T, 6), (2, 3, T, 6), (2, 3, T, 4)]
    qkv = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    mask = None
    if masked:
        mask = context_of(torch.zeros(2, T), segment_ids=torch.tensor([[0] * 2 + [1] * (T - 2), [0] * T])).mask
    gradient = torch.randn(2, 3, T, 4, generator=generator, dtype=torch.float64)
    ours = BlockwiseAttention.apply(*qkv, mask, 0.3)
    expected = naive(*qkv, mask, 0.3)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(ours, qkv, gradient), torch.autograd.grad(expected, qkv, gradient), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("q_lora_rank", [None, 12])
def test_absorbed_equals_expanded(make_model: Make, ids: Tensor, q_lora_rank: int | None) -> None:
    model = make_model(q_lora_rank=q_lora_rank)
    attention = model.model.layers[0].self_attn
    x = torch.randn(3, 23, 32, generator=torch.Generator().manual_seed(0))
    phasor = phasors(model.config, torch.arange(23)[None], x.dtype)
    q_nope, q_rope = attention.queries(x, phasor)
    latents = attention.latents(x, phasor)
    causal = torch.ones(1, 1, 23, 23, dtype=torch.bool).tril()
    expanded = attention.expanded(q_nope, q_rope, latents, None)
    absorbed = attention.absorbed(q_nope, q_rope, latents, causal)
    assert (expanded - absorbed).abs().max() < 1e-5 * expanded.abs().max()


@pytest.mark.parametrize("v_head_dim", [8, 12, 16], ids=["v narrower than q", "as wide", "wider"])
def test_prompts_and_training_attend_alike(make_model: Make, ids: Tensor, v_head_dim: int) -> None:
    model = make_model(v_head_dim=v_head_dim)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    for arguments in ((ids,), (ids, mask)):
        blockwise = model(*arguments).logits.detach()
        with torch.no_grad():
            torch.testing.assert_close(model(*arguments).logits, blockwise, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pieces", [[1] * 23, [9, 1, 1, 5, 7]], ids=["one by one", "in pieces"])
def test_cached_decoding_equals_the_full_forward_at_every_position(
    make_model: Make, ids: Tensor, pieces: list[int]
) -> None:
    model = make_model()
    with torch.no_grad():
        full = model(ids).logits
        cache, start, parts = Cache.empty(model, 3, 23), 0, []
        for piece in pieces:
            tokens = ids[:, start : start + piece]
            h = advance(model, cache, tokens)
            parts.append(model.lm_head(h))
            start += piece
    torch.testing.assert_close(torch.cat(parts, dim=1), full, rtol=0, atol=1e-5)


@pytest.mark.parametrize("together", [23, 46, 1000])
def test_a_prompt_may_run_a_few_rows_at_a_time(
    make_model: Make, ids: Tensor, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    padding = torch.zeros(3, 23, dtype=torch.bool)
    padding[2, :5] = True
    with torch.no_grad():
        full = model(ids, ~padding).logits
        monkeypatch.setitem(cache_module.TOGETHER, "cpu", together)
        cache = Cache.empty(model, 3, 30, padding)
        torch.testing.assert_close(model.lm_head(advance(model, cache, ids)), full, rtol=0, atol=1e-5)
    assert cache.length == 23


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("pieces", [[23], [9, 14]])
def test_the_last_token_alone_is_the_last_of_all(
    make_model: Make, ids: Tensor, pieces: list[int], padded: bool
) -> None:
    model = make_model()
    padding = (torch.arange(23) < torch.tensor([[0], [4], [9]])) if padded else None
    with torch.no_grad():
        whole, brief = (Cache.empty(model, 3, 23, padding) for _ in range(2))
        for piece in ids.split(pieces, dim=1):
            h = advance(model, brief, piece, last=True)
            assert h.shape[1] == 1
            torch.testing.assert_close(h, advance(model, whole, piece)[:, -1:], rtol=0, atol=1e-5)
    torch.testing.assert_close(brief.latents, whole.latents, rtol=0, atol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_a_step_of_fixed_shapes_equals_a_growing_one(make_model: Make, ids: Tensor, padded: bool) -> None:
    model = make_model()
    padding = (torch.arange(23) < torch.tensor([[0], [4], [9]])) if padded else None
    with torch.no_grad():
        growing, fixed = (Cache.empty(model, 3, 30, padding) for _ in range(2))
        advance(model, growing, ids[:, :17])
        advance(model, fixed, ids[:, :17])
        step = FixedStep(model, fixed)
        for t in range(17, 23):
            token = ids[:, t : t + 1]
            expected = model.lm_head(advance(model, growing, token)[:, -1])
            torch.testing.assert_close(step(token), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(fixed.latents, growing.latents, rtol=0, atol=1e-5)


def test_the_cache_holds_the_latents_alone(make_model: Make) -> None:
    model = make_model()
    assert Cache.empty(model, 5, 7).latents.shape == (3, 5, 7, 16 + 4)


def test_no_logit_depends_on_a_later_token(make_model: Make, ids: Tensor) -> None:
    model = make_model(n_group=1, topk_group=1, num_experts_per_tok=8)  # all experts, so that no gradient is cut
    embedded = model.model.embed_tokens(ids).detach().requires_grad_()
    model.model.embed_tokens.forward = lambda _: embedded  # type: ignore[method-assign]
    logits = model(ids).logits
    for i in range(0, 23, 4):
        (gradient,) = torch.autograd.grad(logits[:, i].square().sum(), embedded, retain_graph=True)
        assert torch.equal(gradient[:, i + 1 :], torch.zeros_like(gradient[:, i + 1 :]))
        assert (gradient[:, : i + 1].abs().amax(dim=-1) > 0).all()


def test_changing_a_token_changes_no_logit_before_it(make_model: Make, ids: Tensor) -> None:
    model = make_model().double()  # the grouping of rows by expert moves the last bits of a product
    other = ids.clone()
    other[:, 11] = (ids[:, 11] + 1) % 61
    with torch.no_grad():
        before, after = model(ids).logits, model(other).logits
    torch.testing.assert_close(before[:, :11], after[:, :11], rtol=0, atol=1e-13)
    assert ((before - after)[:, 11:].abs().amax(dim=-1) > 1e-6).all()


@pytest.mark.parametrize("left", [True, False])
def test_padding_changes_nothing(make_model: Make, ids: Tensor, left: bool) -> None:
    model = make_model()
    real = slice(8, None) if left else slice(0, -8)
    mask = torch.zeros_like(ids)
    mask[:, real] = 1
    with torch.no_grad():
        padded = model(ids, mask).logits[:, real]
        alone = model(ids[:, real]).logits
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-5)


def test_a_packed_document_equals_the_isolated_one(make_model: Make, ids: Tensor) -> None:
    model = make_model()
    segments = torch.tensor([[1] * 9 + [2] * 14] * 3)
    packed = model(ids, labels=ids, segment_ids=segments)
    alone = [model(part, labels=part) for part in (ids[:, :9], ids[:, 9:])]
    with torch.no_grad():
        torch.testing.assert_close(packed.logits[:, 9:], alone[1].logits, rtol=0, atol=1e-5)
        weighted = (alone[0].loss * 8 + alone[1].loss * 13) / 21  # no label crosses the border
    torch.testing.assert_close(packed.loss.detach(), weighted, rtol=1e-6, atol=0)
    without = model(ids).logits[:, 9:]
    assert (without - alone[1].logits).abs().max() > 1e-2


def test_positions_restart_with_each_segment() -> None:
    context = context_of(torch.zeros(1, 6), segment_ids=torch.tensor([[4, 4, 7, 7, 7, 4]]))
    assert context.positions.tolist() == [[0, 1, 0, 1, 2, 0]]


def test_the_context_of_tokens_with_one_ahead() -> None:
    """The last real token of a padded row has none ahead, as the last of a whole row, which is not there at all."""
    mask = torch.ones(2, 5)
    mask[0, :2] = 0
    mask[1, 4:] = 0
    whole = context_of(torch.zeros(2, 5), mask)
    ahead = whole.ahead(2)
    alone = context_of(torch.zeros(2, 3), mask[:, :3])
    assert torch.equal(ahead.positions, alone.positions)
    assert torch.equal(ahead.mask, alone.mask)
    assert ahead.counted.tolist() == [[False, False, True], [True, True, False]]
    assert Context(torch.arange(4)[None]).ahead(2).mask is None


def test_fused_kernels_agree_on_the_scale(make_model: Make) -> None:
    q = torch.randn(1, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = attention_module.attend(q, q, q, None, 0.7)
    torch.testing.assert_close(ours, naive(q, q, q, None, 0.7), rtol=0, atol=1e-6)
    assert not torch.allclose(ours, F.scaled_dot_product_attention(q, q, q, is_causal=True))
