"""Mutated inputs by the thousand: no traceback, no hang, and kept + rejected = found."""

from __future__ import annotations

import csv
import gzip
import io
import json
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import numpy as np
import pytest

from finseek.core.errors import InputError
from finseek.theses import ThesesOptions, parse_theses, read_theses
from finseek.theses.clean import Cleaner
from finseek.theses.read import records_of
from finseek.theses.sources import Document

XML = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<stock-theses ticker="T" version="1.0">\n'
    + "".join(
        f"<thesis><as-of-date>2024-01-{day:02d}</as-of-date><reasoning>S&amp;P up 1.{day} % – firm.</reasoning>"
        f"<action>strong_buy</action><support><![CDATA[1. a < b]]></support><rsi n='14'>5{day}</rsi></thesis>\n"
        for day in range(8, 12)
    )
    + "</stock-theses><!-- end -->"
).encode()
ROW = {"ticker": "T", "reasoning": "r é", "support": "s", "action": "BUY", "indicators": {"rsi": 5}}
JSONL = b"".join(json.dumps(ROW | {"as_of_date": f"2024-01-{day:02d}"}).encode() + b"\n" for day in range(8, 12))
CSV = b"ticker,as_of_date,reasoning,support,action\n" + b"".join(
    b'T,2024-01-%02d,"r ""q"", s",s,buy\n' % day for day in range(8, 12)
)
SPICE = [b"<", b">", b"&", b"</thesis>", b"<thesis>", b"<!--", b"]]>", b"<![CDATA[", b"<!DOCTYPE a [", b"\x00", b"\xff",
         b"\xc2\x85", b'"', b"\n", b"{", b"}", b",", b"\\ud800", b"&#8;", b"<action>sell</action>", b"\xed\xa0\x80",
         b"<?xml version='1.0'?>", b"-->", b"null", b"1e999", b"\r", b"&#x110000;", b"\xef\xbb\xbf"]  # fmt: skip


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four edits: delete, repeat, overwrite, cut, or insert something that is known to hurt."""
    for _ in range(rng.integers(1, 5)):
        start, end = sorted(rng.integers(0, len(content) + 1, size=2).tolist())
        end = min(end, start + int(rng.integers(1, 40)))
        kind = rng.integers(6)
        piece = content[start:end]
        replacement = [b"", piece * 3, rng.bytes(len(piece)), SPICE[rng.integers(len(SPICE))], piece.swapcase()]
        content = content[:start] if kind == 5 else content[:start] + replacement[kind] + content[end:]
    return content


def least(kind: str, content: bytes) -> int:
    """How many records a reader of its own finds in a file, 0 where it finds none that it can count."""
    if kind == "jsonl":
        return sum(bool(line.strip()) for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    if kind == "csv":
        try:
            rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
            return sum(bool(cells) for cells in rows) - 1
        except (csv.Error, UnicodeDecodeError):
            return 0
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError):
        return 0
    return outermost(root) if b"<!DOCTYPE" not in content else 0


def outermost(element: ElementTree.Element) -> int:
    """Theses that lie in no other thesis."""
    if element.tag.rpartition("}")[2].strip().lower() == "thesis":
        return 1
    return sum(map(outermost, element))


@pytest.mark.parametrize("salvage", [False, True])
@pytest.mark.parametrize(
    ("kind", "content", "rounds"), [("xml", XML, 5000), ("jsonl", JSONL, 2500), ("csv", CSV, 2500)]
)
def test_mutated_text(kind: str, content: bytes, rounds: int, salvage: bool) -> None:
    rng = np.random.default_rng(7)
    options = ThesesOptions(salvage=salvage, max_depth=8)
    kept = 0
    for _ in range(rounds):
        cleaner = Cleaner(options)
        mutated = mutate(content, rng)
        records = list(records_of(Document("f", kind, mutated), cleaner))
        settled = list(cleaner.settle(records))
        refused_whole = any(record.index < 0 for record in records)
        assert len(settled) == len(records) >= (1 if refused_whole else max(1, least(kind, mutated)))
        theses = [r for r in settled if not hasattr(r, "reason")]
        assert len({t.uid for t in theses}) == len(theses)
        for thesis in theses:
            assert thesis.reasoning
            assert thesis.support
            assert thesis.ticker
        for reject in settled:
            if hasattr(reject, "reason"):
                assert reject.detail
        kept += len(theses)
    assert kept > 100


def test_mutated_archives_and_tables(tmp_path: Path) -> None:
    import polars as pl

    rng = np.random.default_rng(8)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.xml", XML)
        archive.writestr("b/c.jsonl", JSONL)
    table = io.BytesIO()
    pl.read_ndjson(JSONL).drop("indicators").write_parquet(table)
    sources = {"f.zip": packed.getvalue(), "f.xml.gz": gzip.compress(XML), "f.parquet": table.getvalue()}
    for name, content in sources.items():
        for _ in range(300):
            (tmp_path / name).write_bytes(mutate(content, rng))
            theses, rejects = read_theses(tmp_path / name, ThesesOptions(max_file_bytes=1_000_000))
            assert len(theses) + len(rejects) >= 1
        (tmp_path / name).unlink()


def test_files_reconcile_for_mutated_folders(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    for round_ in range(60):
        source = tmp_path / f"s{round_}"
        source.mkdir()
        for place, (content, suffix) in enumerate([(XML, "xml"), (JSONL, "jsonl"), (CSV, "csv"), (XML, "txt")]):
            (source / f"{place}.{suffix}").write_bytes(mutate(content, rng))
        theses, rejects = read_theses(source)
        try:
            summary = parse_theses(source, tmp_path / "out")
        except InputError:
            assert not theses
            continue
        assert summary["found"] == summary["kept"] + summary["rejected"] == len(theses) + len(rejects)
        lines = (tmp_path / "out" / "rejects.jsonl").read_bytes().splitlines()
        assert len(lines) == sum(summary["rejected_by_reason"].values()) == len(rejects)
