"""The page as a document: safe, self-contained, complete, accessible in its structure."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections import Counter
from dataclasses import fields, replace
from typing import Any

import jsonschema
import pytest
from lxml import html as lxml_html
from report_generator import make_inputs

from finseek.report import ReportInputs, ReportOptions, build_report, compare_reports, report_schema
from finseek.report.html import breaking

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}</script>"
ABSENT: dict[str, Any] = {
    "theses": None,
    "rejects": (),
    "prices": None,
    "certificate": None,
    "train_log": (),
    "evaluation": None,
    "examples": (),
    "backtest": None,
    "equity": None,
    "planted": None,
    "trials": None,
    "deflation": None,
    "audit": {},
    "lineage": None,
}


def tree(page: str) -> Any:
    return lxml_html.fromstring(page)


@pytest.fixture(scope="module")
def whole() -> tuple[str, dict[str, Any]]:
    return build_report(make_inputs())


@pytest.fixture(scope="module")
def pages(whole: tuple[str, dict[str, Any]]) -> dict[str, str]:
    empty = build_report(ReportInputs(config={}, run={"name": "nothing"}))
    return {"whole": whole[0], "empty": empty[0], "compared": compare_reports({"a": whole[1], "b": empty[1]})}


def poisoned(value: Any) -> Any:
    """Every text of the inputs, keys apart, with an attack appended; dates and names that decide a branch stay."""
    if isinstance(value, dict):
        kept = (
            "status",
            "pred_action",
            "gt_action",
            "date",
            "first_as_of_date",
            "hold",
            "max_label_end",
            "truth",
            "answer",
        )
        return {key: v if key in kept else poisoned(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [poisoned(v) for v in value]
    return value + ATTACK if isinstance(value, str) else value


def test_text_from_the_data_cannot_act() -> None:
    inputs = make_inputs()
    attacked = ReportInputs(
        **{
            field.name: getattr(inputs, field.name)
            if field.name == "options"
            else poisoned(getattr(inputs, field.name))
            for field in fields(inputs)
        }
    )
    page, report = build_report(attacked)
    for made in (page, compare_reports({ATTACK: report, "b": report})):
        assert "alert(1)" in made
        document = tree(made)
        running = [s for s in document.iter("script") if s.get("type") != "application/json"]
        assert len(running) == 1
        assert "alert" not in running[0].text
        assert not list(document.iter("img"))
        assert not [e for e in document.iter() if any(name.startswith("on") for name in e.attrib)]
        for data in document.xpath("//script[@type='application/json']"):
            assert "<" not in data.text


def test_names_of_keys_cannot_act_either() -> None:
    inputs = make_inputs()
    assert inputs.theses is not None
    assert inputs.evaluation is not None
    attacked = replace(
        inputs,
        theses={**inputs.theses, "rejected_by_reason": {ATTACK: 1}, "actions": {ATTACK: 1}},
        evaluation={**inputs.evaluation, "baselines": {ATTACK: inputs.evaluation["baselines"]["majority"]}},
        audit={ATTACK: {"status": "passed", "summary": ATTACK}},
    )
    document = tree(build_report(attacked)[0])
    assert len([s for s in document.iter("script") if s.get("type") != "application/json"]) == 1
    assert not list(document.iter("img"))


@pytest.mark.parametrize("name", ["whole", "empty", "compared"])
def test_the_policy_admits_the_own_script_alone_and_no_network(pages: dict[str, str], name: str) -> None:
    document = tree(pages[name])
    policy = document.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")[0]
    script = next(s for s in document.iter("script") if s.get("type") != "application/json")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    addresses = [
        v for e in document.iter() for k, v in e.attrib.items() if k in ("src", "href", "srcset", "action", "data")
    ]
    assert all(address.startswith("#") or address == "data:," for address in addresses)
    assert "url(" not in pages[name]
    assert "@import" not in pages[name]


@pytest.mark.parametrize("name", ["whole", "empty", "compared"])
def test_structure(pages: dict[str, str], name: str) -> None:
    document = tree(pages[name])
    levels = [int(e.tag[1]) for e in document.iter() if re.fullmatch("h[1-6]", str(e.tag))]
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    ids = Counter(document.xpath("//@id"))
    assert max(ids.values()) == 1
    for target in document.xpath("//a/@href"):
        assert target.removeprefix("#") in ids
    for label in document.xpath("//@aria-labelledby"):
        assert label in ids
    for table in document.iter("table"):
        assert table.find("caption").text_content().strip()
        assert table.xpath("./tbody/tr")
        width = len(table.xpath("./thead/tr/th"))
        for row in table.xpath("./tbody/tr"):
            assert len(row) == width
            assert row[0].get("scope") == "row"
    for figure in document.iter("figure"):
        told = figure.find("figcaption").text_content()
        assert len(told.split()) > 6
        assert figure.xpath(".//svg//path[contains(@class,'tone')]")
        assert figure.xpath(".//details//table")
    assert document.get("lang") == "en"


def test_the_whole_report_has_every_section_and_figure(whole: tuple[str, dict[str, Any]]) -> None:
    document = tree(whole[0])
    sections = document.xpath("//main/section/@id")
    assert sections == ["verdict", "run", "data", "training", "predictions", "backtest", "statistics", "lineage"]
    assert set(document.xpath("//figure/@id")) == {
        "chart-loss",
        "chart-learning-rate",
        "chart-grad-norm",
        "chart-throughput",
        "chart-expert-load",
        "chart-calibration",
        "chart-equity",
        "chart-drawdown",
        "chart-exposure",
        "chart-null-sharpe",
    }
    words = document.text_content()
    for expected in ("Split certificate", "Rejected theses by reason", "with HOLD keep", "Smallest detectable Sharpe"):
        assert expected in words
    assert "NaN" not in words
    assert not re.search(r"\bNone\b", words)


def test_the_same_inputs_give_the_same_bytes() -> None:
    assert build_report(make_inputs()) == build_report(make_inputs())


@pytest.mark.parametrize("field", sorted(ABSENT))
def test_whatever_is_absent_the_page_is_made(field: str) -> None:
    page, report = build_report(replace(make_inputs(), **{field: ABSENT[field]}))
    jsonschema.validate(report, report_schema())
    words = tree(page).text_content()
    assert not re.search(r"\bNone\b", words)
    told = {"theses", "certificate", "train_log", "evaluation", "backtest", "lineage", "trials"}
    if field in told:
        assert "not run" in words


def test_a_universe_of_survivors_is_warned_of_beside_the_returns() -> None:
    inputs = make_inputs()
    assert inputs.prices is not None
    words = "A universe of survivors: all 8 tickers trade to the last session."
    section = tree(build_report(inputs)[0]).get_element_by_id("backtest").text_content()
    assert words in section
    whole = replace(inputs, prices={**inputs.prices, "survivorship_warning": ""})
    assert "survivors" not in build_report(whole)[0]


def test_nothing_at_all_is_red(pages: dict[str, str]) -> None:
    _, report = build_report(ReportInputs(config={}, run={"name": "nothing"}))
    jsonschema.validate(report, report_schema())
    assert {gate["light"] for gate in report["gates"]} == {"skipped"}
    assert report["verdict"]["light"] == "skipped"
    assert not re.search(r"\bNone\b", tree(pages["empty"]).text_content())


def test_schema_names_everything_and_nothing_else(whole: tuple[str, dict[str, Any]]) -> None:
    """With additionalProperties false and every property required, the schema and the report cover each other."""
    schema, report = report_schema(), whole[1]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(report, schema)

    def closed(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and "properties" in node:
                assert node["additionalProperties"] is False
                assert set(node["required"]) == set(node["properties"])
            for inner in node.values():
                closed(inner)

    closed(schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**report, "extra": 1}, schema)


def test_a_long_run_stays_small() -> None:
    page, _ = build_report(make_inputs(sessions=2_520))
    assert len(page.encode()) < 3_000_000


def test_options_decide_how_much_is_quoted() -> None:
    few = replace(make_inputs(), options=ReportOptions(examples=1, rejects=2))
    document = tree(build_report(few)[0])
    assert len(document.xpath("//div[contains(@class,'quotes')]/details")) == 1
    assert "Rejects, 2 of 24" in document.text_content()


def test_dates_stay_whole_and_paths_may_break() -> None:
    assert breaking("a <b> 2025-01-02") == 'a &lt;b&gt; <span class="date">2025-01-02</span>'
    assert breaking("train/model.bin") == "train/<wbr>model.bin"
    assert breaking("ends/") == "ends/"
