"""The evaluate section of the config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finseek.core.options import Options

Horizon = Annotated[int, Field(ge=1, le=252)]


class EvaluateOptions(Options):
    """How a model is asked, and how its answers are scored."""

    mode: Literal["score", "generate"] = Field(
        default="score",
        description="score: log-probability of each of the five actions; generate: free text, parsed strictly",
    )
    backend: Literal["native", "huggingface", "openai"] = Field(default="native", description="what runs the model")
    batch_size: int = Field(default=32, ge=1, le=4096, description="prompts in one forward pass")
    max_new_tokens: int = Field(default=512, ge=1, le=65536, description="longest free text, in tokens")
    temperature: float = Field(default=0.0, ge=0, le=5, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="nucleus of the sampling; of no effect at temperature 0")
    device: str = Field(default="cpu", description="torch device of a model run here, like cuda")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="precision of the weights")
    forward_windows: tuple[Horizon, ...] = Field(
        default=(1, 5, 10, 30), min_length=1, description="horizons of the forward returns, in sessions"
    )
    bootstrap_resamples: int = Field(default=10_000, ge=100, le=1_000_000, description="resamples of the sessions")
    mean_block: float = Field(default=5.0, ge=1, le=1000, description="mean block of the bootstrap, in sessions")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="nominal coverage of every interval")
