"""What a report is made from: the JSON of a run folder, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finseek.report.options import ReportOptions

Json = Mapping[str, Any]
Rows = Sequence[Json]


@dataclass(frozen=True)
class ReportInputs:
    """Artifacts of one run; whatever a run lacks stays None or empty and is shown as "not run".

    Attributes:
        config: the whole config as JSON.
        run: ``{name, seed, finished, code: {version, git_commit, git_dirty}, environment: {python, platform, cpus,
            packages}, stages: {stage: {key, counts, seconds}}}``, the shapes of manifest.json.
        theses: ``theses/summary.json``.
        rejects: lines of ``theses/rejects.jsonl``.
        prices: ``prices/summary.json``.
        certificate: ``split/certificate.json``.
        train_log: lines of ``train/train_log.jsonl``.
        evaluation: ``evaluate/metrics.json``.
        instruction: ``samples/summary.json`` of a run that learns from instruction data alone.
        examples: rows of ``evaluate/eval_results.csv`` with the teacher's words beside them: ``{ticker, as_of_date,
            gt_action, pred_action, status, completion, reasoning, support}``.
        backtest: ``backtest/metrics.json``.
        equity: columns of ``backtest/equity.csv``, dates as ISO texts: ``{"date": [...], "equity": [...], ...}``.
        planted: ``{bayes_accuracy, alpha}`` of a synthetic market.
        trials: distinct looks at this test data so far; None where nobody counted.
        deflation: ``{deflated_sharpe_ratio, ...}`` of ``audit.trials.deflate``; None where nothing was traded.
        audit: ``{finding: {status: passed|caution|failed, summary, figures}}`` of ``audit/*.json``.
        lineage: ``{"inputs": {name: {sha256, bytes}}, "artifacts": {path: {sha256, bytes, stage}}}``.
        options: how much to quote.
    """

    config: Json
    run: Json
    theses: Json | None = None
    rejects: Rows = ()
    prices: Json | None = None
    certificate: Json | None = None
    train_log: Rows = ()
    evaluation: Json | None = None
    instruction: Json | None = None
    examples: Rows = ()
    backtest: Json | None = None
    equity: Json | None = None
    planted: Json | None = None
    trials: int | None = None
    deflation: Json | None = None
    audit: Json = field(default_factory=dict)
    lineage: Json | None = None
    options: ReportOptions = field(default_factory=ReportOptions)
