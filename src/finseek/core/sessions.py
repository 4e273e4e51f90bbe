"""Trading sessions: the only place where t+1 and label_end are computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finseek.core.errors import InputError

Dates = NDArray[np.datetime64]
YEAR = 252  # sessions: what makes daily figures annual
NO_SESSION = np.datetime64("NaT", "D")


def as_days(dates: ArrayLike | Iterable[date]) -> Dates:
    """Convert dates, ISO strings or datetime64 to an array of datetime64[D]."""
    days: Dates = np.asarray(dates, dtype="datetime64[D]")
    return days


@dataclass(frozen=True)
class Sessions:
    """The trading days of a run, strictly increasing.

    Attributes:
        dates: datetime64[D], shape (S,).

    Raises:
        InputError: if the dates do not strictly increase.
    """

    dates: Dates

    def __post_init__(self) -> None:
        if self.dates.dtype != np.dtype("datetime64[D]") or self.dates.ndim != 1:
            raise TypeError("Sessions wants a one-dimensional datetime64[D] array: use Sessions.of(dates)")
        disorder = np.flatnonzero(np.diff(self.dates) <= np.timedelta64(0, "D"))
        if disorder.size:
            here = self.dates[disorder[0] + 1]
            raise InputError(f"session {here} does not come after the one before it: sort and deduplicate the dates")
        self.dates.setflags(write=False)

    @classmethod
    def of(cls, dates: ArrayLike | Iterable[date]) -> Sessions:
        """Sessions from dates in any order, repeats allowed."""
        return cls(np.unique(as_days(dates)))

    def __len__(self) -> int:
        return len(self.dates)

    def __contains__(self, day: object) -> bool:
        if not isinstance(day, date | np.datetime64):
            return False
        return bool(self.index(np.array([day], dtype="datetime64[D]"))[0] >= 0)

    def index(self, days: ArrayLike | Iterable[date]) -> NDArray[np.int64]:
        """Position of each day among the sessions, -1 where the day is not a session."""
        wanted = as_days(days)
        if not len(self.dates):
            return np.full(wanted.shape, -1, dtype=np.int64)
        place = np.searchsorted(self.dates, wanted)
        found = self.dates[np.minimum(place, len(self.dates) - 1)] == wanted
        return np.where(found, place, -1)

    def after(self, days: ArrayLike | Iterable[date], steps: int) -> Dates:
        """The session that comes ``steps`` sessions after each day; NaT where there is none.

        A day that is not a session has no successor either (NaT).
        """
        here = self.index(days)
        there = here + steps
        exists = (here >= 0) & (there >= 0) & (there < len(self.dates))
        result = np.full(here.shape, NO_SESSION)
        result[exists] = self.dates[there[exists]]
        return result

    def label_end(self, days: ArrayLike | Iterable[date], horizon: int) -> Dates:
        """Session t+1+horizon, at whose open the label of a decision at t is known; NaT if beyond the table.

        A decision at t trades at the open of t+1 and its return runs to the open of t+1+horizon.
        """
        return self.after(days, 1 + horizon)
