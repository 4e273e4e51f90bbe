from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from finseek.core.actions import ACTIONS, Action
from finseek.core.errors import ArtifactError, ConfigError, InputError
from finseek.core.sessions import Sessions
from finseek.theses import (
    SplitOptions,
    Thesis,
    load_split,
    parse_theses,
    split_by_time,
    thesis_uid,
    write_records,
    write_split,
)

SESSIONS = Sessions.of(np.array([d for d in np.arange("2024-01-01", "2024-07-01", dtype="M8[D]") if np.is_busday(d)]))


def make(ticker: str, day: date, **changes: Any) -> Thesis:
    action = ACTIONS[day.toordinal() % 5]
    made = Thesis(thesis_uid(ticker, day), ticker, day, "r", "s", action, {}, None, None, None, "f.xml", 0)
    return msgspec.structs.replace(made, **changes)


THESES = [make(ticker, day) for ticker in ("A", "B") for day in SESSIONS.dates.tolist()]


def options(**changes: Any) -> SplitOptions:
    return SplitOptions(**({"train_end": date(2024, 4, 30), "test_start": date(2024, 5, 1)} | changes))


def days(theses: list[Thesis]) -> tuple[date, date]:
    return min(t.as_of_date for t in theses), max(t.as_of_date for t in theses)


def test_calendar_cuts_without_purge() -> None:
    split = split_by_time(THESES, SESSIONS, options(purge=False))
    assert days(split.train) == (date(2024, 1, 1), date(2024, 3, 29))
    assert days(split.validation) == (date(2024, 4, 1), date(2024, 4, 30))
    assert days(split.test) == (date(2024, 5, 1), date(2024, 6, 28))
    assert split.dropped == {}
    assert split.certificate["labels_disjoint"] is False


def test_validation_is_open_at_its_start_and_closed_at_its_end() -> None:
    split = split_by_time(THESES, SESSIONS, options(purge=False, validation_days=1))
    assert days(split.validation) == (date(2024, 4, 30), date(2024, 4, 30))


def test_purge_by_label_end() -> None:
    split = split_by_time(THESES, SESSIONS, options())
    # 2024-03-21 is six sessions before 2024-03-29: its label ends at the open of 03-29, before 04-01.
    assert days(split.train)[1] == date(2024, 3, 21)
    assert days(split.validation)[1] == date(2024, 4, 22)
    assert len(split.dropped["purged"]) == 2 * (6 + 6)
    assert split.certificate["labels_disjoint"] is True
    assert [pair["max_label_end"] for pair in split.certificate["overlaps"]] == [
        "2024-03-29",
        "2024-03-29",
        "2024-04-30",
    ]


def test_embargo_widens_the_gap() -> None:
    wide = split_by_time(THESES, SESSIONS, options(embargo=3))
    assert days(wide.train)[1] == date(2024, 3, 18)
    assert len(wide.dropped["embargoed"]) == 2 * (3 + 3)
    alone = split_by_time(THESES, SESSIONS, options(embargo=3, purge=False))
    assert days(alone.train)[1] == date(2024, 3, 26)


def test_a_label_without_an_end_counts_as_later_than_all() -> None:
    late = options(train_end=date(2024, 6, 26), test_start=date(2024, 6, 27), validation_days=10)
    split = split_by_time(THESES, SESSIONS, late)
    assert days(split.validation)[1] == date(2024, 6, 18)
    assert split.certificate["splits"]["test"]["max_label_end"] is None
    assert split.certificate["splits"]["test"]["label_ends_beyond_last_session"] == 4


def test_between_the_splits_and_no_session() -> None:
    extra = [make("A", date(2024, 2, 3)), make("B", date(2024, 5, 4))]
    split = split_by_time(THESES + extra, SESSIONS, options(test_start=date(2024, 5, 8)))
    assert split.dropped["not_a_session"] == extra
    assert days(split.dropped["between_splits"]) == (date(2024, 5, 1), date(2024, 5, 7))


