"""``finseek evaluate``: the stage of a config, or any predictions on any prices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from finseek.cli.shared import JsonOption, SetOption, execute


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("evaluate", short_help="Score answers against the teacher and the market.")(evaluate)


def evaluate(
    context: typer.Context,
    config: Annotated[Optional[Path], typer.Argument(help="YAML config of a run.")] = None,  # noqa: UP045
    predictions: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="CSV or Parquet of ticker, as_of_date, gt_action and pred_action or completion."),
    ] = None,
    prices: Annotated[Optional[Path], typer.Option(help="Price table, CSV or Parquet.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="Folder for eval_results.csv and metrics.json.")] = None,  # noqa: UP045
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score answers against the teacher and the market, with intervals and beside baselines.

    With a config, the stage of that run. With --predictions, --prices and --out, any predictions, no pipeline: what
    stands in completion is parsed where there is no pred_action, and the look is added to the trials beside the folder.

    Example: finseek evaluate --predictions mine.csv --prices prices.parquet --out scores
    """
    from finseek.cli.summary import print_evaluation, print_summary
    from finseek.core.errors import InputError

    if config is not None and predictions is None and prices is None and out is None:
        print_summary(execute(context, config, "evaluate", assignments), as_json=as_json)
        return
    if config is not None or predictions is None or prices is None or out is None:
        raise InputError("give either CONFIG, or all of --predictions FILE --prices FILE --out DIR")

    from finseek.pipeline.config_file import load_config
    from finseek.pipeline.standalone import evaluate_file

    options = load_config(None, assignments or ()).config
    metrics, recorded = evaluate_file(options, predictions, prices, out)
    print_evaluation(metrics, out, as_json=as_json)
    if not as_json:
        print(f"trials on these test data: {recorded.trials} ({recorded.chain})")
