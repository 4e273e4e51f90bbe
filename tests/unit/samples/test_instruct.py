"""The rules of Unsloth's dataset functions, one by one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from finseek.core.errors import InputError
from finseek.samples.instruct import columns_of, compile_prompt, permutations, standardize_sharegpt, to_sharegpt

ROWS = [{"instruction": f"u{i}", "output": f"a{i}", "system": "\n", "input": None} for i in range(5)]


def said(conversations: list[dict[str, Any]], who: str = "human") -> list[list[str]]:
    return [[turn["value"] for turn in row["conversations"] if turn["from"] == who] for row in conversations]


def test_the_worked_example() -> None:
    expected = [["u0", "u4", "u1"], ["u1", "u0", "u0"], ["u2", "u3", "u4"], ["u3", "u1", "u3"], ["u4", "u2", "u2"]]
    extended = to_sharegpt(ROWS, conversation_extension=3)
    assert said(extended) == expected
    assert said(extended, "gpt") == [[text.replace("u", "a") for text in row] for row in expected]


def test_turns_alternate() -> None:
    for row in to_sharegpt(ROWS, conversation_extension=2):
        assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"] * 2
        assert list(row) == ["conversations"]
        assert list(row["conversations"][0]) == ["from", "value"]


@pytest.mark.parametrize("extension", [1, 2, 5, 8])
def test_every_row_appears_as_often_as_the_extension(extension: int) -> None:
    extended = to_sharegpt(ROWS, conversation_extension=extension)
    assert len(extended) == 5
    assert Counter(text for row in said(extended) for text in row) == {f"u{i}": extension for i in range(5)}
    assert [row[0] for row in said(extended)] == [f"u{i}" for i in range(5)]


def test_the_permutations_are_numpys() -> None:
    order = permutations(1000, 4, 11)
    for j in (1, 2, 3):
        np.testing.assert_array_equal(order[j], np.random.default_rng(11 + j).permutation(1000))


def test_columns_and_none() -> None:
    render = compile_prompt("{a}-{b}", ["a", "b"])
    assert render({"a": "x", "b": None}) == "x-"
    assert render({"a": 3, "b": "{a}[[y]]}"}) == "3-{a}[[y]]}"


def test_the_columns_of_a_template() -> None:
    assert columns_of("{a} {{b}} [[{c} [x] {a}]]{d e}") == ["a", "c", "a", "d e"]
    assert columns_of("") == columns_of("{{}}") == []


def test_blocks_depend_on_their_first_column() -> None:
    render = compile_prompt("{a}[[ (b: {b}, c: {c})]]!", ["a", "b", "c"])
    assert render({"a": "x", "b": "y", "c": "z"}) == "x (b: y, c: z)!"
    assert render({"a": "x", "b": "", "c": "z"}) == "x!"
    assert render({"a": "x", "b": None, "c": "z"}) == "x!"
    assert render({"a": "x", "b": "y", "c": None}) == "x (b: y, c: )!"


def test_white_space_is_not_empty_unless_asked() -> None:
    row = {"system": "\n", "user": "q"}
    assert compile_prompt("[[{system}|]]{user}", list(row))(row) == "\n|q"
    assert compile_prompt("[[{system}|]]{user}", list(row), blank_is_empty=True)(row) == "q"


def test_braces_and_line_breaks_in_blocks() -> None:
    render = compile_prompt("{{{a}}}[[\n{{b}}={b}\n]]", ["a", "b"])
    assert render({"a": "x", "b": "y"}) == "{x}\n{b}=y\n"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{c}", r"\{c\} is no column"),
        ("{}", r"\{\} is no column"),
        ("[[text]]", "holds no"),
        ("[[{{a}}]]", "holds no"),
        ("{a", "lacks its other half"),
        ("a}", "lacks its other half"),
        ("[[{a}", "lacks its other half"),
        ("{a}]]", "lacks its other half"),
        ("[[{a} [[{b}]]]]", "lacks its other half"),
    ],
)
def test_templates_that_are_wrong(template: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compile_prompt(template, ["a", "b"])


def test_an_empty_template_takes_the_merged_column() -> None:
    rows = [{"question": "q", "answer": "a"}]
    assert said(to_sharegpt(rows, "", "question", "answer")) == [["q"]]
    for names in (("instruction", "answer"), ("question", "output")):
        with pytest.raises(InputError, match="is not there: there are question, answer"):
            to_sharegpt(rows, "", *names)


def test_no_rows_and_a_wrong_extension() -> None:
    assert to_sharegpt([]) == []
    with pytest.raises(InputError, match="conversation_extension 0"):
        to_sharegpt(ROWS, conversation_extension=0)


@pytest.mark.parametrize(
    ("role", "content", "names"),
    [
        ("from", "value", ["human", "gpt"]),
        ("role", "content", ["user", "assistant"]),
        ("value", "from", [" User ", "OUTPUT"]),
        ("who", "what", ["Input\n", "Assistant"]),
    ],
)
def test_roles_are_standardised(role: str, content: str, names: list[str]) -> None:
    turns = [{role: name, content: f"text {name}"} for name in names]
    made = standardize_sharegpt([{"conversations": turns, "id": 7}])
    assert made == [
        {
            "conversations": [
                {"role": "user", "content": f"text {names[0]}"},
                {"role": "assistant", "content": f"text {names[1]}"},
            ],
            "id": 7,
        }
    ]


def test_a_system_turn() -> None:
    turns = [{"from": "system", "value": "be brief"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    made = standardize_sharegpt([{"conversations": turns}])[0]["conversations"]
    assert [turn["role"] for turn in made] == ["system", "user", "assistant"]


def test_rows_without_conversations_are_unchanged() -> None:
    assert standardize_sharegpt(ROWS) == ROWS
    assert standardize_sharegpt([]) == []


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([{"from": "human", "value": "q"}, {"from": "tool", "value": "a"}], "role 'tool' is none of"),
        ([{"from": "x", "value": "q"}], "the values of from, value are none of"),
        ([{"from": "human", "value": "q", "id": 1}], "must have a role and a content"),
        ([{"from": "human", "value": "q"}, {"role": "gpt", "content": "a"}], "all must have the same two"),
        ([{"from": "human", "value": "user"}], "the values of from, value are none of"),
    ],
)
def test_roles_that_are_none(turns: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        standardize_sharegpt([{"conversations": turns}])
