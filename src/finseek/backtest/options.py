"""The options of a backtest: what the account may do and what it pays."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finseek.core.options import Options


class BacktestOptions(Options):
    """How signals become positions and what trading them costs. Costs, weights and rates are fractions."""

    capital: float = Field(
        default=100_000.0, gt=0, allow_inf_nan=False, description="money at the first decision session"
    )
    transaction_cost: float = Field(
        default=0.001, ge=0, lt=1, description="commission as a fraction of the traded value"
    )
    slippage: float = Field(
        default=0.0005, ge=0, lt=1, description="fraction by which a fill is worse than the price it is quoted at"
    )
    sizing_strategy: Literal["equal_weight", "fixed_pct"] = Field(
        default="equal_weight", description="how a direction becomes a target weight"
    )
    fixed_pct: float = Field(
        default=0.02, gt=0, le=1, description="fraction of equity a name, for sizing_strategy fixed_pct"
    )
    shorts: bool = Field(default=False, description="SELL opens a short position; otherwise it closes a long one")
    hold: Literal["flat", "keep"] = Field(
        default="flat", description="what HOLD does to an open position: flat closes it, keep places no order"
    )
    signal_expiry: int = Field(
        default=5, ge=0, description="sessions that a position outlives its last signal; 0 closes it at the next open"
    )
    allow_leverage: bool = Field(
        default=False, description="let buys exceed the cash at hand; otherwise they are scaled to it"
    )
    risk_free: float = Field(
        default=0.0, gt=-1, lt=1, description="annual risk-free rate that the Sharpe ratio subtracts"
    )
