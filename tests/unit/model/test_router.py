"""Router: choice, weights, load, bias update, balance loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.model.router import Router, Routing, balance_loss

Make = Callable[..., DeepSeekV3]


def router(**overrides: object) -> Router:
    values = {"hidden_size": 16, "n_routed_experts": 8, "num_experts_per_tok": 2, "routed_scaling_factor": 2.5}
    gate = Router(DeepSeekConfig.preset("tiny", **(values | overrides)))
    with torch.no_grad():
        gate.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    return gate


X = torch.randn(50, 16, generator=torch.Generator().manual_seed(2))


def test_the_bias_decides_the_choice_and_never_the_weights() -> None:
    gate = router()
    plain = gate(X)
    gate.e_score_correction_bias[5] = 10.0
    biased = gate(X)
    assert (biased.experts == 5).any(dim=1).all()
    assert not (plain.experts == 5).any(dim=1).all()
    chosen = biased.scores.gather(1, biased.experts)
    expected = 2.5 * chosen / chosen.sum(dim=1, keepdim=True)
    torch.testing.assert_close(biased.weights, expected)


def test_groups_limit_the_choice() -> None:
    gate = router(n_group=4, topk_group=1)
    assert (gate(X).experts // 2).unique(dim=1).shape[1] <= 2
    assert all(len(set(row)) == 1 for row in (gate(X).experts // 2).tolist())


def test_it_computes_in_fp32_and_keeps_its_bias_there() -> None:
    gate = router().to(torch.bfloat16)
    gate.e_score_correction_bias += 0.001
    assert gate.weight.dtype == torch.bfloat16
    assert gate.e_score_correction_bias.dtype == torch.float32
    assert gate(X.bfloat16()).scores.dtype == torch.float32
    moved = gate.to(torch.float16)
    assert torch.equal(moved.e_score_correction_bias, torch.full((8,), 0.001))
    assert gate.double().e_score_correction_bias.dtype == torch.float64


def test_the_bias_is_saved_and_the_load_is_not() -> None:
    assert set(router().state_dict()) == {"weight", "e_score_correction_bias"}
    softmax = router(scoring_func="softmax", topk_method="greedy")
    assert set(softmax.state_dict()) == {"weight"}
    softmax.update_bias(0.1)


def test_the_load_counts_training_tokens_without_padding() -> None:
    gate = router().train()
    counted = torch.arange(50) < 30
    choice = gate(X, counted).experts
    assert torch.equal(gate.load, torch.bincount(choice[:30].flatten(), minlength=8).float())
    gate.eval()(X)
    assert gate.load.sum() == 60


def test_updates_balance_a_skewed_router() -> None:
    gate = router().train()
    skewed = X + 1.5 * gate.weight[3].detach()
    tokens = skewed.repeat(10, 1) + 0.3 * torch.randn(500, 16, generator=torch.Generator().manual_seed(3))
    gate(tokens)
    first = gate.load.max() / gate.load.mean()
    for step in range(300):
        gate.update_bias(0.01 if step < 150 else 0.001)
        gate(tokens)
    assert first > 2
    assert gate.load.max() / gate.load.mean() < 1.2


def test_the_update_moves_by_gamma_against_the_load() -> None:
    gate = router()
    gate.load.copy_(torch.tensor([8.0, 0, 4, 4, 4, 4, 4, 4]))
    gate.update_bias(0.25)
    assert gate.e_score_correction_bias.tolist() == [-0.25, 0.25, 0, 0, 0, 0, 0, 0]
    assert gate.load.sum() == 0


def test_the_balance_loss_equals_its_formula() -> None:
    gate = router()
    with torch.no_grad():
        routing: Routing = gate(X)
    counted = torch.arange(50) % 7 != 0
    terms = []
    for row in range(2):
        tokens = [t for t in range(row * 25, row * 25 + 25) if counted[t]]
        f = [8 / (2 * len(tokens)) * sum(i in routing.experts[t].tolist() for t in tokens) for i in range(8)]
        p = [sum(float(routing.scores[t, i] / routing.scores[t].sum()) for t in tokens) / len(tokens) for i in range(8)]
        terms.append(sum(a * b for a, b in zip(f, p, strict=True)))
    assert balance_loss(routing, 2, counted).tolist() == pytest.approx(terms, rel=1e-5)


def test_the_balance_loss_joins_the_loss_in_training_alone(make_model: Make, ids: torch.Tensor) -> None:
    model = make_model(aux_loss_alpha=0.5)
    plain = model(ids, labels=ids)
    assert plain.balance_loss is None
    trained = model.train()(ids, labels=ids)
    assert trained.balance_loss is not None
    torch.testing.assert_close(trained.loss, plain.loss + 0.5 * trained.balance_loss)
    assert set(model.router_load()) == {1, 2}
    assert all(load.sum() == ids.numel() * 2 for load in model.router_load().values())
    before = model.routers()[1].e_score_correction_bias.clone()
    model.update_router_bias(0.001)
    assert ((model.routers()[1].e_score_correction_bias - before).abs() <= 0.00101).all()
    assert all(load.sum() == 0 for load in model.router_load().values())
