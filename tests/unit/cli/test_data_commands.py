"""The data commands in real processes: theses, samples and instruct, on a made-up market."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from finseek.market import generate_prices, write_prices
from finseek.theses.synthetic import generate_theses, write_theses_xml


def finseek(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "finseek.cli.main", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    prices, planted = generate_prices(0, n_tickers=4, n_sessions=190)
    write_prices(prices, folder / "prices.parquet")
    made = generate_theses(planted.signal, prices.sessions, prices.tickers, seed=0)
    write_theses_xml(made.theses, folder / "theses")
    config = {
        "theses": {"source": "theses"},
        "prices": {"source": "prices.parquet"},
        "split": {"train_end": "2022-06-30", "test_start": "2022-07-01", "validation_days": 40},
        "prompt": {"vocab_size": 600, "snapshot": {"features": ["ret1"]}},
        "train": {"seq_length": 400},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_parsing_what_holds_nothing_says_where_the_reasons_are(tmp_path: Path) -> None:
    (tmp_path / "bad.xml").write_text("<stock-theses><thesis>")
    done = finseek("theses", "parse", "bad.xml", "--out", "all.jsonl", "--rejects", "rejects.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "rejected: 1 malformed_xml): rejects.jsonl names each one" in done.stderr
    assert json.loads((tmp_path / "rejects.jsonl").read_text())["reason"] == "malformed_xml"
    assert not (tmp_path / "all.jsonl").exists()


def test_the_source_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "all.jsonl").write_text("{}\n")
    done = finseek("theses", "parse", "all.jsonl", "--out", "./all.jsonl", "--rejects", "rejects.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert "is the source itself" in done.stderr
    assert (tmp_path / "all.jsonl").read_text() == "{}\n"


def test_preview_shows_samples_of_a_ticker(study: Path) -> None:
    ticker = sorted((study / "theses").iterdir())[1].name.split("_")[0].split(".")[0]
    done = finseek("theses", "preview", "config.yaml", "--ticker", ticker.lower(), "-n", "2", cwd=study)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{ticker} as of ") == 2
    assert done.stdout.count("<｜Assistant｜><action>") == 2
    absent = finseek("theses", "preview", "config.yaml", "--ticker", "ZZZZ", cwd=study)
    assert absent.returncode == 2
    assert absent.stdout == ""
    assert "no training sample of ticker ZZZZ" in absent.stderr


def test_folds(study: Path) -> None:
    settings = ["folds.scheme=combinatorial", "folds.n_folds=4"]
    arguments = [text for setting in settings for text in ("--set", setting)]
    done = finseek("theses", "folds", "config.yaml", "folds", *arguments, "--json", cwd=study)
    assert done.returncode == 0, done.stderr
    certificates = json.loads(done.stdout)
    assert [c["fold"] for c in certificates] == [1, 2, 3, 4, 5, 6]
    assert all(sum(c["kept"].values()) + sum(c["dropped"].values()) == c["found"] for c in certificates)
    assert (study / "folds" / "fold-06" / "test.parquet").is_file()
    wrong = finseek("theses", "folds", "config.yaml", "folds", "--set", "folds.n_folds=1", cwd=study)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    without = finseek("theses", "folds", "config.yaml", "f", "--set", "prices.source=null", cwd=study)
    assert without.returncode == 2
    assert "names no prices" in without.stderr


def test_export_and_mix(study: Path) -> None:
    assert finseek("run", "config.yaml", "--until", "samples", cwd=study).returncode == 0
    done = finseek("samples", "export", "runs/run", "chat", "--format", "chat", "--json", cwd=study)
    counts = json.loads(done.stdout)
    assert (study / "chat" / "training.jsonl").read_text().count("\n") == counts["train"] > 0
    (study / "rows.jsonl").write_text(
        "".join(json.dumps({"system": "\n", "user": f"q{i}", "assistant": f"a{i}"}) + "\n" for i in range(40))
    )
    assert finseek(
        "instruct", "convert", "rows.jsonl", "instruct", "--set", "instruct.format=samples",
        "--set", "instruct.validation_fraction=0", cwd=study,
    ).returncode == 0  # fmt: skip
    parts = ["runs/run/samples/training.jsonl=0.8", "instruct/training.jsonl=0.2"]
    mixed = finseek("samples", "mix", "mixed.jsonl", *parts, "--json", cwd=study)
    assert json.loads(mixed.stdout)["instruct/training.jsonl"] == {"lines": 40, "taken": 40}
    assert (study / "mixed.jsonl").read_text().count("\n") == 200


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["samples", "mix", "m.jsonl", "a.jsonl"], "a.jsonl is no FILE=SHARE"),
        (["samples", "mix", "m.jsonl", "a.jsonl=0"], "share above zero"),
        (["samples", "mix", "m.jsonl", "a.jsonl=1", "a.jsonl=2"], "named twice"),
        (["samples", "export", "absent", "out"], "absent"),
        (["instruct", "convert", "absent.jsonl", "out"], "absent.jsonl does not exist"),
        (
            ["instruct", "convert", "absent.jsonl", "out", "--set", "theses.salvage=true"],
            "its keys begin with instruct.",
        ),
    ],
)
def test_wrong_input_is_one_line(tmp_path: Path, arguments: list[str], part: str) -> None:
    done = finseek(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert part in done.stderr
    assert not list(tmp_path.iterdir())
