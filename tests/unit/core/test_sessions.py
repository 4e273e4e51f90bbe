from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finseek.core.errors import InputError
from finseek.core.sessions import Sessions, as_days

DAYS = st.lists(st.dates(date(2020, 1, 1), date(2020, 3, 1)), min_size=1, max_size=30)


@given(dates=DAYS, day=st.dates(date(2019, 12, 30), date(2020, 3, 3)), horizon=st.integers(0, 6))
def test_label_end_equals_counting_by_hand(dates: list[date], day: date, horizon: int) -> None:
    ordered = sorted(set(dates))
    found = Sessions.of(dates).label_end([day], horizon)[0]
    if day in ordered and ordered.index(day) + 1 + horizon < len(ordered):
        assert found == np.datetime64(ordered[ordered.index(day) + 1 + horizon])
    else:
        assert np.isnat(found)


@given(dates=DAYS)
def test_a_day_between_sessions_has_no_successor(dates: list[date]) -> None:
    sessions = Sessions.of(dates)
    for offset in range(-2, 70):
        day = date(2020, 1, 1) + timedelta(days=offset)
        assert (day in sessions) == (day in dates)
        if day not in dates:
            assert np.isnat(sessions.after([day], 1)[0])


def test_disorder_is_refused() -> None:
    with pytest.raises(InputError, match="2020-01-02 does not come after"):
        Sessions(as_days(["2020-01-03", "2020-01-02"]))


def test_no_sessions_at_all() -> None:
    assert np.isnat(Sessions.of(as_days([])).after(["2020-01-02"], 1)).all()
