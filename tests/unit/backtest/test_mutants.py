"""The mistakes of public pipelines of this kind, planted one by one: each must turn a unit test red."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[1]
SOURCE = UNIT.parents[1] / "src" / "finseek"
INI = "[pytest]\npythonpath = src\naddopts = --import-mode=importlib -p no:hypothesispytest -p no:cacheprovider\n"


@dataclass(frozen=True)
class Mutant:
    """One line of the package replaced, and the test file that must fail.

    Attributes:
        mistake: what is done wrong.
        file: below the package.
        line: what stands there.
        instead: what is planted.
        tests: below tests/unit, a file or a test of it.
    """

    mistake: str
    file: str
    line: str
    instead: str
    tests: str


MUTANTS = (
    Mutant(
        "HOLD is bought",
        "backtest/positions.py",
        "    wanted = by_rank[np.clip(grid.rank, -2, 2) + 2]\n",
        "    wanted = np.where(grid.rank == 0, 1.0, by_rank[np.clip(grid.rank, -2, 2) + 2])\n",
        "backtest/test_signals.py",
    ),
    Mutant(
        "an answer that was not scored is bought",
        "backtest/positions.py",
        "    return np.where(grid.rank == NO_SIGNAL, np.nan, wanted)\n",
        "    grid.rank[grid.rank == NO_SIGNAL] = 1\n    return np.where(grid.rank == 1, 1.0, wanted)\n",
        "backtest/test_signals.py",
    ),
    Mutant(
        "an answer that was not scored is HOLD",
        "backtest/positions.py",
        "np.where(expired, 0.0, NO_ORDER)",
        "0.0",
        "backtest/test_signals.py",
    ),
    Mutant(
        "a signal never expires",
        "backtest/positions.py",
        "    expired = signal_age(grid.present) > options.signal_expiry\n",
        "    expired = np.zeros(grid.present.shape, dtype=bool)\n",
        "backtest/test_signals.py",
    ),
    Mutant(
        "shorts never flip the sign",
        "backtest/positions.py",
        "    if not options.shorts:\n",
        "    if options.shorts:\n        wanted = np.abs(wanted)\n    else:\n",
        "backtest/test_golden.py",
    ),
    Mutant(
        "the return of five days is booked on one",
        "backtest/tape.py",
        "    mark = forward_fill(close)\n",
        "    mark = forward_fill(np.vstack([close[4:], np.repeat(close[-1:], 4, axis=0)]))\n",
        "backtest/test_golden.py",
    ),
    Mutant(
        "entry at the close that the thesis quotes",
        "backtest/tape.py",
        '        "next_open": (prices.open,),\n',
        '        "next_open": (np.vstack([prices.open[:1], prices.close[:-1]]),),\n',
        "backtest/test_golden.py",
    ),
    Mutant(
        "tomorrow's decision trades today",
        "backtest/kernel.py",
        "        w = weights[..., k - 1, :]\n",
        "        w = weights[..., min(k, steps - 1), :]\n",
        "backtest/test_golden.py",
    ),
    Mutant(
        "closes are not adjusted",
        "backtest/tape.py",
        "    adjust = prices.adjusted_close / prices.close if actions is None else actions.split_factor\n",
        "    adjust = np.ones(prices.close.shape)\n",
        "backtest/test_account.py",
    ),
    Mutant(
        "cost on entry and never on exit",
        "backtest/kernel.py",
        "        spent = a * net + b * gross\n",
        "        spent = a * net + b * 0.5 * (gross + net)\n",
        "backtest/test_golden.py",
    ),
    Mutant(
        "the profit of the first day is missing",
        "backtest/kernel.py",
        "        h *= tape.after[k]\n",
        "        h *= tape.after[k] if k > 1 else 1.0\n",
        "backtest/test_golden.py",
    ),
    Mutant(
        "a year of another length",
        "core/sessions.py",
        "YEAR = 252 ",
        "YEAR = 50 ",
        "backtest/test_parts.py",
    ),
    Mutant(
        "STRONG_SELL is read as SELL",
        "backtest/signals.py",
        "_RANK = {action: action.rank for",
        "_RANK = {action: action.direction for",
        "backtest/test_parts.py",
    ),
    Mutant(
        "a misspelt sizing strategy is replaced",
        "backtest/options.py",
        "    sizing_strategy: Sizing = Field(",
        "    sizing_strategy: str = Field(",
        "backtest/test_parts.py",
    ),
    Mutant(
        "a NaN is swallowed",
        "backtest/signals.py",
        "not math.isfinite(signal.weight)",
        "math.isinf(signal.weight)",
        "backtest/test_signals.py",
    ),
    Mutant(
        "an order without a price fills at the last close",
        "backtest/tape.py",
        "    tradable = ~np.isnan(fill)\n",
        "    fill = forward_fill(fill)\n    tradable = ~np.isnan(fill)\n",
        "backtest/test_account.py",
    ),
    Mutant(
        "buys need no cash",
        "backtest/kernel.py",
        "        if not options.allow_leverage and (spent > cash).any():\n",
        "        if False:\n",
        "backtest/test_account.py",
    ),
    Mutant(
        "null books keep their place in time",
        "backtest/nulls.py",
        "np.roll(weights, steps, axis=0)",
        "weights",
        "backtest/test_nulls.py",
    ),
    Mutant(
        "an answer that failed is traded by its word",
        "backtest/signals.py",
        '    if scored and row["status"] != "scored":\n',
        "    if False:\n",
        "backtest/test_signals.py",
    ),
    Mutant(
        "'Strong sell' is SELL, and 'I would not buy' is BUY",
        "core/actions.py",
        "        return _BY_WORD[word]\n",
        '        return _BY_WORD[word.rsplit("_", 1)[-1]]\n',
        "core/test_actions.py",
    ),
    Mutant(
        "the evaluation's Sharpe ignores the direction",
        "evaluate/financial.py",
        "direction[placed] / horizon)",
        "np.abs(direction[placed]) / horizon)",
        "evaluate/test_financial.py",
    ),
    Mutant(
        "the square root of 252 on windows that overlap",
        "evaluate/financial.py",
        "    one_day = returns.table[1]\n",
        "    one_day = returns.table[horizon]\n",
        "evaluate/test_financial.py",
    ),
    Mutant(
        "splits compare as-of dates only",
        "theses/split.py",
        "mine & (place + horizon >= min(later)) if options.purge",
        "mine & (place >= min(later)) if options.purge",
        "theses/test_split.py",
    ),
    Mutant(
        "every prompt is the same because nothing of the market comes in",
        "samples/prompts.py",
        '    market = snapshots.text(thesis.ticker, thesis.as_of_date) if snapshots is not None else ""\n',
        '    market = ""\n',
        "samples/test_prompts.py",
    ),
    Mutant(
        "the key is part of the URL that reaches the log",
        "market/providers/http.py",
        "        self._client = httpx.Client(transport=transport, timeout=timeout, trust_env=False)\n",
        "        secret = {key_parameter: key.get_secret_value()} if key else None\n"
        "        self._client = httpx.Client(params=secret, timeout=timeout, trust_env=False)\n",
        "market/test_fetch.py::test_the_key_is_sent_and_shown_nowhere",
    ),
    Mutant(
        "a cache that ignores the range that is asked for",
        "market/store.py",
        "            if held is not None and held.start <= start and end <= held.end:\n",
        "            if held is not None:\n",
        "market/test_fetch.py::test_asking_for_more_fetches_only_what_is_missing",
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
    path = root / "src" / "finseek" / file
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
    tests = sorted({mutant.tests for mutant in MUTANTS})
    for file in {Path(name.partition("::")[0]) for name in tests}:
        for name in (file, file.with_name("conftest.py")):
            if (UNIT / name).exists():
                (root / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(UNIT / name, root / "tests" / name)
    (root / "pytest.ini").write_text(INI)
    (root / "driver.py").write_text(DRIVER)
    work = [(m.file, m.line, m.instead, [m.tests]) for m in MUTANTS] + [("__init__.py", "", "", tests)]
    (root / "mutants.json").write_text(json.dumps(work))
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "driver.py", str(root)], cwd=root, env=environment, check=True)
    return json.loads((root / "results.json").read_text())


@pytest.mark.parametrize("number", range(len(MUTANTS)), ids=[mutant.mistake for mutant in MUTANTS])
def test_the_mistake_turns_a_test_red(results, number):
    mutant = MUTANTS[number]
    source = (SOURCE / mutant.file).read_text()
    assert source.count(mutant.line) == 1, "the line of the mutant is gone: plant it again"
    code, output = results[number]
    assert code == 1, output
    assert "1 failed" in output
    assert "SyntaxError" not in output


def test_the_package_as_it_is_passes(results):
    code, output = results[-1]
    assert code == 0, output
