from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from finseek.core.actions import ACTIONS, Action
from finseek.core.errors import InputError
from finseek.evaluate import Prediction, read_predictions, write_results
from finseek.evaluate.results import COLUMNS

ROWS = [
    Prediction(
        "B",
        date(2025, 1, 3),
        Action.BUY,
        Action.STRONG_BUY,
        "scored",
        dict(zip(ACTIONS, [0.1, 0.2, 1 / 3, 1 / 7, 1 - 0.3 - 1 / 3 - 1 / 7], strict=True)),
        'a "quoted", text\nwith\r\nlines and ünïcode',
    ),
    Prediction("A", date(2025, 1, 3), Action.SELL, None, "several_actions", None, ""),
    Prediction("C", date(2025, 1, 3), Action.SELL, Action.SELL, "scored", None, "", confidence=0.75),
]


def test_what_is_written_is_read_again_bit_for_bit(tmp_path):
    write_results(tmp_path / "eval_results.csv", ROWS)
    assert read_predictions(tmp_path / "eval_results.csv") == [ROWS[1], ROWS[0], ROWS[2]]
    assert tuple(pl.read_csv(tmp_path / "eval_results.csv").columns) == COLUMNS


def test_parquet_with_the_required_columns_alone(tmp_path):
    path = tmp_path / "p.parquet"
    pl.DataFrame(
        {
            "ticker": ["A", "B"],
            "as_of_date": [date(2025, 1, 2), date(2025, 1, 2)],
            "gt_action": ["BUY", "strong sell"],
            "pred_action": ["HOLD", None],
        }
    ).write_parquet(path)
    rows = read_predictions(path)
    assert [(row.gt_action, row.pred_action, row.status) for row in rows] == [
        (Action.BUY, Action.HOLD, "scored"),
        (Action.STRONG_SELL, None, "no_action"),
    ]


HEAD = "ticker,as_of_date,gt_action,pred_action"
P_HEAD = "p_strong_sell,p_sell,p_hold,p_buy,p_strong_buy"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ticker,as_of_date\nA,2025-01-01\n", "lack the columns gt_action, pred_action"),
        (f"{HEAD}\n", "hold no row"),
        ("", "is empty"),
        (f"{HEAD}\nA,2025-01-01,BUY,BUY\nA,2025-01-01,BUY,SELL\n", "row 2: A as of 2025-01-01 is on row 1 already"),
        (f"{HEAD},pred_action\nA,2025-01-01,BUY,BUY,SELL\n", "several columns 'pred_action'"),
        (f"{HEAD}\nA,2025-W01-1,BUY,BUY\n", "not a date of the form"),
        (f"{HEAD}\nA,2025-02-30,BUY,BUY\n", "is no day"),
        (f"{HEAD}\nA,2025-01-01 16:00:00,BUY,BUY\n", "not a date of the form"),
        (f"{HEAD}\nA,2025-01-01,BUY,买入\n", "action '买入' is none of"),
        (f"{HEAD}\nA,2025-01-01,BUY,<action>BUY</action>\n", "row 1: action '<action>BUY"),
        (f"{HEAD},{P_HEAD}\nA,2025-01-01,BUY,BUY,nan,0,0,0,1\n", "given together"),
        (f"{HEAD},{P_HEAD}\nA,2025-01-01,BUY,BUY,inf,0,0,0,1\n", "given together"),
        (f"{HEAD},{P_HEAD}\nA,2025-01-01,BUY,BUY,-0.5,0.5,0,0,1\n", "given together"),
        (f"{HEAD},{P_HEAD}\nA,2025-01-01,BUY,BUY,0,0,0,0,high\n", "is no number"),
        (f"{HEAD},confidence\nA,2025-01-01,BUY,BUY,1.5\n", "confidence 1.5 is not the probability"),
        (f"{HEAD},confidence\nA,2025-01-01,BUY,BUY,nan\n", "confidence nan is not the probability"),
        (f"{HEAD},confidence\nA,2025-01-01,BUY,,0.5\n", "confidence 0.5 is not the probability"),
        (f"{HEAD}\nA,2025-01-01,BUY,BUY\nA,01/02/2025,BUY,BUY\n", "row 2"),
        (f"{HEAD}\nA,2025-01-01,MAYBE,BUY\n", "row 1: action 'MAYBE'"),
        (f"{HEAD}\n,2025-01-01,BUY,BUY\n", "must not be empty"),
        (f"{HEAD},status\nA,2025-01-01,BUY,,scored\n", "does not fit"),
        (f"{HEAD}\nA,2025-01-01,BUY\n", "line 2: 3 cells where the header has 4"),
        (f"{HEAD},p_buy\nA,2025-01-01,BUY,BUY,1.0\n", "given together"),
    ],
)
def test_broken_files_are_named(tmp_path, text, words):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_predictions(tmp_path / "p.csv")


def test_completions_are_parsed_where_no_action_is_given(tmp_path):
    answers = ["<action>Strong sell</action>", "I would not buy", "<Action>hold</Action>", "<action>买入</action>"]
    frame = pl.DataFrame({"ticker": list("ABCD"), "as_of_date": [date(2025, 1, 2)] * 4, "gt_action": ["BUY"] * 4})
    frame.with_columns(completion=pl.Series(answers), remark=pl.lit(7)).write_csv(tmp_path / "p.csv")
    rows = read_predictions(tmp_path / "p.csv")
    assert [row.pred_action for row in rows] == [Action.STRONG_SELL, None, Action.HOLD, None]
    assert [row.status for row in rows] == ["scored", "no_action", "scored", "unknown_action"]
    assert rows[2].repairs == ("tag_case",)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv does not exist"):
        read_predictions(tmp_path / "none.csv")
