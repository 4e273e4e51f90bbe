"""The evaluate section of the config."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from finseek.core.options import Options

Horizon = Annotated[int, Field(ge=1, le=252)]


class ServerOptions(Options):
    """A server of the openai back end; its key comes from the environment (OPENAI_API_KEY), never from a config."""

    base_url: str | None = Field(default=None, description="address up to and including /v1")
    model: str | None = Field(default=None, description="name of the model on the server")
    knowledge_cutoff: date | None = Field(
        default=None, description="last day that the served model may have read about"
    )
    concurrency: int = Field(default=64, ge=1, le=1024, description="requests in flight")
    timeout_seconds: float = Field(default=120.0, gt=0, description="longest silence of the server")
    max_attempts: int = Field(default=8, ge=1, le=100, description="tries of one request")
    pause_seconds: float = Field(default=0.5, ge=0, le=60, description="pause after a failure; it doubles each time")
    requests_per_minute: int | None = Field(default=None, ge=1, description="rate limit; none by default")
    logprobs: bool = Field(
        default=False, description="ask for log-probabilities, where the server offers them: how sure an answer is"
    )
    input_price: float = Field(default=0.0, ge=0, description="price of a million prompt tokens, for the cost count")
    output_price: float = Field(default=0.0, ge=0, description="price of a million generated tokens")


class EvaluateOptions(Options):
    """How a model is asked, and how its answers are scored."""

    mode: Literal["score", "generate"] = Field(
        default="score",
        description="score: log-probability of each of the five actions; generate: free text, parsed strictly",
    )
    backend: Literal["auto", "native", "huggingface", "openai"] = Field(
        default="auto", description="what runs the model; auto: native for whole DeepSeek weights, else huggingface"
    )
    batch_size: int = Field(default=32, ge=1, le=4096, description="prompts in one forward pass")
    max_new_tokens: int = Field(default=512, ge=1, le=65536, description="longest free text, in tokens")
    temperature: float = Field(default=0.0, ge=0, le=5, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="nucleus of the sampling; of no effect at temperature 0")
    draws: int = Field(
        default=1, ge=1, le=100, description="answers to each prompt; above 1, their agreement and entropy are reported"
    )
    device: str = Field(
        default="cpu", pattern=r"^(cpu|mps|cuda(:\d+)?)$", description="torch device of a model run here, like cuda"
    )
    threads: int = Field(default=2, ge=1, description="CPU threads of a model run here")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="precision of the weights")
    forward_windows: tuple[Horizon, ...] = Field(
        default=(1, 5, 10, 30), min_length=1, description="horizons of the forward returns, in sessions"
    )
    bootstrap_resamples: int = Field(default=10_000, ge=100, le=1_000_000, description="resamples of the sessions")
    mean_block: float = Field(default=5.0, ge=1, le=1000, description="mean block of the bootstrap, in sessions")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="nominal coverage of every interval")
    baselines: tuple[
        Literal[
            "majority",
            "persistence",
            "random",
            "momentum",
            "reversal",
            "logistic",
            "gradient_boosting",
            "base",
            "teacher",
        ],
        ...,
    ] = Field(
        default=(
            *("majority", "persistence", "random", "momentum", "reversal", "logistic", "gradient_boosting"),
            *("base", "teacher"),
        ),
        description="predictors that the model is compared with, on the same rows and information",
    )
    lock_test: bool = Field(
        default=False, description="refuse a second look at a test split without a stated reason, which is recorded"
    )
    reason: str | None = Field(default=None, description="why a locked test split is looked at again")
    openai: ServerOptions = Field(default_factory=ServerOptions, description="the server of the openai back end")

    @model_validator(mode="after")
    def _what_fits(self) -> Self:
        if self.draws > 1 and (self.mode != "generate" or self.temperature == 0):
            raise ValueError(
                f"draws {self.draws} need mode generate and a temperature above 0: else they are all the same"
            )
        if self.mode == "score" and self.temperature:
            raise ValueError(
                f"temperature {self.temperature:g} has no effect in mode score, which samples nothing: set it to 0, or"
                " mode to generate"
            )
        if self.backend == "openai" and self.mode == "score":
            raise ValueError("a server's chat completions cannot score given actions: set mode to generate")
        return self
