from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from finseek.core.errors import InputError
from finseek.samples.instruct import permutations, standardize_sharegpt, to_sharegpt
from finseek.samples.instruct_convert import InstructOptions, convert_instructions

ROWS = [
    {"system": "\n" if i % 3 else f"You are {i}.", "user": f"What is {i} + {{x}} “€”?", "assistant": f"It is\n{i}."}
    for i in range(200)
]
PROMPT = "[[{system}\n]]{user}"


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("extension", [1, 3])
@pytest.mark.parametrize("form", ["sharegpt", "messages"])
def test_equals_the_functions_applied_to_each_split(tmp_path: Path, extension: int, form: Any) -> None:
    options = InstructOptions(conversation_extension=extension, format=form, validation_fraction=0.2, test_fraction=0.1)
    summary = convert_instructions(jsonl(tmp_path / "rows.jsonl", ROWS), tmp_path / "out", options)
    plain = InstructOptions(format="samples", validation_fraction=0.2, test_fraction=0.1)
    convert_instructions(tmp_path / "rows.jsonl", tmp_path / "plain", plain)
    seen = 0
    for name, file in (("train", "training"), ("validation", "validation"), ("test", "test")):
        answers = [sample["output"] for sample in lines(tmp_path / "plain" / f"{file}.jsonl")]
        rows = [row for row in ROWS if row["assistant"] in answers]
        expected = to_sharegpt(rows, PROMPT, "user", "assistant", extension, blank_is_empty=True)
        made = lines(tmp_path / "out" / f"{file}.jsonl")
        if form == "messages":
            standard = standardize_sharegpt(expected)
            assert made == [{"messages": row["conversations"]} for row in standard]
        else:
            assert made == expected
        assert summary["conversations"][name] == len(rows) > 0
        seen += len(rows)
    assert seen == 200
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "rejects.jsonl", "summary.json", "test.jsonl", "training.jsonl", "validation.jsonl",
    ]  # fmt: skip


def test_splits_share_no_prompt_and_ignore_the_order(tmp_path: Path) -> None:
    rows = ROWS + [row | {"assistant": "again"} for row in ROWS]
    options = InstructOptions(format="samples", validation_fraction=0.3, test_fraction=0.2)
    convert_instructions(jsonl(tmp_path / "a.jsonl", rows), tmp_path / "a", options)
    convert_instructions(jsonl(tmp_path / "b.jsonl", rows[::-1]), tmp_path / "b", options)
    prompts = {}
    for file in ("training", "validation", "test"):
        one, other = (lines(tmp_path / side / f"{file}.jsonl") for side in "ab")
        assert one == other[::-1]
        prompts[file] = {sample["input"] for sample in one}
    assert sum(map(len, prompts.values())) == len(set.union(*prompts.values())) == 200
    assert 20 < len(prompts["test"]) < 60


def test_blank_systems_are_left_out_unless_asked(tmp_path: Path) -> None:
    rows = [{"system": "\n", "user": "q", "assistant": "a"}]
    for blank, expected in ((True, "q"), (False, "\n\nq")):
        options = InstructOptions(format="samples", validation_fraction=0, blank_is_empty=blank)
        convert_instructions(jsonl(tmp_path / "r.jsonl", rows), tmp_path / "out", options)
        assert lines(tmp_path / "out" / "training.jsonl")[0]["input"] == expected


def test_every_format_gives_the_same(tmp_path: Path) -> None:
    jsonl(tmp_path / "r.jsonl", ROWS)
    pl.DataFrame(ROWS).write_parquet(tmp_path / "r.parquet")
    pl.DataFrame(ROWS).write_csv(tmp_path / "r.csv")
    results = []
    for name in ("r.jsonl", "r.parquet", "r.csv"):
        convert_instructions(tmp_path / name, tmp_path / "out", InstructOptions(conversation_extension=2))
        results.append((tmp_path / "out" / "training.jsonl").read_bytes())
    assert results[0] == results[1] == results[2]


def test_rejects_reconcile(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    good = json.dumps(ROWS[0])
    (tmp_path / "in" / "a.jsonl").write_text(
        f'{good}\n{{"system": "", "user": " ", "assistant": "a"}}\n[1]\n{{"sy\n\n'
        '{"system": "", "user": "q", "assistant": null}\n{"system": null, "user": "q", "assistant": "\\t"}\n'
    )
    (tmp_path / "in" / "b.csv").write_text('user,assistant,system\nq1,a1,\n"q2",a2\n')
    summary = convert_instructions(tmp_path / "in", tmp_path / "out", InstructOptions(validation_fraction=0))
    assert (summary["found"], summary["kept"], summary["rejected"]) == (8, 2, 6)
    assert summary["rejected_by_reason"] == {"empty_answer": 2, "empty_prompt": 1, "malformed": 3}
    rejects = lines(tmp_path / "out" / "rejects.jsonl")
    assert [(r["source_file"], r["line"]) for r in rejects] == [
        ("a.jsonl", 2), ("a.jsonl", 3), ("a.jsonl", 4), ("a.jsonl", 6), ("a.jsonl", 7), ("b.csv", 3),
    ]  # fmt: skip
    assert len(lines(tmp_path / "out" / "training.jsonl")) == 2


def test_a_byte_order_mark_and_a_long_text_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode())
    (tmp_path / "b.csv").write_text(f"system,user,assistant\n,q1,{'a' * 200_000}\n,q2,a2\n")
    for name, rows in (("a.jsonl", 1), ("b.csv", 2)):
        summary = convert_instructions(tmp_path / name, tmp_path / "out", InstructOptions(validation_fraction=0))
        assert (summary["found"], summary["kept"]) == (rows, rows)


