from __future__ import annotations

from datetime import date, timedelta

import msgspec
import numpy as np
import pytest

from finseek.core.actions import ACTIONS, Action
from finseek.core.errors import InputError
from finseek.evaluate import EvaluateOptions, Prediction, score_predictions
from finseek.evaluate.baselines import majority, persistence

OPTIONS = EvaluateOptions(bootstrap_resamples=300)
START = date(2025, 1, 1)


class Label(msgspec.Struct):
    ticker: str
    as_of_date: date
    action: Action


def predictions(n_days=30, tickers="ABCD", right=0.8, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for day in range(n_days):
        for ticker in tickers:
            truth = ACTIONS[rng.integers(5)]
            answer = truth if rng.random() < right else ACTIONS[rng.integers(5)]
            rows.append(Prediction(ticker, START + timedelta(day), truth, answer, "scored"))
    return rows


def test_counts_reconcile_and_order_does_not_matter():
    rows = predictions()
    rows[3] = msgspec.structs.replace(rows[3], pred_action=None, status="tie")
    found = score_predictions(rows, None, OPTIONS)
    assert found.rows["scored"] + sum(found.rows["unscored"].values()) == found.rows["total"] == 120
    assert found.rows["unscored"] == {"tie": 1}
    assert found.rows["sessions"] == 30
    assert score_predictions(rows[::-1], None, OPTIONS) == found
    assert found.financial is None


def test_to_json_is_plain_data():
    found = score_predictions(predictions(), None, OPTIONS).to_json()
    assert msgspec.json.decode(msgspec.json.encode(found)) == found


def test_a_skilled_model_beats_majority_and_a_copy_of_itself_it_does_not():
    rows = predictions()
    training = [Label("A", START, Action.BUY)] * 3 + [Label("A", START, Action.SELL)]
    found = score_predictions(
        rows, None, OPTIONS, training=training, history=training, baselines={"copy": [row.pred_action for row in rows]}
    )
    right = sum(row.gt_action == Action.BUY for row in rows)
    assert found.baselines["majority"]["accuracy"]["value"] == pytest.approx(right / 120)
    assert found.baselines["majority"]["difference"]["accuracy"]["better"]
    copy = found.baselines["copy"]["difference"]["accuracy"]
    assert (copy["value"], copy["low"], copy["high"], copy["better"]) == (0, 0, 0, False)


def test_baselines_keep_to_their_rows_when_the_predictions_are_unsorted():
    rows = predictions()
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    found = score_predictions(shuffled, None, OPTIONS, baselines={"teacher": [row.gt_action for row in shuffled]})
    assert found.baselines["teacher"]["accuracy"]["value"] == 1


def test_persistence_is_the_latest_earlier_action_of_the_same_ticker():
    day = [START + timedelta(i) for i in range(5)]
    history = [Label("A", day[0], Action.SELL), Label("B", day[1], Action.HOLD), Label("A", day[4], Action.HOLD)]
    rows = [
        Prediction("A", day[1], Action.BUY, None, "tie"),
        Prediction("A", day[3], Action.SELL, None, "tie"),
        Prediction("B", day[1], Action.SELL, None, "tie"),
        Prediction("C", day[3], Action.SELL, None, "tie"),
        Prediction("B", day[2], Action.SELL, None, "tie"),
    ]
    # Of B on day 1 the history says what was opined; the row's label may be what the market did later.
    assert persistence(rows, history) == [Action.SELL, Action.BUY, None, None, Action.HOLD]


def test_majority_comes_from_training_and_is_absent_without_it():
    rows = predictions(2)
    assert majority(rows, [Label("Z", START, Action.HOLD)]) == [Action.HOLD] * 8
    assert majority(rows, []) == [None] * 8
    assert "majority" not in score_predictions(rows, None, OPTIONS).baselines


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no prediction"),
        (predictions(1) + predictions(1)[:1], "A as of 2025-01-01 is predicted twice"),
        ([Prediction("A", START, Action.BUY, None, "scored")], "if and only if"),
        ([Prediction("A", START, Action.BUY, Action.BUY, "tie")], "if and only if"),
    ],
)
def test_senseless_rows_are_refused(rows, words):
    with pytest.raises(InputError, match=words):
        score_predictions(rows, None, OPTIONS)


def test_a_baseline_of_another_length_is_refused():
    with pytest.raises(InputError, match="baseline x has 1 answers for 4"):
        score_predictions(predictions(1), None, OPTIONS, baselines={"x": [None]})


def test_what_cannot_be_resampled_has_no_interval_instead_of_one_without_width():
    """One session, or blocks longer than the sample, would draw the sample again and again: certainty from nothing."""
    one = [Prediction(ticker, START, Action.BUY, Action.BUY, "scored") for ticker in "ABC"]
    found = score_predictions(one, None, OPTIONS, baselines={"sell": [Action.SELL] * 3}).to_json()
    assert found["classification"]["all"]["accuracy"] == {"value": 1.0, "low": None, "high": None}
    difference = found["baselines"]["sell"]["difference"]["accuracy"]
    assert (difference["value"], difference["low"], difference["better"]) == (1.0, None, False)
    rows = predictions()
    long = OPTIONS.model_copy(update={"mean_block": 1000.0})
    accuracy = score_predictions(rows, None, long).to_json()
    sessions = len({row.as_of_date for row in rows})
    assert accuracy["bootstrap"]["mean_block"] == sessions
    figure = accuracy["classification"]["all"]["accuracy"]
    assert figure["high"] - figure["low"] > 0.02
