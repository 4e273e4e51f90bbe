from __future__ import annotations

import json
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finseek.core.actions import ACTIONS
from finseek.core.errors import ArtifactError, InputError
from finseek.samples import Encoder, Sample, train_tokenizer
from finseek.samples.templates import SPECIAL_TOKENS
from finseek.samples.whole_words import with_whole_words


def test_special_tokens_come_first(tokenizer: Path) -> None:
    encoder = Encoder(tokenizer)
    assert [encoder.token_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert encoder.vocab_size <= 900


def test_words_tags_and_actions_are_one_token(tokenizer: Path, samples: list[Sample]) -> None:
    encoder = Encoder(tokenizer)
    for ids in encoder.action_ids().values():
        assert len(ids) == 2
    assert len(encoder.action_opening_ids()) == 1
    for sample in samples[:20]:
        market = sample.input.splitlines()[-1]
        assert [encoder.decode([i]).strip() for i in encoder.text_ids(market)] == market.split()


def test_text_comes_back(tokenizer: Path) -> None:
    encoder = Encoder(tokenizer)
    for text in (
        "",
        " ",
        "a\n\n b\t",
        "naïve 日本 🙂 x=1",
        "<action>BUY</action>",
        "\u00a0é\r\n",
        "==<<>>",
        "A_B=c D_E",
    ):
        assert encoder.decode(encoder.text_ids(text)) == text


def test_training_is_deterministic(tmp_path: Path) -> None:
    texts = ["f1=3 f2=4 up", "f1=3 f2=5 down", "f1=2 f2=4 up"] * 3
    for name in ("one", "two"):
        train_tokenizer(texts, 400, tmp_path / name)
    assert (tmp_path / "one" / "tokenizer.json").read_bytes() == (tmp_path / "two" / "tokenizer.json").read_bytes()
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize("size", [300, 340, 400, 2000])
def test_the_vocabulary_keeps_its_size(size: int, samples: list[Sample], tmp_path: Path) -> None:
    texts = [sample.input + sample.output for sample in samples]
    made = train_tokenizer(texts, size, tmp_path / "t")
    vocabulary = json.loads((tmp_path / "t" / "tokenizer.json").read_text())["model"]["vocab"]
    assert made == len(vocabulary) <= size
    assert sorted(vocabulary.values()) == list(range(made))
    encoder = Encoder(tmp_path / "t")
    assert all(encoder.decode(encoder.text_ids(text)) == text for text in texts[:10])


def test_too_little(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="below 261"):
        train_tokenizer(["a"], 260, tmp_path / "t")
    with pytest.raises(InputError, match="no text"):
        train_tokenizer([], 400, tmp_path / "t")


def reference_bpe(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Every merge in turn, over the whole word."""
    pieces = list(word)
    while True:
        present = [m for m in merges if m in set(pairwise(pieces))]
        if not present:
            return pieces
        left, right = present[0]
        place = next(i for i, pair in enumerate(pairwise(pieces)) if pair == (left, right))
        pieces[place : place + 2] = [left + right]


def test_whole_words_against_plain_bpe() -> None:
    rng = np.random.default_rng(5)
    alphabet = list("abcd")
    for _ in range(100):
        merges: list[tuple[str, str]] = []
        tokens = list(alphabet)
        for _ in range(12):
            pair = (tokens[rng.integers(len(tokens))], tokens[rng.integers(len(tokens))])
            if pair not in merges and "".join(pair) not in tokens:
                merges.append(pair)
                tokens.append("".join(pair))
        words = list({"".join(rng.choice(alphabet, size=rng.integers(1, 7))) for _ in range(6)})
        vocabulary, made = with_whole_words(alphabet, merges, words, 60)
        assert len(vocabulary) <= 60
        tokens = [*alphabet, *dict.fromkeys(map("".join, made))]
        assert vocabulary == {token: place for place, token in enumerate(tokens)}
        for word in words:
            assert reference_bpe(word, made) == [word]


def test_hugging_face_renders_and_encodes_alike(tokenizer: Path, samples: list[Sample]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        theirs: Any = AutoTokenizer.from_pretrained(tokenizer)
    ours = Encoder(tokenizer)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 1, 2)
    for sample in samples:
        chat = [{"role": "user", "content": sample.input}, {"role": "assistant", "content": sample.output}]
        encoded = ours.encode(sample)
        text = theirs.apply_chat_template(chat, tokenize=False)
        assert text == ours.decode(encoded.input_ids)
        assert theirs(text, add_special_tokens=False)["input_ids"] == encoded.input_ids.tolist()
        prompt = theirs.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
        assert theirs(prompt, add_special_tokens=False)["input_ids"] == ours.prompt_ids(sample)


def test_actions_in_an_answer_are_the_continuations(tokenizer: Path, samples: list[Sample]) -> None:
    encoder = Encoder(tokenizer)
    for sample in samples:
        encoded = encoder.encode(sample)
        action = encoder.action_ids()[ACTIONS[ACTIONS.index(sample.metadata["action"])]]
        assert encoded.input_ids[encoded.role == 1].tolist() == action
        opening = encoder.prompt_ids(sample) + encoder.action_opening_ids()
        assert encoded.input_ids[: len(opening) + len(action)].tolist() == opening + action


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        Encoder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match="is no tokenizer"):
        Encoder(tmp_path)
