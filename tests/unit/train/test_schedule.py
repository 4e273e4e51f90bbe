"""The learning rate at its corners."""

from __future__ import annotations

import math

import pytest

from finseek.train import TrainOptions
from finseek.train.schedule import learning_rate


def test_schedule_warms_up_linearly_and_ends_at_its_floor():
    options = TrainOptions(learning_rate=2.0, warmup_steps=10, min_learning_rate_ratio=0.1)
    rates = [learning_rate(step, 100, options) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[-1] == pytest.approx(0.2)
    middle = 10 + (99 - 10) / 2
    assert rates[math.floor(middle)] == pytest.approx(0.5 * (2.0 + 0.2), rel=0.03)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(0, 1, options.model_copy(update={"warmup_steps": 0})) == 2.0
