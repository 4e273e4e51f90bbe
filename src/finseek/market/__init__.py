"""Market data that cannot lie: prices, sessions, snapshots, forward returns."""

from finseek.market.anonymise import Anonymiser, anonymise_prices
from finseek.market.labels import LabelOptions, RealisedLabels, realised_labels
from finseek.market.options import PricesOptions, SnapshotOptions
from finseek.market.prices import Prices, describe_prices, survivorship_warning
from finseek.market.returns import count_returns, forward_returns, label_end
from finseek.market.snapshot import Snapshots, snapshots
from finseek.market.synthetic import Planted, SyntheticMarketOptions, generate_prices
from finseek.market.table import load_prices, write_prices

__all__ = [
    "Anonymiser",
    "LabelOptions",
    "Planted",
    "Prices",
    "PricesOptions",
    "RealisedLabels",
    "SnapshotOptions",
    "Snapshots",
    "SyntheticMarketOptions",
    "anonymise_prices",
    "count_returns",
    "describe_prices",
    "forward_returns",
    "generate_prices",
    "label_end",
    "load_prices",
    "realised_labels",
    "snapshots",
    "survivorship_warning",
    "write_prices",
]