def test_the_gap_before_the_test_counts_for_the_purge() -> None:
    split = split_by_time(THESES, SESSIONS, options(test_start=date(2024, 5, 8)))
    assert days(split.validation)[1] == date(2024, 4, 29)


def test_holdout_tickers_are_never_learned_from() -> None:
    split = split_by_time(THESES, SESSIONS, options(holdout_tickers=("b",)))
    assert {t.ticker for t in split.train + split.validation} == {"A"}
    assert {t.ticker for t in split.test} == {"A", "B"}
    assert {t.ticker for t in split.dropped["holdout_ticker"]} == {"B"}
    with pytest.raises(InputError, match="names Z"):
        split_by_time(THESES, SESSIONS, options(holdout_tickers=("Z",)))


def test_no_validation_if_none_is_asked_for() -> None:
    split = split_by_time(THESES, SESSIONS, options(validation_days=0))
    assert split.validation == []
    assert days(split.train)[1] == date(2024, 4, 22)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_end": date(2023, 1, 1)}, "train split holds no thesis before"),
        ({"test_start": date(2025, 1, 1)}, "test split holds no thesis before"),
        ({"train_end": date(2024, 4, 28), "validation_days": 1}, "validation split holds no thesis before"),
        ({"validation_days": 5}, "validation split holds no thesis after"),
        ({"label_horizon": 60}, "validation split holds no thesis after"),
    ],
)
def test_an_empty_split_is_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_by_time(THESES, SESSIONS, options(**changes))


def test_no_theses() -> None:
    with pytest.raises(InputError, match="no theses at all"):
        split_by_time([], SESSIONS, options())


@pytest.mark.parametrize("start", [date(2024, 4, 30), date(2024, 4, 1)])
def test_cuts_out_of_order(start: date) -> None:
    with pytest.raises(ValueError, match="not after train_end"):
        options(test_start=start)


def test_without_sessions_there_is_nothing_to_purge_by() -> None:
    with pytest.raises(ConfigError, match="count sessions"):
        split_by_time(THESES, None, options())
    split = split_by_time(THESES, None, options(purge=False))
    assert split.certificate["labels_disjoint"] is None
    assert len(split.train) + len(split.validation) + len(split.test) == len(THESES)


def test_certificate_counts_reconcile_and_ignore_the_order() -> None:
    one = split_by_time(THESES, SESSIONS, options()).certificate
    other = split_by_time(THESES[::-1], SESSIONS, options()).certificate
    assert one == other
    assert one["found"] == sum(one["kept"].values()) + sum(one["dropped"].values()) == len(THESES)
    assert len({part["uids_sha256"] for part in one["splits"].values()}) == 3


def test_files(tmp_path: Path) -> None:
    theses = [msgspec.structs.replace(t, indicators={"rsi": "5"}, input="x" if i % 2 else None, salvaged=i % 3 == 0)
              for i, t in enumerate(THESES)]  # fmt: skip
    write_records(tmp_path / "all.jsonl", theses)
    certificate = write_split(tmp_path / "all.jsonl", tmp_path / "split", SESSIONS, options())
    split = split_by_time(theses, SESSIONS, options())
    assert certificate == split.certificate
    for name in ("train", "validation", "test"):
        assert load_split(tmp_path / "split" / f"{name}.parquet") == getattr(split, name)
    dropped = [msgspec.json.decode(line) for line in (tmp_path / "split" / "dropped.jsonl").read_bytes().splitlines()]
    assert {row["reason"] for row in dropped} == {"purged"}
    assert {row["uid"] for row in dropped} == {t.uid for t in split.dropped["purged"]}


