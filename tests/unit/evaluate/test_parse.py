from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finseek.core.actions import ACTIONS, Action
from finseek.evaluate.parse import REASONS, REPAIRS, parse_answer, parse_strictly

GOOD = "<action>SELL</action>\n<reasoning>weak</reasoning>\n<support>chart</support>"


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (1, 0, 2), (0,)])
def test_every_action_in_every_order(action, order):
    parts = [f"<action> {action.replace('_', ' ').lower()} </action>", "<reasoning>a < b</reasoning>", "<support/>"]
    parts[2] = "<support></support>"
    parsed = parse_answer("\n".join(parts[i] for i in order))
    assert (parsed.action, parsed.status, parsed.repairs) == (action, "scored", ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("I would not buy", "no_action"),
        ("<reasoning>BUY</reasoning>", "no_action"),
        ("<action>BUY</action><action>BUY</action>", "several_actions"),
        ("<reasoning>say <action>BUY</action></reasoning><action>SELL</action>", "several_actions"),
        ("<reasoning>say <action>BUY</action></reasoning>", "nested_tags"),
        ("<action>BUY or SELL</action>", "unknown_action"),
        ("<action></action>", "unknown_action"),
        ("<action>not BUY</action>", "unknown_action"),
        ("<action>BUY", "unclosed_tag"),
        (GOOD[:-5], "unclosed_tag"),
        ("BUY</action>", "unopened_tag"),
        ("<action>BUY</reasoning></action>", "nested_tags"),
        (GOOD + "<support>more</support>", "repeated_element"),
        ("Sure! " + GOOD, "text_outside"),
        (GOOD + "\nNote: no advice", "text_outside"),
    ],
)
def test_whatever_departs_from_the_form_is_unscored_with_its_reason(text, reason):
    parsed = parse_strictly(text)
    assert (parsed.action, parsed.status) == (None, reason)
    assert reason in REASONS


def test_strong_sell_is_no_sell():
    assert parse_answer("<action>Strong sell</action>").action is Action.STRONG_SELL


pieces = st.sampled_from(
    [
        "<action>",
        "</action>",
        "<reasoning>",
        "</reasoning>",
        "<support>",
        "</support>",
        "BUY",
        "SELL",
        " ",
        "x",
        "<",
        "\n",
    ]
)


@given(st.lists(pieces, max_size=12).map("".join))
def test_an_action_comes_from_exactly_one_element(text):
    parsed = parse_strictly(text)
    if parsed.action:
        assert text.count("<action>") == text.count("</action>") == 1
        assert text.split("<action>")[1].split("</action>")[0].strip() == parsed.action
    else:
        assert parsed.status in REASONS


LABELLED = [
    json.loads(line) for line in (Path(__file__).parent / "answers" / "labelled.jsonl").read_text().splitlines()
]


@pytest.mark.parametrize("case", LABELLED, ids=lambda case: f"{case['kind']}: {case['text'][:40]!r}")
def test_answers_parse_as_they_were_labelled(case):
    parsed = parse_answer(case["text"])
    assert parsed.action == case["label"]
    assert parsed.status == "scored" if parsed.action else parsed.status in REASONS


def test_every_repair_rule_and_most_reasons_occur_among_the_labelled():
    parsed = [parse_answer(case["text"]) for case in LABELLED]
    assert {rule for one in parsed for rule in one.repairs} == set(REPAIRS)
    assert {one.status for one in parsed} >= set(REASONS) - {"tie", "not_finite"}


@given(st.lists(pieces, max_size=12).map("".join))
def test_a_repair_never_finds_an_action_the_text_does_not_hold(text):
    parsed = parse_answer(text)
    if parsed.action:
        assert text.count("<action>") == 1
        assert parsed.action in text


def test_the_documentation_lists_every_repair_and_every_reason():
    page = (Path(__file__).parents[3] / "docs" / "explain" / "answers.md").read_text()
    named = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert named == [*REPAIRS, *REASONS]
