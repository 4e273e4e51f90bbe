"""The parts of the config that belong to theses and splits."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from finseek.core.options import Options

MiB = 1024 * 1024


class ThesesOptions(Options):
    """How theses are read and cleaned."""

    source: Path | None = Field(default=None, description="folder, file or archive of theses")
    date_order: Literal["dmy", "mdy"] | None = Field(
        default=None, description="how to read 03/04/2024 and 03-04-2024; without it such a date is a reject"
    )
    required: tuple[Literal["reasoning", "support"], ...] = Field(
        default=("reasoning", "support"), description="texts without which a thesis is a reject"
    )
    min_text_chars: int = Field(default=1, ge=1, description="a required text shorter than this is a reject")
    max_text_chars: int = Field(default=100_000, ge=1, description="a text longer than this is a reject")
    earliest_date: date = Field(default=date(1900, 1, 1), description="an as-of date before this is a reject")
    latest_date: date | None = Field(
        default=None, description="an as-of date after this is a reject: a date in the future"
    )
    salvage: bool = Field(
        default=False, description="keep the whole theses of a broken file, each marked; refuse the rest one by one"
    )
    teacher_cutoff: date | None = Field(
        default=None,
        description="knowledge cutoff of the model that wrote the theses; what is dated before may be hindsight",
    )
    max_file_bytes: int = Field(default=512 * MiB, ge=1, description="a larger file, unpacked, is refused unread")
    max_depth: int = Field(default=32, ge=2, le=250, description="elements nested deeper than this are refused")
    max_archive_depth: int = Field(default=3, ge=1, le=8, description="archives nested deeper than this are refused")
    max_raw_chars: int = Field(
        default=20_000, ge=100, description="raw text of a reject is cut to this and says how much is missing"
    )


class SplitOptions(Options):
    """Where time is cut, and what is dropped around the cuts."""

    train_end: date = Field(description="last calendar day of training and validation")
    test_start: date = Field(description="first calendar day of the test split")
    validation_days: int = Field(
        default=30, ge=0, description="calendar days: validation is (train_end - validation_days, train_end]"
    )
    purge: bool = Field(
        default=True, description="drop from every earlier split what has label_end on or after the first later session"
    )
    label_horizon: int = Field(default=5, ge=0, description="H of label_end = session t+1+H")
    embargo: int = Field(default=0, ge=0, description="sessions dropped besides, before each later split")
    holdout_tickers: tuple[str, ...] = Field(
        default=(), description="tickers that are kept out of training and validation"
    )
    near_duplicate_threshold: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="drop from earlier splits what is this similar (Jaccard) to a later thesis",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.test_start <= self.train_end:
            raise ValueError(
                f"test_start {self.test_start} is not after train_end {self.train_end}: "
                "training would see the test period; set test_start to a later day"
            )
        return self


class FoldOptions(Options):
    """Walk-forward and combinatorial purged folds."""

    scheme: Literal["expanding", "rolling", "combinatorial"] = Field(
        default="expanding", description="how folds are made"
    )
    n_folds: int = Field(
        default=5, ge=2, le=64, description="test blocks; for combinatorial folds the groups of sessions"
    )
    n_test_folds: int = Field(default=2, ge=1, description="combinatorial: groups that form the test union of one fold")
    min_train_sessions: int = Field(default=60, ge=1, description="walk-forward: sessions before the first test block")
    gap: int = Field(
        default=0, ge=0, description="walk-forward: sessions left out between training and test, besides purging"
    )
    purge: bool = Field(default=True, description="drop from training what has a label that meets the test sessions")
    label_horizon: int = Field(default=5, ge=0, description="H of label_end = session t+1+H")
    embargo: int = Field(
        default=0, ge=0, description="combinatorial: sessions dropped from training after each test block"
    )

    @model_validator(mode="after")
    def _fewer_tests_than_folds(self) -> Self:
        if self.scheme == "combinatorial" and self.n_test_folds >= self.n_folds:
            raise ValueError(f"n_test_folds {self.n_test_folds} leaves no training: it must be below {self.n_folds}")
        return self
