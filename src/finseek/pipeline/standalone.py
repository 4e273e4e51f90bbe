"""Predictions and signals that come as files, without a run of theirs; every look at them is a trial all the same.

The chain of trials lies beside the folder of the results, as beside a run folder. Test data are told by the tickers and
dates of the rows, so that answers of a run are the same data here and there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finseek.core.artifacts import sha256_json, write_json
from finseek.core.errors import InputError
from finseek.core.progress import Progress, silent
from finseek.pipeline.config import Config
from finseek.pipeline.trials import now, per_session

if TYPE_CHECKING:
    from finseek.backtest import BacktestOptions, Signal, SweepResult

Look = tuple[str, float | None, int | None]
"""Hash of what was tried, Sharpe ratio per session or None, sessions or None."""


@dataclass(frozen=True)
class Recorded:
    """Where a look was recorded.

    Attributes:
        chain: trials.jsonl beside the folder of the results.
        trials: number of trials on these test data, this one included.
    """

    chain: Path
    trials: int


def evaluate_file(config: Config, predictions: Path, prices: Path, out: Path) -> tuple[dict[str, Any], Recorded]:
    """Score a file of predictions and write eval_results.csv and metrics.json.

    Args:
        config: whose sections prices, prompt.snapshot and evaluate are used.
        predictions: as `evaluate.read_predictions` reads them.
        prices: the price table.
        out: folder of the two files.

    Raises:
        InputError: broken predictions or prices, or a locked test that was looked at before.
    """
    from finseek.evaluate import read_predictions, score_predictions, standard_baselines, write_results
    from finseek.market import load_prices, snapshots

    options, seed = config.evaluate, config.run.seed
    rows = read_predictions(predictions)
    table = load_prices(prices, config.prices, sorted({row.ticker for row in rows}))
    tried = sha256_json([[row.ticker, row.as_of_date.isoformat(), row.pred_action, row.status] for row in rows])
    chain = _Chain(config, out, ((row.ticker, row.as_of_date) for row in rows))
    chain.refuse_locked([tried])
    market = snapshots(table, config.prompt.snapshot)
    names = [name for name in options.baselines if name != "base"]
    baselines, absent = standard_baselines(rows, (), (), market, names=names, seed=seed)
    metrics = score_predictions(rows, table, options, baselines=baselines, seed=seed).to_json()
    metrics["baselines_left_out"] = absent
    recorded = chain.record("evaluation", [(tried, None, None)])
    write_results(out / "eval_results.csv", rows, table)
    write_json(out / "metrics.json", metrics)
    return metrics, recorded


def backtest_file(
    config: Config, signals: Path, prices: Path, out: Path, progress: Progress = silent
) -> tuple[dict[str, Any], Recorded]:
    """Trade a file of signals and write what `backtest.write_result` writes; the universe is their tickers.

    Args:
        config: whose sections prices and backtest are used, and evaluate for the lock.
        signals: as `backtest.read_signals` reads them.
        prices: the price table.
        out: folder of the files.
        progress: told of the null books.

    Raises:
        InputError: broken signals or prices, or a locked test that was looked at before.
    """
    from finseek.backtest import read_signals, run_backtest, signal_tickers, write_result
    from finseek.market import load_prices

    given, options = read_signals(signals), config.backtest
    table = load_prices(prices, config.prices, signal_tickers(given))
    chain, tried = _Chain(config, out, _keys(given)), _trade(given, options)
    chain.refuse_locked([tried])
    result = run_backtest(given, table, options, progress=progress)
    sharpe, sessions = result.metrics["performance"]["sharpe"], result.metrics["window"]["sessions"]
    recorded = chain.record("backtest", [(tried, per_session(sharpe), sessions)])
    write_result(result, out)
    return result.metrics, recorded


def sweep_file(
    config: Config,
    signals: Path,
    prices: Path,
    out: Path,
    grid: Mapping[str, Sequence[Any]],
    progress: Progress = silent,
) -> tuple[SweepResult, Recorded]:
    """Trade a file of signals at every point of a grid, as :func:`backtest_file`; each point is a trial."""
    from finseek.backtest import read_signals, signal_tickers, sweep, write_sweep
    from finseek.market import load_prices

    given = read_signals(signals)
    table = load_prices(prices, config.prices, signal_tickers(given))
    chain = _Chain(config, out, _keys(given))
    chain.refuse_locked(["the points of a sweep"])
    found = sweep(given, table, config.backtest, grid, progress)
    sharpes, sessions = found.metrics["sharpe"], len(found.returns)
    looks = [
        (_trade(given, options), per_session(sharpe), sessions)
        for options, sharpe in zip(found.options, sharpes, strict=True)
    ]
    recorded = chain.record("sweep", looks)
    write_sweep(found, out)
    return found, recorded


def _keys(signals: Iterable[Signal]) -> Iterable[tuple[str, date]]:
    return ((signal.ticker, signal.as_of_date) for signal in signals)


def _trade(signals: Sequence[Signal], options: BacktestOptions) -> str:
    """Identity of what was traded, and how."""
    opinions = [[s.ticker, s.as_of_date.isoformat(), s.action, s.weight, s.probabilities] for s in signals]
    return sha256_json({"signals": opinions, "backtest": options.model_dump(mode="json")})


class _Chain:
    """The trials beside a folder of results, on the test data of some rows."""

    def __init__(self, config: Config, out: Path, rows: Iterable[tuple[str, date]]) -> None:
        from finseek.theses import thesis_uid
        from finseek.theses.split import uids_hash

        if out.exists() and not out.is_dir():
            raise InputError(f"--out {out} is a file: name a folder for the results")
        self.options, self.path = config.evaluate, out.parent / "trials.jsonl"
        self.test_data = uids_hash(thesis_uid(ticker, day) for ticker, day in rows)

    def refuse_locked(self, tried: Sequence[str]) -> None:
        """Refuse a second look at locked test data without a reason, before the work."""
        from finseek.audit.trials import check_lock, verify_trials

        if self.options.lock_test:
            check_lock(verify_trials(self.path), self.test_data, tried, self.options.reason)

    def record(self, kind: Literal["evaluation", "backtest", "sweep"], looks: Sequence[Look]) -> Recorded:
        """Append looks, before anybody can have seen a figure."""
        from finseek.audit.trials import record_trials, trials_on, verify_trials

        record_trials(self.path, looks, kind=kind, test_data=self.test_data, at=now(), reason=self.options.reason)
        return Recorded(self.path, len(trials_on(verify_trials(self.path), self.test_data)))
