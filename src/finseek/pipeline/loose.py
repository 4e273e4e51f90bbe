"""Predictions that come as a file, without a run of theirs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finseek.core.artifacts import sha256_json, write_json
from finseek.pipeline.config import Config


def evaluate_file(config: Config, predictions: Path, prices: Path, out: Path) -> tuple[dict[str, Any], Path, int]:
    """Score a file of predictions and write eval_results.csv and metrics.json; the look becomes a trial.

    Args:
        config: whose sections prices, prompt.snapshot and evaluate are used.
        predictions: as `evaluate.read_predictions` reads them.
        prices: the price table.
        out: folder of the two files; the chain of trials lies beside it, as beside a run folder.

    Returns:
        the metrics, the chain, and the number of trials on these test data.

    Raises:
        InputError: broken predictions or prices, or a locked test that was looked at before.
    """
    from finseek.audit.trials import check_lock, record_trials, trials_on, verify_trials
    from finseek.evaluate import read_predictions, score_predictions, standard_baselines, write_results
    from finseek.market import load_prices, snapshots
    from finseek.theses import thesis_uid
    from finseek.theses.split import uids_hash

    options = config.evaluate
    rows = read_predictions(predictions)
    table = load_prices(prices, config.prices, sorted({row.ticker for row in rows}))
    chain = out.parent / "trials.jsonl"
    test_data = uids_hash(thesis_uid(row.ticker, row.as_of_date) for row in rows)
    tried = sha256_json([[row.ticker, row.as_of_date.isoformat(), row.pred_action, row.status] for row in rows])
    if options.lock_test:
        check_lock(verify_trials(chain), test_data, [tried], options.reason)
    market = snapshots(table, config.prompt.snapshot)
    names = [name for name in options.baselines if name != "base"]
    baselines, absent = standard_baselines(rows, (), (), market, names=names, seed=config.run.seed)
    metrics = score_predictions(rows, table, options, baselines=baselines, seed=config.run.seed).to_json()
    metrics["baselines_left_out"] = absent
    write_results(out / "eval_results.csv", rows, table)
    write_json(out / "metrics.json", metrics)
    record_trials(
        chain,
        [(tried, None, None)],
        kind="evaluation",
        test_data=test_data,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        reason=options.reason,
    )
    return metrics, chain, len(trials_on(verify_trials(chain), test_data))
