"""``finseek plan``: what a training layout takes, before anybody rents it."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from finseek.cli.shared import ConfigArgument, JsonOption, SetOption, load


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("plan", short_help="Memory, time and cost of a training layout.")(plan)


def plan(
    config: ConfigArgument,
    hardware: Annotated[str, typer.Option(help="A100-80, H100, H200, B200, L40S or 4090.")] = "H100",
    price: Annotated[Optional[float], typer.Option(help="Dollars of a GPU hour.", min=0)] = None,  # noqa: UP045
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Memory, time and cost of a config's training layout; exit 1 if it does not fit, with what would.

    Example: finseek plan configs/deepseek-v3-lora.yaml --hardware H200 --price 3.1
    """
    from finseek.cli.terminal import print_json
    from finseek.core.errors import ConfigError, FinseekError
    from finseek.train.planner import lines, plan_config, refusal

    loaded = load(config, assignments).config
    if loaded.model is None:
        raise ConfigError("config section model is missing: give model.preset (random weights) or model.path")
    report = plan_config(loaded.model, loaded.train, loaded.parallel, hardware, price)
    if as_json:
        print_json(report.to_json())
    else:
        print("\n".join(lines(report)))
    if not report.asked.fits:
        raise FinseekError(refusal(report.work, report.asked, report.hardware, report.smallest))
