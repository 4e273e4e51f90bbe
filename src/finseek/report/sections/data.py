"""Which theses came in, which were refused, and how time was cut."""

from __future__ import annotations

from finseek.report.blocks import Block, Facts, Notice, Section, Table
from finseek.report.inputs import ReportInputs
from finseek.report.numbers import ABSENT, integer, percent, share
from finseek.report.sections.predictions import spoken

LEAD = "Theses are dated opinions of a teacher; each comes out accepted or rejected with its reason, and time is cut so that no training label reaches into the test."


def section(inputs: ReportInputs) -> Section:
    """Counts, rejects and the split certificate."""
    blocks: list[Block] = [*_theses(inputs), *_split(inputs)]
    return Section("data", "Data and split", LEAD, blocks)


def _theses(inputs: ReportInputs) -> list[Block]:
    summary = inputs.theses
    if summary is None:
        return [Notice("No theses were read in this run.")]
    blocks: list[Block] = [
        Facts(
            [
                ("Theses found", integer(summary.get("found")), "in the source"),
                ("Kept", integer(summary.get("kept")), f"of {integer(len(summary.get('tickers') or ()))} tickers"),
                ("Rejected", integer(summary.get("rejected")), "each with its reason, below"),
                (
                    "Dated",
                    f"{summary.get('first_as_of_date')} to {summary.get('last_as_of_date')}",
                    f"on {integer(summary.get('sessions'))} days",
                ),
            ]
        )
    ]
    if summary.get("actions"):
        kept = summary.get("kept")
        blocks.append(
            Table(
                "Actions of the teacher",
                "How often the teacher gave each action; a model that always gives the commonest one is the first baseline.",
                ["Action", "Theses", "Share"],
                [
                    [spoken(action), integer(count), percent(share(count, kept))]
                    for action, count in summary["actions"].items()
                ],
            )
        )
    reasons = summary.get("rejected_by_reason") or {}
    if reasons:
        blocks.append(
            Table(
                "Rejected theses by reason",
                "Nothing is dropped silently: what was found is what was kept plus what stands here.",
                ["Reason", "Theses"],
                [[str(reason).replace("_", " "), integer(count)] for reason, count in reasons.items()],
            )
        )
    return [*blocks, *_rejects(inputs)]


def _rejects(inputs: ReportInputs) -> list[Block]:
    listed = inputs.rejects[: inputs.options.rejects]
    if not listed:
        return []
    return [
        Table(
            f"Rejects ({integer(len(listed))} of {integer(len(inputs.rejects))})",
            "Where each rejected thesis stands in its source; rejects.jsonl holds all of them with their text.",
            ["File", "Place", "Reason", "Detail"],
            [
                [
                    str(reject.get("source_file")),
                    f"thesis {integer(reject.get('index'))}"
                    + (f", line {integer(reject['line'])}" if reject.get("line") else ""),
                    str(reject.get("reason")).replace("_", " "),
                    str(reject.get("detail")),
                ]
                for reject in listed
            ],
            text=frozenset({0, 1, 2, 3}),
        )
    ]


def _split(inputs: ReportInputs) -> list[Block]:
    certificate = inputs.certificate
    if certificate is None:
        return [Notice("No split was made in this run.")]
    splits = certificate.get("splits") or {}
    blocks: list[Block] = [
        Table(
            "Split certificate",
            "A decision's label is its return some sessions later; a split is clean only if the last label end of an earlier part lies before the first day of the next.",
            ["Part", "Theses", "First day", "Last day", "Last label end", "Sessions", "Tickers"],
            [
                [
                    name,
                    integer(part.get("count")),
                    part.get("first_as_of_date") or ABSENT,
                    part.get("last_as_of_date") or ABSENT,
                    part.get("max_label_end") or "beyond the last session",
                    integer(part.get("sessions")),
                    integer(part.get("tickers")),
                ]
                for name, part in splits.items()
            ],
        )
    ]
    overlaps = certificate.get("overlaps") or []
    if overlaps:
        words = {True: "apart", False: "they overlap", None: "unknown: no sessions"}
        blocks.append(
            Table(
                "Proof that labels do not overlap",
                "Each earlier part against each later one.",
                ["Earlier", "Later", "Last label end", "First day after", "Result"],
                [
                    [
                        pair["earlier"],
                        pair["later"],
                        pair["max_label_end"] or ABSENT,
                        pair["first_session"] or ABSENT,
                        words[pair["disjoint"]],
                    ]
                    for pair in overlaps
                ],
                text=frozenset(range(5)),
            )
        )
    dropped = certificate.get("dropped") or {}
    if dropped:
        blocks.append(
            Table(
                "Dropped by the split",
                "Purged means that the label would have reached into a later part; embargoed, that it stood too close to one.",
                ["Reason", "Theses"],
                [[str(reason).replace("_", " "), integer(count)] for reason, count in dropped.items()],
            )
        )
    return blocks
