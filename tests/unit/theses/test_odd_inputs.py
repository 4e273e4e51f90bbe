# ruff: noqa: E501  (a table: one case a line)
"""Broken and odd inputs, one by one: what is kept, what is refused and why, and nothing lost."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from finseek.core.actions import Action
from finseek.theses import ThesesOptions, read_theses


class Case(NamedTuple):
    name: str
    content: bytes | str
    kept: int
    reasons: list[str]
    file: str = "theses.xml"
    options: dict[str, Any] = {}  # noqa: RUF012


def thesis(date: str = "2024-01-05", action: str = "buy", extra: str = "", **changes: str) -> str:
    fields = {"as-of-date": date, "reasoning": "Strong tape.", "action": action, "support": "1. Volume"} | changes
    inner = "".join(f"<{name}>{text}</{name}>" for name, text in fields.items())
    return f"<thesis>{inner}{extra}</thesis>"


def corpus(*theses: str, ticker: str = ' ticker="T"') -> str:
    return f"<stock-theses{ticker}>{''.join(theses)}</stock-theses>"


def row(**changes: Any) -> bytes:
    fields = {"ticker": "T", "as_of_date": "2024-01-05", "reasoning": "r", "support": "s", "action": "BUY"}
    return orjson.dumps({k: v for k, v in (fields | changes).items() if v is not ...})


def zipped(members: dict[str, bytes | str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def table(**columns: list[Any]) -> bytes:
    import polars as pl

    packed = io.BytesIO()
    pl.DataFrame(columns).write_parquet(packed)
    return packed.getvalue()


GOOD = corpus(thesis())
OTHER = corpus(thesis(), ticker=' symbol="U"')
TWO = corpus(thesis("2024-01-05"), thesis("2024-01-08"))
BOMB = '<!DOCTYPE l [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY a{i} "&a{i - 1 if i else ""};&a{i - 1 if i else ""};">' for i in range(30)
) + "]>" + corpus(thesis(reasoning="&a29;"))  # fmt: skip
CSV_HEADER = "ticker,as_of_date,reasoning,support,action\n"

CASES = [
    # the shapes of XML
    Case("plain", GOOD, 1, []),
    Case("declared", '<?xml version="1.0" encoding="UTF-8"?>\n' + GOOD, 1, []),
    Case("byte order mark", b"\xef\xbb\xbf" + GOOD.encode(), 1, []),
    Case("utf-16", GOOD.encode("utf-16"), 1, []),
    Case("latin-1 declared", b'<?xml version="1.0" encoding="ISO-8859-1"?>'
         + corpus(thesis(reasoning="café")).encode("latin-1"), 1, []),
    Case("carriage returns", GOOD.replace("><", ">\r\n<"), 1, []),
    Case("nested corpus", f"<data><batch>{GOOD}</batch></data>", 1, []),
    Case("several corpora below one root", f"<data>{GOOD}{OTHER}</data>",
         2, []),
    Case("several roots in one file", corpus(thesis()) + "\n" + corpus(thesis(), ticker=' stock="U"'), 2, []),
    Case("several roots with declarations", ('<?xml version="1.0"?>' + GOOD) + ('<?xml version="1.0"?>'
         + corpus(thesis(), ticker=' ticker="U"')), 2, []),
    Case("a thesis as the root", thesis(extra="<ticker>T</ticker>"), 1, []),
    Case("theses one after the other", thesis(extra="<symbol>T</symbol>") + thesis("2024-01-08", extra="<stock>T</stock>"),
         2, []),
    Case("another container", f"<opinions>{thesis(extra='<ticker>T</ticker>')}</opinions>", 1, []),
    Case("ticker as a child above", f"<stock-theses><ticker>T</ticker>{thesis()}</stock-theses>", 1, []),
    Case("ticker on the thesis", f'<theses><thesis symbol="t">{thesis()[8:]}</theses>', 1, []),
    Case("date as an attribute", '<theses ticker="T"><thesis as_of_date="2024-01-05"><reasoning>r</reasoning>'
         "<action>BUY</action><support>s</support></thesis></theses>", 1, []),
    Case("underscores", '<stock_theses ticker="T">' + thesis().replace("as-of-date", "as_of_date") + "</stock_theses>", 1,
         []),
    Case("capitals", GOOD.replace("thesis>", "Thesis>").replace("action", "Action"), 1, []),
    Case("a namespace", f'<n:stock-theses xmlns:n="urn:x" ticker="T">{thesis().replace("<", "<n:").replace("<n:/", "</n:")}'
         "</n:stock-theses>", 1, []),
    Case("comments and instructions", corpus("<!-- x -->", thesis(reasoning="a<!-- b -->c<?d e?>f")), 1, []),
    Case("a CDATA section", corpus(thesis(reasoning="<![CDATA[S&P 500 < 5000]]>")), 1, []),
    Case("character references", corpus(thesis(reasoning="S&amp;P &lt;500&gt; &#233;")), 1, []),
    Case("indicators flat", corpus(thesis(extra="<rsi>55</rsi>")), 1, []),
    Case("indicators nested", corpus(thesis(extra="<indicators><rsi>55</rsi><sma window='20'>1</sma></indicators>")), 1, []),
    Case("action with a space", corpus(thesis(action="Strong Buy")), 1, []),
    Case("action with a hyphen", corpus(thesis(action="strong-sell")), 1, []),
    Case("txt", GOOD, 1, [], "theses.txt"),
    # XML that is refused, whole or in part
    Case("empty file", "", 0, ["empty_file"]),
    Case("only white space", " \n\t ", 0, ["empty_file"]),
    Case("no markup", "these are my theses", 0, ["malformed_xml"]),
    Case("truncated", TWO[: len(TWO) // 2], 0, ["malformed_xml"]),
    Case("a bare ampersand", corpus(thesis(reasoning="S&P 500")), 0, ["malformed_xml"]),
    Case("a wrong end tag", GOOD.replace("</reasoning>", "</reason>"), 0, ["malformed_xml"]),
    Case("bad UTF-8", GOOD.encode().replace(b"Strong", b"Str\xffng"), 0, ["malformed_xml"]),
    Case("unknown encoding", '<?xml version="1.0" encoding="klingon"?>' + GOOD, 0, ["malformed_xml"]),
    Case("NUL bytes", GOOD.replace("Strong", "Str\0ng"), 0, ["malformed_xml"]),
    Case("a control character", GOOD.replace("Strong", "Str\x08ng"), 0, ["malformed_xml"]),
    Case("a reference to a control character", GOOD.replace("Strong", "Str&#8;ng"), 0, ["malformed_xml"]),
    Case("a C1 control character", corpus(thesis(reasoning="a\x85b"), thesis("2024-01-08")), 1, ["control_character"]),
    Case("a replacement character", corpus(thesis(support="a\ufffdb")), 0, ["control_character"]),
    Case("DOCTYPE", '<!DOCTYPE stock-theses SYSTEM "theses.dtd">' + GOOD, 0, ["doctype"]),
    Case("DOCTYPE after a comment", '<?xml version="1.0"?><!-- a --><!DOCTYPE x [<!ENTITY e "f">]>' + GOOD, 0, ["doctype"]),
    Case("DOCTYPE in UTF-16", ("<!DOCTYPE a>" + GOOD).encode("utf-16"), 0, ["doctype"]),
    Case("an external entity", '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
         + corpus(thesis(reasoning="&e;")), 0, ["doctype"]),
    Case("a billion laughs", BOMB, 0, ["doctype"]),
    Case("an undefined entity", corpus(thesis(reasoning="&nbsp;")), 0, ["malformed_xml"]),
    Case("no theses", "<stock-theses ticker='T'/>", 0, ["no_theses"]),
    Case("a misspelt thesis", corpus(thesis().replace("thesis>", "tesis>"), thesis("2024-01-08")), 1, ["unknown_element"]),
    Case("text between theses", corpus(thesis(), "BUY!", thesis("2024-01-08")), 2, ["stray_text"]),
    Case("text between fields", corpus(thesis(extra="BUY!")), 0, ["stray_text"]),
    Case("a thesis in a thesis", corpus(thesis(extra=thesis("2024-01-08"))), 0, ["nested_thesis"]),
    Case("markup in a text", corpus(thesis(reasoning="a <b>bold</b> claim")), 0, ["markup_in_text"]),
    Case("an escaped tag of the answer", corpus(thesis(reasoning="&lt;action&gt;SELL&lt;/action&gt;")), 0, ["tag_in_text"]),
    Case("too deep", "<a>" * 40 + thesis() + "</a>" * 40, 0, ["too_deep"]),
    Case("far too deep", "<a>" * 5000 + "</a>" * 5000, 0, ["malformed_xml"]),
    Case("a huge text", corpus(thesis(reasoning="x" * 11_000_000)), 0, ["malformed_xml"]),
    # fields
    Case("no ticker", corpus(thesis(), ticker=""), 0, ["missing_ticker"]),
    Case("two tickers that differ", corpus(thesis(extra="<ticker>U</ticker>")), 0, ["conflicting_ticker"]),
    Case("two tickers that agree", corpus(thesis(extra="<ticker>t</ticker>")), 1, []),
    Case("a ticker that is none", corpus(thesis(), ticker=' ticker="A|B"'), 0, ["bad_ticker"]),
    Case("a second action", corpus(thesis(extra="<action>sell</action>")), 0, ["duplicate_field"]),
    Case("the same action twice", corpus(thesis(extra="<action>buy</action>")), 0, ["duplicate_field"]),
    Case("no action", corpus(thesis().replace("<action>buy</action>", "")), 0, ["missing_action"]),
    Case("an empty action", corpus(thesis(action=" ")), 0, ["missing_action"]),
    Case("the action error", corpus(thesis(action="error")), 0, ["action_is_error"]),
    Case("an unknown action", corpus(thesis(action="accumulate")), 0, ["unknown_action"]),
    Case("two actions in one", corpus(thesis(action="buy/hold")), 0, ["unknown_action"]),
    Case("no date", corpus(thesis().replace("<as-of-date>2024-01-05</as-of-date>", "")), 0, ["missing_date"]),
    Case("February 30", corpus(thesis("2024-02-30")), 0, ["impossible_date"]),
    Case("words for a date", corpus(thesis("Friday")), 0, ["unreadable_date"]),
    Case("an ambiguous date", corpus(thesis("03/04/2024")), 0, ["ambiguous_date"]),
    Case("an ambiguous date with an order", corpus(thesis("03/04/2024")), 1, [], options={"date_order": "mdy"}),
    Case("a date in the future", corpus(thesis("2031-01-02")), 0, ["future_date"], options={"latest_date": "2030-01-01"}),
    Case("a date before all", corpus(thesis("0001-01-01")), 0, ["impossible_date"]),
    Case("no reasoning", corpus(thesis(reasoning="")), 0, ["missing_reasoning"]),
    Case("no support", corpus(thesis(support=" \n ")), 0, ["missing_support"]),
    Case("no support and none required", corpus(thesis(support="")), 1, [], options={"required": ["reasoning"]}),
    Case("a short text", corpus(thesis(reasoning="up")), 0, ["text_too_short"], options={"min_text_chars": 5}),
    Case("a long text", corpus(thesis(reasoning="up " * 40)), 0, ["text_too_long"], options={"max_text_chars": 100}),
    Case("a duplicate", corpus(thesis(), thesis()), 1, ["duplicate"]),
    Case("a conflict", corpus(thesis(), thesis(action="sell")), 0, ["conflicting_duplicate"] * 2),
    Case("a conflict among duplicates", corpus(thesis(), thesis(), thesis(action="sell")), 0, ["conflicting_duplicate"] * 3),
    # salvage
    Case("salvage of a truncated file", TWO[:-20], 1, ["malformed_xml"], options={"salvage": True}),
    Case("salvage around an ampersand", corpus(thesis(reasoning="S&P"), thesis("2024-01-08")), 1, ["malformed_xml"],
         options={"salvage": True}),
    Case("salvage without a whole thesis", "<stock-theses><thesis><action>", 0, ["malformed_xml"], options={"salvage": True}),
    Case("salvage does not revive a comment", corpus(f"<!-- {thesis()} -->", thesis("2024-01-08"))[:-3], 1, [],
         options={"salvage": True}),
    Case("salvage of an unfinished thesis", corpus(thesis()[:-9], thesis("2024-01-08"))[:-3], 1, ["malformed_xml"],
         options={"salvage": True}),
    Case("salvage stops at an unfinished comment", corpus(thesis(), "<!-- ", thesis("2024-01-08")), 1, ["malformed_xml"],
         options={"salvage": True}),
    Case("salvage stops in an unfinished thesis", corpus(thesis(), thesis("2024-01-08", reasoning="<![CDATA[ x")), 1,
         ["malformed_xml"], options={"salvage": True}),
    Case("salvage refuses a DOCTYPE", '<!DOCTYPE a [<!ENTITY e "f">]>' + GOOD[:-3], 0, ["doctype"],
         options={"salvage": True}),
    # containers
    Case("gzip", gzip.compress(GOOD.encode()), 1, [], "theses.xml.gz"),
    Case("gzip without an inner name", gzip.compress(GOOD.encode()), 1, [], "theses.gz"),
    Case("gzip cut short", gzip.compress(GOOD.encode())[:-12], 0, ["unreadable_archive"], "theses.xml.gz"),
    Case("gzip with a wrong checksum", gzip.compress(GOOD.encode())[:-8] + b"\0" * 8, 0, ["unreadable_archive"], "a.xml.gz"),
    Case("gzip that is none", GOOD, 0, ["unreadable_archive"], "theses.xml.gz"),
    Case("zip", zipped({"a.xml": GOOD, "b/c.txt": corpus(thesis("2024-01-08"))}), 2, [], "theses.zip"),
    Case("zip in zip", zipped({"inner.zip": zipped({"a.xml": GOOD})}), 1, [], "theses.zip"),
    Case("gzip in zip", zipped({"a.xml.gz": gzip.compress(GOOD.encode())}), 1, [], "theses.zip"),
    Case("zips too deep", zipped({"a.zip": zipped({"b.zip": zipped({"c.zip": zipped({"d.xml": GOOD})})})}), 0,
         ["archive_too_deep"], "theses.zip"),
    Case("zip that is none", GOOD, 0, ["unreadable_archive"], "theses.zip"),
    Case("zip without files", zipped({}), 0, ["empty_file"], "theses.zip"),
    Case("zip with a path that escapes", zipped({"../a.xml": GOOD, "b.xml": GOOD}), 1, ["unsafe_path"], "theses.zip"),
    Case("zip with an absolute path", zipped({"/etc/a.xml": GOOD}), 0, ["unsafe_path"], "theses.zip"),
    Case("zip with a drive", zipped({"C:\\a.xml": GOOD}), 0, ["unsafe_path"], "theses.zip"),
    Case("zip with a read-me", zipped({"README.md": "hello", "a.xml": GOOD}), 1, ["unsupported_file"], "theses.zip"),
    Case("an unknown suffix", GOOD, 0, ["unsupported_file"], "theses.docx"),
    Case("a file above the limit", GOOD, 0, ["file_too_large"], options={"max_file_bytes": 50}),
    Case("a gzip bomb", gzip.compress(b" " * 2_000_000), 0, ["file_too_large"], "a.xml.gz", {"max_file_bytes": 1_000_000}),
    Case("a zip bomb", zipped({"a.xml": b" " * 2_000_000}), 0, ["file_too_large"], "a.zip", {"max_file_bytes": 1_000_000}),
    # tables
    Case("JSON lines", row() + b"\n\n" + row(as_of_date="2024-01-08") + b"\n", 2, [], "theses.jsonl"),
    Case("JSON with an alias", row(ticker=..., symbol="T"), 1, [], "theses.jsonl"),
    Case("JSON cut short", row() + b"\n" + row()[:-10], 1, ["malformed_json"], "theses.jsonl"),
    Case("JSON that is no object", b"[1]\n3\n" + row(), 1, ["malformed_json"] * 2, "theses.jsonl"),
    Case("JSON with a number for a text", row(reasoning=3), 0, ["wrong_type"], "theses.jsonl"),
    Case("JSON with a lone surrogate", rb'{"ticker":"T","reasoning":"\ud800"}', 0, ["malformed_json"], "theses.jsonl"),
    Case("JSON with a control character", row(reasoning="a\x01b"), 0, ["control_character"], "theses.jsonl"),
    Case("JSON with bad UTF-8", row().replace(b'"r"', b'"\xff"'), 0, ["malformed_json"], "theses.jsonl"),
    Case("JSON with a key twice", row()[:-1] + b',"action":"SELL"}', 0, ["duplicate_field"], "theses.jsonl"),
    Case("JSON with a key's name as a value", row(reasoning="action", vix={"action": 1}), 1, [], "theses.jsonl"),
    Case("CSV with a long text", CSV_HEADER + f"T,2024-01-05,{'r' * 200_000},s,buy\nT,2024-01-08,r,s,buy\n", 1,
         ["text_too_long"], "theses.csv"),
    Case("JSON with null", row(support=None), 0, ["missing_support"], "theses.jsonl"),
    Case("JSON with indicators", row(indicators={"rsi": 5.5}, vix=12), 1, [], "theses.jsonl"),
    Case("custom rows", row(reasoning=..., support=..., instruction="i", input="x", output="<action>BUY</action>"), 1, [],
         "theses.jsonl"),
    Case("custom rows without an action field", row(reasoning=..., support=..., action=..., output="<action>BUY</action>"), 1,
         [], "theses.jsonl"),
    Case("custom rows with two actions", row(action=..., output="<action>BUY</action><action>HOLD</action>"), 0,
         ["duplicate_field"], "theses.jsonl"),
    Case("custom rows without a date", row(as_of_date=..., output="x"), 0, ["missing_date"], "theses.jsonl"),
    Case("empty JSON lines", b"\n\n", 0, ["empty_file"], "theses.jsonl"),
    Case("CSV", CSV_HEADER + 'T,2024-01-05,"a ""b"",\nc",s,buy\n', 1, [], "theses.csv"),
    Case("CSV with a byte order mark", "\ufeff" + CSV_HEADER + "T,2024-01-05,r,s,buy\n", 1, [], "theses.csv"),
    Case("CSV with a ragged row", CSV_HEADER + "T,2024-01-05,r,s\nT,2024-01-05,r,s,buy\n", 1, ["ragged_row"], "theses.csv"),
    Case("CSV with an open quote", CSV_HEADER + 'T,2024-01-05,r,s,buy\nT,2024-01-08,"r,s,buy\n', 1, ["malformed_csv"],
         "theses.csv"),
    Case("CSV in Latin-1", (CSV_HEADER + "T,2024-01-05,é,s,buy\n").encode("latin-1"), 0, ["bad_encoding"], "theses.csv"),
    Case("CSV with a column twice", "ticker,symbol\nT,T\n", 0, ["duplicate_column"], "theses.csv"),
    Case("CSV without rows", CSV_HEADER, 0, ["empty_file"], "theses.csv"),
    Case("CSV with NUL", CSV_HEADER + "T,2024-01-05,r\0,s,buy\n", 0, ["control_character"], "theses.csv"),
    Case("Parquet", table(ticker=["T"], as_of_date=["2024-01-05"], reasoning=["r"], support=["s"], action=["BUY"]), 1, [],
         "theses.parquet"),
    Case("Parquet with nulls", table(ticker=["T"], as_of_date=["2024-01-05"], reasoning=["r"], support=["s"],
         action=[None]), 0, ["missing_action"], "theses.parquet"),
    Case("Parquet that is none", b"PAR1 no PAR1", 0, ["malformed_parquet"], "theses.parquet"),
    Case("Parquet without rows", table(ticker=[]), 0, ["empty_file"], "theses.parquet"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kept_and_refused(case: Case, tmp_path: Path) -> None:
    content = case.content if isinstance(case.content, bytes) else case.content.encode()
    (tmp_path / case.file).write_bytes(content)
    options = ThesesOptions.model_validate_json(orjson.dumps(case.options))
    theses, rejects = read_theses(tmp_path / case.file, options)
    assert [reject.reason for reject in rejects] == case.reasons, [reject.detail for reject in rejects]
    assert len(theses) == case.kept
    for reject in rejects:
        assert reject.detail
        assert "\n" not in reject.detail
        assert reject.source_file.startswith(case.file)
    assert all(isinstance(thesis.action, Action) for thesis in theses)


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60
