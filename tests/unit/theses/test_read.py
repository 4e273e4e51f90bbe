from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from finseek.core.errors import ArtifactError, InputError
from finseek.theses import ThesesOptions, Thesis, load_theses, parse_theses, read_theses, thesis_uid, write_records

FIELDS = ["uid", "ticker", "as_of_date", "reasoning", "support", "action", "indicators", "instruction", "input",
          "output", "source_file", "index"]  # fmt: skip


def thesis(date: str, action: str = "buy", reasoning: str = "Up", extra: str = "") -> str:
    return (
        f"<thesis><as-of-date>{date}</as-of-date><reasoning>{reasoning}</reasoning><action>{action}</action>"
        f"<support>1. Volume</support>{extra}</thesis>"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with conflicts across files, a duplicate, a broken file and a stranger."""
    source = tmp_path / "source"
    (source / "b").mkdir(parents=True)
    first = thesis("2024-01-05") + thesis("2024-01-08") + thesis("2024-01-09", "error") + thesis("2024-01-10")
    (source / "a.xml").write_text(f'<stock-theses ticker="T">\n{first}</stock-theses>')
    second = thesis("2024-01-05", "sell") + thesis("2024-01-05") + thesis("2024-01-10") + thesis("2024-01-11")
    (source / "b" / "t.xml").write_text(f'<stock-theses ticker="T">\n{second}</stock-theses>')
    (source / "b" / "broken.xml").write_text("<stock-theses>\n\n<thesis>")
    (source / "notes.md").write_text("hello")
    return source


def test_lists(folder: Path) -> None:
    theses, rejects = read_theses(folder)
    assert [(t.as_of_date.day, t.source_file, t.index) for t in theses] == [
        (8, "a.xml", 1),
        (10, "a.xml", 3),
        (11, "b/t.xml", 3),
    ]
    assert sorted((r.reason, r.source_file, r.index) for r in rejects) == [
        ("action_is_error", "a.xml", 2),
        ("conflicting_duplicate", "a.xml", 0),
        ("conflicting_duplicate", "b/t.xml", 0),
        ("conflicting_duplicate", "b/t.xml", 1),
        ("duplicate", "b/t.xml", 2),
        ("malformed_xml", "b/broken.xml", -1),
        ("unsupported_file", "notes.md", -1),
    ]
    by_reason = {r.reason: r for r in rejects}
    assert by_reason["malformed_xml"].line == 3
    assert by_reason["action_is_error"].line == 2
    assert by_reason["action_is_error"].raw["reasoning"] == "Up"
    assert by_reason["malformed_xml"].raw == "<stock-theses>\n\n<thesis>"


def test_files_hold_what_the_lists_hold(folder: Path, tmp_path: Path) -> None:
    theses, rejects = read_theses(folder)
    summary = parse_theses(folder, tmp_path / "theses")
    assert load_theses(tmp_path / "theses" / "all.jsonl") == theses
    lines = (tmp_path / "theses" / "rejects.jsonl").read_text().splitlines()
    assert sorted(map(str, map(json.loads, lines))) == sorted(str(msgspec.to_builtins(r)) for r in rejects)
    assert summary == json.loads((tmp_path / "theses" / "summary.json").read_text())
    assert (summary["found"], summary["kept"], summary["rejected"]) == (10, 3, 7)
    assert sum(summary["rejected_by_reason"].values()) == 7
    assert sum(summary["actions"].values()) == sum(summary["tickers"].values()) == 3
    assert sorted(p.name for p in (tmp_path / "theses").iterdir()) == ["all.jsonl", "rejects.jsonl", "summary.json"]


def test_fields_stand_in_the_order_of_the_design(folder: Path, tmp_path: Path) -> None:
    parse_theses(folder, tmp_path)
    first = json.loads((tmp_path / "all.jsonl").read_text().splitlines()[0])
    assert list(first) == FIELDS
    assert first["uid"] == thesis_uid("T", load_theses(tmp_path / "all.jsonl")[0].as_of_date)
    assert first["as_of_date"] == "2024-01-08"
    assert first["action"] == "BUY"


def test_uid_is_the_hash_of_ticker_and_date(folder: Path) -> None:
    import hashlib

    (kept, *_), _ = read_theses(folder)
    assert kept.uid == hashlib.sha256(b"T|2024-01-08").hexdigest()[:16]


def test_all_jsonl_is_a_source_and_a_fixed_point(folder: Path, tmp_path: Path) -> None:
    parse_theses(folder, tmp_path / "one")
    again, rejects = read_theses(tmp_path / "one" / "all.jsonl")
    before = load_theses(tmp_path / "one" / "all.jsonl")
    assert not rejects
    assert [msgspec.structs.replace(t, source_file="", index=0) for t in again] == [
        msgspec.structs.replace(t, source_file="", index=0) for t in before
    ]


def test_indicators_are_kept_by_name(tmp_path: Path) -> None:
    extra = '<rsi>55</rsi><indicators><sma window="20">1.5</sma><action>x</action></indicators><rsi>56</rsi>'
    content = thesis("2024-01-05", extra=extra).replace("<thesis>", '<thesis confidence="0.7">')
    (tmp_path / "a.xml").write_text(f'<stock-theses ticker="T">{content}</stock-theses>')
    (kept,), _ = read_theses(tmp_path)
    assert kept.indicators == {
        "confidence": "0.7",
        "rsi": "55",
        "sma.window": "20",
        "sma": "1.5",
        "indicators.action": "x",
        "rsi.2": "56",
    }


def test_salvage_marks_what_it_keeps(tmp_path: Path) -> None:
    broken = thesis("2024-01-05") + thesis("2024-01-08", reasoning="S&P") + thesis("2024-01-09")
    (tmp_path / "a.xml").write_text(f'<stock-theses ticker="T">\n{broken}</stock-theses>')
    (tmp_path / "b.xml").write_text(f'<stock-theses ticker="U">{thesis("2024-01-05")}</stock-theses>')
    theses, rejects = read_theses(tmp_path, ThesesOptions(salvage=True))
    assert [(t.ticker, t.index, t.salvaged) for t in theses] == [("T", 0, True), ("T", 2, True), ("U", 0, False)]
    assert [(r.reason, r.index, r.line) for r in rejects] == [("malformed_xml", 1, 2)]
    assert "S&P" in rejects[0].raw["text"]
    parse_theses(tmp_path, tmp_path / "out", ThesesOptions(salvage=True))
    lines = (tmp_path / "out" / "all.jsonl").read_text().splitlines()
    assert [json.loads(line).get("salvaged") for line in lines] == [True, True, None]


def test_salvage_reads_in_the_declared_encoding(tmp_path: Path) -> None:
    text = '<?xml version="1.0" encoding="ISO-8859-1"?><stock-theses ticker="T">' + thesis(
        "2024-01-05", reasoning="cafÃ©"
    )
    (tmp_path / "a.xml").write_bytes(text.encode("latin-1"))
    (kept,), rejects = read_theses(tmp_path, ThesesOptions(salvage=True))
    assert kept.reasoning == "cafÃ©"
    assert not rejects


def test_a_long_raw_text_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<stock-theses>" + "x" * 200)
    (tmp_path / "b.xml").write_text(
        f'<stock-theses ticker="T">{thesis("2024-01-05", "none", "y" * 150)}</stock-theses>'
    )
    _, rejects = read_theses(tmp_path, ThesesOptions(max_raw_chars=100))
    assert rejects[0].raw == "<stock-theses>" + "x" * 86 + "… (114 more bytes)"
    assert rejects[1].raw["reasoning"] == "y" * 100 + "… (50 more characters)"


def test_a_reject_holds_both_values_of_a_field_that_comes_twice(tmp_path: Path) -> None:
    twice = thesis("2024-01-05", extra="<action>sell</action><action>hold</action>")
    (tmp_path / "a.xml").write_text(f'<stock-theses ticker="T">{twice}</stock-theses>')
    (tmp_path / "b.jsonl").write_text('{"ticker": "T", "symbol": "U", "action": 7, "as_of_date": "2024-01-08"}')
    _, (one, two) = read_theses(tmp_path)
    assert {name: text for name, text in one.raw.items() if name.startswith("action")} == {
        "action": "buy", "action.2": "sell", "action.3": "hold",
    }  # fmt: skip
    assert two.raw == {"ticker": "T", "as_of_date": "2024-01-08", "symbol": "U", "action": "7"}


def test_links_and_pipes_do_not_hang(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.xml").write_text(f'<stock-theses ticker="T">{thesis("2024-01-05")}</stock-theses>')
    (source / "loop").symlink_to(source, target_is_directory=True)
    (source / "gone.xml").symlink_to(tmp_path / "nothing.xml")
    os.mkfifo(source / "pipe.xml")
    theses, rejects = read_theses(source)
    assert len(theses) == 1
    assert [(r.reason, r.source_file) for r in rejects] == [
        ("unreadable_file", "gone.xml"),
        ("unreadable_file", "loop"),
        ("unreadable_file", "pipe.xml"),
    ]


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_theses(tmp_path / "nothing")
    with pytest.raises(InputError, match="folder without files"):
        read_theses(tmp_path)


def test_nothing_kept_leaves_the_rejects(tmp_path: Path) -> None:
    content = thesis("2024-01-05", "error") + thesis("2024-01-08") + thesis("2024-01-08", "sell")
    (tmp_path / "a.xml").write_text(f'<stock-theses ticker="T">{content}</stock-theses>')
    with pytest.raises(InputError, match=r"2 conflicting_duplicate, 1 action_is_error.*rejects\.jsonl names each"):
        parse_theses(tmp_path / "a.xml", tmp_path / "out")
    (left,) = (tmp_path / "out").iterdir()
    assert left.name == "rejects.jsonl"
    assert sorted(json.loads(line)["index"] for line in left.read_text().splitlines()) == [0, 1, 2]


def test_a_run_that_fails_halfway_leaves_what_was_there(folder: Path, tmp_path: Path) -> None:
    parse_theses(folder, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(InputError, match="does not exist"):
        parse_theses(tmp_path / "nothing", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_records_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_theses(path)
    path.write_text('{"uid": 3}\n')
    with pytest.raises(ArtifactError, match=r"all\.jsonl:1"):
        load_theses(path)


def test_writing_and_reading_a_record(folder: Path, tmp_path: Path) -> None:
    theses, _ = read_theses(folder)
    assert write_records(tmp_path / "t.jsonl", theses) == 3
    assert load_theses(tmp_path / "t.jsonl") == theses
    assert isinstance(load_theses(tmp_path / "t.jsonl")[0], Thesis)
