"""The options of a backtest: what the account may do and what it pays.

Costs, returns, rates and weights are fractions (0.001 is 10 basis points); rates are a year of 252 sessions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from finseek.core.actions import ACTIONS, Action
from finseek.core.errors import ConfigError
from finseek.core.options import Options

Sizing = Literal[
    "equal_weight",
    "fixed_pct",
    "inverse_volatility",
    "volatility_target",
    "conviction",
    "probability_weighted",
    "kelly",
]
_SIGNS = {action: action.direction for action in ACTIONS}


class LimitOptions(Options):
    """Limits of the book; None is no limit. Fractions of the equity at the fill."""

    max_weight: float | None = Field(default=None, gt=0, description="largest position of one name, long or short")
    max_gross: float | None = Field(default=None, gt=0, description="largest sum of long and short positions")
    max_net: float | None = Field(default=None, ge=0, description="largest |longs - shorts|")
    max_turnover: float | None = Field(default=None, gt=0, description="most that is bought and sold at one session")
    max_participation: float | None = Field(
        default=None, gt=0, le=1, description="largest order as a fraction of the name's mean money volume"
    )
    volume_window: int = Field(default=20, ge=1, description="sessions, up to the decision, of the mean money volume")
    max_sector: float | None = Field(default=None, gt=0, description="largest gross position of one sector")
    sectors: dict[str, str] = Field(default_factory=dict, description="sector of each ticker, for max_sector")


class CostOptions(Options):
    """Costs beside ``transaction_cost`` and ``slippage``; zero by default."""

    per_share: float = Field(default=0.0, ge=0, description="commission in money for each (raw) share")
    minimum: float = Field(default=0.0, ge=0, description="least commission in money of an order")
    half_spread: float = Field(default=0.0, ge=0, lt=1, description="half the bid-ask spread, added to slippage")
    impact: float = Field(
        default=0.0, ge=0, description="slippage of impact · daily volatility · √(order / mean money volume) is added"
    )
    borrow_fee: float = Field(default=0.0, ge=0, lt=10, description="annual rate on short positions")
    cash_interest: float = Field(
        default=0.0, ge=0, lt=1, description="annual rate earned on cash beyond the value of the short positions"
    )
    margin_interest: float = Field(default=0.0, ge=0, lt=10, description="annual rate paid on negative cash")


class BacktestOptions(Options):
    """How signals become positions and what trading them costs."""

    capital: float = Field(
        default=100_000.0, gt=0, allow_inf_nan=False, description="money at the first decision session"
    )
    transaction_cost: float = Field(
        default=0.001, ge=0, lt=1, description="commission as a fraction of the traded value"
    )
    slippage: float = Field(
        default=0.0005, ge=0, lt=1, description="fraction by which a fill is worse than the price it is quoted at"
    )
    costs: CostOptions = Field(default_factory=CostOptions, description="further costs")
    limits: LimitOptions = Field(default_factory=LimitOptions, description="limits of the book")

    action_map: dict[Action, int] = Field(
        default_factory=lambda: dict(_SIGNS), description="direction (-1, 0, 1) that each action asks for; HOLD is 0"
    )
    shorts: bool = Field(default=False, description="SELL opens a short position; otherwise it closes a long one")
    hold: Literal["flat", "keep"] = Field(
        default="flat", description="what HOLD does to an open position: flat closes it, keep places no order"
    )
    signal_expiry: int = Field(
        default=5, ge=0, description="sessions that a position outlives its last signal; 0 closes it at the next open"
    )
    holding_period: int | None = Field(
        default=None, ge=1, description="hold each signal's 1/H book for H sessions; None holds until the next signal"
    )

    sizing_strategy: Sizing = Field(default="equal_weight", description="how a direction becomes a target weight")
    equal_weight_over: Literal["universe", "listed", "active"] = Field(
        default="universe", description="names that share the equity: all, those with a bar, those with a direction"
    )
    fixed_pct: float = Field(
        default=0.02, gt=0, le=1, description="fraction of equity a name, for sizing_strategy fixed_pct"
    )
    volatility_window: int = Field(default=20, ge=2, description="sessions, up to the decision, of the volatility")
    target_volatility: float = Field(
        default=0.1, gt=0, description="annual volatility of the book, for volatility_target"
    )
    strong_conviction: float = Field(
        default=2.0, ge=1, description="weight of STRONG_BUY and STRONG_SELL in units of BUY, for conviction"
    )
    kelly_fraction: float = Field(default=0.5, gt=0, le=1, description="fraction of the full Kelly weight")
    kelly_cap: float = Field(default=0.1, gt=0, description="largest Kelly weight of a name")
    kelly_history: int = Field(
        default=20, ge=2, description="signalled returns that must be known before Kelly takes a position"
    )

    rebalance: Literal["daily", "on_change", "weekly"] = Field(
        default="daily", description="order at every session, when the target changes, or at the first of a week"
    )
    no_trade_band: float = Field(
        default=0.0, ge=0, lt=1, description="skip orders below this fraction of equity that only resize a position"
    )
    execution: Literal["next_open", "next_close", "vwap_proxy"] = Field(
        default="next_open", description="price of a fill at t+1; the proxy is (open + high + low + close) / 4"
    )
    fractional: bool = Field(default=True, description="trade fractions of a share; otherwise whole raw shares")
    allow_leverage: bool = Field(
        default=False, description="let buys exceed the cash at hand; otherwise they are scaled to it"
    )
    dividends: Literal["adjusted", "cash"] = Field(
        default="adjusted", description="reinvested through adjusted prices, or paid in cash from actions_file"
    )
    actions_file: Path | None = Field(
        default=None, strict=False, description="CSV or Parquet of ticker, date, dividend, split, for dividends: cash"
    )
    delisting_loss: float | None = Field(
        default=None, ge=0, le=1, description="close a name after its last bar at this loss; None keeps it marked"
    )

    risk_free: float = Field(
        default=0.0, gt=-1, lt=1, description="annual risk-free rate that the Sharpe ratio subtracts"
    )
    momentum_window: int = Field(default=60, ge=1, description="sessions of past return of the momentum benchmark")
    reversal_window: int = Field(default=5, ge=1, description="sessions of past return of the reversal benchmark")
    nulls: int = Field(default=1000, ge=0, description="null books (shifted in time, tickers permuted); 0 for none")
    null_seed: int = Field(default=0, ge=0, description="seed of the null books and of the bootstrap")
    bootstrap_resamples: int = Field(default=2000, ge=100, description="resamples of the sessions for intervals")
    mean_block: float = Field(default=5.0, ge=1, description="mean block of the stationary bootstrap, in sessions")

    @model_validator(mode="after")
    def _combination(self) -> Self:
        if set(self.action_map) != set(ACTIONS) or self.action_map[Action.HOLD] != 0:
            raise ConfigError("backtest.action_map must name all five actions, and HOLD must be 0: it never opens")
        if not set(self.action_map.values()) <= {-1, 0, 1}:
            raise ConfigError(f"backtest.action_map has {sorted(self.action_map.values())}: directions are -1, 0 and 1")
        if (self.dividends == "cash") != (self.actions_file is not None):
            raise ConfigError(
                "backtest.dividends: cash and backtest.actions_file need each other: adjusted prices hold them"
            )
        if self.slippage + self.costs.half_spread >= 1:
            raise ConfigError(
                f"backtest.slippage {self.slippage:g} and backtest.costs.half_spread {self.costs.half_spread:g} "
                "together must be below 1"
            )
        if self.limits.max_sector is not None and not self.limits.sectors:
            raise ConfigError("backtest.limits.max_sector needs backtest.limits.sectors, the sector of each ticker")
        if self.holding_period is not None and self.rebalance != "daily":
            raise ConfigError(
                f"backtest.holding_period renews a book daily: backtest.rebalance {self.rebalance} cannot"
            )
        return self
