"""The embedded example: a made-up market with a signal planted in it, and theses of a teacher who sees the signal."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from finseek.core.artifacts import write_json
from finseek.core.errors import InputError
from finseek.pipeline.config_file import LoadedConfig, validate_config
from finseek.pipeline.overrides import Override, apply_overrides, from_arguments

# A signal over twenty sessions lasts long enough to be traded once a week at the costs of a real broker.
FEATURE = "ret20"
N_TICKERS = 30
N_SESSIONS = 620


def prepare(out: Path, *, seed: int = 0, alpha: float | None = None, assignments: Iterable[str] = ()) -> LoadedConfig:
    """Write theses (XML) and prices (Parquet) of a made-up market, and the config that runs on them.

    Args:
        out: folder that will hold the run ``demo`` and its inputs.
        seed: of market, theses and model.
        alpha: strength of the planted signal, in daily volatilities of the next return per unit of signal; None takes
            the default of the synthetic market, 0 plants nothing that could be traded.
        assignments: ``section.key=value`` texts.
    """
    from finseek.market import generate_prices, snapshots, write_prices
    from finseek.market.synthetic import SyntheticMarketOptions
    from finseek.theses.synthetic import bayes_accuracy, generate_theses, write_theses_xml

    inputs = out / "demo-inputs"
    tree: dict[str, Any] = yaml.safe_load(resources.files("finseek.pipeline").joinpath("demo.yaml").read_text("utf-8"))
    places = {
        "run.seed": seed,
        "run.output_dir": str(out),
        "theses.source": str(inputs / "theses"),
        "prices.source": str(inputs / "prices.parquet"),
        "report.planted": str(inputs / "planted.json"),
    }
    overrides = (*(Override(key, value, "finseek demo") for key, value in places.items()), *from_arguments(assignments))
    config = validate_config(apply_overrides(tree, overrides))
    assert config.split is not None

    market = SyntheticMarketOptions(n_tickers=N_TICKERS, n_sessions=N_SESSIONS, feature=FEATURE)
    prices, planted = generate_prices(seed, alpha=alpha, options=market)
    features = snapshots(prices).features
    quoted = {str(name): features[name] for name in ("ret1", FEATURE, "rsi14")}
    written = generate_theses(planted.signal, prices.sessions, prices.tickers, seed=seed, numbers=quoted)
    days = np.array([thesis.as_of_date for thesis in written.theses], dtype="datetime64[D]")
    test = days >= np.datetime64(config.split.test_start, "D")
    if not test.any():
        raise InputError(f"split.test_start {config.split.test_start} comes after the made-up market, {days.max()}")
    write_prices(prices, inputs / "prices.parquet")
    write_theses_xml(written.theses, inputs / "theses")
    write_json(
        inputs / "planted.json",
        {
            "seed": seed,
            "feature": planted.feature,
            "alpha": planted.alpha,
            "bayes_accuracy": bayes_accuracy(written.probabilities[test]),
            "direction_accuracy": planted.direction_accuracy(),
        },
    )
    return LoadedConfig(config, None, overrides)
