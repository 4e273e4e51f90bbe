"""The stages that judge: backtest, report; and sweeps of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from finseek.core.artifacts import read_json, write_json, write_text
from finseek.core.progress import Progress, silent
from finseek.pipeline import manifest
from finseek.pipeline.cache import RunState
from finseek.pipeline.config import Config
from finseek.pipeline.data import run_prices
from finseek.pipeline.paths import RunPaths
from finseek.pipeline.placebos import placebo_finding
from finseek.pipeline.stages import STAGES, StageContext
from finseek.pipeline.trials import all_looks, deflated, record_sweep, refuse_locked_look

if TYPE_CHECKING:
    from finseek.backtest import SweepResult

AUDITS = ("leaks", "contamination")


def backtest_the_answers(context: StageContext) -> dict[str, Any]:
    """Stage ``backtest``: the model's answers on the test split, traded by the account."""
    from finseek.backtest import Signal, read_signals, run_backtest, write_result
    from finseek.evaluate import read_predictions

    answers = context.paths.evaluate / "eval_results.csv"
    teacher = [Signal(row.ticker, row.as_of_date, row.gt_action) for row in read_predictions(answers)]
    result = run_backtest(
        read_signals(answers),
        run_prices(context),
        context.config.backtest,
        teacher=teacher,
        progress=context.progress,
    )
    write_result(result, context.paths.backtest)
    counts = result.metrics["signals"]
    return {name: counts[name] for name in ("given", "traded", "no_signal", "unexecuted")}


def sweep_the_answers(
    config: Config, paths: RunPaths, out: Path, grid: Mapping[str, Sequence[Any]], progress: Progress = silent
) -> SweepResult:
    """Trade the answers of a run at every point of a grid; each point is a trial in the run's chain.

    Args:
        config: of the run.
        paths: of the run.
        out: folder of the tables.
        grid: the values of each key below ``backtest``.
        progress: told of the points.
    """
    from finseek.backtest import read_signals, sweep, write_sweep
    from finseek.market import load_prices

    refuse_locked_look(config, paths, "sweep")
    options = config.prices.model_copy(update={"columns": {}})
    prices = load_prices(paths.prices / "prices.parquet", options)
    found = sweep(read_signals(paths.evaluate / "eval_results.csv"), prices, config.backtest, grid, progress)
    record_sweep(config, paths, found)  # before anybody can have seen a figure
    write_sweep(found, out)
    return found


def write_the_report(context: StageContext) -> dict[str, Any]:
    """Stage ``report``: everything that the run knows about itself, on one page."""
    from finseek.report import ReportInputs, build_report, model_card, report_schema

    config, paths, has = context.config, context.paths, context.present
    finished = RunState(paths.state).stages
    # in the order of the table, not in that of their last run: the same run gives the same bytes
    done = {stage.name: finished[stage.name] for stage in STAGES if stage.name in has}
    artifacts = {
        name: {"sha256": file["sha256"], "bytes": file["bytes"], "stage": stage}
        for stage, record in done.items()
        for name, file in record["outputs"].items()
    }
    stages = {stage: {"key": record["key"], "counts": record["counts"]} for stage, record in done.items()}
    equity = _equity(paths.backtest / "equity.csv") if "backtest" in has else None
    looks = all_looks(config, paths) if "split" in has else {}
    inputs = ReportInputs(
        config=config.to_json(),
        run={
            "name": config.run.name,
            "seed": config.run.seed,
            "code": manifest.describe_code(),
            "environment": manifest.describe_environment(),
            "stages": stages,
        },
        theses=_json(paths.theses / "summary.json") if "theses" in has else None,
        rejects=list(islice(_lines(paths.theses / "rejects.jsonl"), config.report.rejects)) if "theses" in has else (),
        prices=_json(paths.prices / "summary.json") if "prices" in has else None,
        certificate=_json(paths.split / "certificate.json") if "split" in has else None,
        train_log=list(_lines(paths.train / "train_log.jsonl")) if "train" in has else (),
        evaluation=_json(paths.evaluate / "metrics.json") if "evaluate" in has else None,
        instruction=_json(paths.samples / "summary.json") if config.instruct and "samples" in has else None,
        examples=_examples(context) if {"evaluate", "split"} <= has else (),
        backtest=_json(paths.backtest / "metrics.json") if "backtest" in has else None,
        equity=equity,
        planted=read_json(config.report.planted) if config.report.planted else None,
        trials=len(looks) if looks else None,
        deflation=deflated(looks, equity["equity"]) if equity and looks else None,
        audit={name: _json(paths.audit / f"{name}.json") for name in AUDITS if "audit" in has} | _placebos(context),
        lineage={"inputs": context.sources, "artifacts": artifacts},
        options=config.report,
    )
    html, summary = build_report(inputs)
    write_text(paths.report_html, html)
    if "train" in has:
        write_text(paths.model_card, model_card(inputs))
    else:
        paths.model_card.unlink(missing_ok=True)  # of a model that this config does not train
    write_json(paths.report_json, summary)
    write_json(paths.report_schema, report_schema())
    return {"bytes": len(html.encode())}


def _placebos(context: StageContext) -> dict[str, Any]:
    content = _json(context.paths.placebos / "placebos.json")
    found = placebo_finding(content, context.config) if content else None
    return {"placebos": found} if found else {}


def _json(path: Path) -> Any:
    return read_json(path) if path.is_file() else None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with path.open("rb") as lines:
            yield from map(orjson.loads, lines)


def _rows(path: Path) -> list[dict[str, Any]]:
    import polars as pl

    return pl.read_csv(path).to_dicts() if path.is_file() else []


def _equity(path: Path) -> dict[str, Any] | None:
    import polars as pl

    return pl.read_csv(path).to_dict(as_series=False) if path.is_file() else None


def _examples(context: StageContext) -> list[dict[str, Any]]:
    """Test rows with the teacher's words beside the model's, evenly over the split."""
    from finseek.pipeline.data import spread
    from finseek.theses import iterate_split

    rows = spread(_rows(context.paths.evaluate / "eval_results.csv"), context.config.report.examples)
    wanted = {(row["ticker"], row["as_of_date"]): row for row in rows}
    theses: Iterable[Any] = iterate_split(context.paths.split / "test.parquet") if wanted else ()
    words = {(thesis.ticker, thesis.as_of_date.isoformat()): thesis for thesis in theses}
    return [
        {**row, "reasoning": words[key].reasoning, "support": words[key].support}
        for key, row in wanted.items()
        if key in words
    ]
