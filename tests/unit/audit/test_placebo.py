from __future__ import annotations

from collections import Counter
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from finseek.audit.placebo import PLACEBOS, SHIFT, compare_placebo
from finseek.core.actions import ACTIONS
from finseek.core.errors import InputError
from finseek.evaluate import EvaluateOptions, Prediction
from finseek.evaluate.learned import feature_matrix, learned
from finseek.market import generate_prices, snapshots
from finseek.theses.synthetic import generate_theses

OPTIONS = EvaluateOptions(bootstrap_resamples=500)


def corpus(seed: int, leak: bool):
    """A synthetic market and theses; with the leak an indicator holds the label."""
    prices, planted = generate_prices(seed, n_tickers=10, n_sessions=300)
    theses = generate_theses(planted.signal, prices.sessions, prices.tickers, seed=seed).theses
    if leak:
        theses = [msgspec.structs.replace(t, indicators={"consensus": t.action.value}) for t in theses]
    return prices, snapshots(prices), theses


def train_and_score(shown, theses, cut):
    """Logistic regression on snapshot and indicators: the same steps for truth and placebo."""
    keys = [(t.ticker, t.as_of_date) for t in theses]
    told = np.array([[t.indicators.get("consensus") == a for a in ACTIONS] for t in theses], dtype=float)
    features = np.hstack([feature_matrix(keys, shown), told])
    early = np.array([t.as_of_date < cut for t in theses])
    test = [t for t, is_early in zip(theses, early, strict=True) if not is_early]
    training = [t for t, is_early in zip(theses, early, strict=True) if is_early]
    answers = learned("logistic", features[early], [t.action for t in training], features[~early])
    return [
        Prediction(t.ticker, t.as_of_date, t.action, answer, "scored") for t, answer in zip(test, answers, strict=True)
    ], training


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("leak", [False, True])
def test_a_planted_leak_is_flagged_and_an_honest_signal_is_not(seed, leak):
    prices, shown, theses = corpus(seed, leak)
    cut = prices.sessions.dates[220].item()
    real, _ = train_and_score(shown, theses, cut)
    placebo, training = train_and_score(shown, PLACEBOS["shuffled_labels"].change(theses, seed), cut)
    found = compare_placebo("shuffled_labels", real, placebo, training, OPTIONS)
    assert found["leak"] == leak
    if not leak:
        assert found["change"]["high"] < 0


@pytest.mark.parametrize("name", PLACEBOS)
def test_keys_stay_and_no_opinion_is_lost(name):
    _, _, theses = corpus(1, leak=True)
    changed = PLACEBOS[name].change(theses, 5)
    assert [(t.uid, t.ticker, t.as_of_date) for t in changed] == [(t.uid, t.ticker, t.as_of_date) for t in theses]
    assert Counter(t.action for t in changed) == Counter(t.action for t in theses)
    assert all(t.indicators["consensus"] == t.action for t in changed)
    assert changed == PLACEBOS[name].change(theses, 5)


def test_shifted_opinions_come_from_the_same_ticker_sixty_theses_earlier():
    _, _, theses = corpus(2, leak=False)
    changed = PLACEBOS["shifted_dates"].change(theses, 0)
    own = sorted((t.as_of_date, t.reasoning) for t in theses if t.ticker == theses[0].ticker)
    new = sorted((t.as_of_date, t.reasoning) for t in changed if t.ticker == theses[0].ticker)
    assert [text for _, text in new[SHIFT:]] == [text for _, text in own[:-SHIFT]]
    assert [text for _, text in new[:SHIFT]] == [text for _, text in own[-SHIFT:]]


def test_swapped_opinions_come_from_another_ticker_of_the_same_day():
    _, _, theses = corpus(2, leak=False)
    texts = {(t.ticker, t.as_of_date): t.reasoning for t in theses}
    source = {}
    for thesis in PLACEBOS["swapped_tickers"].change(theses, 3)[:300]:
        givers = {name for (name, day), text in texts.items() if day == thesis.as_of_date and text == thesis.reasoning}
        source.setdefault(thesis.ticker, set(givers)).intersection_update(givers)
    assert all(len(givers) == 1 and ticker not in givers for ticker, givers in source.items())


def test_anonymised_texts_name_no_ticker_and_no_date():
    _, _, theses = corpus(1, leak=False)
    named = [msgspec.structs.replace(t, reasoning=f"{t.ticker} rose on {t.as_of_date} as in 2023") for t in theses[:50]]
    for thesis in PLACEBOS["anonymised"].change(named, 0):
        assert thesis.reasoning == "[stock] rose on [date] as in [date]"


def test_other_rows_or_an_unknown_placebo_are_refused():
    prices, shown, theses = corpus(0, leak=False)
    real, training = train_and_score(shown, theses, prices.sessions.dates[220].item())
    moved = [msgspec.structs.replace(row, as_of_date=row.as_of_date + timedelta(1)) for row in real]
    with pytest.raises(InputError, match="not the"):
        compare_placebo("shuffled_labels", real, moved, training, OPTIONS)
    with pytest.raises(InputError, match="none of"):
        compare_placebo("magic", real, real, training, OPTIONS)
