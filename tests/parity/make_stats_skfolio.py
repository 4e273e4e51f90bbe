"""Write stats_skfolio.json and folds_skfolio.json: run by hand where skfolio is installed (made with 1.12.2)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import skfolio.measures as measures
from skfolio.model_selection import CombinatorialPurgedCV

HERE = Path(__file__).parent
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
(HERE / "stats_skfolio.json").write_text("[" + ",\n".join(map(json.dumps, cases)) + "]\n")

# One letter an observation: training, Test, or - for what is left out.
folds = []
for groups, tested, periods, purged in ((6, 2, 60, 0), (6, 2, 60, 3), (10, 8, 80, 1), (5, 2, 50, 2), (7, 3, 63, 1)):
    splitter = CombinatorialPurgedCV(n_folds=groups, n_test_folds=tested, purged_size=purged, embargo_size=0)
    pictures = []
    for train, blocks in splitter.split(np.zeros((periods, 1))):
        picture = np.full(periods, "-")
        picture[train], picture[np.concatenate(list(blocks))] = "t", "T"
        pictures.append("".join(picture))
    about = {"groups": groups, "tested": tested, "periods": periods, "purged": purged}
    folds.append({**about, "paths": splitter.n_test_paths, "folds": pictures})
(HERE / "folds_skfolio.json").write_text(json.dumps(folds, indent=1) + "\n")
