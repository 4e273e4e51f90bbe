"""Data commands stay light: no torch, no pandas; `finseek --help` imports next to nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "pandas", "datasets", "numba", "lightning", "sklearn")


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "module",
    [
        "theses",
        "market",
        "samples",
        "backtest",
        "evaluate",
        "report",
        "stats",
        "pipeline",
        "train",
        "checkpoint",
        "audit",
    ],
)
def test_importing_a_package_stays_light(module: str) -> None:
    assert not loaded_after(f"import finseek.{module}") & set(HEAVY)


def test_help_imports_no_data_library() -> None:
    loaded = loaded_after("import finseek.cli.main")
    assert not loaded & {*HEAVY, "numpy", "polars", "pydantic", "lxml", "orjson", "rich"}
