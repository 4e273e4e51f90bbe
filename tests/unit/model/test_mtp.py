"""Multi-token prediction: what each depth sees, its loss, its gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from finseek.model import DeepSeekBlock, DeepSeekV3
from finseek.model.context import context_of
from finseek.model.loss import Targets
from finseek.model.mtp import mtp_loss
from finseek.model.rope import phasors

Make = Callable[..., DeepSeekV3]


def naive_loss(model: DeepSeekV3, row: torch.Tensor) -> float:
    """Equation 25 on one row, each position's prefix run by itself."""
    losses = []
    embedding, head = model.model.embed_tokens, model.lm_head
    h, _ = model.model(row[None], context_of(row[None]))
    for k, block in enumerate(model.mtp_blocks(), start=1):
        states = []
        for i in range(len(row) - k):
            merged = torch.cat([block.enorm(embedding(row[k : i + k + 1])), block.hnorm(h[0, : i + 1])], dim=-1)
            prefix = block.eh_proj(merged)[None]
            phasor = phasors(model.config, torch.arange(i + 1)[None], torch.float64)
            out, _ = DeepSeekBlock.forward(block, prefix, phasor)
            states.append(block.shared_head.norm(out[0, -1]))
        h = torch.stack(states)[None]
        log_p = head(h[0, : len(row) - k - 1]).log_softmax(-1)
        losses.append(-log_p.gather(1, row[k + 1 :, None]).mean())
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize("depths", [1, 2, 3])
def test_the_loss_equals_its_formula(make_model: Make, ids: torch.Tensor, depths: int) -> None:
    model, ids = make_model(num_nextn_predict_layers=depths).double(), ids[:, :12]
    with torch.no_grad():
        ours, _ = mtp_loss(model, *_trunk(model, ids[:1]), context_of(ids[:1]), Targets(ids[:1]))
        assert float(ours) == pytest.approx(naive_loss(model, ids[0]), rel=1e-10)


def _trunk(model: DeepSeekV3, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return model.model(ids, context_of(ids))[0], ids


def test_padding_and_packing_hold_for_mtp_too(make_model: Make, ids: torch.Tensor) -> None:
    model = make_model(num_nextn_predict_layers=2, aux_loss_alpha=0.0).train()
    segments = torch.tensor([[1] * 9 + [2] * 14] * 3)
    packed = model(ids, labels=ids, segment_ids=segments).mtp_loss
    first, second = (model(part, labels=part).mtp_loss for part in (ids[:, :9], ids[:, 9:]))
    # per depth the means weigh by their labels: 7 + 12, then 6 + 11, so the halves do not mix exactly; compare by depth
    one = make_model(num_nextn_predict_layers=1, aux_loss_alpha=0.0).train()
    packed_one = one(ids, labels=ids, segment_ids=segments).mtp_loss
    parts = [one(part, labels=part).mtp_loss for part in (ids[:, :9], ids[:, 9:])]
    torch.testing.assert_close(packed_one, (parts[0] * 7 + parts[1] * 12) / 19)
    assert min(first, second) < packed < max(first, second)


def test_it_learns_and_its_gradient_reaches_the_trunk(make_model: Make) -> None:
    model = make_model(num_nextn_predict_layers=1, initializer_range=0.02).train()
    ids = torch.randint(3, 61, (4, 24), generator=torch.Generator().manual_seed(0))
    out = model(ids, labels=ids)
    out.mtp_loss.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"model.embed_tokens.weight", "model.layers.0.self_attn.o_proj.weight", "lm_head.weight",
            "model.layers.3.eh_proj.weight", "model.layers.3.shared_head.norm.weight"} <= reached  # fmt: skip
    torch.testing.assert_close(out.loss, model.eval()(ids, labels=ids).loss + 0.3 * out.mtp_loss + _balance(out, model))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        step = model(ids, labels=ids, return_logits=False)
        step.loss.backward()
        optimizer.step()
    assert step.mtp_loss < 0.5 * out.mtp_loss
    assert step.logits is None


def _balance(out: object, model: DeepSeekV3) -> torch.Tensor:
    return model.config.aux_loss_alpha * out.balance_loss  # type: ignore[attr-defined]
