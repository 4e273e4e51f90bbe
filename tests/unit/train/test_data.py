"""Batches: every sample once an epoch, weights on the right tokens, a step needs nothing but its number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finseek.core.errors import InputError
from finseek.samples import Encoded, Sample
from finseek.train.data import BatchPlan, encode_samples, passes
from finseek.train.options import LossWeights


class Letters:
    """An encoder of one token a letter: upper case is the action, lower case the prompt, digits the rest."""

    def encode(self, sample: Sample, max_length: int, *, truncate: bool) -> Encoded:
        whole = sample.input + sample.output
        text = whole[:max_length]
        ids = np.array([ord(letter) for letter in text], dtype=np.int32)
        role = np.array([1 if x.isupper() else 2 if x.isdigit() else 0 for x in text], dtype=np.int8)
        return Encoded(ids, role, len(whole) > max_length)


def token_set(*pairs: tuple[str, str], seq_length: int = 100):
    samples = [Sample(prompt, answer, {"uid": f"u{i}"}) for i, (prompt, answer) in enumerate(pairs)]
    return encode_samples(samples, Letters(), seq_length)


def test_collate_pads_on_the_right_and_weighs_by_role():
    tokens = token_set(("abc", "XY1"), ("d", "Z"))
    weights = tokens.token_weights(LossWeights(action=2.0, rest=0.5), answer_only=True)
    batch = tokens.collate(np.array([0, 1]), weights, pad_id=7)
    assert batch.input_ids[1].tolist() == [ord("d"), ord("Z"), 7, 7, 7, 7]
    assert batch.attention_mask.sum(1).tolist() == [6, 2]
    assert batch.weight.tolist() == [[0, 0, 0, 2, 2, 0.5], [0, 2, 0, 0, 0, 0]]
    assert batch.action.tolist() == [[False] * 3 + [True] * 2 + [False], [False, True] + [False] * 4]
    everything = tokens.token_weights(LossWeights(action=2.0, rest=0.5), answer_only=False)
    assert everything.tolist() == [0, 0.5, 0.5, 2, 2, 0.5, 0, 2]


def test_truncation_is_counted_and_no_samples_are_refused():
    assert token_set(("abc", "XY12"), ("abc", "XY"), seq_length=5).truncated == 1
    with pytest.raises(InputError, match="no samples"):
        token_set()


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 300), size=st.integers(1, 40), seed=st.integers(0, 5), first=st.integers(0, 30))
def test_each_epoch_sees_every_sample_once_and_any_start_continues_the_same_order(n, size, seed, first):
    plan = BatchPlan(np.arange(n, dtype=np.int64) % 17 + 1, size, seed)
    end = 2 * plan.steps_per_epoch
    steps = list(plan.steps(0, end))
    assert [step for step, _ in steps] == list(range(end))
    for epoch in (0, 1):
        part = steps[epoch * plan.steps_per_epoch : (epoch + 1) * plan.steps_per_epoch]
        assert sorted(np.concatenate([rows for _, rows in part])) == list(range(n))
        assert max(len(rows) for _, rows in part) <= size
    first = min(first, end)
    resumed = list(plan.steps(first, end))
    assert [rows.tolist() for _, rows in resumed] == [rows.tolist() for _, rows in steps[first:]]


def test_epochs_and_seeds_differ_and_batches_hold_like_lengths():
    lengths = np.random.default_rng(0).integers(1, 1000, 2048)
    plan = BatchPlan(lengths, 16, seed=3)
    assert plan.epoch(0)[0].tolist() != plan.epoch(1)[0].tolist()
    assert plan.epoch(0)[0].tolist() != BatchPlan(lengths, 16, seed=4).epoch(0)[0].tolist()
    padding = np.mean([1 - lengths[rows].mean() / lengths[rows].max() for rows in plan.epoch(0)])
    assert padding < 0.1


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 50), size=st.integers(1, 9), replicas=st.integers(1, 4), packed=st.sampled_from([0, 20, 50]),
)  # fmt: skip
def test_ranks_share_a_step_in_equally_many_passes(n, size, replicas, packed):
    lengths = np.random.default_rng(n).integers(1, 21, n)
    order = np.argsort(-lengths)
    parts = [passes(order, lengths, size, packed, rank, replicas) for rank in range(replicas)]
    assert len({len(part) for part in parts}) == 1
    rows = [row for part in parts for each in part for row in each]
    assert sorted(sample for row in rows for sample in row) == list(range(n))
    assert max(len(each) for part in parts for each in part) <= size
    assert all(sum(lengths[list(row)]) <= packed if packed else len(row) == 1 for row in rows)


def test_samples_that_share_a_row_have_their_own_segments():
    tokens = token_set(("ab", "X"), ("c", "Y"), ("d", "Z"))
    weights = tokens.token_weights(LossWeights(), answer_only=True)
    batch = tokens.collate([(0, 1), (2,)], weights, pad_id=7)
    assert batch.input_ids.tolist() == [[ord(x) for x in "abXcY"], [ord("d"), ord("Z"), 7, 7, 7]]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 1, 1]]
    assert batch.weight.tolist() == [[0, 0, 1, 0, 1], [0, 1, 0, 0, 0]]
    nothing = tokens.collate([], weights, pad_id=7)
    assert not nothing.attention_mask.any()
    assert nothing.input_ids.shape[0] == 1
