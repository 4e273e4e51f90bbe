"""The report in a real browser: no request, no complaint, both themes, every width, the keyboard, JavaScript off.

Needs Chromium (Debian: chromium); the accessibility check also needs npm and its registry.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Browser, chromium
from report_generator import make_inputs

from finseek.report import ReportInputs, build_report, compare_reports

pytestmark = pytest.mark.system
PAGES = ("whole", "empty", "compared")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    whole, first = build_report(make_inputs())
    empty, second = build_report(ReportInputs(config={}, run={"name": "nothing"}))
    made = {"whole": whole, "empty": empty, "compared": compare_reports({"a": first, "b": second})}
    for name, page in made.items():
        (folder / f"{name}.html").write_text(page, "utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 768, 390])
@pytest.mark.parametrize("name", PAGES)
def test_it_opens_without_complaint_request_or_overflow(
    browser: Browser, pages: dict[str, Path], name: str, width: int, theme: str, tmp_path: Path
) -> None:
    browser.open(pages[name], width, theme)
    assert browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    dark = browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 21, 27)"
    assert dark == (theme == "dark")
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith(("file:", "data:"))] == []


def test_nothing_covers_or_leaves_its_place(browser: Browser, pages: dict[str, Path]) -> None:
    """On a phone every axis label stays inside the page, and text is never smaller than 12 pixels."""
    browser.open(pages["whole"], 390)
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
    assert middle in pointed or pointed[:10] > "2025-02"
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


def test_without_javascript_everything_is_there(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["whole"], script=False)
    document = browser.call("DOM.getDocument", depth=0)["root"]["nodeId"]

    def count(selector: str) -> int:
        found = browser.call("DOM.querySelectorAll", nodeId=document, selector=selector)
        return len(found["nodeIds"])

    assert count("figure.chart svg path.line, figure.chart svg path.dots, figure.chart svg path.bars") >= 10
    assert count("#verdict li") > 8
    assert count("main table") > 15
    assert count("#theme[hidden]") == 1
    assert count("figure.chart input") == 0


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run(["npm", "install", "--silent", "--prefix", str(folder), "axe-core@4"], check=True, timeout=300)
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_no_accessibility_violation(browser: Browser, pages: dict[str, Path], axe: str, name: str, theme: str) -> None:
    for width in (1440, 390):
        browser.open(pages[name], width, theme)
        browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        browser.evaluate(axe)
        found = browser.evaluate("axe.run().then(r => r.violations.map(v => [v.id, v.impact, v.nodes[0].html]))")
        assert found == []
