"""The audit section of the config."""

from __future__ import annotations

from pydantic import Field

from finseek.core.options import Options


class AuditOptions(Options):
    """What the audit looks for."""

    near_duplicate_threshold: float = Field(
        default=0.8, gt=0, le=1, description="Jaccard similarity of word triples from which two theses count as one"
    )
