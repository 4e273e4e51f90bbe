"""The config section `report`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from finseek.core.options import Options


class ReportOptions(Options):
    """How much the report quotes."""

    examples: int = Field(default=6, ge=0, le=50, description="example predictions that the report quotes")
    rejects: int = Field(default=20, ge=0, le=500, description="rejected theses that the report lists")
    planted: Path | None = Field(
        default=None, description="JSON file of a synthetic market's planted rule, with its bayes_accuracy"
    )
