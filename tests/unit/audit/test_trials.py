from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finseek import stats
from finseek.audit.trials import deflate, head_of, record_trials, trials_on, verify_trials
from finseek.core.errors import ArtifactError, InputError

AT = "2026-01-05T10:00:00+00:00"


@pytest.fixture
def chain(tmp_path) -> Path:
    path = tmp_path / "trials.jsonl"
    for number in range(6):
        record_trials(path, [(f"c{number}", 0.01 * number, 77)], kind="evaluation", test_data="d1", at=AT)
    return path


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def test_a_whole_chain_is_proved_and_numbered(chain):
    trials = verify_trials(chain)
    assert [trial.number for trial in trials] == [1, 2, 3, 4, 5, 6]
    assert verify_trials(chain, [head_of(trials), head_of(trials[:3])]) == trials


@pytest.mark.parametrize("number", range(6))
def test_an_edited_line_is_named(chain, number):
    text = lines(chain)
    text[number] = text[number].replace('"periods":77', '"periods":78')
    chain.write_text("".join(text))
    with pytest.raises(ArtifactError, match=rf"jsonl:{number + 1} .*edited"):
        verify_trials(chain)


@pytest.mark.parametrize("number", range(6))
def test_a_removed_line_is_noticed_also_the_last(chain, number):
    text = lines(chain)
    chain.write_text("".join(text[:number] + text[number + 1 :]))
    with pytest.raises(ArtifactError, match="removed"):
        verify_trials(chain)


@pytest.mark.parametrize("number", range(5))
def test_lines_in_another_order_are_noticed(chain, number):
    text = lines(chain)
    text[number], text[number + 1] = text[number + 1], text[number]
    chain.write_text("".join(text))
    with pytest.raises(ArtifactError, match="removed or moved"):
        verify_trials(chain)


def test_a_chain_rewritten_with_fitting_hashes_does_not_fit_a_manifest(chain, tmp_path):
    head = head_of(verify_trials(chain))
    forged = tmp_path / "forged" / "trials.jsonl"
    for number in range(6):
        record_trials(forged, [(f"c{number}", 0.5, 77)], kind="evaluation", test_data="d1", at=AT)
    assert len(verify_trials(forged)) == 6
    with pytest.raises(ArtifactError, match="rewritten"):
        verify_trials(forged, [head])
    chain.write_text("")
    chain.with_suffix(".head.json").unlink()
    with pytest.raises(ArtifactError, match="0 trials where 6"):
        verify_trials(chain, [head])


def test_a_removed_head_or_half_a_line_is_noticed(chain):
    chain.with_suffix(".head.json").unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        verify_trials(chain)
    chain.write_bytes(chain.read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="half a line"):
        verify_trials(chain)


def test_a_replay_counts_once_and_every_sweep_point_counts(chain):
    record_trials(chain, [("c0", 0.3, 77)], kind="evaluation", test_data="d1", at=AT)
    assert len(verify_trials(chain)) == 6
    record_trials(chain, [("c0", None, None)], kind="evaluation", test_data="d2", at=AT)
    points = [("s1", 0.1, 77), ("s2", 0.2, 77), ("s1", 0.1, 77)]
    head = record_trials(chain, points, kind="sweep", test_data="d1", at=AT)
    assert head.length == 9


def test_a_locked_test_refuses_a_second_look_without_a_reason(chain):
    again = {"kind": "evaluation", "test_data": "d1", "at": AT, "locked": True}
    with pytest.raises(InputError, match="lock_test"):
        record_trials(chain, [("new", 0.1, 77)], **again)
    with pytest.raises(InputError, match="lock_test"):
        record_trials(chain, [("new", 0.1, 77)], reason="  ", **again)
    record_trials(chain, [("c1", 0.1, 77)], **again)
    record_trials(chain, [("new", 0.1, 77)], reason="a bug in the prompt", **again)
    assert verify_trials(chain)[-1].reason == "a bug in the prompt"
    assert len(verify_trials(chain)) == 7


def test_an_altered_chain_is_not_appended_to(chain):
    text = lines(chain)
    chain.write_text("".join(text[:-1]))
    with pytest.raises(ArtifactError):
        record_trials(chain, [("new", 0.1, 77)], kind="backtest", test_data="d1", at=AT)
    assert lines(chain) == text[:-1]


WRITER = """
import sys
from pathlib import Path
from finseek.audit.trials import record_trials
for i in range(15):
    record_trials(Path(sys.argv[1]), [(f"{sys.argv[2]}-{i}", None, None)], kind="backtest", test_data="d", at="now")
"""


def test_runs_that_end_at_once_both_get_their_lines_in(tmp_path):
    path = tmp_path / "trials.jsonl"
    environment = {"PYTHONPATH": str(Path(__file__).parents[3] / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, name], env=environment) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(verify_trials(path)) == 45


def test_an_evaluation_that_is_traded_later_is_one_trial_with_its_sharpe(tmp_path):
    path = tmp_path / "trials.jsonl"
    for sharpe in (None, None, 0.1, None, 0.1):
        record_trials(path, [("c", sharpe, sharpe and 77)], kind="evaluation", test_data="d", at=AT)
    trials = verify_trials(path)
    assert [trial.sharpe for trial in trials] == [None, 0.1]
    assert trials_on(trials, "d") == {"c": 0.1}
    assert trials_on(trials, "other") == {}


def test_the_number_of_trials_deflates_the_sharpe_ratio(chain):
    returns = np.random.default_rng(0).normal(0.002, 0.01, 77)
    own = stats.moments(returns)
    found = deflate(list(trials_on(verify_trials(chain), "d1").values()), returns)
    variance = max(np.var([0.01 * n for n in range(6)], ddof=1), 1 / 76)
    assert found["trials"] == 6
    assert found["deflated_sharpe_ratio"] == pytest.approx(
        stats.deflated_sharpe_ratio(own.sharpe, 77, 6, variance, own.skewness, own.kurtosis)
    )
    alone = deflate([None], returns)
    assert alone["deflated_sharpe_ratio"] == alone["probabilistic_sharpe_ratio"] > found["deflated_sharpe_ratio"]
