"""Every dependency's licence is on the page, as its package states it, and none that we cannot live with is brought."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("licences", ROOT / "docs" / "licences.py")
assert spec is not None
assert spec.loader is not None
licences = importlib.util.module_from_spec(spec)
spec.loader.exec_module(licences)

ACCEPTED = {"MPL-2.0", "MPL-2.0 AND MIT", "MPL-2.0 AND (Apache-2.0 OR MIT)", "LGPL-2.1-only", "LGPL-2.1-or-later",
            "LicenseRef-NVIDIA-Proprietary", "Public Domain AND BSD AND GPL"}  # fmt: skip


def test_the_page_holds_every_pinned_version_and_no_other() -> None:
    assert {name: row[0] for name, row in licences.kept().items()} == licences.pins()


def test_every_licence_is_what_the_installed_package_states() -> None:
    rows = licences.kept()
    compared = 0
    for found in metadata.distributions():
        name = canonicalize_name(found.metadata["Name"])
        if name in rows and found.version == rows[name][0]:
            assert rows[name][1] == licences.licence_of(found), name
            compared += 1
    assert compared > 100


def test_what_restricts_is_known_and_not_in_the_plain_installation() -> None:
    for name, (_, licence, part) in licences.kept().items():
        if licences.CARE.search(licence):
            assert licence in ACCEPTED, f"{name}: {licence} was never looked at"
            assert part != "finseek" or licence.startswith("MPL"), f"{name}: {licence} in the plain installation"


def test_vectorbt_is_an_oracle_alone() -> None:
    """Its Commons Clause forbids selling what is built on it."""
    known = {canonicalize_name(found.metadata["Name"]): found for found in metadata.distributions()}
    for part, names in licences.parts(known).items():
        assert "vectorbt" not in names, f"{part} brings vectorbt"
    assert "vectorbt" not in licences.pins()
    assert not [
        path for path in (ROOT / "src").rglob("*.py") if re.search(r"import vectorbt|from vectorbt", path.read_text())
    ]


def test_an_extra_that_brings_it_would_be_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    tomllib.loads(changed := text.replace('stats = ["scikit-learn', 'stats = ["vectorbt>=1", "scikit-learn'))
    (tmp_path / "pyproject.toml").write_text(changed)
    monkeypatch.setattr(licences, "ROOT", tmp_path)
    assert "vectorbt" in licences.parts({})["stats"]
