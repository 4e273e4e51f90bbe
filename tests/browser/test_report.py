"""The report in a real browser: no request, no complaint, both themes, every width, the keyboard, JavaScript off.

Needs Chromium (Debian: chromium); the accessibility check also needs npm and its registry.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Browser, chromium
from report_generator import make_inputs

from finseek.report import ReportInputs, build_report, compare_reports

pytestmark = pytest.mark.system
CONFIG = Path(__file__).parents[2] / "configs" / "theses-cpu.yaml"
GENERATED = ("whole", "empty", "unpriced", "idle", "compared")
# As many steps as a page needs that has everything in it; what the model learns is of no matter here.
BRIEF = ("train.max_steps=12", "train.val_check_interval=4", "train.log_every_n_steps=2", "train.warmup_steps=2")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of made-up artifacts: of a whole run, of nothing, without prices, without a trade, and compared."""
    folder = tmp_path_factory.mktemp("pages")
    inputs = make_inputs()
    whole, first = build_report(inputs)
    empty, second = build_report(ReportInputs(config={}, run={"name": "nothing"}))
    assert inputs.backtest is not None
    still = {**inputs.backtest, "performance": {**inputs.backtest["performance"], "turnover_annual": 0.0}}
    made = {
        "whole": whole,
        "empty": empty,
        "unpriced": build_report(make_inputs(prices=None, backtest=None, equity=None, deflation=None))[0],
        "idle": build_report(make_inputs(backtest={**still, "drawdowns": [], "attribution": {}, "nulls": {}}))[0],
        "compared": compare_reports({"a": first, "b": second}),
    }
    for name, page in made.items():
        (folder / f"{name}.html").write_text(page, "utf-8")
    return {name: folder / f"{name}.html" for name in made}


