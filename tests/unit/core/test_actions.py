from __future__ import annotations

import pytest

from finseek.core.actions import ACTIONS, Action, parse_action
from finseek.core.errors import InputError


def test_order_and_direction() -> None:
    assert [action.rank for action in ACTIONS] == [-2, -1, 0, 1, 2]
    assert [action.direction for action in ACTIONS] == [-1, -1, 0, 1, 1]


@pytest.mark.parametrize("text", ["strong sell", "Strong-Sell", " STRONG_SELL ", "strong  sell"])
def test_strong_sell_is_not_sell(text: str) -> None:
    assert parse_action(text) is Action.STRONG_SELL


@pytest.mark.parametrize("text", ["error", "", "buy!", "I would not buy", "sell buy", "buy\x00", "accumulate"])
def test_nothing_is_guessed(text: str) -> None:
    with pytest.raises(InputError, match="is none of STRONG_SELL"):
        parse_action(text)
