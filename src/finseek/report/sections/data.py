"""Which theses came in, which were refused, and how time was cut."""

from __future__ import annotations

from finseek.report.blocks import Block, Facts, Group, Notice, Section, Table
from finseek.report.inputs import Json, ReportInputs, Rows
from finseek.report.numbers import ABSENT, integer, percent, plural, share
from finseek.report.sections.predictions import spoken

LEAD = (
    "Theses are dated opinions of a teacher; each comes out accepted or rejected with its reason, and time is cut "
    "so that "
    "no training label reaches into the test."
)
REALISED = (
    "The labels of this run are not the theses' actions: each is the action that the return over the {} sessions after "
    "the next one would have called for. Where this page says teacher, it means the market; persistence still repeats "
    "the action of the last thesis."
)


def section(inputs: ReportInputs) -> Section:
    """Counts, rejects, prices and the split certificate."""
    return Section(
        "data", "Data and split", LEAD, [*_theses(inputs), *_prices(inputs.prices), *_split(inputs.certificate)]
    )


def _reasons(caption: str, explain: str, counts: Json) -> Table:
    rows = [[str(reason).replace("_", " "), integer(count)] for reason, count in counts.items()]
    return Table(caption, explain, ["Reason", "Theses"], rows)


def _theses(inputs: ReportInputs) -> list[Block]:
    summary = inputs.theses
    if summary is None:
        return [Notice("No theses were read in this run.")]
    span = f"{summary.get('first_as_of_date')} to {summary.get('last_as_of_date')}"
    facts = Facts(
        [
            ("Theses found", integer(summary.get("found")), "in the source"),
            ("Kept", integer(summary.get("kept")), f"of {plural(len(summary.get('tickers') or ()), 'ticker')}"),
            ("Rejected", integer(summary.get("rejected")), "each with its reason, below"),
            ("Dated", span, f"on {integer(summary.get('sessions'))} days"),
        ]
    )
    small: list[Table] = []
    if summary.get("actions"):
        small.append(
            Table(
                "Actions of the teacher",
                "How often the teacher gave each action; always giving the commonest one is the first baseline.",
                ["Action", "Theses", "Share"],
                [
                    [spoken(action), integer(count), percent(share(count, summary.get("kept")))]
                    for action, count in summary["actions"].items()
                ],
            )
        )
    if summary.get("rejected_by_reason"):
        explain = "Nothing is dropped silently: what was found is what was kept plus what stands here."
        small.append(_reasons("Rejected theses by reason", explain, summary["rejected_by_reason"]))
    return [facts, Group(small), *_rejects(inputs.rejects[: inputs.options.rejects], summary.get("rejected"))]


def _rejects(listed: Rows, total: int | None) -> list[Block]:
    if not listed:
        return []
    rows = []
    for reject in listed:
        line = f", line {integer(reject['line'])}" if reject.get("line") else ""
        place = f"thesis {integer(reject.get('index'))}{line}"
        reason = str(reject.get("reason")).replace("_", " ")
        rows.append([str(reject.get("source_file")), place, reason, str(reject.get("detail"))])
    return [
        Table(
            f"Rejects, {integer(len(listed))} of {integer(total)}",
            "Where each rejected thesis stands in its source; rejects.jsonl holds all of them with their text.",
            ["File", "Place", "Reason", "Detail"],
            rows,
            text=frozenset({0, 1, 2, 3}),
            folded=True,
        )
    ]


def _prices(summary: Json | None) -> list[Block]:
    if summary is None:
        return [Notice("No prices were read in this run.")]
    span = f"{summary.get('first_session')} to {summary.get('last_session')}"
    early = summary.get("tickers_without_last_session") or []
    facts = Facts(
        [
            (
                "Tickers with prices",
                integer(summary.get("tickers")),
                f"{integer(len(early))} end before the last session",
            ),
            ("Sessions", integer(summary.get("sessions")), span),
            ("Bars", integer(summary.get("bars")), f"{integer(summary.get('missing_bars'))} missing"),
            ("Benchmark", str(summary.get("benchmark") or ABSENT), "held beside the account where there is one"),
        ]
    )
    return [facts]


def _split(certificate: Json | None) -> list[Block]:
    if certificate is None:
        return [Notice("No split was made in this run.")]
    parts = Table(
        "Split certificate",
        "A decision's label is its return some sessions later; a split is clean only if the last label of an "
        "earlier part "
        "ends before the first day of the next.",
        ["Part", "Theses", "First day", "Last day", "Last label end", "Sessions", "Tickers"],
        [[name, *_part(part)] for name, part in (certificate.get("splits") or {}).items()],
    )
    small: list[Table] = []
    overlaps = certificate.get("overlaps")
    if overlaps:
        words = {True: "apart", False: "they overlap", None: "unknown: no sessions"}
        small.append(
            Table(
                "Proof that labels do not overlap",
                "The last label end of each earlier part against the first day of each later one.",
                ["Parts", "Last label end", "First day", "Result"],
                [
                    [
                        f"{pair['earlier']} and {pair['later']}",
                        pair["max_label_end"] or ABSENT,
                        pair["first_session"] or ABSENT,
                        words[pair["disjoint"]],
                    ]
                    for pair in overlaps
                ],
                text=frozenset(range(4)),
            )
        )
    if certificate.get("dropped"):
        explain = "Purged: the label would have reached into a later part; embargoed: it stood too close to one."
        small.append(_reasons("Dropped by the split", explain, certificate["dropped"]))
    realised = (certificate.get("options") or {}).get("realised")
    said = [Notice(REALISED.format(certificate["options"]["label_horizon"]), "caution")] if realised else []
    return [*said, parts, Group(small)]


def _part(part: Json) -> list[str]:
    empty = not part.get("count")
    return [
        integer(part.get("count")),
        part.get("first_as_of_date") or ABSENT,
        part.get("last_as_of_date") or ABSENT,
        part.get("max_label_end") or (ABSENT if empty else "beyond the last session"),
        integer(part.get("sessions")),
        integer(part.get("tickers")),
    ]