def test_files_of_an_empty_validation_and_of_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finseek.theses.split_files.ROWS", 7)
    monkeypatch.setattr("finseek.theses.split_files.BATCH", 3)
    shuffled = Random(1).sample(THESES, len(THESES))
    for folder, theses in (("in order", THESES), ("shuffled", shuffled)):
        write_records(tmp_path / "all.jsonl", theses)
        write_split(tmp_path / "all.jsonl", tmp_path / folder, SESSIONS, options(validation_days=0))
        assert load_split(tmp_path / folder / "validation.parquet") == []
        split = split_by_time(theses, SESSIONS, options(validation_days=0))
        for name in ("train", "test"):
            assert load_split(tmp_path / folder / f"{name}.parquet") == getattr(split, name)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run the theses stage"):
        write_split(tmp_path / "all.jsonl", tmp_path / "split", SESSIONS, options())
    with pytest.raises(ArtifactError, match="run the split stage"):
        load_split(tmp_path / "train.parquet")


def test_a_day_in_a_holiday_gap() -> None:
    holes = Sessions(SESSIONS.dates[SESSIONS.dates != np.datetime64("2024-04-01")])
    split = split_by_time(THESES, holes, options())
    assert {t.as_of_date for t in split.dropped["not_a_session"]} == {date(2024, 4, 1)}
    assert days(split.validation)[0] == date(2024, 4, 2)
    assert days(split.train)[1] == date(2024, 3, 21)


def test_parquet_sources_of_ours_read_back(tmp_path: Path) -> None:
    write_records(tmp_path / "all.jsonl", THESES)
    write_split(tmp_path / "all.jsonl", tmp_path / "split", SESSIONS, options())
    summary = parse_theses(tmp_path / "split" / "test.parquet", tmp_path / "again")
    assert summary["found"] == summary["kept"] == len(split_by_time(THESES, SESSIONS, options()).test)


def test_sessions_far_apart_are_counted_in_sessions_not_days() -> None:
    sparse = Sessions(SESSIONS.dates[::3].copy())
    theses = [make("A", day) for day in sparse.dates.tolist()]
    split = split_by_time(theses, sparse, options(label_horizon=0))
    gap = sparse.index([split.validation[0].as_of_date])[0] - sparse.index([split.train[-1].as_of_date])[0]
    assert gap == 2
    assert split.train[-1].as_of_date + timedelta(days=1) < split.validation[0].as_of_date


def test_labels_of_others_are_learned_and_what_has_none_is_dropped(tmp_path: Path) -> None:
    theses = [*THESES, make("A", date(2024, 1, 6))]  # a Saturday

    def label(ticker: str, day: date) -> Action | None:
        return None if day.day % 7 == 0 else ACTIONS[day.day % 5]

    write_records(tmp_path / "all.jsonl", theses)
    certificate = write_split(tmp_path / "all.jsonl", tmp_path / "split", SESSIONS, options(), label)
    plain = split_by_time(theses, SESSIONS, options())
    for name in ("train", "validation", "test"):
        known = [thesis for thesis in getattr(plain, name) if label(thesis.ticker, thesis.as_of_date)]
        wanted = [msgspec.structs.replace(thesis, action=label(thesis.ticker, thesis.as_of_date)) for thesis in known]
        assert load_split(tmp_path / "split" / f"{name}.parquet") == wanted
        counts = certificate["splits"][name]["actions"]
        assert counts == {action.value: sum(thesis.action is action for thesis in wanted) for action in ACTIONS}
    assert certificate["dropped"]["not_a_session"] == 1
    assert certificate["dropped"]["no_label"] == sum(thesis.as_of_date.day % 7 == 0 for thesis in THESES)
    assert certificate["found"] == sum(certificate["kept"].values()) + sum(certificate["dropped"].values())
    write_records(tmp_path / "custom.jsonl", [*THESES, make("C", date(2024, 1, 8), output="Buy it.")])
    with pytest.raises(InputError, match="gives the answer of C 2024-01-08 itself"):
        write_split(tmp_path / "custom.jsonl", tmp_path / "other", SESSIONS, options(), label)
