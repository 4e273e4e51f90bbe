"""The options of the price table and of the snapshot."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from finseek.core.options import Options
from finseek.market.features import FEATURES, Feature, find_feature

Column = Literal["date", "ticker", "open", "high", "low", "close", "adjusted_close", "volume"]
COLUMNS: tuple[Column, ...] = ("date", "ticker", "open", "high", "low", "close", "adjusted_close", "volume")
ContextFeature = Literal[
    "ret1",
    "ret2",
    "ret3",
    "ret5",
    "ret10",
    "ret20",
    "ret60",
    "sma5",
    "sma20",
    "sma50",
    "ema20",
    "rsi14",
    "vol20",
    "pos252",
]


class PricesOptions(Options):
    """Where the prices come from and how their table is laid out."""

    source: Path | None = Field(default=None, description="Parquet or CSV file with one row a ticker and day")
    benchmark: str | None = Field(default=None, description="ticker of the benchmark; kept out of the universe")
    columns: dict[Column, str] = Field(
        default_factory=dict, description="name in the file of each column that is called otherwise there"
    )
    date_format: str = Field(default="%Y-%m-%d", description="strptime format of dates that are text")
    start: date | None = Field(default=None, description="first day to use; earlier rows are left out")
    end: date | None = Field(default=None, description="last day to use; later rows are left out")
    provider: Literal["eodhd", "stooq", "yfinance", "file", "synthetic"] | None = Field(
        default=None, description="service to fetch from where there is no source file"
    )
    exchange: str = Field(default="US", description="appended to tickers for eodhd and stooq, as in AMZN.US")
    symbols: dict[str, str] = Field(
        default_factory=dict, description="the provider's symbol of each ticker that it calls otherwise"
    )
    cache_dir: Path = Field(default=Path("price_cache"), description="folder of the store of fetched prices")
    base_url: str | None = Field(default=None, description="other address of the provider, as of a proxy")
    requests_per_minute: int = Field(default=600, ge=0, description="rate limit; 0: none")
    attempts: int = Field(default=5, ge=1, le=20, description="how often a request is tried")
    backoff: float = Field(default=0.5, gt=0, description="first wait before trying again, in seconds; then doubled")
    max_wait: float = Field(default=60.0, gt=0, description="longest wait before trying again, in seconds")
    timeout: float = Field(default=30.0, gt=0, description="seconds to wait for a connection or a piece of an answer")
    calendar: str | None = Field(default="XNYS", description="exchange calendar for prices check; null: none")


class LabelRule(Options):
    """How a realised return becomes an action."""

    entry: Literal["next_open", "next_close"] = Field(default="next_open", description="price of entry and exit")
    excess: bool = Field(default=False, description="of the return over the benchmark's")
    hold: float = Field(default=0.35, ge=0, description="below so many volatilities over the horizon: HOLD")
    strong: float = Field(default=1.25, gt=0, description="from so many volatilities on: STRONG")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.hold >= self.strong:
            raise ValueError(f"hold {self.hold} must be below strong {self.strong}")
        return self


class SnapshotOptions(Options):
    """Which numbers of the market the prompt shows, and how."""

    features: tuple[str, ...] = Field(
        default=tuple(FEATURES), description="features in the order of the prompt; module:name loads one of your own"
    )
    rendering: Literal["words", "numbers"] = Field(
        default="words", description="words: name=letter of a bin; numbers: name=signed number with one decimal"
    )
    context: tuple[Literal["universe", "benchmark"], ...] = Field(
        default=(), description="whose context_features every ticker shows besides: mkt_ret5=…, bmk_ret5=…"
    )
    context_features: tuple[ContextFeature, ...] = Field(
        default=("ret1", "ret5", "ret20", "vol20"), description="features of the context, from closes alone"
    )
    bins: int = Field(default=16, ge=2, le=26, description="bins of the rendering as words, named a, b, c …")

    @field_validator("features")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        resolved = [name if name in FEATURES else find_feature(name).name for name in names]
        repeated = sorted({name for name in resolved if resolved.count(name) > 1})
        if repeated:
            raise ValueError(f"feature {repeated[0]} is listed twice: keep one of them")
        if not names:
            raise ValueError("a snapshot needs at least one feature")
        return names

    def resolve(self) -> tuple[Feature, ...]:
        """The features themselves, in order."""
        return tuple(find_feature(name) for name in self.features)
