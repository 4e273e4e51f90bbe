from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from finseek.core.actions import ACTIONS
from finseek.core.errors import InputError
from finseek.core.sessions import Sessions
from finseek.theses import read_theses
from finseek.theses.synthetic import SyntheticThesesOptions, bayes_accuracy, generate_theses, write_theses_xml

SESSIONS = Sessions.of(np.arange("2024-01-01", "2024-12-26", dtype="M8[D]"))
TICKERS = tuple(f"S{i:02d}" for i in range(40))
SIGNAL = np.random.default_rng(3).standard_normal((len(SESSIONS), len(TICKERS))) * 0.02
SIGNAL[:20] = np.nan


def test_actions_have_their_shares_and_follow_the_signal() -> None:
    made = generate_theses(SIGNAL, SESSIONS, TICKERS, seed=1)
    ranks = np.array([t.action.rank for t in made.theses])
    shares = np.bincount(ranks + 2, minlength=5) / len(ranks)
    np.testing.assert_allclose(shares, SyntheticThesesOptions().shares, atol=0.002)
    days = SESSIONS.index([t.as_of_date for t in made.theses])
    columns = [TICKERS.index(t.ticker) for t in made.theses]
    assert np.corrcoef(ranks, SIGNAL[days, columns])[0, 1] > 0.9
    assert len(made.theses) == np.isfinite(SIGNAL).sum()


@pytest.mark.parametrize(("noise", "agreement"), [(0.0, 1.0), (0.3, 1.0), (1.0, 0.7), (0.0, 0.0)])
def test_bayes_accuracy_is_what_the_best_predictor_reaches(noise: float, agreement: float) -> None:
    options = SyntheticThesesOptions(teacher_noise=noise, agreement=agreement)
    made = generate_theses(SIGNAL, SESSIONS, TICKERS, options, seed=1)
    np.testing.assert_allclose(made.probabilities.sum(axis=1), 1)
    best = made.probabilities.argmax(axis=1)
    actual = np.array([ACTIONS.index(t.action) for t in made.theses])
    error = 4 * np.sqrt(0.25 / len(actual))
    assert abs((best == actual).mean() - made.bayes_accuracy) < error
    # calibration: predicted against counted frequencies
    np.testing.assert_allclose(
        made.probabilities.mean(axis=0), np.bincount(actual, minlength=5) / len(actual), atol=error
    )


def test_a_bin_tells_less_than_the_signal() -> None:
    made = generate_theses(SIGNAL, SESSIONS, TICKERS, seed=1)
    rows = np.arange(len(made.theses))
    assert bayes_accuracy(made.probabilities, rows) == pytest.approx(made.bayes_accuracy)
    none = bayes_accuracy(made.probabilities, np.zeros(len(rows)))
    two = bayes_accuracy(made.probabilities, made.probabilities[:, 3:].sum(axis=1) > 0.5)
    assert 0.29 < none < 0.31
    assert none < two < made.bayes_accuracy


def test_reasoning_varies_by_session_and_quotes_the_numbers() -> None:
    made = generate_theses(SIGNAL, SESSIONS, TICKERS, seed=1, numbers={"close": np.abs(SIGNAL) * 1000 + 3})
    texts = [t.reasoning for t in made.theses]
    assert len(set(texts)) == len(texts)
    assert all(f"{t.as_of_date}" in t.reasoning and "close" in t.reasoning for t in made.theses)


def test_the_seed_decides() -> None:
    one, same, other = (generate_theses(SIGNAL, SESSIONS, TICKERS, seed=s).theses for s in (1, 1, 2))
    assert one == same != other


def test_the_readers_take_what_the_teacher_hands_in(tmp_path: Path) -> None:
    made = generate_theses(SIGNAL[:40], Sessions(SESSIONS.dates[:40].copy()), TICKERS, seed=1)
    write_theses_xml(made.theses, tmp_path / "xml")
    theses, rejects = read_theses(tmp_path / "xml")
    assert not rejects
    assert theses == made.theses
    assert len(list((tmp_path / "xml").iterdir())) == len(TICKERS)
    assert msgspec.json.encode(theses) == msgspec.json.encode(made.theses)


def test_wrong_signals() -> None:
    with pytest.raises(InputError, match="shape"):
        generate_theses(SIGNAL.T, SESSIONS, TICKERS, seed=1)
    with pytest.raises(InputError, match="nowhere finite"):
        generate_theses(np.full_like(SIGNAL, np.nan), SESSIONS, TICKERS, seed=1)
