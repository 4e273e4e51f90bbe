"""What the model of a finished run says of a day: no label, no score, no trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import msgspec

from finseek.core.actions import Action
from finseek.core.errors import InputError
from finseek.core.progress import Progress, silent
from finseek.pipeline.config import Config
from finseek.pipeline.config_file import validate_config
from finseek.pipeline.manifest import read_manifest
from finseek.pipeline.paths import RunPaths


class Opinion(msgspec.Struct, frozen=True):
    """The model's answer for one ticker as of one session.

    Attributes:
        ticker: upper case.
        as_of_date: the session after whose close it speaks.
        action: None where the answer is unscored.
        status: "scored", or the reason why there is no action.
        p: five probabilities where the model gives them; None otherwise.
        text: the answer as it came.
        seen: whether the run trained or validated on theses of this day or a later one.
    """

    ticker: str
    as_of_date: date
    action: Action | None
    status: str
    p: dict[Action, float] | None
    text: str
    seen: bool


def ask_run(
    folder: Path,
    tickers: Sequence[str] | None,
    day: date,
    prices: Path | None = None,
    secrets: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> list[Opinion]:
    """Ask the model of a run about tickers as of a session, with the prompts of the run.

    Args:
        folder: the run folder, with its manifest.
        tickers: whom to ask about; None for every ticker that has a bar that day.
        day: a session of the price table; nothing later enters a prompt.
        prices: a newer price table than the run's own.
        secrets: key of a server, by the name of its variable.
        progress: told after every batch.

    Raises:
        InputError: no finished run, or a ticker or day that the prices do not hold.
        ArtifactError: the manifest or an artifact of the run is damaged.
    """
    from finseek.evaluate.ask import ask, load_backend, read_answer
    from finseek.market import PricesOptions, load_prices, snapshots
    from finseek.samples import Sample
    from finseek.samples.prompts import History, build_prompt
    from finseek.theses import Thesis, load_theses, thesis_uid

    config: Config = validate_config(read_manifest(folder / "manifest.json")["config"])
    paths, prompt = RunPaths(folder), config.prompt
    theses = load_theses(paths.theses / "all.jsonl")
    written = {(thesis.ticker, thesis.as_of_date): thesis for thesis in theses}
    own = paths.prices / "prices.parquet"
    market = None
    if prices or own.is_file():
        options = config.prices if prices else PricesOptions(benchmark=config.prices.benchmark)
        universe = sorted({thesis.ticker for thesis in theses})
        market = snapshots(load_prices(prices or own, options, universe), prompt.snapshot)
    if tickers is None:
        if market is None:
            raise InputError("the run has no prices to take the tickers of the day from: name a ticker")
        row = int(market.prices.sessions.index([day])[0])
        if row < 0:
            first, last = market.prices.sessions.dates[[0, -1]]
            raise InputError(f"{day} is no session of the price table ({first} to {last}): give --prices that hold it")
        tickers = [name for name, bar in zip(market.prices.tickers, market.prices.has_bar[row], strict=True) if bar]

    def nothing_written(ticker: str) -> Thesis:
        uid = thesis_uid(ticker, day)
        return Thesis(uid, ticker, day, "", "", Action.HOLD, {}, None, None, None, "", 0)

    history = History(theses if prompt.last_actions else ())
    samples = []
    for ticker in tickers:
        thesis = written.get((ticker, day)) or nothing_written(ticker)
        text = build_prompt(thesis, market, prompt, history)
        samples.append(Sample(text, "", {"ticker": ticker, "as_of_date": day.isoformat()}))
    backend = load_backend(
        config.evaluate,
        paths.train / "checkpoint",
        prompt.answer_order,
        config.run.seed,
        prompt.template,
        api_key=(secrets or {}).get("OPENAI_API_KEY"),
    )
    seen = config.split is not None and day <= config.split.train_end
    opinions = []
    for ticker, answer in zip(tickers, ask(samples, backend, progress), strict=True):
        parsed, p = read_answer(answer, config.evaluate)
        opinions.append(Opinion(ticker, day, parsed.action, parsed.status, p, answer.text, seen))
    return opinions
