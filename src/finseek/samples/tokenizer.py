"""A byte-level BPE trained on the training split, in the files of a Hugging Face tokenizer."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from finseek.core.actions import ACTIONS
from finseek.core.artifacts import atomic_folder, write_json
from finseek.core.errors import InputError
from finseek.samples.templates import BOS, DEEPSEEK, EOS, PAD, SPECIAL_TOKENS
from finseek.samples.whole_words import with_whole_words

# Whole words of the prompt (name=value), tags and actions of the answer come first, so that each can become one
# token; then letters, up to three digits, punctuation and white space, each with at most one leading space.
WORDS = (
    r" ?[a-z0-9_]+=[^\s<]+"
    r"|</?[a-z_]+>"
    r"|[A-Z]+(?:_[A-Z]+)+"
    r"| ?\p{L}+"
    r"| ?\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}<]+"
    r"|<"
    r"|\s+(?!\S)"
    r"|\s+"
)


# All files of a Hugging Face tokenizer that decide how a sample is encoded, the one that must be there first.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")

_WHOLE = re.compile(r" ?[a-z0-9_]+=[^\s<]+|</?[a-z_]+>|[A-Z]+(?:_[A-Z]+)+")


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path, *, max_length: int = 1_000_000) -> int:
    """Train a tokenizer and write tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    Words of the form ``name=value``, tags and actions that occur twice or more become one token each, the frequent
    ones first, until half of the vocabulary is spent on them.

    Args:
        texts: of the training split alone.
        vocab_size: at most this many tokens, the 5 special ones and the 256 bytes included.
        folder: appears whole or not at all.
        max_length: ``model_max_length`` of the Hugging Face config.

    Returns:
        the number of tokens that it has.

    Raises:
        InputError: no text, or a vocabulary too small for the bytes.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    least = 256 + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise InputError(f"prompt.vocab_size {vocab_size} is below {least}, the bytes and the markers: raise it")
    material = list(texts)
    if not any(material):
        raise InputError("there is no text to train a tokenizer on: the training split is empty")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        min_frequency=2,
    )
    tokenizer.train_from_iterator(material, trainer=trainer, length=len(material))
    described = json.loads(tokenizer.to_str())
    _make_words_whole(described, tokenizer, material, vocab_size)
    tokenizer = Tokenizer.from_str(json.dumps(described))
    special = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    with atomic_folder(folder) as partial:
        tokenizer.save(str(partial / "tokenizer.json"))
        write_json(
            partial / "tokenizer_config.json",
            {
                **special,
                "tokenizer_class": "PreTrainedTokenizerFast",
                "add_bos_token": False,
                "add_eos_token": False,
                "clean_up_tokenization_spaces": False,
                "model_max_length": max_length,
                "chat_template": DEEPSEEK.jinja,
            },
        )
        write_json(partial / "special_tokens_map.json", special)
    return int(tokenizer.get_vocab_size())


def _make_words_whole(described: dict[str, Any], tokenizer: Any, texts: list[str], vocab_size: int) -> None:
    model = described["model"]
    counts = Counter(chain.from_iterable(map(_WHOLE.findall, texts)))
    counts.update(dict.fromkeys(ACTIONS, len(texts)))
    frequent = sorted((-count, word) for word, count in counts.items() if count > 1)
    spelt = (tokenizer.pre_tokenizer.pre_tokenize_str(word) for _, word in frequent)
    words = [pieces[0][0] for pieces in spelt if len(pieces) == 1]
    merges = [(left, right) for left, right in model["merges"]]
    made = {left + right for left, right in merges}
    alphabet = [token for token in sorted(model["vocab"], key=model["vocab"].__getitem__) if token not in made]
    model["vocab"], model["merges"] = with_whole_words(alphabet, merges, words, vocab_size)
