from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from finseek.core.artifacts import sha256_file, write_text
from finseek.core.errors import ArtifactError, InputError
from finseek.pipeline.manifest import PACKAGES, describe_environment, verify_manifest, write_manifest


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    files = {"a/x.json": "[1]", "report.html": "<p>"}
    for name, text in files.items():
        write_text(folder / name, text)
    source = tmp_path / "prices.csv"
    source.write_text("1")
    artifacts = {
        name: {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size, "stage": "s"}
        for name in files
    }
    inputs = {"prices.source/prices.csv": {"path": str(source), "sha256": sha256_file(source), "bytes": 1}}
    write_manifest(folder / "manifest.json", {"artifacts": artifacts, "inputs": inputs})
    return folder


def findings(run: Path) -> list[str]:
    return [f"{finding.path} {finding.problem}" for finding in verify_manifest(run)]


def test_an_untouched_run_has_no_findings(run: Path) -> None:
    assert findings(run) == []


def test_every_change_is_named(run: Path) -> None:
    (run / "a/x.json").write_text("[2]")
    (run / "report.html").write_text("<")
    (run.parent / "prices.csv").write_text("2")
    assert [line.split(" ")[0] for line in findings(run)] == ["a/x.json", "report.html", "input"]
    (run / "report.html").unlink()
    assert "report.html is missing" in findings(run)


def test_a_vanished_input_is_noted_and_no_fault_of_the_run(run: Path) -> None:
    (run.parent / "prices.csv").unlink()
    assert [(finding.path, finding.is_note) for finding in verify_manifest(run)] == [
        ("input prices.source/prices.csv", True)
    ]


def test_a_file_that_no_claim_covers_is_named(run: Path) -> None:
    (run / "a" / "extra.csv").write_text("1")
    (run / "state.json").write_text("{}")
    assert findings(run) == ["a/extra.csv is not in the manifest: no claim of the run covers it"]


@pytest.mark.parametrize("artifacts", [[], {"../x": {"sha256": "", "bytes": 1}}, {"x": 5}])
def test_a_manifest_of_another_shape(run: Path, artifacts: object) -> None:
    write_manifest(run / "manifest.json", {"artifacts": artifacts, "inputs": {}})
    with pytest.raises(ArtifactError, match="no manifest of format"):
        findings(run)


def test_the_manifest_vouches_for_itself(run: Path) -> None:
    path = run / "manifest.json"
    content = json.loads(path.read_text())
    content["artifacts"]["report.html"]["sha256"] = "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="was altered"):
        findings(run)
    path.write_text("{")
    with pytest.raises(ArtifactError, match="is damaged"):
        findings(run)
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        findings(run)


def test_the_versions_are_those_of_the_packages() -> None:
    installed = {found.name.lower(): found.version for found in metadata.distributions()}
    assert describe_environment()["packages"] == {package: installed.get(package) for package in PACKAGES}
