"""The loss: weights, denominators, empty masks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from finseek.core.errors import InputError
from finseek.model import DeepSeekV3
from finseek.model import loss as loss_module

Make = Callable[..., DeepSeekV3]


def test_weights_make_a_weighted_mean(make_model: Make, ids: torch.Tensor) -> None:
    model = make_model()
    weights = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0))
    labels = ids.masked_fill(ids % 3 == 0, -100)
    with torch.no_grad():
        out = model(ids, labels=labels, loss_weights=weights)
        log_p = out.logits.log_softmax(-1)
    total = norm = 0.0
    for b in range(3):
        for t in range(1, 23):
            if labels[b, t] != -100:
                nll = -log_p[b, t - 1, ids[b, t]]
                torch.testing.assert_close(out.token_loss[b, t], nll)
                total, norm = total + weights[b, t] * nll, norm + weights[b, t]
            else:
                assert out.token_loss[b, t] == 0
    torch.testing.assert_close(out.loss, total / norm)


def test_micro_batches_with_the_global_denominator_sum_to_the_whole(make_model: Make, ids: torch.Tensor) -> None:
    model = make_model()
    labels = ids.masked_fill(torch.arange(23) < torch.tensor([[3], [15], [9]]), -100)
    whole = model(ids, labels=labels).loss
    count = (labels[:, 1:] != -100).sum()
    parts = [model(ids[i : i + 1], labels=labels[i : i + 1], loss_denominator=count).loss for i in range(3)]
    torch.testing.assert_close(sum(parts), whole)


def test_a_batch_without_labels_gives_zero_and_not_nan(make_model: Make, ids: torch.Tensor) -> None:
    model = make_model()
    out = model(ids, labels=torch.full_like(ids, -100))
    out.loss.backward()
    assert out.loss == 0
    assert all(p.grad is None or not p.grad.isnan().any() for p in model.parameters())


@pytest.mark.parametrize("chunk", [2**20, 64 * 61])
def test_without_logits_the_loss_and_gradients_are_the_same(
    make_model: Make, ids: torch.Tensor, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loss_module.CHUNK, "cpu", chunk)
    model = make_model()
    ids = ids.repeat(2, 2)
    weights = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0))
    gradients = []
    for return_logits in (True, False):
        model.zero_grad()
        out = model(ids, labels=ids.masked_fill(ids % 5 == 0, -100), loss_weights=weights, return_logits=return_logits)
        (2 * out.loss).backward()
        gradients.append(
            [out.loss.detach(), out.token_loss, *(p.grad for p in model.parameters() if p.grad is not None)]
        )
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("B", "T"), [(0, 5), (2, 0), (2, 1), (2, 2)])
def test_batches_with_nothing_to_predict_train_to_nothing(make_model: Make, B: int, T: int) -> None:
    model = make_model(num_nextn_predict_layers=2).train()
    ids = torch.zeros(B, T, dtype=torch.int64)
    for return_logits in (True, False):
        out = model(ids, labels=ids, return_logits=return_logits)
        out.loss.backward()
        assert out.loss.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_what_is_no_token_is_refused(make_model: Make, ids: torch.Tensor) -> None:
    model = make_model()
    for given, labels, says in (
        (ids + 61, None, "input_ids: .* must be in 0..60"),
        (ids.float(), None, "input_ids: torch.float32"),
        (ids[0], None, "must be whole numbers"),
        (ids, ids * 0 - 1, "labels: -1 must be in 0..60, the vocabulary, or -100"),
    ):
        with pytest.raises(InputError, match=says):
            model(given, labels=labels)
