"""What the figures can carry: intervals, the smallest detectable Sharpe, nulls and trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finseek.report.blocks import Block, Chart, Facts, Intervals, Notice, Section, Table
from finseek.report.charts import Line, chart, intervals, nice_ticks, tick_labels
from finseek.report.figures import Figures
from finseek.report.inputs import ReportInputs
from finseek.report.numbers import ABSENT, GLUE, finite, integer, interval, number2, number3, plural, signed_percent2

LEAD = (
    "How much of the result luck could explain: an interval that includes zero, or a sample too short to show a "
    "realistic Sharpe, proves nothing either way."
)
MOST_BINS = 40
_NULLS = (
    "copies of the same positions, shifted in time and dealt to other tickers, so that only chance is left of the "
    "choice."
)


def section(inputs: ReportInputs, figures: Figures) -> Section:
    """Intervals, power, null distributions and trials."""
    blocks: list[Block] = [_power(figures), _excess(figures)]
    blocks += _nulls((inputs.backtest or {}).get("nulls"))
    blocks.append(_trials(figures))
    findings = _findings(inputs)
    if findings:
        blocks.append(findings)
    return Section("statistics", "Statistics", LEAD, blocks)


def _power(figures: Figures) -> Facts:
    mine, sharpe = figures.strategy or {}, figures.sharpe
    bounds = f"; {figures.interval} {interval(sharpe.low, sharpe.high, number2)}" if sharpe.bounded else ""
    items = [
        ("Sessions", integer(figures.sessions), "trading days of the account"),
        ("Sharpe", number2(mine.get("sharpe")), f"of the account, annual, after costs{bounds}"),
        (
            "Smallest detectable Sharpe",
            number2(figures.smallest_sharpe),
            "an annual Sharpe below this could not be told from zero in so few sessions (1.96 standard errors)",
        ),
        ("Trials", integer(figures.trials), "distinct looks at this test data, this one included"),
        (
            "Deflated Sharpe",
            number3(figures.deflated),
            "chance that the true Sharpe is above the best that so many trials without skill would have shown; "
            "below 0.95 proves nothing",
        ),
    ]
    return Facts(items if figures.accounts else [item for item in items if item[1] != ABSENT])


def _excess(figures: Figures) -> Intervals | Notice:
    excess, over = figures.excess, figures.over_holding
    if not excess.bounded:
        return Notice("The excess over the exposure-matched universe has no interval, so nothing can be said of skill.")
    found = [("the universe at the same exposure", excess), *([("buy-and-hold", over)] if over.bounded else [])]
    return intervals(
        "Return a year beyond what the market gave",
        "The account's return less what the same net exposure to the equal-weight universe earned on the same days, "
        "and less that of buy-and-hold; an interval right of the dashed zero shows skill, one across it shows nothing.",
        "Beyond",
        [(name, one.value, one.low, one.high, one.reading) for name, one in found],
        signed_percent2,
    )


def _nulls(found: Any) -> list[Block]:
    """The null books of ``backtest/metrics.json``: their draws where it holds them, their quantiles where not."""
    if not found or not found.get("books"):
        return [
            Notice("No null books: the account was not compared with shifted and shuffled copies of its own weights.")
        ]
    name = str(found.get("statistic", "statistic"))
    draws = sorted(value for value in map(finite, found.get("values") or ()) if value is not None)
    if draws:
        return [histogram(name, draws, finite(found.get("observed")), finite(found.get("p_value")))]
    quantiles = [
        f"{number2(value)} ({100 * float(level):g}{GLUE}% lie below)" for level, value in found["quantiles"].items()
    ]
    return [
        Table(
            f"Null books: {name.capitalize()}",
            f"{integer(found['books'])} {_NULLS}",
            ["What", "Value"],
            [
                ["this account", number2(found.get("observed"))],
                ["null books", "; ".join(quantiles)],
                ["share of null books at least as good (p)", number3(found.get("p_value"))],
            ],
            text=frozenset({0, 1}),
        )
    ]


def histogram(name: str, draws: Sequence[float], observed: float | None, chance: float | None) -> Chart:
    """Draws of the null books, in order, against what the account did."""
    middles, counts = binned(draws)
    half = (middles[1] - middles[0]) / 2 if len(middles) > 1 else 0.5
    reach = [middles[0] - half, middles[-1] + half, *([observed] if observed is not None else [])]
    edges = nice_ticks(min(reach), max(reach), 7)
    told = f"; at least as good as this account: p = {number3(chance)}" if chance is not None else ""
    return chart(
        f"chart-null-{name}",
        f"Null books: {name.capitalize()}",
        f"{integer(len(draws))} {_NULLS} Skill shows as a line far to the right of the hill{told}.",
        middles,
        [number2(x) for x in middles],
        [Line("null books", counts, 5, "bars")],
        integer,
        x_title=name.capitalize(),
        x_labels=list(zip(edges, tick_labels(edges, number2), strict=True)),
        marks=[(observed, f"this account {number2(observed)}")] if observed is not None else [],
        zero=True,
        latest=False,
    )


def binned(draws: Sequence[float]) -> tuple[list[float], list[float]]:
    """Middles and counts of equal bins with round edges."""
    edges = nice_ticks(draws[0], draws[-1], min(MOST_BINS, max(4, round(len(draws) ** 0.5))))
    step = edges[1] - edges[0]
    counts = [0.0] * (len(edges) - 1)
    for draw in draws:
        counts[min(int((draw - edges[0]) / step), len(counts) - 1)] += 1
    return [edge + step / 2 for edge in edges[:-1]], counts


def _trials(figures: Figures) -> Notice:
    if figures.trials is None:
        return Notice("The number of trials on this test data was not recorded.")
    tried = plural(figures.trials, "configuration")
    text = f"{tried} scored on this test data so far, this one included; the best of many looks good by luck alone."
    return Notice(text, "pass" if figures.trials == 1 else "caution")


def _findings(inputs: ReportInputs) -> Table | None:
    found = [
        (name, finding) for name, finding in inputs.audit.items() if isinstance(finding, dict) and finding.get("status")
    ]
    if not found:
        return None
    return Table(
        "Findings of the audit",
        "What the audit looked for, and what it found.",
        ["Check", "Result", "Summary"],
        [
            [name.replace("_", " "), str(finding["status"]), str(finding.get("summary") or "")]
            for name, finding in found
        ],
        text=frozenset({0, 1, 2}),
    )
