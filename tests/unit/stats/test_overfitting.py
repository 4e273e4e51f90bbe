from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from finseek import stats
from finseek.core.errors import InputError


def slow_pbo(r: np.ndarray, blocks: int):
    """The paper's steps, one halving at a time, on the rows themselves."""
    T, N = r.shape
    edges = np.linspace(0, T, blocks + 1).astype(int)
    parts = [r[a:b] for a, b in pairwise(edges)]
    logits, inside, outside = [], [], []
    for chosen in combinations(range(blocks), blocks // 2):
        train = np.concatenate([parts[i] for i in chosen])
        test = np.concatenate([parts[i] for i in range(blocks) if i not in chosen])
        r_in, r_out = train.mean(0) / train.std(0, ddof=1), test.mean(0) / test.std(0, ddof=1)
        best = int(r_in.argmax())
        w = (1 + (r_out < r_out[best]).sum()) / (N + 1)
        logits.append(np.log(w / (1 - w)))
        inside.append(r_in[best])
        outside.append(r_out[best])
    return np.array(logits), np.array(inside), np.array(outside)


@pytest.mark.parametrize(("periods", "trials", "blocks"), [(60, 7, 6), (101, 10, 8), (64, 2, 4), (99, 13, 2)])
def test_equals_the_slow_way(periods, trials, blocks):
    r = np.random.default_rng(periods).normal(0, 0.01, (periods, trials))
    found = stats.pbo(r, blocks)
    logits, inside, outside = slow_pbo(r, blocks)
    np.testing.assert_allclose(found.logits, logits, atol=1e-12)
    np.testing.assert_allclose(found.in_sample, inside, rtol=1e-9)
    np.testing.assert_allclose(found.out_of_sample, outside, rtol=1e-8, atol=1e-12)
    assert found.pbo == (logits <= 0).mean()
    assert found.slope == pytest.approx(np.polyfit(inside, outside, 1)[0])
    assert found.probability_of_loss == (outside < 0).mean()


def test_there_are_12870_ways_to_halve_sixteen_blocks():
    assert len(stats.pbo(np.random.default_rng(0).normal(size=(64, 3))).logits) == 12870


def test_recentred_trials_of_equal_mean_are_overfitted_for_certain():
    r = np.random.default_rng(1).normal(0, 0.01, (160, 20))
    found = stats.pbo(r - r.mean(axis=0), 8, lambda totals: totals[..., 1] / totals[..., 0])
    assert found.pbo == 1


def test_one_truly_skilled_trial_is_not_overfitted():
    r = np.random.default_rng(2).normal(0, 0.01, (400, 20))
    r[:, 7] += 0.01
    assert stats.pbo(r, 10).pbo == 0


def test_noise_is_overfitted_half_of_the_time_on_average():
    rng = np.random.default_rng(3)
    found = [stats.pbo(rng.normal(0, 0.01, (160, 20)), 8).pbo for _ in range(120)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)
    assert 0.1 < np.std(found) < 0.3


def test_a_trial_that_never_trades_counts_as_zero():
    r = np.random.default_rng(4).normal(-0.01, 0.001, (64, 3))
    r[:, 1] = 0
    found = stats.pbo(r, 8)
    assert found.pbo == 0
    assert (found.out_of_sample == 0).all()


@pytest.mark.parametrize(
    ("shape", "blocks"), [((64, 1), 8), ((10, 5), 8), ((64, 5), 7), ((64, 5), 0), ((64,), 8), ((640, 5), 26)]
)
def test_senseless_arguments_are_refused(shape, blocks):
    with pytest.raises(InputError):
        stats.pbo(np.zeros(shape), blocks)


def test_a_hole_in_the_returns_is_refused():
    r = np.zeros((64, 4))
    r[3, 2] = np.nan
    with pytest.raises(InputError, match="no numbers"):
        stats.pbo(r, 8)