def run_finseek(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "finseek.cli.main", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the embedded example, as the pipeline makes it."""
    out = tmp_path_factory.mktemp("demo")
    run_finseek("demo", "--out", str(out), *(word for value in BRIEF for word in ("--set", value)))
    return out / "demo" / "report.html"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, real_theses: Path, real_prices: Path) -> Path:
    """The report of the ready config on real theses and prices."""
    out = tmp_path_factory.mktemp("real")
    places = (f"theses.source={real_theses}", f"prices.source={real_prices}", f"run.output_dir={out}")
    run_finseek("run", str(CONFIG), *(word for value in (*places, *BRIEF) for word in ("--set", value)))
    return out / "theses-cpu" / "report.html"


@pytest.fixture(scope="module", params=[*GENERATED, "demo", pytest.param("real", marks=pytest.mark.realdata)])
def page(request: pytest.FixtureRequest, pages: dict[str, Path]) -> Path:
    """Each page in turn."""
    found: Path = pages.get(request.param) or request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module", params=["whole", "demo", pytest.param("real", marks=pytest.mark.realdata)])
def full(request: pytest.FixtureRequest, pages: dict[str, Path]) -> Path:
    """Each page that has everything."""
    found: Path = pages.get(request.param) or request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 768, 390])
def test_it_opens_without_complaint_request_or_overflow(
    browser: Browser, page: Path, width: int, theme: str, tmp_path: Path
) -> None:
    browser.open(page, width, theme)
    assert browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    dark = browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 21, 27)"
    assert dark == (theme == "dark")
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith(("file:", "data:"))] == []


def test_nothing_covers_or_leaves_its_place(browser: Browser, full: Path) -> None:
    """On a phone every axis label stays inside the page, and text is never smaller than 12 pixels."""
    browser.open(full, 390)
    outside = browser.evaluate(
        "[...document.querySelectorAll('.x span, .y span, .flag')].filter(e => e.offsetParent).map(e => [e.textContent,"
        "e.getBoundingClientRect()]).filter(([, b]) => b.left < 0 || b.right > innerWidth).map(([t]) => t)"
    )
    assert outside == []
    smallest = browser.evaluate(
        "Math.min(...[...document.querySelectorAll('main *')].filter(e => e.offsetParent && e.textContent.trim())"
        ".map(e => parseFloat(getComputedStyle(e).fontSize)))"
    )
    assert smallest >= 12


def test_on_paper_nothing_is_cut_off(browser: Browser, full: Path) -> None:
    """A4 at 96 dots an inch within its margins: no table is wider, and what is for the screen is gone."""
    browser.open(full, 680, "dark", media="print")
    cut = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    assert browser.evaluate(f"{cut}.map(e => e.className + ' ' + e.textContent.slice(0, 40))") == []
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("['nav', '#theme', '.skip'].filter(s => document.querySelector(s).offsetParent)") == []
    printed = base64.b64decode(browser.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert printed.startswith(b"%PDF")


def test_pointing_reads_the_values(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["whole"])
    at = json.loads(
        browser.evaluate(
            "(() => { const p = document.querySelector('#chart-equity .plot'); p.scrollIntoView({behavior: 'instant', "
            "block: 'center'}); const b = p.getBoundingClientRect();"
            "return JSON.stringify([b.left + b.width / 2, b.top + b.height / 2]); })()"
        )
    )
    legend = "document.querySelector('#chart-equity .legend').textContent"
    before = browser.evaluate(legend)
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=at[0], y=at[1])
    pointed = browser.evaluate(legend)
    middle = browser.evaluate("JSON.parse(document.querySelector('#chart-equity script').textContent).names[38]")
    assert middle in pointed or pointed[:18] > "session 2025-02"
    assert pointed != before
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert browser.evaluate(legend) == before


def test_the_keyboard_reads_the_values_and_changes_the_theme(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["whole"])
    charts = browser.evaluate("document.querySelectorAll('figure.chart').length")
    assert browser.evaluate("document.querySelectorAll('figure.chart input[type=range]').length") == charts == 10
    browser.evaluate("document.querySelector('#chart-equity input').focus()")
    spoken = "document.querySelector('#chart-equity input').getAttribute('aria-valuetext')"
    last = browser.evaluate(spoken)
    browser.key("ArrowLeft", 37)
    assert browser.evaluate(spoken) < last
    browser.evaluate("document.getElementById('theme').focus()")
    for expected in ("light", "dark", None):
        browser.evaluate("document.activeElement.click()")
        assert browser.evaluate("document.documentElement.dataset.theme ?? null") == expected


def test_the_first_stop_of_the_keyboard_skips_to_the_verdict(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["whole"])
    browser.key("Tab", 9)
    here = "document.activeElement"
    assert browser.evaluate(f"{here}.className") == "skip"
    assert browser.evaluate(f"{here}.getBoundingClientRect().left") >= 0
    assert browser.evaluate(f"getComputedStyle({here}).outlineStyle") == "solid"
    browser.evaluate(f"{here}.click()")
    assert browser.evaluate("location.hash") == "#verdict"
    for _ in range(3):
        browser.key("Tab", 9)
        assert browser.evaluate(f"getComputedStyle({here}).outlineWidth") == "3px"


def test_a_table_is_a_stop_only_where_it_scrolls(browser: Browser, full: Path) -> None:
    stops = "[...document.querySelectorAll('.scroll')].filter(e => e.hasAttribute('tabindex'))"
    wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    for width in (1440, 390):
        browser.open(full, width)
        browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        browser.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        assert browser.evaluate(f"{stops}.length") == browser.evaluate(f"{wide}.length")
    assert browser.evaluate(f"{stops}.length") > 3


def test_without_javascript_everything_is_there(browser: Browser, full: Path) -> None:
    browser.open(full, script=False)
    document = browser.call("DOM.getDocument", depth=0)["root"]["nodeId"]

    def count(selector: str) -> int:
        found = browser.call("DOM.querySelectorAll", nodeId=document, selector=selector)
        return len(found["nodeIds"])

    assert count("figure.chart svg path.line, figure.chart svg path.dots, figure.chart svg path.bars") >= 10
    assert count("#verdict h2") == 1
    assert count("#verdict .gates li") == 7
    assert count("#verdict li") >= 13
    assert count("main table") > 15
    assert count("#theme[hidden]") == 1
    assert count("figure.chart input") == 0


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run(["npm", "install", "--silent", "--prefix", str(folder), "axe-core@4"], check=True, timeout=300)
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 768, 390])
def test_no_accessibility_violation(browser: Browser, page: Path, axe: str, width: int, theme: str) -> None:
    browser.open(page, width, theme)
    browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    # axe does not judge text on a gradient; without the shadow at the edge of a table it judges every cell
    browser.evaluate("document.querySelectorAll('.scroll').forEach(e => { e.style.background = 'none'; })")
    browser.evaluate(axe)
    found = browser.evaluate("axe.run().then(r => r.violations.map(v => [v.id, v.impact, v.nodes[0].html]))")
    assert found == []
