"""Data work starts without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "pandas", "numba", "datasets", "pyarrow", "polars", "tokenizers", "jinja2")


@pytest.mark.parametrize("package", ["finseek.theses", "finseek.samples"])
def test_importing_is_light(package: str) -> None:
    code = f"import sys, {package}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
