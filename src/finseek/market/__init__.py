"""Market data that cannot lie: prices, sessions, snapshots, forward returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finseek.market.anonymise import Anonymiser, anonymise_prices
    from finseek.market.labels import LabelOptions, RealisedLabels, realised_labels
    from finseek.market.options import PricesOptions, SnapshotOptions
    from finseek.market.prices import Prices, describe_prices, survivorship_warning
    from finseek.market.returns import count_returns, forward_returns, label_end
    from finseek.market.snapshot import Snapshots, snapshots
    from finseek.market.synthetic import Planted, SyntheticMarketOptions, generate_prices
    from finseek.market.table import load_prices, write_prices

# Imported when asked for: the config of a run needs the options alone.
_HOME = {
    "Anonymiser": "anonymise",
    "LabelOptions": "labels",
    "Planted": "synthetic",
    "Prices": "prices",
    "PricesOptions": "options",
    "RealisedLabels": "labels",
    "SnapshotOptions": "options",
    "Snapshots": "snapshot",
    "SyntheticMarketOptions": "synthetic",
    "anonymise_prices": "anonymise",
    "count_returns": "returns",
    "describe_prices": "prices",
    "forward_returns": "returns",
    "generate_prices": "synthetic",
    "label_end": "returns",
    "load_prices": "table",
    "realised_labels": "labels",
    "snapshots": "snapshot",
    "survivorship_warning": "prices",
    "write_prices": "table",
}
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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
