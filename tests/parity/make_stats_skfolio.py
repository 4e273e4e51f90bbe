"""Write stats_skfolio.json: run by hand in an environment that has skfolio (made with 1.12.2)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import skfolio.measures as measures

rng = np.random.default_rng(20)
cases = []
for periods, scale in ((24, 0.05), (77, 0.01), (250, 0.012), (60, 0.02)):
    returns = np.round(scale * (0.2 + rng.standard_t(4, periods) - 0.3 * rng.exponential(1, periods)), 6)
    trials = np.round(rng.normal(0, 0.12, 10), 6)
    cases.append(
        {
            "returns": returns.tolist(),
            "trials": trials.tolist(),
            "benchmark": 0.05,
            "psr": measures.probabilistic_sharpe_ratio(returns, benchmark_sharpe_ratio=0.05),
            "dsr": measures.deflated_sharpe_ratio(returns, trials),
            "expected_maximum": float(measures.expected_max_sharpe_ratio(10, float(trials.std(ddof=1)))),
        }
    )
Path(__file__).with_name("stats_skfolio.json").write_text("[" + ",\n".join(map(json.dumps, cases)) + "]\n")
