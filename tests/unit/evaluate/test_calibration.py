from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from finseek.core.actions import ACTIONS
from finseek.evaluate import Prediction
from finseek.evaluate.calibration import calibration_metrics
from finseek.stats import resample_counts, stationary_bootstrap


def rows_of(n: int, seed: int, honest: bool):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(5) * 0.7, n)
    truth = [ACTIONS[rng.choice(5, p=row) if honest else rng.integers(5)] for row in p]
    told = [dict(zip(ACTIONS, row, strict=True)) for row in p]
    rows = [
        Prediction(f"T{i}", date(2025, 1, 1), truth[i], max(told[i], key=told[i].get), "scored", told[i])
        for i in range(n)
    ]
    return rows, p, np.array([ACTIONS.index(t) for t in truth]), rng.integers(0, 20, n)


def slow_ece(p, truth) -> float:
    total = 0.0
    for low in range(10):
        chosen = [i for i in range(len(p)) if low / 10 <= p[i].max() < (low + 1) / 10 or (low == 9 and p[i].max() == 1)]
        if chosen:
            hit = np.mean([p[i].argmax() == truth[i] for i in chosen])
            total += len(chosen) / len(p) * abs(hit - np.mean([p[i].max() for i in chosen]))
    return total


def test_brier_log_loss_and_error_agree_with_other_sources():
    rows, p, truth, session = rows_of(300, 0, honest=True)
    counts = resample_counts(stationary_bootstrap(20, 3, 200, np.random.default_rng(0)))
    found = calibration_metrics(rows, session, counts, 0.95)
    assert found["brier"]["value"] == pytest.approx(
        brier_score_loss(truth, p, labels=range(5), scale_by_half=False), abs=1e-12
    )
    assert found["log_loss"]["value"] == pytest.approx(log_loss(truth, p, labels=range(5)))
    assert found["expected_calibration_error"]["value"] == pytest.approx(slow_ece(p, truth))
    assert sum(bin["rows"] for bin in found["reliability"]) == found["rows"] == 300
    assert found["brier"]["low"] < found["brier"]["value"] < found["brier"]["high"]


def test_honest_probabilities_are_better_calibrated_than_random_ones():
    errors = []
    for honest in (True, False):
        rows, _, _, session = rows_of(2000, 1, honest)
        found = calibration_metrics(rows, session, np.ones((100, 20)), 0.95)
        errors.append(found["expected_calibration_error"]["value"])
    assert errors[0] < 0.05 < errors[1]


def test_rows_without_probabilities_are_left_out():
    rows, _, _, session = rows_of(50, 2, honest=True)
    bare = [Prediction(r.ticker, r.as_of_date, r.gt_action, r.pred_action, r.status) for r in rows]
    assert calibration_metrics(bare, session, np.ones((100, 20)), 0.95) is None
    assert calibration_metrics(rows[:20] + bare[20:], session, np.ones((100, 20)), 0.95)["rows"] == 20
