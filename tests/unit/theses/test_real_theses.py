"""The real theses: nothing lost, nothing altered."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
import zipfile
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from finseek.core.sessions import Sessions
from finseek.theses import Reject, SplitOptions, Thesis, parse_theses, read_theses, split_by_time, write_split

pytestmark = pytest.mark.realdata
CUTS = {"train_end": date(2024, 12, 31), "test_start": date(2025, 1, 1)}


@pytest.fixture(scope="module")
def records(real_theses: Path) -> tuple[list[Thesis], list[Reject]]:
    return read_theses(real_theses)


@pytest.fixture(scope="module")
def sessions(real_prices: Path) -> Sessions:
    dates = pl.read_parquet(real_prices).filter(pl.col("ticker") != "SPY")["date"].cast(pl.Date)
    return Sessions.of(dates.to_numpy())


def test_counts(records: tuple[list[Thesis], list[Reject]]) -> None:
    theses, rejects = records
    assert len(theses) == 7496
    assert [reject.reason for reject in rejects] == ["action_is_error"] * 24
    assert {reject.raw["ticker"] for reject in rejects} == {"TGT", "TSLA"}
    assert len({thesis.uid for thesis in theses}) == 7496


def test_texts_equal_those_of_elementtree(records: tuple[list[Thesis], list[Reject]], real_theses: Path) -> None:
    ours = {(t.ticker, t.as_of_date.isoformat()): (t.reasoning, t.support, t.action) for t in records[0]}
    theirs = {}
    with zipfile.ZipFile(real_theses) as archive:
        for name in archive.namelist():
            if name.endswith(".xml"):
                root = ElementTree.fromstring(archive.read(name))
                for thesis in root.iter("thesis"):
                    if (action := thesis.findtext("action")) != "error":
                        key = (root.get("ticker"), thesis.findtext("as-of-date"))
                        theirs[key] = (thesis.findtext("reasoning"), thesis.findtext("support"), action.upper())
    assert ours == theirs


def test_a_folder_gives_what_the_archive_gives(
    records: tuple[list[Thesis], list[Reject]], real_theses: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(real_theses) as archive:
        archive.extractall(tmp_path)
    theses, rejects = read_theses(tmp_path)
    assert [(t.uid, t.reasoning, t.index) for t in theses] == [(t.uid, t.reasoning, t.index) for t in records[0]]
    assert len(rejects) == 24


def test_splits_without_purge(records: tuple[list[Thesis], list[Reject]], sessions: Sessions) -> None:
    split = split_by_time(records[0], sessions, SplitOptions(**CUTS, purge=False))
    assert (len(split.train), len(split.validation), len(split.test)) == (5560, 420, 1516)
    assert not split.dropped


def test_splits_with_purge_and_embargo(records: tuple[list[Thesis], list[Reject]], sessions: Sessions) -> None:
    split = split_by_time(records[0], sessions, SplitOptions(**CUTS, embargo=2))
    # six sessions a cut hold a label that ends too late, two more are embargoed; 20 tickers each
    assert {reason: len(theses) for reason, theses in split.dropped.items()} == {"purged": 240, "embargoed": 80}
    assert split.certificate["labels_disjoint"] is True


def test_the_files_of_the_stages(real_theses: Path, tmp_path: Path) -> None:
    summary = parse_theses(real_theses, tmp_path / "theses")
    assert (summary["found"], summary["kept"], summary["rejected"]) == (7520, 7496, 24)
    assert summary["rejected_by_reason"] == {"action_is_error": 24}
    options = SplitOptions(**CUTS, purge=False)
    certificate = write_split(tmp_path / "theses" / "all.jsonl", tmp_path / "split", None, options)
    assert certificate["kept"] == {"train": 5560, "validation": 420, "test": 1516}
