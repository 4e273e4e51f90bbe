"""Fixtures of the whole suite: where real data lies, if this machine has it."""

from __future__ import annotations

from pathlib import Path

import pytest

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests of the real data where its folder is absent."""
    if REAL_DATA.exists():
        return
    absent = [item for item in items if item.get_closest_marker("realdata")]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if not item.get_closest_marker("realdata")]


@pytest.fixture(scope="session")
def real_theses() -> Path:
    """The zip of real theses."""
    return REAL_DATA / "theses" / "raw_xml.zip"


@pytest.fixture(scope="session")
def real_prices() -> Path:
    """The Parquet file of real prices."""
    return REAL_DATA / "prices" / "prices.parquet"
