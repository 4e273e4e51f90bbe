"""What the words of the answers are worth, beside their action.

Format validity: share of answers that are well-formed as they came, and after the parser's repairs. Length: characters
and words. Grounding: of the numbers in an answer, the share that the prompt supports, which means that a number of the
prompt, rounded to the answer's decimals, is equal to it in size; the sign may be in words ("fell 2.1 %"). ROUGE-L (F
measure of the longest common subsequence of words, mean over rows) and chrF (character 6-grams, beta 2, over the
corpus) compare with the teacher's text, through torchmetrics, on evenly spaced rows, because they are slow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np

from finseek.core.errors import InputError
from finseek.evaluate.parse import parse_answer, parse_strictly
from finseek.evaluate.records import Prediction
from finseek.samples import Sample

_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?![\w])")


def text_metrics(samples: Sequence[Sample], predictions: Sequence[Prediction], rows: int = 50) -> dict[str, Any]:
    """Scores of the free texts of generate mode.

    Args:
        samples: what was asked, with the teacher's answer.
        predictions: what came, in the same order.
        rows: at most so many rows for ROUGE-L and chrF; 0 leaves them out.

    Raises:
        InputError: other numbers of samples and predictions.
    """
    if len(samples) != len(predictions) or not samples:
        raise InputError(f"text metrics of {len(samples)} samples and {len(predictions)} predictions: give pairs")
    texts = [row.completion for row in predictions]
    numbers = [grounding(text, sample.input) for text, sample in zip(texts, samples, strict=True)]
    found, supported = (sum(pair[k] for pair in numbers) for k in (0, 1))
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(rows, len(samples))).astype(int)).tolist()
    return {
        "rows": len(samples),
        "well_formed": float(np.mean([parse_strictly(text).action is not None for text in texts])),
        "well_formed_or_repaired": float(np.mean([parse_answer(text).action is not None for text in texts])),
        "mean_characters": float(np.mean([len(text) for text in texts])),
        "mean_words": float(np.mean([len(text.split()) for text in texts])),
        "teacher_mean_words": float(np.mean([len(sample.output.split()) for sample in samples])),
        "numbers": found,
        "grounded_numbers": supported / found if found else None,
        **similarity([texts[i] for i in chosen], [samples[i].output for i in chosen]),
    }


def grounding(text: str, prompt: str) -> tuple[int, int]:
    """How many numbers an answer holds, and how many of them the prompt supports."""
    known = [Decimal(number.replace(",", "")) for number in _NUMBER.findall(re.sub(r"[=+:]|(?<!\d)-", " ", prompt))]
    claimed = [Decimal(number.replace(",", "")) for number in _NUMBER.findall(re.sub(r"[=+:]|(?<!\d)-", " ", text))]

    def holds(number: Decimal) -> bool:
        step = Decimal(1).scaleb(int(number.as_tuple().exponent))
        return any(value.quantize(step, ROUND_HALF_UP) == number for value in known)

    return len(claimed), sum(map(holds, claimed))


def similarity(texts: Sequence[str], teacher: Sequence[str]) -> dict[str, Any]:
    """ROUGE-L and chrF of texts against the teacher's; null where nothing is compared or the library is absent."""
    about: dict[str, Any] = {"compared_rows": len(texts), "rouge_l": None, "chrf": None}
    if not len(texts):
        return about
    try:
        from torchmetrics.functional.text import chrf_score, rouge_score
    except ImportError:
        return about | {"compared_rows": 0, "missing": "torchmetrics: pip install 'finseek[train]'"}
    rouge = rouge_score(list(texts), list(teacher), rouge_keys="rougeL")
    chrf: Any = chrf_score(list(texts), [[text] for text in teacher])
    return about | {"rouge_l": float(rouge["rougeL_fmeasure"]), "chrf": float(chrf)}
