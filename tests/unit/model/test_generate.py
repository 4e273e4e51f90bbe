"""Generation and scoring."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import finseek.model.generate as generate_module
from finseek.core.errors import InputError
from finseek.model import DeepSeekV3, score_continuations
from finseek.model.generate import pick

Make = Callable[..., DeepSeekV3]


def greedy(model: DeepSeekV3, row: list[int], n: int) -> list[int]:
    for _ in range(n):
        with torch.no_grad():
            row = [*row, int(model(torch.tensor([row])).logits[0, -1].argmax())]
    return row


def test_batched_greedy_equals_each_row_alone_without_a_cache(make_model: Make, ids: torch.Tensor) -> None:
    model = make_model()
    mask = torch.ones_like(ids)
    mask[0, :9] = 0
    mask[1, :2] = 0
    out = model.generate(ids, mask, max_new_tokens=8)
    for row, seen, new in zip(ids, mask, out, strict=True):
        alone = greedy(model, row[seen.bool()].tolist(), 8)
        assert new[-8:].tolist() == alone[-8:]
    assert torch.equal(out[:, :23], ids)


def test_a_row_stops_and_is_filled(make_model: Make, ids: torch.Tensor) -> None:
    model = make_model()
    free = model.generate(ids, max_new_tokens=6)[:, 23:]
    stop = int(free[0, 2])
    out = model.generate(ids, max_new_tokens=6, stop_token_ids=[stop])[:, 23:]
    for row, unstopped in zip(out.tolist(), free.tolist(), strict=True):
        end = unstopped.index(stop) + 1 if stop in unstopped else 6
        assert row[:end] == unstopped[: min(end, len(row))]
        assert all(token == 0 for token in row[end:])
    everywhere = model.generate(ids, max_new_tokens=6, stop_token_ids=set(range(61)))
    assert everywhere.shape == (3, 24)
    assert torch.equal(model.generate(ids, max_new_tokens=0), ids)


def test_generation_counts_no_load_and_keeps_the_mode(make_model: Make, ids: torch.Tensor) -> None:
    model = make_model().train()
    model.generate(ids, max_new_tokens=2)
    score_continuations(model, [[3]], [[[4]]])
    assert model.training
    assert all(load.sum() == 0 for load in model.router_load().values())


def frequencies(logits: list[float], **kwargs: object) -> np.ndarray:
    rows = torch.tensor([logits]).expand(20_000, -1)
    values: dict[str, object] = {"temperature": 1.0, "top_k": None, "top_p": None} | kwargs
    drawn = pick(rows, generator=torch.Generator().manual_seed(0), **values)  # type: ignore[arg-type]
    return np.bincount(drawn[:, 0], minlength=len(logits)) / 20_000


def test_sampling_follows_the_distribution() -> None:
    p = np.array([0.5, 0.3, 0.15, 0.05])
    logits = np.log(p).tolist()
    np.testing.assert_allclose(frequencies(logits), p, atol=0.015)
    np.testing.assert_allclose(frequencies(logits, temperature=0.5), p**2 / (p**2).sum(), atol=0.015)
    np.testing.assert_allclose(frequencies(logits, top_k=2), [0.625, 0.375, 0, 0], atol=0.015)
    np.testing.assert_allclose(frequencies(logits, top_p=0.79), [0.625, 0.375, 0, 0], atol=0.015)
    np.testing.assert_allclose(frequencies(logits, top_p=0.81), p[:3].tolist() / p[:3].sum() @ np.eye(3, 4), atol=0.015)
    np.testing.assert_allclose(frequencies(logits, top_p=1e-6), [1, 0, 0, 0])


def test_sampling_repeats_with_its_generator(make_model: Make, ids: torch.Tensor) -> None:
    model = make_model()
    first, same, other = (
        model.generate(ids, max_new_tokens=9, temperature=1.5, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
    ],
)
def test_values_out_of_range_are_refused(
    make_model: Make, ids: torch.Tensor, kwargs: dict[str, float], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        make_model().generate(ids, **kwargs)


def test_right_padding_and_shapes_are_refused(make_model: Make, ids: torch.Tensor) -> None:
    mask = torch.ones_like(ids)
    mask[0, -1] = 0
    with pytest.raises(InputError, match="padded on the left"):
        make_model().generate(ids, mask)
    with pytest.raises(InputError, match="labels: shape"):
        make_model()(ids, labels=ids[:, 1:])


def test_odd_prompts(make_model: Make, ids: torch.Tensor) -> None:
    model = make_model()
    assert model.generate(ids[:0], max_new_tokens=3).shape == (0, 23)
    with pytest.raises(InputError, match="prompts are empty"):
        model.generate(ids[:, :0])
    with pytest.raises(InputError, match=r"must be in 0\.\.60"):
        model.generate(ids + 61)
    with pytest.raises(InputError, match="padded on the left"):
        model.generate(ids, torch.ones(3, 22))
    with pytest.raises(InputError, match="batch_size: 0"):
        score_continuations(model, [[3]], [[[4]]], batch_size=0)


@pytest.mark.parametrize("look", [1, 4, 100])
def test_looking_seldom_whether_all_rows_have_ended_changes_nothing(
    make_model: Make, ids: torch.Tensor, look: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    stops = model.generate(ids, max_new_tokens=5)[:, -3].tolist()  # each row has ended after three tokens at the latest
    expected = model.generate(ids, max_new_tokens=20, stop_token_ids=stops)
    assert expected.shape[1] <= 23 + 3
    monkeypatch.setitem(generate_module.LOOK, "cpu", look)
    assert torch.equal(model.generate(ids, max_new_tokens=20, stop_token_ids=stops), expected)


def test_scores_equal_full_forwards(make_model: Make) -> None:
    model = make_model()
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 61, size=n).tolist() for n in (12, 3, 1, 7, 20)]
    continuations = [
        [rng.integers(3, 61, size=n).tolist() for n in sizes] for sizes in ((1, 4), (2,), (), (3, 1, 5), (6,))
    ]
    scores = score_continuations(model, prompts, continuations, batch_size=2)
    for prompt, group, ours in zip(prompts, continuations, scores, strict=True):
        assert ours.dtype == np.float64
        expected = []
        for tokens in group:
            with torch.no_grad():
                log_p = model(torch.tensor([prompt + tokens])).logits[0].double().log_softmax(-1)
            expected.append(sum(float(log_p[len(prompt) - 1 + j, token]) for j, token in enumerate(tokens)))
        np.testing.assert_allclose(ours, expected, atol=2e-5)


def test_empty_prompts_and_continuations_are_refused(make_model: Make) -> None:
    model = make_model()
    for prompts, continuations in (([[]], [[[1]]]), ([[1]], [[[]]]), ([[1]], [])):
        with pytest.raises(InputError):
            score_continuations(model, prompts, continuations)  # type: ignore[arg-type]


def test_speculation_gives_the_same_tokens_in_fewer_steps(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(num_nextn_predict_layers=1, initializer_range=0.02).train()
    rows = (torch.arange(24)[None] + torch.tensor([[0], [3], [5]])) % 7 + 10
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        model(rows, labels=rows, return_logits=False).loss.backward()
        optimizer.step()
    model.eval()
    mask = torch.ones_like(rows[:, :9])
    mask[1, :4] = 0
    steps: list[int] = []
    run = generate_module.advance
    monkeypatch.setattr(generate_module, "advance", lambda *a, **k: (steps.append(1), run(*a, **k))[1])
    plain = model.generate(rows[:, :9], mask, max_new_tokens=16)
    plain_steps = len(steps)
    steps.clear()
    assert torch.equal(model.generate(rows[:, :9], mask, max_new_tokens=16, speculate=True), plain)
    assert len(steps) < 0.7 * plain_steps == 0.7 * 16


@pytest.mark.parametrize("stops", [None, list(range(0, 61, 5))])
def test_speculation_is_right_where_its_guesses_are_wrong(
    make_model: Make, ids: torch.Tensor, stops: list[int] | None
) -> None:
    model = make_model(num_nextn_predict_layers=2)
    mask = torch.ones_like(ids)
    mask[0, :6] = 0
    for n in (1, 2, 9):
        plain, fast = (model.generate(ids, mask, n, stop_token_ids=stops, speculate=s) for s in (False, True))
        assert torch.equal(plain, fast)


def test_speculation_needs_greedy_choice_and_a_module(make_model: Make, ids: torch.Tensor) -> None:
    with pytest.raises(InputError, match="MTP module"):
        make_model().generate(ids, speculate=True)
    with pytest.raises(InputError, match="temperature 0"):
        make_model(num_nextn_predict_layers=1).generate(ids, speculate=True, temperature=1.0)
