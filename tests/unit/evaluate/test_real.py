"""The honest numbers that the page of the real data gives."""

from __future__ import annotations

from datetime import date

import pytest

from finseek.evaluate import EvaluateOptions, Prediction, score_predictions
from finseek.evaluate.baselines import persistence
from finseek.market import PricesOptions, load_prices
from finseek.theses import SplitOptions, read_theses, split_by_time


@pytest.mark.realdata
def test_baselines_of_the_real_test_split(real_theses, real_prices):
    theses, _ = read_theses(real_theses)
    prices = load_prices(real_prices, PricesOptions(benchmark="SPY"))
    split = split_by_time(
        theses,
        None,
        SplitOptions(train_end=date(2024, 12, 31), test_start=date(2025, 1, 1), validation_days=30, purge=False),
    )
    blank = [Prediction(t.ticker, t.as_of_date, t.action, None, "tie") for t in split.test]
    yesterday = persistence(blank, theses)
    rows = [
        Prediction(t.ticker, t.as_of_date, t.action, a, "scored") for t, a in zip(split.test, yesterday, strict=True)
    ]
    teacher = [t.action for t in split.test]
    options = EvaluateOptions(bootstrap_resamples=2000)
    found = score_predictions(
        rows,
        prices,
        options,
        training=split.train,
        history=theses,
        baselines={"teacher": teacher},
    )
    assert found.rows["total"] == 1516
    assert found.rows["sessions"] == 77
    assert round(found.classification["all"]["accuracy"]["value"], 3) == 0.551
    assert round(found.classification["all"]["macro_f1"]["value"], 3) == 0.395
    assert round(found.baselines["majority"]["accuracy"]["value"], 3) == 0.507
    assert found.baselines["persistence"]["difference"]["accuracy"]["value"] == 0
    assert found.baselines["teacher"]["accuracy"]["value"] == 1
    error = (found.classification["all"]["accuracy"]["high"] - found.classification["all"]["accuracy"]["low"]) / 3.92
    assert 0.012 < error < 0.035
    assert found.financial["1"]["rows"]["without_return"] == 0
    actions = [Prediction(t.ticker, t.as_of_date, t.action, t.action, "scored") for t in theses]
    whole = score_predictions(actions, prices, EvaluateOptions(bootstrap_resamples=100)).financial["1"]
    assert round(whole["rank_ic"]["mean"], 3) == 0.005
