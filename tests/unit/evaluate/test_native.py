from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from finseek.core.actions import ACTIONS, parse_action
from finseek.core.errors import FinseekError, InputError
from finseek.evaluate import EvaluateOptions, load_backend, predict
from finseek.model import DeepSeekV3
from finseek.samples import Encoder

ORDERS = {"action first": ("action", "reasoning", "support"), "reasoning first": ("reasoning", "support", "action")}


def slow_score(folder, sample, before: str) -> np.ndarray:
    """Five full sequences, one at a time, in float64, without a cache."""
    encoder = Encoder(folder)
    model = DeepSeekV3.from_pretrained(folder, dtype=torch.float64)
    prefix = encoder.prompt_ids(sample) + encoder.text_ids(before + "<action>")
    found = []
    for action in ACTIONS:
        tail = encoder.text_ids(f"{action}</action>")
        with torch.inference_mode():
            log_p = model(torch.tensor([prefix + tail])).logits[0].log_softmax(-1)
        found.append(sum(float(log_p[len(prefix) + i - 1, token]) for i, token in enumerate(tail)))
    return np.array(found)


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_score_mode_equals_full_sequences_one_at_a_time(memoriser, name, batch_size):
    folder, samples = memoriser(name)
    options = EvaluateOptions(batch_size=batch_size, max_new_tokens=60)
    rows = predict(samples, load_backend(options, folder, ORDERS[name]), options)
    for row, sample in zip(rows, samples, strict=True):
        before = row.completion.partition("<action>")[0]
        assert bool(before) == (name == "reasoning first")
        log_p = slow_score(folder, sample, before)
        p = np.exp(log_p - log_p.max())
        assert [row.p[action] for action in ACTIONS] == pytest.approx(p / p.sum(), abs=1e-5)
        assert row.pred_action == ACTIONS[int(log_p.argmax())] == row.gt_action
        assert math.isclose(sum(row.p.values()), 1)


@pytest.mark.parametrize("name", ORDERS)
def test_generate_mode_writes_what_was_learned(memoriser, name):
    folder, samples = memoriser(name)
    options = EvaluateOptions(mode="generate", batch_size=4, max_new_tokens=60)
    rows = predict(samples, load_backend(options, folder, ORDERS[name]), options)
    assert [row.completion for row in rows] == [sample.output for sample in samples]
    truth = [parse_action(sample.metadata["action"]) for sample in samples]
    assert [row.pred_action for row in rows] == truth
    assert rows[0].p is None


def test_an_answer_cut_off_before_its_action_is_unscored(memoriser):
    folder, samples = memoriser("reasoning first")
    for mode, reason in (("score", "no_action"), ("generate", "unclosed_tag")):
        options = EvaluateOptions(mode=mode, max_new_tokens=4)
        rows = predict(samples, load_backend(options, folder, ORDERS["reasoning first"]), options)
        assert {(row.pred_action, row.status) for row in rows} == {(None, reason)}


def test_equal_log_probabilities_are_a_tie(memoriser, tmp_path):
    folder, samples = memoriser("action first")
    model = DeepSeekV3.from_pretrained(folder)
    torch.nn.init.zeros_(model.lm_head.weight)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    model.save_pretrained(tmp_path)
    options = EvaluateOptions()
    encoder = Encoder(folder)
    lengths = sorted(len(ids) for ids in encoder.action_ids().values())
    rows = predict(samples, load_backend(options, tmp_path), options)
    shortest_is_alone = lengths[0] < lengths[1]
    assert {row.status for row in rows} == {"scored" if shortest_is_alone else "tie"}


def test_sampling_depends_on_the_seed_alone(memoriser):
    folder, samples = memoriser("action first")
    options = EvaluateOptions(mode="generate", temperature=2.0, max_new_tokens=8, batch_size=4)
    texts = [
        [row.completion for row in predict(samples, load_backend(options, folder, seed=seed), options)]
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(FinseekError, match=str(tmp_path)):
        load_backend(EvaluateOptions(), tmp_path)


def test_an_order_without_the_action_is_refused(tmp_path):
    with pytest.raises(InputError, match="lacks the action"):
        load_backend(EvaluateOptions(), tmp_path, ("reasoning",))
