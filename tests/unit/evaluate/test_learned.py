from __future__ import annotations

import builtins

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from finseek.core.actions import ACTIONS, Action
from finseek.core.errors import InputError
from finseek.evaluate import EvaluateOptions, Prediction, score_predictions
from finseek.evaluate.baselines import NAMES, random_shares, sign_rule, standard_baselines
from finseek.evaluate.learned import feature_matrix
from finseek.market import generate_prices, snapshots
from finseek.theses.synthetic import generate_theses


@pytest.fixture(scope="module")
def market():
    prices, planted = generate_prices(3, n_tickers=8, n_sessions=320)
    made = generate_theses(planted.signal, prices.sessions, prices.tickers, seed=3)
    cut = prices.sessions.dates[250].item()
    training = [t for t in made.theses if t.as_of_date < cut]
    rows = [Prediction(t.ticker, t.as_of_date, t.action, None, "tie") for t in made.theses if t.as_of_date >= cut]
    return prices, snapshots(prices), training, rows, made.theses


def test_models_on_the_snapshot_find_the_planted_signal(market):
    prices, shown, training, rows, theses = market
    answers, absent = standard_baselines(rows, training, theses, shown, seed=1)
    assert set(answers) == set(NAMES)
    assert not absent
    options = EvaluateOptions(bootstrap_resamples=200)
    found = score_predictions(rows, prices, options, baselines=answers).baselines
    accuracy = {name: found[name]["accuracy"]["value"] for name in NAMES}
    assert min(accuracy["logistic"], accuracy["gradient_boosting"]) > accuracy["majority"] + 0.1
    assert accuracy["reversal"] > accuracy["momentum"]


def test_features_come_from_the_row_and_from_before_it_alone(market):
    _, shown, _, rows, theses = market
    keys = [(row.ticker, row.as_of_date) for row in rows[:50]]
    matrix = feature_matrix(keys, shown, last_actions=2, history=theses)
    F = len(shown.scaled)
    assert matrix.shape == (50, F + 8 + 2)
    row, column = shown.place(*keys[7])
    np.testing.assert_array_equal(matrix[7, :F], [table[row, column] for table in shown.scaled.values()])
    assert matrix[7, F : F + 8].argmax() == column
    for (name, day), last in zip(keys, matrix[:, -2:].tolist(), strict=True):
        before = sorted((t.as_of_date, t.action.rank) for t in theses if t.ticker == name and t.as_of_date < day)
        assert last == [before[-1][1], before[-2][1]]


def test_random_keeps_the_shares_of_the_training_split(market):
    _, _, training, rows, _ = market
    drawn = random_shares(rows * 20, training, 0)
    for action in ACTIONS:
        share = np.mean([label.action == action for label in training])
        assert np.mean([answer == action for answer in drawn]) == pytest.approx(share, abs=0.02)
    assert drawn == random_shares(rows * 20, training, 0)
    assert random_shares(rows, [], 0) == [None] * len(rows)


def test_sign_rules():
    values = np.array([0.1, -0.1, 0.0, np.nan])
    assert sign_rule(values, 1) == [Action.BUY, Action.SELL, Action.HOLD, None]
    assert sign_rule(values, -1) == [Action.SELL, Action.BUY, Action.HOLD, None]


def test_what_cannot_be_had_is_named_with_its_reason(market, monkeypatch):
    _, shown, training, rows, theses = market
    assert set(standard_baselines(rows, training, theses, None)[1]) == {
        "momentum",
        "reversal",
        "logistic",
        "gradient_boosting",
    }
    real = builtins.__import__

    def without_sklearn(name, *rest, **more):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    answers, absent = standard_baselines(rows, training, theses, shown)
    assert set(absent) == {"logistic", "gradient_boosting"}
    assert "finseek[stats]" in absent["logistic"]
    assert "momentum" in answers
    with pytest.raises(InputError, match="magic"):
        standard_baselines(rows, training, theses, shown, names=["magic"])


def test_a_column_for_each_of_very_many_tickers_is_refused_before_it_fills_the_memory(market, monkeypatch):
    _, shown, training, rows, theses = market
    monkeypatch.setattr("finseek.evaluate.learned.LARGEST", len(training) * 8 - 1)
    answers, absent = standard_baselines(rows, training, theses, shown, seed=1)
    assert set(absent) == {"logistic", "gradient_boosting"}
    assert "a column for each of 8 tickers" in absent["logistic"]
    assert "set prompt.ticker to false" in absent["logistic"]
    without, none = standard_baselines(rows, training, theses, shown, ticker=False, seed=1)
    assert not none
    assert set(answers) < set(without)


def test_a_fit_leaves_the_other_cores_alone(market, monkeypatch):
    _, shown, training, rows, theses = market
    fit, seen = LogisticRegression.fit, []

    def watched(self, *given):
        seen.extend(library["num_threads"] for library in threadpool_info())
        return fit(self, *given)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    with threadpool_limits(limits=2):
        standard_baselines(rows, training, theses, shown, names=["logistic"])
    assert set(seen) == {1}
