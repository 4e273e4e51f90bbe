"""The mistakes of public backtests, planted one by one: each must turn a test of this folder red."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[2] / "src" / "finseek"
INI = "[pytest]\npythonpath = src\naddopts = --import-mode=importlib -p no:hypothesispytest -p no:cacheprovider\n"


@dataclass(frozen=True)
class Mutant:
    """One line of the package replaced, and the test files of which one must fail."""

    mistake: str
    file: str
    line: str
    instead: str
    tests: str


MUTANTS = (
    Mutant(
        "HOLD is bought",
        "positions.py",
        "    wanted = by_rank[np.clip(grid.rank, -2, 2) + 2]\n",
        "    wanted = np.where(grid.rank == 0, 1.0, by_rank[np.clip(grid.rank, -2, 2) + 2])\n",
        "test_signals.py",
    ),
    Mutant(
        "an answer that was not scored is bought",
        "positions.py",
        "    return np.where(grid.rank == NO_SIGNAL, np.nan, wanted)\n",
        "    grid.rank[grid.rank == NO_SIGNAL] = 1\n    return np.where(grid.rank == 1, 1.0, wanted)\n",
        "test_signals.py",
    ),
    Mutant(
        "an answer that was not scored is HOLD",
        "positions.py",
        "np.where(expired, 0.0, NO_ORDER)",
        "0.0",
        "test_signals.py",
    ),
    Mutant(
        "a signal never expires",
        "positions.py",
        "    expired = signal_age(grid.present) > options.signal_expiry\n",
        "    expired = np.zeros(grid.present.shape, dtype=bool)\n",
        "test_signals.py",
    ),
    Mutant(
        "shorts never flip the sign",
        "positions.py",
        "    if not options.shorts:\n",
        "    if options.shorts:\n        wanted = np.abs(wanted)\n    else:\n",
        "test_golden.py",
    ),
    Mutant(
        "the return of five days is booked on one",
        "tape.py",
        "    mark = forward_fill(close)\n",
        "    mark = forward_fill(np.vstack([close[4:], np.repeat(close[-1:], 4, axis=0)]))\n",
        "test_golden.py",
    ),
    Mutant(
        "entry at the close that the thesis quotes",
        "tape.py",
        '        "next_open": (prices.open,),\n',
        '        "next_open": (np.vstack([prices.open[:1], prices.close[:-1]]),),\n',
        "test_golden.py",
    ),
    Mutant(
        "tomorrow's decision trades today",
        "kernel.py",
        "        w = weights[..., k - 1, :]\n",
        "        w = weights[..., min(k, steps - 1), :]\n",
        "test_golden.py",
    ),
    Mutant(
        "closes are not adjusted",
        "tape.py",
        "    adjust = prices.adjusted_close / prices.close if actions is None else actions.split_factor\n",
        "    adjust = np.ones(prices.close.shape)\n",
        "test_account.py",
    ),
    Mutant(
        "cost on entry and never on exit",
        "kernel.py",
        "        spent = a * net + b * gross\n",
        "        spent = a * net + b * 0.5 * (gross + net)\n",
        "test_golden.py",
    ),
    Mutant(
        "the profit of the first day is missing",
        "kernel.py",
        "        h *= tape.after[k]\n",
        "        h *= tape.after[k] if k > 1 else 1.0\n",
        "test_golden.py",
    ),
    Mutant(
        "a year of another length",
        "simulate.py",
        "YEAR = 252\n",
        "YEAR = 50\n",
        "test_parts.py",
    ),
    Mutant(
        "STRONG_SELL is read as SELL",
        "signals.py",
        "_RANK = {action: action.rank for",
        "_RANK = {action: action.direction for",
        "test_parts.py",
    ),
    Mutant(
        "a misspelt sizing strategy is replaced",
        "options.py",
        "    sizing_strategy: Sizing = Field(",
        "    sizing_strategy: str = Field(",
        "test_parts.py",
    ),
    Mutant(
        "a NaN is swallowed",
        "signals.py",
        "not math.isfinite(signal.weight)",
        "math.isinf(signal.weight)",
        "test_signals.py",
    ),
    Mutant(
        "an order without a price fills at the last close",
        "tape.py",
        "    tradable = ~np.isnan(fill)\n",
        "    fill = forward_fill(fill)\n    tradable = ~np.isnan(fill)\n",
        "test_account.py",
    ),
    Mutant(
        "buys need no cash",
        "kernel.py",
        "        if not options.allow_leverage and (spent > cash).any():\n",
        "        if False:\n",
        "test_account.py",
    ),
    Mutant(
        "null books keep their place in time",
        "nulls.py",
        "np.roll(weights, steps, axis=0)",
        "weights",
        "test_nulls.py",
    ),
)


DRIVER = """
import contextlib, io, json, sys
from pathlib import Path
import pytest

root = Path(sys.argv[1])


def run(tests):
    for name in [n for n, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(root))]:
        del sys.modules[name]
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = pytest.main(["-x", "-q", *(str(root / "tests" / name) for name in tests)])
    return [int(code), output.getvalue()]


results = []
for file, line, instead, tests in json.loads(Path(root / "mutants.json").read_text()):
    path = root / "src" / "finseek" / "backtest" / file
    whole = path.read_text()
    path.write_text(whole.replace(line, instead))
    results.append(run(tests))
    path.write_text(whole)
(root / "results.json").write_text(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Exit code and output of the tests for each mutant, and last for the package as it is: one process for all."""
    root = tmp_path_factory.mktemp("mutants")
    shutil.copytree(SOURCE, root / "src" / "finseek", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tests").mkdir()
    tests = sorted({mutant.tests for mutant in MUTANTS})
    for name in ("conftest.py", *tests):
        shutil.copy(HERE / name, root / "tests" / name)
    (root / "pytest.ini").write_text(INI)
    (root / "driver.py").write_text(DRIVER)
    work = [(m.file, m.line, m.instead, [m.tests]) for m in MUTANTS] + [("run.py", "", "", tests)]
    (root / "mutants.json").write_text(json.dumps(work))
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "driver.py", str(root)], cwd=root, env=environment, check=True)
    return json.loads((root / "results.json").read_text())


@pytest.mark.parametrize("number", range(len(MUTANTS)), ids=[mutant.mistake for mutant in MUTANTS])
def test_the_mistake_turns_a_test_red(results, number):
    mutant = MUTANTS[number]
    source = (SOURCE / "backtest" / mutant.file).read_text()
    assert source.count(mutant.line) == 1, "the line of the mutant is gone: plant it again"
    code, output = results[number]
    assert code == 1, output
    assert "1 failed" in output
    assert "SyntaxError" not in output


def test_the_package_as_it_is_passes(results):
    code, output = results[-1]
    assert code == 0, output
