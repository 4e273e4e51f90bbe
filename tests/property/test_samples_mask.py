"""The loss mask over arbitrary texts: what is learned decodes to the answer and its end, and nothing else."""

from __future__ import annotations

from datetime import date
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finseek.core.actions import ACTIONS, Action
from finseek.samples import Encoder, PromptOptions, build_samples, train_tokenizer
from finseek.theses import Thesis, thesis_uid

ORDERS = [o for n in (1, 2, 3) for o in permutations(("action", "reasoning", "support"), n) if "action" in o]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(
    ["<｜end▁of▁sentence｜>", "</action>", "<action>BUY</action>", "BUY</action>\n", " ", "a=b </", "<｜User｜>x"]
)
DAY = date(2024, 1, 5)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    folder = tmp_path_factory.mktemp("t") / "tokenizer"
    train_tokenizer(["ticker=T ret5=a up <action>BUY</action>\n<reasoning>up</reasoning>"] * 3, 400, folder)
    return {name: Encoder(folder, name) for name in ("deepseek", "alpaca", "simple")}


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["deepseek", "alpaca", "simple"]),
    st.sampled_from(ORDERS),
    TEXTS,
    TEXTS,
    TEXTS,
    st.sampled_from(ACTIONS),
)
def test_what_is_learned_is_the_answer(
    encoders: dict[str, Encoder], template: str, order: tuple[str, ...], reasoning: str, support: str, instruction: str,
    action: Action,
) -> None:  # fmt: skip
    encoder = encoders[template]
    thesis = Thesis(thesis_uid("T", DAY), "T", DAY, reasoning, support, action, {}, instruction, None, None, "f", 0)
    (sample,) = build_samples([thesis], None, PromptOptions(answer_order=order), split="train")  # type: ignore[arg-type]
    ids, role, _ = encoder.encode(sample)
    assert encoder.decode(ids[role != 0]) == sample.output + encoder.template.end
    assert encoder.decode(ids[role == 1]) == f"{action}</action>"
    learned = (role != 0).tolist()
    assert learned == sorted(learned) or template != "deepseek"
    assert encoder.decode(encoder.prompt_ids(sample)).endswith(encoder.template.assistant[0])  # type: ignore[attr-defined]
    start, end = sample.metadata["action_span"]
    assert sample.output[start:end] == f"{action}</action>"
    special = [token for token in ids.tolist() if token < 5]
    assert len(special) == {"deepseek": 4, "alpaca": 2, "simple": 2}[template]
