"""The part of the config that says what the model is asked and how it answers."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from finseek.core.options import Options

AnswerPart = Literal["action", "reasoning", "support"]
INSTRUCTION = (
    "Read the facts about the stock, known after the close of the session, and answer with one action of "
    "STRONG_SELL, SELL, HOLD, BUY, STRONG_BUY."
)


class PromptOptions(Options):
    """What the prompt shows, in which order the answer comes, and how both become tokens."""

    instruction: str = Field(default=INSTRUCTION, description="first line of the prompt; empty leaves it out")
    ticker: bool = Field(default=True, description="show the ticker as ticker=NAME")
    as_of_date: bool = Field(default=False, description="show the as-of date as as_of=YYYY-MM-DD")
    last_actions: int = Field(
        default=0, ge=0, le=20, description="show the ticker's last k actions as of earlier sessions"
    )
    indicators: tuple[str, ...] = Field(default=(), description="indicators of the thesis that enter the prompt")
    answer_order: tuple[AnswerPart, ...] = Field(
        default=("action", "reasoning", "support"), description="parts of the answer, in their order"
    )
    max_reasoning_chars: int | None = Field(
        default=None, ge=1, description="the reasoning is cut after the last whole word within this many characters"
    )
    max_support_chars: int | None = Field(default=None, ge=1, description="the same for the support")
    template: str = Field(
        default="deepseek", description="deepseek, chatml, alpaca, simple, or tokenizer for the tokenizer's own"
    )
    tokenizer: str | None = Field(
        default=None,
        description="tokenizer folder; without it that of model.path, else one is trained",
    )
    vocab_size: int = Field(default=4096, ge=300, le=200_000, description="size of a tokenizer that is trained")

    @model_validator(mode="after")
    def _action_once(self) -> Self:
        if "action" not in self.answer_order or len(set(self.answer_order)) != len(self.answer_order):
            raise ValueError(
                f"answer_order {list(self.answer_order)} must hold action and no part twice: "
                "for example [action, reasoning, support]"
            )
        return self