def test_a_key_that_a_row_lacks_is_null(tmp_path: Path) -> None:
    rows = [{"user": "q1", "assistant": "a1"}, {"user": "q2", "assistant": "a2", "system": "s"}, {"question": "q3"}]
    options = InstructOptions(format="samples", validation_fraction=0)
    summary = convert_instructions(jsonl(tmp_path / "r.jsonl", rows), tmp_path / "out", options)
    assert [row["input"] for row in lines(tmp_path / "out" / "training.jsonl")] == ["q1", "s\nq2"]
    assert summary["rejected_by_reason"] == {"empty_prompt": 1}


def test_a_file_of_a_folder_that_is_not_read_is_a_reject(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    jsonl(tmp_path / "in" / "A.JSONL", ROWS)
    (tmp_path / "in" / "more.jsonl.zst").write_bytes(b"packed")
    summary = convert_instructions(tmp_path / "in", tmp_path / "out")
    assert (summary["found"], summary["kept"]) == (201, 200)
    (reject,) = lines(tmp_path / "out" / "rejects.jsonl")
    assert (reject["reason"], reject["source_file"]) == ("unsupported_file", "more.jsonl.zst")


def test_the_extension_counts_per_split(tmp_path: Path) -> None:
    options = InstructOptions(conversation_extension=3, validation_fraction=0.2)
    convert_instructions(jsonl(tmp_path / "r.jsonl", ROWS), tmp_path / "out", options)
    for file in ("training", "validation"):
        made = lines(tmp_path / "out" / f"{file}.jsonl")
        said = Counter(turn["content"] for row in made for turn in row["messages"] if turn["role"] == "user")
        assert set(said.values()) == {3}
        assert len(said) == len(made)
        firsts = [row["messages"][0]["content"] for row in made]
        second = permutations(len(made), 3)[1]
        assert [row["messages"][2]["content"] for row in made] == [firsts[i] for i in second]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nothing.jsonl", {}, "does not exist"),
        ("r.txt", {}, "holds no .parquet, .jsonl"),
        ("bad.parquet", {}, "is no Parquet file"),
        ("latin.csv", {}, "cannot be read"),
        ("empty.jsonl", {}, r"can be kept \(no rows\)"),
        ("broken.jsonl", {}, r"can be kept \(1 malformed\)"),
        ("r.jsonl", {"output_column": "answer"}, "'answer' is in no row: there are system, user, assistant; set"),
        ("r.jsonl", {"merged_prompt": "{question}"}, "'question' is in no row"),
        ("r.jsonl", {"merged_prompt": "", "prompt_column": "q"}, "'q' is in no row"),
        ("chat.jsonl", {}, "'assistant' is in no row: there are messages"),
        ("r.jsonl", {"validation_fraction": 0.999}, "none of 200 rows is left for training"),
        ("hub:", {}, "names no data set: write hub:owner/name"),
    ],
)
def test_what_cannot_be_converted(source: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    jsonl(tmp_path / "r.jsonl", ROWS)
    (tmp_path / "r.txt").write_text("x")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    (tmp_path / "latin.csv").write_bytes("system,user,assistant\n,é,a\n".encode("latin-1"))
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text("{")
    jsonl(tmp_path / "chat.jsonl", [{"messages": []}] * 2000)
    with pytest.raises(InputError, match=message):
        convert_instructions(
            source if source == "hub:" else tmp_path / source, tmp_path / "out", InstructOptions(**options)
        )
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*partial*"))


@pytest.mark.parametrize(
    "options",
    [{"validation_fraction": 0.5, "test_fraction": 0.5}, {"format": "samples", "conversation_extension": 2}],
)
def test_options_that_contradict(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"leave no training|holds one turn"):
        InstructOptions(**options)


def test_what_is_there_is_not_lost(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "r.jsonl", ROWS)
    for _ in range(2):
        convert_instructions(source, tmp_path / "out")
    with pytest.raises(InputError, match="lies inside"):
        convert_instructions(tmp_path / "out" / "training.jsonl", tmp_path / "out")
    with pytest.raises(InputError, match=r"holds out, which would be lost"):
        convert_instructions("hub:acme/rows", tmp_path)
    assert len(lines(source)) == len(ROWS)
