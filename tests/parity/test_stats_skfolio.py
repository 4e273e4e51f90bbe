"""PSR, DSR and E[max SR] against skfolio's numbers, which `make_stats_skfolio.py` wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finseek import stats

CASES = json.loads(Path(__file__).with_name("stats_skfolio.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"T={len(case['returns'])}")
def test_psr_and_dsr_agree_with_skfolio(case):
    found = stats.moments(case["returns"])
    shape = {"skewness": found.skewness, "kurtosis": found.kurtosis}
    psr = stats.probabilistic_sharpe_ratio(found.sharpe, found.periods, case["benchmark"], **shape)
    assert psr == pytest.approx(case["psr"], abs=1e-12)
    variance = float(np.var(case["trials"], ddof=1))
    assert stats.expected_maximum_sharpe(10, variance) == pytest.approx(case["expected_maximum"], abs=1e-12)
    dsr = stats.deflated_sharpe_ratio(found.sharpe, found.periods, 10, variance, **shape)
    assert dsr == pytest.approx(case["dsr"], abs=1e-12)
