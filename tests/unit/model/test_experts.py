"""Experts: the grouped path against the loop, the loop against single experts, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from finseek.model import DeepSeekConfig, DeepSeekV3, Expert, MoE
from finseek.model.experts import RoutedExperts
from finseek.model.grouped import SwiGLU, can_group


def experts(dtype: torch.dtype = torch.float32) -> RoutedExperts:
    config = DeepSeekConfig.preset("tiny", hidden_size=24, moe_intermediate_size=16, n_routed_experts=6)
    module = RoutedExperts(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return module.to(dtype)


def choice_without_expert_two(N: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    crowded = torch.tensor([[0, 1], [0, 3], [0, 4], [5, 0], [4, 3]])
    return crowded[torch.randint(0, 5, (N,), generator=generator)], torch.rand(N, 2, generator=generator)


def run(module: RoutedExperts, implementation: str, N: int = 40) -> list[Tensor]:
    dtype = module.down_proj.dtype
    x = torch.randn(N, 24, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()
    choice, weights = choice_without_expert_two(N)
    weights = weights.to(dtype).requires_grad_()
    module.implementation = implementation
    y = module(x, choice, weights)
    gradient = torch.randn(N, 24, generator=torch.Generator().manual_seed(3)).to(dtype)
    return [y, *torch.autograd.grad(y, [x, weights, *module.parameters()], gradient)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_grouped_equals_loop_with_an_expert_that_gets_nothing(dtype: torch.dtype, tolerance: float) -> None:
    module = experts(dtype)
    for ours, expected in zip(run(module, "grouped"), run(module, "loop"), strict=True):
        assert (ours - expected).abs().max() <= tolerance * expected.abs().max()


def test_the_loop_equals_each_token_visiting_its_experts() -> None:
    module = experts(torch.float64)
    x = torch.randn(40, 24, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    choice, weights = choice_without_expert_two(40)
    weights = weights.double().requires_grad_()
    rows = []
    for token, chosen, weight in zip(x, choice, weights, strict=True):
        total = torch.zeros(24, dtype=torch.float64)
        for e, w in zip(chosen.tolist(), weight, strict=True):
            gate, up = (module.gate_up_proj[e] @ token).chunk(2)
            total = total + w * (module.down_proj[e] @ (torch.nn.functional.silu(gate) * up))
        rows.append(total)
    expected = torch.stack(rows)
    gradient = torch.randn(40, 24, generator=torch.Generator().manual_seed(3)).double()
    inputs = [x, weights, *module.parameters()]
    references = [expected, *torch.autograd.grad(expected, inputs, gradient)]
    ours = module(x, choice, weights)
    for a, b in zip([ours, *torch.autograd.grad(ours, inputs, gradient)], references, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_swiglu_passes_gradcheck() -> None:
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(SwiGLU.apply, (x,))


@pytest.mark.parametrize(
    ("dtype", "width", "grouped"),
    [(torch.float32, 12, True), (torch.float32, 10, False), (torch.bfloat16, 12, False), (torch.float64, 16, False)],
)
def test_grouping_needs_a_dtype_and_whole_words(dtype: torch.dtype, width: int, grouped: bool) -> None:
    weight = torch.zeros(2, width, width, dtype=dtype)
    assert can_group(torch.zeros(3, width, dtype=dtype), weight, weight) is grouped
    assert not can_group(torch.zeros(0, width, dtype=dtype), weight, weight)


def test_shared_experts_see_every_token() -> None:
    config = DeepSeekConfig.preset("tiny", hidden_size=24, moe_intermediate_size=16, n_shared_experts=2)
    moe = MoE(config)
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    assert isinstance(moe.shared_experts, Expert)
    assert moe.shared_experts.gate_proj.weight.shape == (32, 24)
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    with_shared, _ = moe(x)
    shared, moe.shared_experts = moe.shared_experts, None
    without, _ = moe(x)
    torch.testing.assert_close(with_shared - without, shared(x))
    assert MoE(DeepSeekConfig.preset("tiny", n_shared_experts=0)).shared_experts is None


def test_autocast_groups_in_bf16_and_routes_in_fp32(make_model: Callable[..., DeepSeekV3], ids: Tensor) -> None:
    model = make_model(num_nextn_predict_layers=1, hidden_size=32).train()
    chosen: list[Tensor] = []
    for router in model.routers().values():
        router.register_forward_hook(lambda *call: chosen.append(call[-1].scores))
    full = model(ids, labels=ids)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(ids, labels=ids, return_logits=False)
    mixed.loss.backward()
    assert all(scores.dtype == torch.float32 for scores in chosen)
    torch.testing.assert_close(mixed.loss, full.loss, rtol=2e-2, atol=0)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    x = torch.zeros(4, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert experts().compute(x, torch.tensor([4, 0, 0, 0, 0, 0])).dtype == torch.bfloat16
