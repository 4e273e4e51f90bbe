from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finseek.core.errors import ArtifactError, InputError
from finseek.evaluate import EvaluateOptions, load_backend, predict, write_results
from finseek.evaluate.ask import best_action
from finseek.samples import Sample

OPTIONS = EvaluateOptions(batch_size=2)


@pytest.fixture
def asked(memoriser):
    return memoriser("action first")


def test_a_replay_asks_nobody_and_writes_the_same_bytes(asked, tmp_path):
    folder, samples = asked
    backend = load_backend(OPTIONS, folder)
    write_results(tmp_path / "first.csv", predict(samples, backend, OPTIONS, answers=tmp_path / "answers.jsonl"))
    del backend.model
    write_results(tmp_path / "again.csv", predict(samples, backend, OPTIONS, answers=tmp_path / "answers.jsonl"))
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()


@pytest.mark.parametrize("cut", [1, 150, 700, 1400])
def test_a_file_cut_anywhere_is_completed_to_the_same_result(asked, tmp_path, cut):
    folder, samples = asked
    backend = load_backend(OPTIONS, folder)
    path = tmp_path / "answers.jsonl"
    whole = predict(samples, backend, OPTIONS, answers=path)
    path.write_bytes(path.read_bytes()[:-cut])
    told = []
    assert predict(samples, backend, OPTIONS, lambda *step: told.append(step), answers=path) == whole
    assert told[0][1] < told[-1][1] == told[-1][2] == len(samples)
    assert predict(samples, backend, OPTIONS, answers=path) == whole


KILLED = """
import os, signal, sys
from pathlib import Path
from finseek.evaluate import EvaluateOptions, load_backend, predict
from finseek.samples import load_samples
folder, samples, answers = map(Path, sys.argv[1:])
options = EvaluateOptions(batch_size=2)
def progress(label, done, total, unit):
    if done >= 4:
        os.kill(os.getpid(), signal.SIGKILL)
predict(load_samples(samples), load_backend(options, folder), options, progress, answers=answers)
"""


def test_kill_and_resume_give_the_same_predictions(asked, tmp_path):
    from finseek.samples import write_samples

    folder, samples = asked
    write_samples(tmp_path / "samples.jsonl", samples)
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "samples.jsonl"), str(tmp_path / "a.jsonl")]
    source = str(Path(__file__).parents[3] / "src")
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": source}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len((tmp_path / "a.jsonl").read_bytes().splitlines()) == 4
    backend = load_backend(OPTIONS, folder)
    assert predict(samples, backend, OPTIONS, answers=tmp_path / "a.jsonl") == predict(samples, backend, OPTIONS)


def test_answers_of_another_model_or_sampling_are_not_taken(asked, tmp_path):
    folder, samples = asked
    path = tmp_path / "answers.jsonl"
    predict(samples, load_backend(OPTIONS, folder), OPTIONS, answers=path)
    size = path.stat().st_size
    generate = EvaluateOptions(mode="generate", max_new_tokens=5)
    predict(samples, load_backend(generate, folder), generate, answers=path)
    assert path.stat().st_size > size


def test_a_damaged_line_in_the_middle_is_an_error(asked, tmp_path):
    folder, samples = asked
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"key": 3}\n')
    with pytest.raises(ArtifactError, match=r"answers\.jsonl:1 is not an answer"):
        predict(samples, load_backend(OPTIONS, folder), OPTIONS, answers=path)


def test_a_sample_without_an_action_is_named(asked):
    folder, _ = asked
    with pytest.raises(InputError, match="'action'"):
        predict(
            [Sample("word1", "", {"ticker": "A", "as_of_date": "2025-01-02"})], load_backend(OPTIONS, folder), OPTIONS
        )


@pytest.mark.parametrize(
    ("log_p", "status"),
    [
        (None, "no_action"),
        ((-1.0, -1.0, -2.0, -3.0, -4.0), "tie"),
        ((float("nan"), -1.0, -2.0, -3.0, -4.0), "not_finite"),
        ((-2.0, -1.0, -2.0, -2.0, -2.0), "scored"),
    ],
)
def test_only_a_single_best_action_is_scored(log_p, status):
    assert best_action(log_p).status == status
    assert (best_action(log_p).action is None) == (status != "scored")
