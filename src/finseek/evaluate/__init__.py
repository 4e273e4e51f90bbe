"""Ask a model for actions, and score the answers with intervals and baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finseek.evaluate.ask import load_backend, predict
    from finseek.evaluate.baselines import standard_baselines
    from finseek.evaluate.options import EvaluateOptions
    from finseek.evaluate.parse import parse_answer
    from finseek.evaluate.records import Prediction
    from finseek.evaluate.results import read_predictions, write_results
    from finseek.evaluate.score import Metrics, score_predictions

_HOME = {
    "EvaluateOptions": "options",
    "Metrics": "score",
    "Prediction": "records",
    "load_backend": "ask",
    "parse_answer": "parse",
    "predict": "ask",
    "read_predictions": "results",
    "score_predictions": "score",
    "standard_baselines": "baselines",
    "write_results": "results",
}
__all__ = [
    "EvaluateOptions",
    "Metrics",
    "Prediction",
    "load_backend",
    "parse_answer",
    "predict",
    "read_predictions",
    "score_predictions",
    "standard_baselines",
    "write_results",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
