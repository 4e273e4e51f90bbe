"""Market data that cannot lie: prices, sessions, snapshots, forward returns."""

from finseek.market.options import PricesOptions, SnapshotOptions
from finseek.market.prices import Prices, describe_prices
from finseek.market.returns import forward_returns, label_end
from finseek.market.snapshot import Snapshots, snapshots
from finseek.market.synthetic import Planted, SyntheticMarketOptions, generate_prices
from finseek.market.table import load_prices, write_prices

__all__ = [
    "Planted",
    "Prices",
    "PricesOptions",
    "SnapshotOptions",
    "Snapshots",
    "SyntheticMarketOptions",
    "describe_prices",
    "forward_returns",
    "generate_prices",
    "label_end",
    "load_prices",
    "snapshots",
    "write_prices",
]
