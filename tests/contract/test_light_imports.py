"""Data commands stay light: no torch, no pandas; `finseek --help` imports next to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_parsing_theses_imports_neither_torch_nor_pandas(tmp_path: Path) -> None:
    theses = '<stock-theses ticker="AAA"><thesis><as-of-date>2024-01-02</as-of-date><reasoning>It rises.</reasoning>'
    theses += "<action>buy</action><support>It rose.</support></thesis></stock-theses>"
    (tmp_path / "AAA.xml").write_text(theses)
    out = tmp_path / "all.jsonl"
    words = ["finseek", "--quiet", "theses", "parse", str(tmp_path / "AAA.xml"), "--out", str(out)]
    words += ["--rejects", str(tmp_path / "rejects.jsonl")]
    loaded = loaded_after(
        f"sys.argv = {words}\nfrom finseek.cli.main import main\ntry: main()\nexcept SystemExit: pass"
    )
    assert len(out.read_text().splitlines()) == 1
    assert "finseek" in loaded
    assert not loaded & set(HEAVY)
